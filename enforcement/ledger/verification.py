"""Verification of a tenant's ledger: every entry recomputed, in order, in constant memory.

A verifier reads and tells; it never repairs.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from enforcement.ledger.domain import ChainedEntry, ChainVerifier, Fault, Head
from enforcement.ledger.queries import find_head, stream_entries
from valdrix.kernel import strict_json
from valdrix.kernel.canonical import NotCanonicalError, canonical_bytes, is_canonical
from valdrix.kernel.db import snapshot_reading

PROGRESS_EVERY: Final = 10_000
"""After how many entries progress is told."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found in one tenant's ledger.

    :ivar entries: how many entries were inspected, the broken one included.
    :ivar head: the place up to which the chain holds.
    :ivar fault: the first place where it does not, or None.
    """

    tenant_id: uuid.UUID
    entries: int
    head: Head
    fault: Fault | None

    @property
    def status(self) -> str:
        """Return ``intact``, ``empty`` or ``broken``."""
        if self.fault is not None:
            return "broken"
        return "intact" if self.entries else "empty"


def verify_ledger(
    tenant_id: uuid.UUID, *, progress: Callable[[int, int], None] | None = None
) -> Verification:
    """Recompute a tenant's chain from its first entry to the head that the database keeps.

    Every statement sees the same committed state, so that entries which are appended meanwhile
    are no faults.

    :param progress: called now and then with how many entries are done, and how many there are.
    """
    with snapshot_reading(tenant_id):
        kept = find_head(tenant_id)
        verifier, seen = ChainVerifier(tenant_id), 0
        for entry, columns in stream_entries(tenant_id):
            seen += 1
            fault = _find_text_fault(entry, verifier.head) or verifier.check(entry, columns)
            if fault is not None:
                return Verification(tenant_id, seen, verifier.head, fault)
            if progress is not None and seen % PROGRESS_EVERY == 0:
                progress(seen, 0 if kept is None else kept.sequence)
    return Verification(tenant_id, seen, verifier.head, _find_end_fault(verifier.head, kept))


def _find_text_fault(entry: ChainedEntry, head: Head) -> Fault | None:
    """Return what is wrong with the next entry's text by itself: it must be RFC 8785 JSON."""
    if entry.sequence != head.sequence + 1:
        return None  # Another entry is missing first; the chain says so.
    if is_canonical(entry.canonical.encode()):
        return None
    try:
        canonical = canonical_bytes(strict_json.loads(entry.canonical.encode()))
    except (strict_json.StrictJsonError, NotCanonicalError):
        return Fault(entry.sequence, "the entry's text is not canonical JSON")
    if canonical != entry.canonical.encode():
        return Fault(entry.sequence, "the entry's text is not in RFC 8785 form")
    return None


def _find_end_fault(found: Head, kept: Head | None) -> Fault | None:
    """Compare the last entry with the head row, which finds a tail that was cut off."""
    if kept is None:
        if found.sequence == 0:
            return None
        return Fault(found.sequence, "there are entries, but no head row that they lead to")
    if found.sequence < kept.sequence:
        return Fault(
            found.sequence + 1,
            f"entry is missing at the end; the head row is at {kept.sequence}",
        )
    if found.sequence > kept.sequence:
        return Fault(
            kept.sequence + 1, f"entry is beyond the head row, which is at {kept.sequence}"
        )
    if found.entry_hash != kept.entry_hash:
        return Fault(found.sequence, "entry_hash is not the one that the head row keeps")
    return None
