"""What an entry says, its canonical bytes, and how the chain is checked. Pure."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
import orjson

from valdrix.kernel.canonical import canonical_bytes
from valdrix.kernel.money import HOURLY_PLACES, MONTHLY_PLACES, round_amount, to_text

GENESIS_HASH: Final = bytes(32)

DECISION_MADE: Final = "decision_made"
RESERVED: Final = "reserved"
APPROVAL_REQUESTED: Final = "approval_requested"
APPROVAL_JOINED: Final = "approval_joined"
POLICY_PUBLISHED: Final = "policy_published"
MODE_FORCED: Final = "mode_forced"
BUDGET_CREATED: Final = "budget_created"
BUDGET_CHANGED: Final = "budget_changed"
CREDIT_GRANTED: Final = "credit_granted"
CREDIT_VOIDED: Final = "credit_voided"
APPROVAL_GIVEN: Final = "approval_given"
APPROVAL_APPROVED: Final = "approval_approved"
APPROVAL_DENIED: Final = "approval_denied"
APPROVAL_WITHDRAWN: Final = "approval_withdrawn"
APPROVAL_EXPIRED: Final = "approval_expired"
APPROVAL_CONSUMED: Final = "approval_consumed"
TOKEN_ISSUED: Final = "token_issued"  # noqa: S105 - an event's name
TOKEN_REVOKED: Final = "token_revoked"  # noqa: S105 - an event's name
TOKEN_CONSUMED: Final = "token_consumed"  # noqa: S105 - an event's name
OVERRUN_RESERVED: Final = "overrun_reserved"
CONFIRMED: Final = "confirmed"
RECONCILED: Final = "reconciled"
RELEASED: Final = "released"


class EntryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one ledger entry states. Ids, digests, codes and amounts only: it is kept for ever.

    Amounts are in US dollars. ``subject_*`` names what an administrative event changed.
    ``details_sha256`` binds free text and documents that are kept elsewhere.
    """

    event: str
    at: datetime
    principal: str
    source: str | None = None
    project_id: str | None = None
    environment: str | None = None
    decision_id: uuid.UUID | None = None
    decision: str | None = None
    would_have_been: str | None = None
    mode: str | None = None
    cost_state: str | None = None
    approval_request_id: uuid.UUID | None = None
    approval_status: str | None = None
    subject_type: str | None = None
    subject_id: str | None = None
    amount_usd: Decimal | None = None
    monthly_delta_usd: Decimal | None = None
    hourly_delta_usd: Decimal | None = None
    reserved_allocation_usd: Decimal | None = None
    reserved_reserved_credit_usd: Decimal | None = None
    reserved_emergency_credit_usd: Decimal | None = None
    reason_codes: tuple[str, ...] = ()
    entitlement_reason_code: str | None = None
    burn_rate_daily_usd: Decimal | None = None
    forecast_eom_usd: Decimal | None = None
    risk_class: str | None = None
    risk_score: int | None = None
    anomaly_signal: str | None = None
    policy_version: int | None = None
    policy_document_schema_version: str | None = None
    policy_document_sha256: str | None = None
    request_sha256: str | None = None
    response_sha256: str | None = None
    details_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ChainedEntry:
    """An entry in its place: canonical text and both hashes."""

    sequence: int
    canonical: str
    prev_hash: bytes
    entry_hash: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The newest place of a tenant's chain; sequence 0 and zeros before the first entry."""

    sequence: int
    entry_hash: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """The first place where a chain does not hold, and why."""

    sequence: int
    reason: str


COLUMNS: Final = tuple(EntryFacts.__struct_fields__)
"""Columns of the table that repeat a member of the canonical entry."""


def chain(tenant_id: uuid.UUID, head: Head, facts: Iterable[EntryFacts]) -> list[ChainedEntry]:
    """Return entries that continue a chain from its head, in the order given."""
    entries: list[ChainedEntry] = []
    for fact in facts:
        sequence = head.sequence + 1
        canonical = canonical_bytes(to_document(tenant_id, sequence, fact))
        entry_hash = hash_entry(head.entry_hash, canonical)
        entries.append(ChainedEntry(sequence, canonical.decode(), head.entry_hash, entry_hash))
        head = Head(sequence, entry_hash)
    return entries


def open_entries(tenant_id: uuid.UUID, facts: Sequence[EntryFacts]) -> list[tuple[str, str]]:
    """Return each entry's canonical text in two parts: its sequence, once known, goes between.

    Entries of one decision differ in few members; what two share is written out once.
    """
    opened: list[tuple[str, str]] = []
    document: dict[str, Any] = {}
    for place, fact in enumerate(facts):
        if place == 0:
            document = to_document(tenant_id, 0, fact)
        else:
            for name in COLUMNS:
                value = getattr(fact, name)
                if value is not getattr(facts[place - 1], name):
                    document[name] = _to_member(name, value)
        text = canonical_bytes(document).decode()
        # A quotation mark inside a value is escaped, so that this is the member and nothing else.
        head, member, tail = text.partition(_OPEN_SEQUENCE)
        assert member
        opened.append((head + _OPEN_SEQUENCE[:-2], "," + tail))
    return opened


_OPEN_SEQUENCE: Final = ',"sequence":0,'


def hash_entry(prev_hash: bytes, canonical: bytes) -> bytes:
    """Return the hash of an entry: SHA-256 over the previous hash and its canonical bytes."""
    return hashlib.sha256(prev_hash + canonical).digest()


def to_document(tenant_id: uuid.UUID, sequence: int, facts: EntryFacts) -> dict[str, Any]:
    """Return an entry as a JSON document: amounts and ids as strings, times in UTC."""
    document: dict[str, Any] = {"tenant_id": str(tenant_id), "sequence": sequence}
    for name, value in msgspec.structs.asdict(facts).items():
        document[name] = value if type(value) in _AS_IT_IS else _to_member(name, value)
    return document


_AS_IT_IS: Final = frozenset({str, int, type(None)})


def _to_member(name: str, value: Any) -> Any:
    if isinstance(value, Decimal):
        # As the column holds it: an entry must read back as the bytes that were hashed.
        places = HOURLY_PLACES if name == "hourly_delta_usd" else MONTHLY_PLACES
        value = round_amount(value, places=places)
    return to_json(value)


def to_json(value: Any) -> Any:
    """Return one member of an entry as its canonical form spells it."""
    if isinstance(value, Decimal):
        return to_text(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, tuple | list):
        return list(value)
    return value


class ChainVerifier:
    """Checks entries one after another, in constant memory."""

    def __init__(self, tenant_id: uuid.UUID) -> None:
        self._tenant_id = str(tenant_id)
        self.head = Head(0, GENESIS_HASH)

    def check(self, entry: ChainedEntry, columns: tuple[Any, ...] | None = None) -> Fault | None:
        """Return what is wrong with the next entry, or None and move on to it.

        :param columns: the row's own columns, as the canonical form spells them and in the order
            of ``COLUMNS``; compared with the entry when given.
        """
        sequence = self.head.sequence + 1
        if entry.sequence != sequence:
            return Fault(sequence, f"entry is missing; the next one found is {entry.sequence}")
        if bytes(entry.prev_hash) != self.head.entry_hash:
            return Fault(sequence, "prev_hash is not the hash of the entry before")
        canonical = entry.canonical.encode()
        if bytes(entry.entry_hash) != hash_entry(self.head.entry_hash, canonical):
            return Fault(sequence, "entry_hash is not the hash of the entry")
        document = orjson.loads(canonical)
        if not isinstance(document, dict) or (
            (document.get("tenant_id"), document.get("sequence")) != (self._tenant_id, sequence)
        ):
            return Fault(sequence, "the entry names another tenant or sequence")
        if columns is not None:
            hashed = tuple(map(document.get, COLUMNS))
            if columns != hashed:
                pairs = zip(COLUMNS, columns, hashed, strict=True)
                name = next(name for name, kept, said in pairs if kept != said)
                return Fault(sequence, f"column {name} is not what was hashed")
        self.head = Head(sequence, bytes(entry.entry_hash))
        return None
