"""What an export covers, what is counted while its rows pass, and its manifest. Pure."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from enforcement.exports.verifier.layout import (
    CONTEXT_LINEAGE,
    FILES,
    INTEGERS,
    MANIFEST_SCHEMA,
    MARK_EVERY,
    POLICY_LINEAGE,
    SUMS,
    ZERO_HASH,
)
from enforcement.ledger.domain import Head
from valdrix.kernel.canonical import sha256_hex
from valdrix.kernel.problems import FieldError, InvalidRequest

LIMIT_MAXIMUM: Final = 100_000_000
_UNIT_PLACES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which decisions an export covers: those made from ``start_at`` until before ``end_at``.

    :ivar limit: how many of them at most, the earliest in the ledger first; None for all.
    """

    tenant_id: uuid.UUID
    start_at: datetime
    end_at: datetime
    limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The part of the chain that an export holds, and the head it was read under.

    :ivar position: the ledger's head in the export's snapshot.
    :ivar after: the place before the first entry held.
    :ivar last: the last entry held; equals ``after`` where the window has none.
    :ivar last_at: when the last entry was written; the window's start where there is none at all.
    :ivar is_truncated: True when the limit left out decisions of the window.
    """

    position: Head
    after: Head
    last: Head
    last_at: datetime
    is_truncated: bool


def build_scope(
    *,
    tenant_id: uuid.UUID,
    window: tuple[datetime | None, datetime | None],
    limit: int | None,
    now: datetime,
) -> Scope:
    """Return a scope; what the window leaves open is the current UTC month's.

    :raises InvalidRequest: when the window does not end after it begins.
    """
    start_at, end_at = window
    if start_at is None:
        start_at = month_start(now) if end_at is None or end_at > month_start(now) else None
    if start_at is None:
        assert end_at is not None
        start_at = month_start(end_at)
    if end_at is None:
        end_at = next_month(now) if start_at < next_month(now) else next_month(start_at)
    if start_at >= end_at:
        detail = "must be later than window_start"
        raise InvalidRequest(
            "The window is not valid.",
            errors=(FieldError("/window_end", "out_of_range", detail),),
        )
    return Scope(tenant_id=tenant_id, start_at=start_at, end_at=end_at, limit=limit)


def month_start(moment: datetime) -> datetime:
    """Return the first moment of a moment's UTC month."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month(moment: datetime) -> datetime:
    """Return the first moment of the UTC month after a moment's."""
    first = month_start(moment)
    if first.month == 12:
        return first.replace(year=first.year + 1, month=1)
    return first.replace(month=first.month + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a manifest states of one file.

    :ivar file: its rows, bytes and hashes.
    :ivar bound: how many rows agree with their ledger entry.
    :ivar figures: rows and sums of each kind of row.
    :ivar policies: decisions by the policy that they were made under; of decisions alone.
    :ivar contexts: decisions by the state of the cost context, the same.
    """

    file: dict[str, Any]
    bound: int
    figures: dict[str, dict[str, Any]]
    policies: dict[str, int]
    contexts: dict[str, int]


@dataclass(slots=True)
class Group:
    """How many rows of one kind there are, and the sums of their amounts in 1/10,000 dollars."""

    sums: list[int]
    rows: int = 0


@dataclass(slots=True)
class Tally:
    """What is known of one file once its rows have passed.

    :ivar last_hash: the hash of the last row, which binds every row before it.
    :ivar marks: the hash of every thousandth row: a row that was changed is found between two.
    """

    name: str
    sha256: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    rows: int = 0
    bound: int = 0
    last_hash: bytes = ZERO_HASH
    marks: list[str] = field(default_factory=list)
    groups: dict[bytes, Group] = field(default_factory=dict)
    policies: Counter[bytes] = field(default_factory=Counter)
    contexts: Counter[bytes] = field(default_factory=Counter)

    def count(self, group: bytes, amounts: list[bytes]) -> None:
        """Count one row and add up its amounts, which have four decimals or are empty."""
        found = self.groups.get(group)
        if found is None:
            found = self.groups[group] = Group([0] * len(amounts))
        found.rows += 1
        for place, amount in enumerate(amounts):
            if amount:
                found.sums[place] += int(amount.replace(b".", b""))

    def close_row(self, row_hash: bytes) -> None:
        """Move on to the next row."""
        self.rows += 1
        self.last_hash = row_hash
        if self.rows % MARK_EVERY == 0:
            self.marks.append(row_hash.hex())

    def take(self, chunk: bytes) -> bytes:
        """Return bytes of the file, counted and hashed."""
        self.sha256.update(chunk)
        self.size += len(chunk)
        return chunk

    def counted(self) -> Counted:
        """Return what was counted, as the manifest states it."""
        return Counted(
            file={
                "rows": self.rows,
                "bytes": self.size,
                "sha256": self.sha256.hexdigest(),
                "last_row_sha256": self.last_hash.hex(),
                "marks": self.marks,
            },
            bound=self.bound,
            figures=dict(self._figures()),
            policies=_decoded(self.policies),
            contexts=_decoded(self.contexts),
        )

    def _figures(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for group, found in sorted(self.groups.items()):
            sums = zip(SUMS[self.name], map(units_text, found.sums), strict=True)
            yield group.decode(), {"rows": found.rows, **dict(sums)}


def _decoded(keys: Counter[bytes]) -> dict[str, int]:
    return {key.decode(): number for key, number in keys.items()}


def units_text(units: int) -> str:
    """Return 1/10,000 dollars as an amount with four decimals."""
    sign = "-" if units < 0 else ""
    whole, part = divmod(abs(units), 10**_UNIT_PLACES)
    return f"{sign}{whole}.{part:0{_UNIT_PLACES}d}"


def time_text(moment: datetime) -> str:
    """Return a moment in UTC with six decimals."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def build_lineage(keys: dict[str, int], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return each combination of values that decisions were made under, with their number."""
    return [
        {
            **{
                name: _lineage_value(name, text)
                for name, text in zip(names, key.split("|"), strict=True)
            },
            "decisions": decisions,
        }
        for key, decisions in sorted(keys.items())
    ]


def _lineage_value(name: str, text: str) -> str | int | None:
    if not text:
        return None
    return int(text) if name in INTEGERS else text


def build_manifest(
    scope: Scope, segment: Segment, files: dict[str, Counted], *, key_id: str
) -> dict[str, Any]:
    """Return what an export's manifest states; it holds no moment at which it was made."""
    decisions = files["decisions.csv"]
    policies = build_lineage(decisions.policies, POLICY_LINEAGE)
    contexts = build_lineage(decisions.contexts, CONTEXT_LINEAGE)
    return {
        "schema_version": MANIFEST_SCHEMA,
        "tenant_id": str(scope.tenant_id),
        "window_start": time_text(scope.start_at),
        "window_end": time_text(scope.end_at),
        "limit": scope.limit,
        "truncated": segment.is_truncated,
        "ledger": {
            "position": segment.position.sequence,
            "position_hash": segment.position.entry_hash.hex(),
            "after_sequence": segment.after.sequence,
            "after_hash": segment.after.entry_hash.hex(),
            "last_sequence": segment.last.sequence,
            "last_hash": segment.last.entry_hash.hex(),
        },
        "files": {name: files[name].file for name in FILES},
        "figures": {name: files[name].figures for name in FILES},
        "bindings": {
            name: {"rows": files[name].file["rows"], "bound": files[name].bound}
            for name in FILES
            if name != "ledger.csv"
        },
        "policy_lineage": policies,
        "policy_lineage_sha256": sha256_hex(policies),
        "computed_context_lineage": contexts,
        "computed_context_lineage_sha256": sha256_hex(contexts),
        "signature_algorithm": "Ed25519",
        "signature_key_id": key_id,
    }
