"""Events as values: what is accepted, how large it may be, and what can become of it."""

from __future__ import annotations

import enum
import uuid
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

import orjson

from valdrix.kernel.emitter import APPROVAL_ENDED, GATE_DECIDED, Observation

KINDS: Final = frozenset({GATE_DECIDED, APPROVAL_ENDED})
MOST_ATTRIBUTES: Final = 12
NAME_CHARACTERS: Final = 40
WORD_CHARACTERS: Final = 40
MOST_PAYLOAD_BYTES: Final = 2_048
LONGEST_MS: Final = 400 * 24 * 3_600_000
LARGEST_USD: Final = Decimal(10) ** 12
FREE_TEXT: Final = ("project", "reason")
"""The attributes that callers choose: only so many different values of each are told apart."""
OTHER: Final = "__other__"


class Fate(enum.StrEnum):
    """What became of an event that was offered."""

    WRITTEN = "written"
    KNOWN = "known"
    SWITCHED_OFF = "switched_off"
    INVALID = "invalid"
    OVERSIZED = "oversized"
    QUEUE_FULL = "queue_full"
    STORE_FAILED = "store_failed"
    REJECTED = "rejected"
    SHUT_DOWN = "shut_down"


LOSSES: Final = (
    Fate.INVALID,
    Fate.OVERSIZED,
    Fate.QUEUE_FULL,
    Fate.STORE_FAILED,
    Fate.REJECTED,
    Fate.SHUT_DOWN,
)


class Row(NamedTuple):
    """One event as it is queued and stored; ``attributes`` is JSON."""

    id: uuid.UUID
    tenant_id: uuid.UUID
    kind: str
    at: datetime
    outcome: str
    source: str | None
    environment: str | None
    duration_ms: int | None
    amount_usd: Decimal | None
    attributes: str


class Unacceptable(Exception):
    """An observation that is not queued."""

    def __init__(self, fate: Fate) -> None:
        super().__init__(fate)
        self.fate = fate


def check(seen: Observation) -> None:
    """Check that an observation is one that is kept.

    Counts and sizes are looked at before anything is encoded or hashed: on a huge value that would
    take the time which the limit is there to save.

    :raises Unacceptable: for what is malformed, or larger than an event may be.
    """
    words = (seen.outcome, seen.source or "", seen.environment or "")
    is_valid = (
        seen.kind in KINDS
        and {type(seen.id), type(seen.tenant_id)} == {uuid.UUID}
        and seen.at.tzinfo is not None
        and seen.outcome != ""
        and all(len(word) <= WORD_CHARACTERS and "\0" not in word for word in words)
        and (seen.duration_ms is None or 0 <= seen.duration_ms <= LONGEST_MS)
        and is_amount(seen.amount_usd)
    )
    if not is_valid:
        raise Unacceptable(Fate.INVALID)
    if len(seen.attributes) > MOST_ATTRIBUTES:
        raise Unacceptable(Fate.OVERSIZED)
    for name, value in seen.attributes.items():
        if len(name) > NAME_CHARACTERS or not (value is None or type(value) in {str, int}):
            raise Unacceptable(Fate.INVALID)
        if isinstance(value, str) and len(value) > MOST_PAYLOAD_BYTES:
            raise Unacceptable(Fate.OVERSIZED)


def build_row(seen: Observation, attributes: dict[str, str | int | None]) -> Row:
    """Return a checked observation as it is queued.

    :param attributes: those of the observation, with free text folded.
    :raises Unacceptable: when they are no JSON that the store takes, or too much of it.
    """
    try:
        text = orjson.dumps(attributes)
    except TypeError:  # Lone surrogates, and numbers beyond 64 bits.
        raise Unacceptable(Fate.INVALID) from None
    # The escaped NUL is JSON and nothing that PostgreSQL can read as JSON.
    if b"\\u0000" in text:
        raise Unacceptable(Fate.INVALID)
    if len(text) > MOST_PAYLOAD_BYTES:
        raise Unacceptable(Fate.OVERSIZED)
    return Row(
        seen.id,
        seen.tenant_id,
        seen.kind,
        seen.at,
        seen.outcome,
        seen.source,
        seen.environment,
        seen.duration_ms,
        seen.amount_usd,
        text.decode(),
    )


def is_amount(amount: Decimal | None) -> bool:
    """Tell whether an amount is none, or a finite one that the table can hold."""
    return amount is None or (amount.is_finite() and abs(amount) <= LARGEST_USD)
