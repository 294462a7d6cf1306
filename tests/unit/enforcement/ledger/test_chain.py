"""The hash chain by itself: published test vectors, and every way in which it can be broken."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import uuid
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from enforcement.ledger.domain import (
    COLUMNS,
    GENESIS_HASH,
    ChainedEntry,
    ChainVerifier,
    EntryFacts,
    Fault,
    Head,
    chain,
    hash_entry,
)
from valdrix.kernel import strict_json
from valdrix.kernel.canonical import canonical_bytes

DOCUMENT = Path(__file__).parents[4] / "docs" / "ledger.md"
TENANT = uuid.UUID("00000000-0000-7000-8000-000000000001")
AT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def vectors() -> list[dict[str, Any]]:
    blocks = re.findall(r"```json ledger-vector\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return [strict_json.loads(block.encode()) for block in blocks]


def build_chain(count: int) -> list[ChainedEntry]:
    facts = [
        EntryFacts(
            event="decision_made", at=AT, principal="user:1", amount_usd=Decimal(f"{n}.0000")
        )
        for n in range(count)
    ]
    return chain(TENANT, Head(0, GENESIS_HASH), facts)


def first_fault(entries: list[ChainedEntry]) -> Fault | None:
    verifier = ChainVerifier(TENANT)
    for entry in entries:
        fault = verifier.check(entry)
        if fault is not None:
            return fault
    return None


def test_the_published_vectors_hold_without_any_of_our_code() -> None:
    published = vectors()
    assert len(published) == 2
    prev_hash = bytes(32)
    for place, vector in enumerate(published, start=1):
        assert vector["sequence"] == place
        assert vector["prev_hash"] == prev_hash.hex()
        prev_hash = hashlib.sha256(prev_hash + vector["canonical"].encode()).digest()
        assert vector["entry_hash"] == prev_hash.hex()


def test_the_published_vectors_are_what_the_code_makes() -> None:
    prev = Head(0, GENESIS_HASH)
    for vector in vectors():
        document = strict_json.loads(vector["canonical"].encode())
        assert canonical_bytes(document).decode() == vector["canonical"]
        facts = facts_of(document)
        (entry,) = chain(TENANT, prev, [facts])
        assert (entry.sequence, entry.canonical) == (vector["sequence"], vector["canonical"])
        assert entry.entry_hash.hex() == vector["entry_hash"]
        prev = Head(entry.sequence, entry.entry_hash)


def facts_of(document: dict[str, Any]) -> EntryFacts:
    """Return the facts that a canonical entry states, as the application would have had them."""
    members = {name: document[name] for name in COLUMNS}
    for name, value in members.items():
        if value is None:
            continue
        if name.endswith("_usd"):
            members[name] = Decimal(value)
        elif name in {"decision_id", "approval_request_id"}:
            members[name] = uuid.UUID(value)
    members["at"] = datetime.fromisoformat(document["at"])
    members["reason_codes"] = tuple(document["reason_codes"])
    return EntryFacts(**members)


def test_the_document_names_every_member_of_an_entry() -> None:
    text = DOCUMENT.read_text()
    assert [name for name in COLUMNS if name not in text] == []


def test_an_untouched_chain_holds() -> None:
    assert first_fault(build_chain(5)) is None


def test_a_chain_goes_on_from_its_head() -> None:
    whole = build_chain(3)
    (entry,) = chain(
        TENANT,
        Head(2, whole[1].entry_hash),
        [
            EntryFacts(
                event="decision_made", at=AT, principal="user:1", amount_usd=Decimal("2.0000")
            )
        ],
    )
    assert entry == whole[2]


def test_one_moment_is_hashed_alike_in_every_time_zone() -> None:
    facts = [
        EntryFacts(event="reserved", at=AT.astimezone(zone), principal="user:1")
        for zone in (UTC, timezone(timedelta(hours=5, minutes=30)))
    ]
    first, second = (chain(TENANT, Head(0, GENESIS_HASH), [fact])[0] for fact in facts)
    assert first == second


@pytest.mark.parametrize("place", range(4))
def test_an_edited_entry_is_named(place: int) -> None:
    entries = build_chain(4)
    text = entries[place].canonical.replace("user:1", "user:2")
    entries[place] = dataclasses.replace(entries[place], canonical=text)
    assert first_fault(entries) == Fault(place + 1, "entry_hash is not the hash of the entry")


@pytest.mark.parametrize("place", range(3))
def test_an_entry_that_was_edited_and_hashed_anew_breaks_the_next(place: int) -> None:
    entries = build_chain(4)
    entry = entries[place]
    text = entry.canonical.replace("user:1", "user:2")
    entries[place] = dataclasses.replace(
        entry, canonical=text, entry_hash=hash_entry(entry.prev_hash, text.encode())
    )
    assert first_fault(entries) == Fault(place + 2, "prev_hash is not the hash of the entry before")


@pytest.mark.parametrize("place", range(3))
def test_a_removed_entry_is_missed(place: int) -> None:
    entries = build_chain(4)
    del entries[place]
    assert first_fault(entries) == Fault(
        place + 1, f"entry is missing; the next one found is {place + 2}"
    )


def test_swapped_and_repeated_entries_are_found() -> None:
    first, second, third = build_chain(3)
    assert first_fault([second, first, third]) is not None
    assert first_fault([first, second, second, third]) == Fault(
        3, "entry is missing; the next one found is 2"
    )


def test_another_tenants_entry_is_found() -> None:
    verifier = ChainVerifier(uuid.UUID(int=7))
    assert verifier.check(build_chain(1)[0]) == Fault(
        1, "the entry names another tenant or sequence"
    )


def test_a_column_that_differs_from_the_text_is_named() -> None:
    entry = build_chain(1)[0]
    hashed = json.loads(entry.canonical)
    columns = [hashed[name] for name in COLUMNS]
    assert ChainVerifier(TENANT).check(entry, tuple(columns)) is None
    columns[COLUMNS.index("amount_usd")] = "9.0000"
    assert ChainVerifier(TENANT).check(entry, tuple(columns)) == Fault(
        1, "column amount_usd is not what was hashed"
    )


def test_what_is_no_object_is_no_entry() -> None:
    entry = ChainedEntry(1, "[]", GENESIS_HASH, hash_entry(GENESIS_HASH, b"[]"))
    assert ChainVerifier(TENANT).check(entry) == Fault(
        1, "the entry names another tenant or sequence"
    )
