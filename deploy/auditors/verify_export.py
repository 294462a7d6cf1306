"""Verifies an export of Valdrix with Python 3.11 or newer and ``cryptography``, and nothing else.

    python verify_export.py ARCHIVE --public-key KEY [--checkpoint FILE ...]
    python verify_export.py --ledger ledger.csv --public-key KEY --checkpoint FILE [...]

ARCHIVE is the ZIP, or a directory that holds its nine files. KEY is the raw Ed25519 public key in
base64url; several may be given while keys rotate. Nothing that the files say about their key is
believed. Exit code 0: everything holds; 1: the first place that does not is named; 2: used wrongly.
Rows are counted as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

from typing import Final

MANIFEST_SCHEMA: Final = "valdrix.enforcement.export.v1"
CHECKPOINT_SCHEMA: Final = "valdrix.enforcement.ledger.checkpoint.v1"
ALGORITHM: Final = "Ed25519"
MARK_EVERY: Final = 1000
ZERO_HASH: Final = bytes(32)
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "＝", "＋", "－", "＠")
"""Text that begins so, and empty text, has an apostrophe in front; an empty cell is no value."""

CONTEXT_LINEAGE: Final = (
    "computed_context_version",
    "computed_context_month_start",
    "computed_context_month_end",
    "computed_context_month_elapsed_days",
    "computed_context_month_total_days",
    "computed_context_observed_cost_days",
    "computed_context_latest_cost_date",
    "computed_context_data_source_mode",
)
POLICY_LINEAGE: Final = (
    "policy_version",
    "policy_document_schema_version",
    "policy_document_sha256",
)
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "decisions.csv": (
        *("ledger_sequence", "decision_id", "created_at", "source", "project_id", "environment"),
        *("action", "resource_reference", "decision", "would_have_been", "mode", "is_fail_safe"),
        *("reason_codes", "entitlement_reason_code", "cost_state"),
        *("estimated_monthly_delta_usd", "estimated_hourly_delta_usd", "reserved_allocation_usd"),
        *("reserved_reserved_credit_usd", "reserved_emergency_credit_usd", "tags"),
        *("request_fingerprint", "change_fingerprint", "idempotency_key", "run_id", "actor"),
        *("approval_request_id", *POLICY_LINEAGE, "engine_version", "computed_context_version"),
        *("computed_context_generated_at", *CONTEXT_LINEAGE[1:]),
        *("outcome_sha256", "response_sha256", "row_sha256"),
    ),
    "approvals.csv": (
        *("ledger_sequence", "approval_request_id", "decision_id", "status", "source"),
        *("project_id", "environment", "action", "change_fingerprint", "change_is_computed"),
        *("monthly_delta_usd", "hourly_delta_usd", "requested_by", "routing_rule_id"),
        *("routing_trace", "required", "reviewer_roles", "reviewer_groups_all"),
        *("separate_requester", "requested_at", "request_reason", "round", "approvals_given"),
        *("max_monthly_delta_usd", "max_hourly_delta_usd", "approved_at", "expires_at"),
        *("held_decision_id", "tokens_issued", "token_status", "consumed_by_decision_id"),
        *("consumed_run_id", "closed_at", "row_sha256"),
    ),
    "ledger.csv": (
        *("sequence", "event", "at", "principal", "source", "project_id", "environment"),
        *("decision_id", "decision", "would_have_been", "mode", "cost_state"),
        *("approval_request_id", "approval_status", "subject_type", "subject_id", "amount_usd"),
        *("monthly_delta_usd", "hourly_delta_usd", "reserved_allocation_usd"),
        *("reserved_reserved_credit_usd", "reserved_emergency_credit_usd", "reason_codes"),
        *("entitlement_reason_code", "burn_rate_daily_usd", "forecast_eom_usd", "risk_class"),
        *("risk_score", "anomaly_signal", *POLICY_LINEAGE, "request_sha256", "response_sha256"),
        *("details_sha256", "prev_hash", "entry_hash"),
    ),
    "reservations.csv": (
        *("ledger_sequence", "decision_id", "charge_id", "family_id", "state", "is_shadow"),
        *("project_id", "environment", "own_usd", "taken_usd", "reserved_credit_usd"),
        *("emergency_credit_usd", "exposure_usd", "overrun_usd", "posted_usd", "month"),
        *("reserved_at", "due_at", "confirmed_at", "settlement_trigger", "settlement_actual_usd"),
        *("settlement_drift_usd", "settled_at", "row_sha256"),
    ),
}
FILES: Final = tuple(COLUMNS)
CLOSING_FILES: Final = (
    *("manifest.json", "manifest.canonical.json", "manifest.sha256", "manifest.sig"),
    "checkpoint.json",
)
RESERVING: Final = ("reserved", "overrun_reserved")
"""Events whose amounts add up to what a reservation holds of its own."""

SUMS: Final[dict[str, tuple[str, ...]]] = {
    "decisions.csv": (
        *("estimated_monthly_delta_usd", "reserved_allocation_usd"),
        *("reserved_reserved_credit_usd", "reserved_emergency_credit_usd"),
    ),
    "approvals.csv": ("monthly_delta_usd",),
    "ledger.csv": ("amount_usd",),
    "reservations.csv": ("own_usd", "exposure_usd", "posted_usd", "overrun_usd"),
}
"""Amounts that the manifest sums for each kind of row."""

KINDS: Final = {
    "decisions.csv": "decision",
    "approvals.csv": "status",
    "ledger.csv": "event",
    "reservations.csv": "state",
}
"""The column whose values rows are counted by; shadow reservations are counted apart."""
INTEGERS: Final = frozenset(
    {"sequence", "risk_score", "policy_version"}
    | {name for name in CONTEXT_LINEAGE if name.endswith("_days")}
)
SAME_IN_LEDGER: Final = {  # columns of decisions.csv, and what ledger.csv calls them
    "decision_id": "decision_id",
    "source": "source",
    "project_id": "project_id",
    "environment": "environment",
    "decision": "decision",
    "would_have_been": "would_have_been",
    "mode": "mode",
    "reason_codes": "reason_codes",
    "entitlement_reason_code": "entitlement_reason_code",
    "cost_state": "cost_state",
    "estimated_monthly_delta_usd": "monthly_delta_usd",
    "estimated_hourly_delta_usd": "hourly_delta_usd",
    "reserved_allocation_usd": "reserved_allocation_usd",
    "reserved_reserved_credit_usd": "reserved_reserved_credit_usd",
    "reserved_emergency_credit_usd": "reserved_emergency_credit_usd",
    "request_fingerprint": "request_sha256",
    "response_sha256": "response_sha256",
    "actor": "principal",
    "approval_request_id": "approval_request_id",
    **{name: name for name in POLICY_LINEAGE},
    "created_at": "at",
}

import base64
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


SMALL_FILE_BYTES: Final = 1 << 26
_BUFFER_BYTES: Final = 1 << 18
_END_BYTES: Final = 22
"""Of the record that ends a ZIP without a comment."""


class Refused(Exception):
    """Something does not hold: in which file, in which row, and why."""

    def __init__(self, file: str, row: int | None, reason: str) -> None:
        self.file, self.row, self.reason = file, row, reason
        place = file if row is None else f"{file} row {row}"
        super().__init__(f"{place}: {reason}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified statement of a ledger's head."""

    name: str
    tenant_id: str
    sequence: int
    entry_hash: str


class Keys:
    """The public keys that are trusted.

    :ivar texts: the same, in base64url.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = {text.strip().rstrip("=") for text in texts}
        self._keys = [Ed25519PublicKey.from_public_bytes(_base64url(text)) for text in texts]

    def have_signed(self, data: bytes, signature: str) -> bool:
        """Tell whether one of them made a signature of bytes; it has one spelling only."""
        try:
            raw = _base64url(signature)
        except ValueError:
            return False
        if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != signature:
            return False
        for key in self._keys:
            try:
                key.verify(raw, data)
            except InvalidSignature:
                continue
            return True
        return False


def _base64url(text: str) -> bytes:
    bare = text.strip().rstrip("=")
    return base64.b64decode((bare + "=" * (-len(bare) % 4)).encode(), altchars=b"-_", validate=True)


def canonical(value: Any) -> bytes:
    """Return the RFC 8785 form of what an export states: ASCII keys, integers, text, no floats."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def read_json(name: str, raw: bytes) -> dict[str, Any]:
    """Return a JSON object; duplicate keys, fractions and NaN are refused."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in items}) != len(items):
            raise ValueError("a key is there twice")
        return dict(items)

    def refuse(text: str) -> NoReturn:
        raise ValueError(f"{text} is no whole number")

    try:
        found = json.loads(raw, object_pairs_hook=pairs, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Refused(name, None, f"is not the JSON that was written: {error}") from None
    if not isinstance(found, dict):
        raise Refused(name, None, "is no JSON object")
    return found


def read_checkpoint(name: str, raw: bytes, keys: Keys) -> Checkpoint:
    """Return what a checkpoint file states, once a trusted key has signed it.

    :raises Refused: when it is no checkpoint, or not signed so.
    """
    document = read_json(name, raw)
    statement = document.get("checkpoint")
    if not isinstance(statement, dict) or statement.get("schema_version") != CHECKPOINT_SCHEMA:
        raise Refused(name, None, "is no checkpoint")
    if document.get("signature_algorithm") != ALGORITHM or not keys.have_signed(
        canonical(statement), str(document.get("signature"))
    ):
        raise Refused(name, None, "the signature is not by a key that is trusted")
    sequence = statement.get("sequence")
    if not isinstance(sequence, int):
        raise Refused(name, None, "names no sequence")
    return Checkpoint(name, str(statement["tenant_id"]), sequence, str(statement["entry_hash"]))


class Folder:
    """The nine files in a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        for name in (*FILES, *CLOSING_FILES):
            if not (path / name).is_file():
                raise Refused(name, None, "is missing")

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Return a file at its beginning, and how many bytes it has."""
        path = self._path / name
        return path.open("rb", buffering=_BUFFER_BYTES), path.stat().st_size


class Archive:
    """The nine files in a ZIP that holds nothing else: no other name, no gap, nothing packed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members, end = archive.infolist(), archive.start_dir
                comment = archive.comment
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise Refused(path.name, None, f"is no whole ZIP archive: {error}") from None
        wanted = [*FILES, *CLOSING_FILES]
        for place, info in enumerate(members):
            if place >= len(wanted) or info.orig_filename != wanted[place]:
                raise Refused(
                    ascii(info.orig_filename)[1:-1], None, "is not the member that belongs here"
                )
            if info.compress_type or info.compress_size != info.file_size or info.flag_bits & 1:
                raise Refused(info.filename, None, "is compressed or encrypted: saved again")
        if len(members) != len(wanted):
            raise Refused(wanted[len(members)], None, "is missing")
        with path.open("rb") as file:
            file.seek(-_END_BYTES, 2)
            is_end = file.read(4) == b"PK\x05\x06"
        if comment or not is_end:
            raise Refused(path.name, None, "has a comment, or bytes after its end")
        self._places: dict[str, tuple[int, int]] = {}
        self._find_places(members, end)

    def _find_places(self, members: list[zipfile.ZipInfo], end: int) -> None:
        """Find where each member's bytes lie: one after the other, with nothing between them."""
        offset, descriptor = 0, 24
        with self._path.open("rb") as file:
            for info in members:
                file.seek(offset)
                header = file.read(30)
                names = int.from_bytes(header[26:28], "little")
                start = offset + 30 + names + int.from_bytes(header[28:30], "little")
                is_header = header[:4] == b"PK\x03\x04" and header[8:10] == b"\0\0"
                if (
                    info.header_offset != offset
                    or not is_header
                    or file.read(names) != info.filename.encode()
                ):
                    raise Refused(info.filename, None, "does not lie where the archive ended it")
                self._places[info.filename] = (start, info.file_size)
                offset = start + info.file_size + descriptor
        if offset != end:
            raise Refused(self._path.name, None, "holds bytes that belong to no file")

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Return a file at its beginning, and how many bytes it has."""
        offset, size = self._places[name]
        file = self._path.open("rb", buffering=_BUFFER_BYTES)
        file.seek(offset)
        return file, size

import csv
import hashlib
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, NoReturn


_LINE_BYTES: Final = 1 << 20
_HASH_CELL: Final = 65
"""A comma and 64 hexadecimal digits."""
_AMOUNTS: Final = {
    name: [COLUMNS[name].index(column) for column in columns] for name, columns in SUMS.items()
}

_KIND_PLACE: Final = {name: COLUMNS[name].index(column) for name, column in KINDS.items()}
_SHADOW_PLACE: Final = COLUMNS["reservations.csv"].index("is_shadow")


@dataclass(slots=True)
class Row:
    """One row: where it stands, its bytes without the line's end, its cells."""

    number: int
    raw: bytes
    cells: list[str]


@dataclass(slots=True)
class Table:
    """One CSV file, read row by row: counted, hashed, and its hashes compared with the marks."""

    name: str
    file: BinaryIO
    left: int
    stated: dict[str, Any] | None
    sha256: Any = field(default_factory=hashlib.sha256)
    rows: int = 0
    size: int = 0
    last_hash: bytes = ZERO_HASH
    groups: dict[str, list[int]] = field(default_factory=dict)
    head: Row | None = None

    def refuse(self, reason: str, row: Row | None = None) -> NoReturn:
        """Refuse a row, or the file at the place that was reached."""
        raise Refused(self.name, self.rows + 2 if row is None else row.number, reason)

    def read_line(self) -> bytes:
        """Return the next record with its line's end, or nothing at the end of the file."""
        record = b""
        while True:
            line = self.file.readline(min(self.left, _LINE_BYTES))
            self.left -= len(line)
            record += line
            if len(record) >= _LINE_BYTES:
                self.refuse("the row is longer than any that is written")
            if not line or not record.count(b'"') % 2:
                break
        self.sha256.update(record)
        self.size += len(record)
        return record

    def read_header(self) -> None:
        """Check that the columns are those that are written."""
        header = self.read_line()
        if header.rstrip(b"\r\n") != ",".join(COLUMNS[self.name]).encode():
            raise Refused(self.name, 1, "the columns are not those of an export")
        if header[-2:-1] == b"\r":
            raise Refused(self.name, 1, "the line ends with CR LF: the file was saved again")

    def advance(self) -> Row | None:
        """Return the row that is next, and read the one after it when that row is taken."""
        if self.head is None:
            self.head = self._read()
        return self.head

    def take_chained(self, row: Row) -> None:
        """Take a row whose last cell is the hash of the row before and of its other bytes."""
        cells = row.raw[:-_HASH_CELL]
        digest = hashlib.sha256(self.last_hash + cells)
        if row.raw[len(cells) :] != b"," + digest.hexdigest().encode():
            self.refuse("row_sha256 is not the hash of the row before and of this row", row)
        self.take(row, digest.digest())
        amounts = [row.cells[place] for place in _AMOUNTS[self.name]]
        self.count(self._kind(row), amounts)

    def _kind(self, row: Row) -> str:
        kind = row.cells[_KIND_PLACE[self.name]]
        if self.name == "reservations.csv" and row.cells[_SHADOW_PLACE] == "true":
            return f"shadow {kind}"
        return kind

    def take(self, row: Row, row_hash: bytes) -> None:
        """Count a row that holds and compare its hash with the manifest's mark, if it has one."""
        self.rows += 1
        self.last_hash = row_hash
        self.head = None
        if self.stated is not None and self.rows % MARK_EVERY == 0:
            marks, place = self.stated["marks"], self.rows // MARK_EVERY - 1
            if place >= len(marks) or marks[place] != row_hash.hex():
                self.refuse(
                    f"the manifest has another hash here: one of the {MARK_EVERY} rows up to this"
                    " was changed, and those after it hashed again",
                    row,
                )

    def _read(self) -> Row | None:
        raw = self.read_line()
        if not raw:
            return None
        if not raw.endswith(b"\n"):
            self.refuse("the row is cut off")
        if raw.endswith(b"\r\n"):
            self.refuse("the line ends with CR LF: the file was saved again")
        raw = raw[:-1]
        try:
            cells = next(csv.reader((raw.decode(),), strict=True))
        except (csv.Error, UnicodeDecodeError, StopIteration) as error:
            self.refuse(f"the row is no CSV: {str(error) or 'it is empty'}")
        if len(cells) != len(COLUMNS[self.name]):
            self.refuse(f"the row has {len(cells)} cells, not {len(COLUMNS[self.name])}")
        return Row(self.rows + 2, raw, cells)

    def count(self, kind: str, amounts: list[str]) -> None:
        """Count a row of a kind and add up its amounts, in 1/10,000 dollars."""
        found = self.groups.get(kind)
        if found is None:
            found = self.groups[kind] = [0] * (len(amounts) + 1)
        found[0] += 1
        for place, amount in enumerate(amounts, 1):
            if amount:
                found[place] += self.units(amount)

    def units(self, amount: str) -> int:
        """Return an amount with four decimals in 1/10,000 dollars."""
        try:
            if amount[-5] == ".":
                return int(amount.replace(".", ""))
        except (ValueError, IndexError):
            pass
        raise Refused(self.name, self.rows + 1, f"{amount[:40]!r} is no amount")

    def figures(self) -> dict[str, Any]:
        """Return rows and sums of each kind."""
        return {
            kind: {
                "rows": rows,
                **{name: _units(one) for name, one in zip(SUMS[self.name], sums, strict=True)},
            }
            for kind, (rows, *sums) in sorted(self.groups.items())
        }

    def finish(self) -> None:
        """Compare the whole file with what the manifest states of it."""
        assert self.stated is not None
        if self.rows < self.stated["rows"]:
            self.refuse(f"the row is missing: the manifest counts {self.stated['rows']} rows")
        found = {
            "rows": self.rows,
            "last_row_sha256": self.last_hash.hex(),
            "bytes": self.size,
            "sha256": self.sha256.hexdigest(),
        }
        for name, value in found.items():
            if name == "last_row_sha256" and self.stated[name] != value:
                reason = "one of the last rows was changed, and those after it hashed again"
                raise Refused(self.name, self.rows + 1, reason)
            if self.stated[name] != value:
                reason = f"{name} is {value}, and {self.stated[name]} in the manifest"
                raise Refused(self.name, self.rows + 1, reason)


def _units(units: int) -> str:
    whole, part = divmod(abs(units), 10_000)
    return f"{'-' if units < 0 else ''}{whole}.{part:04d}"


def plain(cell: str) -> str:
    """Return what a cell says, without the apostrophe that keeps it from being a formula."""
    return cell[1:] if cell[:1] == "'" else cell

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final


_PROGRESS_ROWS: Final = 100_000
_quoted: Final[Callable[[str], str]] = json.encoder.encode_basestring
_PLACE: Final = {
    name: {column: place for place, column in enumerate(columns)}
    for name, columns in COLUMNS.items()
}
_LEDGER: Final = _PLACE["ledger.csv"]
_DECISION: Final = _LEDGER["decision_id"]
_POLICY: Final = [_PLACE["decisions.csv"][name] for name in POLICY_LINEAGE]
_CONTEXT: Final = [_PLACE["decisions.csv"][name] for name in CONTEXT_LINEAGE]
_MADE: Final = [
    (_LEDGER[there], _PLACE["decisions.csv"][here], here) for here, there in SAME_IN_LEDGER.items()
]
_CHECKPOINT_MEMBERS: Final = {
    *("checkpoint", "signature", "signature_algorithm", "signature_key_id", "public_key")
}
_FOLLOWING: Final = ("decisions.csv", "approvals.csv", "reservations.csv")


@dataclass(slots=True)
class Report:
    """What was verified."""

    tenant_id: str
    rows: dict[str, int]
    first_sequence: int
    last_sequence: int
    last_hash: str
    checkpoints: int
    position: int = 0
    key_id: str = ""
    window: tuple[str, str] = ("", "")
    truncated: bool = False


class Chain:
    """The ledger's entries, rebuilt from their cells and hashed one after another."""

    def __init__(self, table: Table, tenant_id: str, after: tuple[int, bytes] | None) -> None:
        self.table = table
        self.after = after
        self.sequence, self._previous = after or (0, bytes(32))
        members = sorted({"tenant_id", *_LEDGER} - {"prev_hash", "entry_hash"})
        self._members = [
            (f'{"{" if place == 0 else ","}"{name}":', name, _LEDGER.get(name, -1))
            for place, name in enumerate(members)
        ]
        self._tenant = _quoted(tenant_id)

    def check(self, row: Row) -> None:
        """Check the next entry and move on to it.

        :raises Refused: when it is another one, or is not what was hashed.
        """
        cells, table = row.cells, self.table
        if self.after is None:
            self._begin(row)
        if cells[_LEDGER["sequence"]] != str(self.sequence + 1):
            table.refuse(
                f"sequence {self.sequence + 1} is missing: {cells[_LEDGER['sequence']]} is here",
                row,
            )
        if cells[_LEDGER["prev_hash"]] != self._previous.hex():
            table.refuse("prev_hash is not the hash of the entry before", row)
        found = hashlib.sha256(self._previous + self._canonical(row)).digest()
        if cells[_LEDGER["entry_hash"]] != found.hex():
            table.refuse("entry_hash is not the hash of the row's cells", row)
        _check_spelling(table, row)
        self.sequence, self._previous = self.sequence + 1, found

    def _begin(self, row: Row) -> None:
        """Begin where a file without a manifest begins; a chain from 1 begins with zeros."""
        try:
            self.sequence = int(row.cells[_LEDGER["sequence"]]) - 1
            self._previous = bytes.fromhex(row.cells[_LEDGER["prev_hash"]])
        except ValueError:
            self.table.refuse("sequence or prev_hash is not one", row)
        if self.sequence < 0 or (self.sequence == 0 and any(self._previous)):
            self.table.refuse("prev_hash is not zeros before the first entry", row)
        self.after = (self.sequence, self._previous)

    def _canonical(self, row: Row) -> bytes:
        cells, pieces = row.cells, []
        for prefix, name, place in self._members:
            cell = cells[place] if place >= 0 else ""
            if place < 0:
                text = self._tenant
            elif name == "reason_codes":
                text = "[" + ",".join(map(_quoted, cell.split())) + "]"
            elif not cell:
                text = "null"
            elif name in INTEGERS:
                text = cell
            else:
                text = _quoted(plain(cell))
            pieces.append(prefix + text)
        return ("".join(pieces) + "}").encode()


def _check_spelling(table: Table, row: Row) -> None:
    """Check that cells are quoted and made safe exactly as they are written.

    The hash of an entry binds what its cells say; this binds how they say it.
    """
    if b"'" not in row.raw and b'"' not in row.raw:
        return
    for cell in row.cells:
        if cell[:1] == "'" and cell[1:2] not in {"", *FORMULA_STARTS}:
            table.refuse("a cell has an apostrophe that is not written", row)
    spelled = ",".join(_spell(cell) for cell in row.cells)
    reasons = row.cells[_LEDGER["reason_codes"]]
    if not reasons:
        # An empty list is text without characters, which is quoted; no value is not.
        place = _LEDGER["reason_codes"]
        cells = [_spell(cell) for cell in row.cells]
        cells[place] = '""'
        spelled = ",".join(cells)
    if spelled.encode() != row.raw:
        table.refuse("a cell is quoted in another way than it is written", row)


def _spell(cell: str) -> str:
    if any(sign in cell for sign in ',"\r\n'):
        doubled = cell.replace('"', '""')
        return f'"{doubled}"'
    return cell


class Verification:
    """One export, checked from its signature to its totals; the ledger leads the other files."""

    def __init__(
        self, path: Path, keys: Keys, progress: Callable[[int], None] | None = None
    ) -> None:
        self._source: Archive | Folder = Folder(path) if path.is_dir() else Archive(path)
        self._keys = keys
        self._progress = progress
        self.manifest = self._read_manifest()
        self._tables: dict[str, Table] = {}
        self._policies: Counter[str] = Counter()
        self._contexts: Counter[str] = Counter()
        # Of the decision that was met last, or of any whose entries are still to come.
        self._decision_id, self._has_reservation = "", False
        self._held: dict[str, tuple[int, int]] = {}
        self._requested: dict[str, int] = {}

    def run(self, checkpoints: Sequence[Checkpoint]) -> Report:
        """Check everything.

        :raises Refused: with the first place that does not hold.
        """
        kept = self._checkpoints(checkpoints)
        with ExitStack() as opened:
            for name in FILES:
                file, size = self._source.open(name)
                opened.enter_context(file)
                self._tables[name] = Table(name, file, size, self.manifest["files"][name])
            return self._check(kept)

    def _check(self, kept: dict[int, Checkpoint]) -> Report:
        manifest, ledger = self.manifest, self.manifest["ledger"]
        chain = Chain(
            self._tables["ledger.csv"],
            manifest["tenant_id"],
            (ledger["after_sequence"], bytes.fromhex(ledger["after_hash"])),
        )
        for table in self._tables.values():
            table.read_header()
        self._walk(chain, kept)
        self._tables["ledger.csv"].finish()
        self._check_ends()
        for table in self._tables.values():
            table.finish()
        self._check_totals()
        return Report(
            tenant_id=manifest["tenant_id"],
            rows={name: table.rows for name, table in self._tables.items()},
            first_sequence=ledger["after_sequence"] + 1,
            last_sequence=ledger["last_sequence"],
            last_hash=ledger["last_hash"],
            checkpoints=len(kept),
            position=ledger["position"],
            key_id=manifest["signature_key_id"],
            window=(manifest["window_start"], manifest["window_end"]),
            truncated=manifest["truncated"],
        )

    def _read_small(self, name: str) -> bytes:
        file, size = self._source.open(name)
        with file:
            if size > SMALL_FILE_BYTES:
                raise Refused(name, None, "is larger than any that is written")
            return file.read(size)

    def _read_manifest(self) -> dict[str, Any]:
        """Return the signed manifest, once its four files and the checkpoint agree."""
        signed = self._read_small("manifest.canonical.json")
        manifest = read_json("manifest.canonical.json", signed)
        if canonical(manifest) != signed:
            raise Refused("manifest.canonical.json", None, "is not in RFC 8785 form")
        digest = f"{hashlib.sha256(signed).hexdigest()}  manifest.canonical.json\n"
        if self._read_small("manifest.sha256") != digest.encode():
            raise Refused("manifest.sha256", None, "is not the digest of manifest.canonical.json")
        signature = self._read_small("manifest.sig")
        text = signature.decode("ascii", "replace")
        if text[-1:] != "\n" or not self._keys.have_signed(signed, text[:-1]):
            raise Refused("manifest.sig", None, "is not the signature of a key that is trusted")
        if manifest.get("schema_version") != MANIFEST_SCHEMA or (
            manifest.get("signature_algorithm") != ALGORITHM
        ):
            raise Refused("manifest.canonical.json", None, "is of a form that is not known here")
        readable = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False)
        if self._read_small("manifest.json") != f"{readable}\n".encode():
            raise Refused("manifest.json", None, "does not say what was signed")
        self._check_own_checkpoint(manifest)
        return manifest

    def _check_own_checkpoint(self, manifest: dict[str, Any]) -> None:
        name, ledger = "checkpoint.json", manifest["ledger"]
        raw = self._read_small(name)
        own = read_checkpoint(name, raw, self._keys)
        document = read_json(name, raw)
        if (
            raw != canonical(document) + b"\n"
            or set(document) != _CHECKPOINT_MEMBERS
            or document["public_key"] not in self._keys.texts
            or document["signature_key_id"] != manifest["signature_key_id"]
        ):
            raise Refused(name, None, "is not as it was written")
        stated = (manifest["tenant_id"], ledger["last_sequence"], ledger["last_hash"])
        if (own.tenant_id, own.sequence, own.entry_hash) != stated:
            raise Refused(name, None, "names another head than the manifest")

    def _checkpoints(self, found: Sequence[Checkpoint]) -> dict[int, Checkpoint]:
        """Return the checkpoints kept elsewhere that lie in this export, by their sequence."""
        ledger, kept = self.manifest["ledger"], {}
        for one in found:
            if one.tenant_id != self.manifest["tenant_id"]:
                raise Refused(one.name, None, "is of another tenant")
            if one.sequence > ledger["position"]:
                raise Refused(
                    "manifest.json",
                    None,
                    f"the export is older than {one.name}: it knows the ledger up to"
                    f" {ledger['position']}, which had reached {one.sequence}",
                )
            places = {
                ledger["after_sequence"]: ledger["after_hash"],
                ledger["position"]: ledger["position_hash"],
            }
            if places.get(one.sequence, one.entry_hash) != one.entry_hash:
                raise Refused(
                    "ledger.csv", None, f"{one.name} has another hash of sequence {one.sequence}"
                )
            kept[one.sequence] = one
        return kept

    def _walk(self, chain: Chain, kept: dict[int, Checkpoint]) -> None:
        """Walk the ledger; at each decision take the rows of the other files that belong to it."""
        table, place = self._tables["ledger.csv"], _LEDGER
        start, end = self.manifest["window_start"], self.manifest["window_end"]
        while (row := table.advance()) is not None:
            chain.check(row)
            cells, one = row.cells, kept.get(chain.sequence)
            if one is not None and one.entry_hash != cells[place["entry_hash"]]:
                table.refuse(f"{one.name} has another hash of this entry", row)
            event = cells[place["event"]]
            table.take(row, bytes.fromhex(cells[place["entry_hash"]]))
            table.count(event, [cells[place["amount_usd"]]])
            if event == "decision_made" and start <= cells[place["at"]] < end:
                self._take_decision(row)
            elif event in RESERVING:
                self._see_reserved(row)
            elif event == "approval_requested":
                self._see_requested(row)
            if self._progress is not None and table.rows % _PROGRESS_ROWS == 0:
                self._progress(table.rows)

    def _take_decision(self, entry: Row) -> None:
        sequence, self._decision_id = entry.cells[_LEDGER["sequence"]], entry.cells[_DECISION]
        table = self._tables["decisions.csv"]
        row = table.advance()
        if row is None or row.cells[0] != sequence:
            found = "the file ends" if row is None else f"that of {row.cells[0]} is here"
            table.refuse(f"the decision of ledger sequence {sequence} is missing: {found}", row)
        table.take_chained(row)
        for there, here, name in _MADE:
            if row.cells[here] != entry.cells[there]:
                table.refuse(f"{name} is not what ledger sequence {sequence} says", row)
        self._policies["|".join([row.cells[place] for place in _POLICY])] += 1
        self._contexts["|".join([row.cells[place] for place in _CONTEXT])] += 1
        self._take_reservation(sequence)
        self._take_approvals(sequence)

    def _take_reservation(self, sequence: str) -> None:
        table, place = self._tables["reservations.csv"], _PLACE["reservations.csv"]
        row = table.advance()
        self._has_reservation = row is not None and row.cells[0] == sequence
        if row is None or not self._has_reservation:
            return
        table.take_chained(row)
        if row.cells[place["decision_id"]] != self._decision_id:
            table.refuse(f"decision_id is not what ledger sequence {sequence} says", row)
        if row.cells[place["is_shadow"]] == "false":
            own = table.units(row.cells[place["own_usd"]])
            self._held[self._decision_id] = (own, row.number)

    def _take_approvals(self, sequence: str) -> None:
        table, place = self._tables["approvals.csv"], _PLACE["approvals.csv"]
        while (row := table.advance()) is not None and row.cells[0] == sequence:
            table.take_chained(row)
            if row.cells[place["decision_id"]] != self._decision_id:
                table.refuse(f"decision_id is not what ledger sequence {sequence} says", row)
            self._requested[row.cells[place["approval_request_id"]]] = row.number

    def _see_reserved(self, entry: Row) -> None:
        """Take what an entry reserved off what its decision's reservation says that it holds."""
        decision_id, sequence = entry.cells[_DECISION], entry.cells[_LEDGER["sequence"]]
        if decision_id not in self._held:
            if decision_id == self._decision_id and not self._has_reservation:
                self._tables["reservations.csv"].refuse(
                    f"the reservation of ledger sequence {sequence} is missing"
                )
            return
        left, number = self._held.pop(decision_id)
        left -= self._tables["ledger.csv"].units(entry.cells[_LEDGER["amount_usd"]])
        if left < 0:
            reason = f"own_usd is less than ledger sequence {sequence} reserved"
            raise Refused("reservations.csv", number, reason)
        if left:
            self._held[decision_id] = (left, number)

    def _see_requested(self, entry: Row) -> None:
        approval_id = entry.cells[_LEDGER["approval_request_id"]]
        known = self._requested.pop(approval_id, None)
        if known is None and entry.cells[_DECISION] == self._decision_id:
            sequence = entry.cells[_LEDGER["sequence"]]
            self._tables["approvals.csv"].refuse(
                f"the approval of ledger sequence {sequence} is missing"
            )

    def _check_ends(self) -> None:
        """Check that no row is left, and that what rows say was reserved and asked for was."""
        for name in _FOLLOWING:
            left = self._tables[name].advance()
            if left is not None:
                self._tables[name].refuse("the row belongs to no decision of ledger.csv", left)
        ledger = self.manifest["ledger"]
        if ledger["last_sequence"] != ledger["position"]:
            return  # What was reserved or asked for later is not in this export.
        for _, number in self._held.values():
            raise Refused("reservations.csv", number, "own_usd is more than the ledger reserved")
        for number in self._requested.values():
            raise Refused("approvals.csv", number, "the ledger has no request of this approval")

    def _check_totals(self) -> None:
        """Compare what was counted with what the manifest states."""
        manifest = self.manifest
        limit, decisions = manifest["limit"], self._tables["decisions.csv"].rows
        found: dict[str, Any] = {
            "figures": {name: table.figures() for name, table in self._tables.items()},
            "bindings": {
                name: {"rows": self._tables[name].rows, "bound": self._tables[name].rows}
                for name in _FOLLOWING
            },
            "policy_lineage": _lineage(self._policies, POLICY_LINEAGE),
            "computed_context_lineage": _lineage(self._contexts, CONTEXT_LINEAGE),
        }
        for name in ("policy_lineage", "computed_context_lineage"):
            found[f"{name}_sha256"] = hashlib.sha256(canonical(found[name])).hexdigest()
        for name, value in found.items():
            if manifest[name] != value:
                raise Refused("manifest.json", None, f"{name} is not what the rows add up to")
        if limit is not None and (
            decisions > limit or (manifest["truncated"] and decisions < limit)
        ):
            raise Refused("manifest.json", None, f"limit is {limit}, and {decisions} are covered")


def _lineage(keys: Counter[str], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return each combination of values that decisions were made under, with their number."""
    return [
        {
            **{
                name: (int(text) if name in INTEGERS else text) if text else None
                for name, text in zip(names, key.split("|"), strict=True)
            },
            "decisions": decisions,
        }
        for key, decisions in sorted(keys.items(), key=lambda item: item[0].encode())
    ]


def verify(
    path: Path,
    public_keys: Sequence[str],
    *,
    checkpoints: Sequence[Path] = (),
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Verify an export, a ZIP or a directory.

    :param public_keys: raw Ed25519 public keys in base64url: who may have signed it.
    :param checkpoints: files kept elsewhere that the export must agree with.
    :raises Refused: with the first file, row and reason that does not hold.
    :raises ValueError: when a public key is none.
    """
    keys = Keys(public_keys)
    kept = [read_checkpoint(one.name, one.read_bytes(), keys) for one in checkpoints]
    return Verification(path, keys, progress).run(kept)


def verify_ledger(
    path: Path,
    public_keys: Sequence[str],
    *,
    checkpoints: Sequence[Path],
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Verify a ``ledger.csv`` by itself against checkpoints that were kept elsewhere.

    Without one of them at its end, a tail that was cut off is not found; the report says how far
    the checkpoints reach.

    :raises Refused: with the first row and reason that does not hold.
    :raises ValueError: when a public key is none.
    """
    keys = Keys(public_keys)
    kept = [read_checkpoint(one.name, one.read_bytes(), keys) for one in checkpoints]
    by_sequence = {one.sequence: one for one in kept}
    tenants = {one.tenant_id for one in kept}
    if len(tenants) != 1:
        raise Refused(path.name, None, "needs checkpoints, all of one tenant")
    table = Table("ledger.csv", path.open("rb", buffering=1 << 18), path.stat().st_size, None)
    tenant_id = tenants.pop()
    chain, reached = Chain(table, tenant_id, None), 0
    with table.file:
        table.read_header()
        while (row := table.advance()) is not None:
            chain.check(row)
            one = by_sequence.get(chain.sequence)
            if one is not None and one.entry_hash != row.cells[_LEDGER["entry_hash"]]:
                table.refuse(f"{one.name} has another hash of this entry", row)
            reached += one is not None
            table.take(row, bytes.fromhex(row.cells[_LEDGER["entry_hash"]]))
            if progress is not None and table.rows % _PROGRESS_ROWS == 0:
                progress(table.rows)
    for one in kept:
        if one.sequence > chain.sequence:
            table.refuse(f"sequence {one.sequence} is missing, which {one.name} states")
    first = chain.sequence - table.rows + 1
    if not reached:
        raise Refused(path.name, None, "holds none of the entries that the checkpoints state")
    return Report(
        tenant_id=tenant_id,
        rows={"ledger.csv": table.rows},
        first_sequence=first,
        last_sequence=chain.sequence,
        last_hash=table.last_hash.hex(),
        checkpoints=reached,
    )

import argparse
import sys
from pathlib import Path



def describe(report: Report) -> str:
    """Return what was verified, for people."""
    rows = ", ".join(f"{count} in {name}" for name, count in report.rows.items())
    reach = f"sequences {report.first_sequence} to {report.last_sequence}"
    lines = [
        f"tenant {report.tenant_id}",
        f"rows: {rows}",
        f"ledger: {reach}, last hash {report.last_hash}",
        f"checkpoints kept elsewhere that agree: {report.checkpoints}",
    ]
    if report.key_id:
        start, end = report.window
        part = ", of which the limit left out decisions" if report.truncated else ""
        lines.append(f"window: {start} to {end}{part}; as the ledger stood at {report.position}")
        lines.append(f"signed by key {report.key_id}")
    return "\n".join(lines)


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main(arguments: list[str] | None = None) -> int:
    """Verify what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="Verify an export of Valdrix offline.")
    parser.add_argument("archive", type=Path, help="the ZIP, or the directory of its files")
    parser.add_argument("--public-key", action="append", required=True, metavar="BASE64URL")
    parser.add_argument("--checkpoint", action="append", default=[], type=Path, metavar="FILE")
    parser.add_argument("--ledger", action="store_true", help="it is a ledger.csv by itself")
    options = parser.parse_args(arguments)
    check = verify_ledger if options.ledger else verify
    try:
        report = check(
            options.archive,
            options.public_key,
            checkpoints=options.checkpoint,
            progress=lambda rows: _tell(f"{rows} ledger rows ..."),
        )
    except Refused as refusal:
        _tell(f"REFUSED {refusal}")
        return 1
    except (OSError, ValueError) as error:
        _tell(f"cannot verify: {error}")
        return 2
    sys.stdout.write(f"VERIFIED\n{describe(report)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
