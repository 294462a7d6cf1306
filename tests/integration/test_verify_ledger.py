"""``manage.py verify_ledger``: what it says of whole, empty and tampered ledgers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command

from enforcement.ledger import verification
from enforcement.ledger.domain import ChainedEntry, hash_entry
from enforcement.ledger.queries import stream_entries
from enforcement.ledger.verification import verify_ledger
from tests.factories.rows import append_entries, build_facts
from tests.factories.tenants import World
from valdrix.kernel.db import reading

_TRIGGERS = (
    "enforcement_ledger_entry_no_change",
    "enforcement_ledger_entry_no_truncate",
    "enforcement_ledger_entry_chain",
)


@pytest.fixture
def filled(tenant: World) -> World:
    """Give a tenant with five ledger entries."""
    facts = [build_facts(amount_usd=Decimal(f"{number}.0000")) for number in range(1, 6)]
    append_entries(tenant.id, facts)
    return tenant


@contextmanager
def tampering(cursor: psycopg.Cursor) -> Iterator[None]:
    """Switch the ledger's triggers off for the block, as its owner can."""
    with cursor.connection.transaction():
        cursor.execute("ALTER TABLE enforcement_ledger_entry DISABLE TRIGGER USER")
        yield
        for trigger in _TRIGGERS:
            cursor.execute(f"ALTER TABLE enforcement_ledger_entry ENABLE ALWAYS TRIGGER {trigger}")


def run(*arguments: str) -> tuple[int, str, str]:
    """Run the command and return its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("verify_ledger", *arguments, stdout=out, stderr=err)
    except CommandError as error:
        return error.returncode, out.getvalue(), err.getvalue() + str(error)
    return 0, out.getvalue(), err.getvalue()


def entry_at(world: World, sequence: int) -> ChainedEntry:
    with reading(world.id):
        return next(e for e, _ in stream_entries(world.id) if e.sequence == sequence)


def test_a_whole_chain_is_intact_and_counted(filled: World) -> None:
    code, out, err = run("--tenant", filled.slug)
    last = entry_at(filled, 5).entry_hash.hex()
    assert (code, err) == (0, "")
    assert out == f"{filled.slug}: intact; 5 entries inspected, head 5 {last}\n"


def test_an_empty_ledger_is_said_to_be_empty(tenant: World) -> None:
    assert run("--tenant", tenant.slug)[:2] == (
        0, f"{tenant.slug}: the ledger is empty; 0 entries inspected\n",
    )  # fmt: skip


Tamper = Callable[[psycopg.Cursor, World], None]


def edit_text(cursor: psycopg.Cursor, world: World) -> None:
    cursor.execute(
        "UPDATE enforcement_ledger_entry SET canonical = replace(canonical, 'shop', 'shap')"
        " WHERE tenant_id = %s AND sequence = 3",
        [world.id],
    )


def edit_column(cursor: psycopg.Cursor, world: World) -> None:
    cursor.execute(
        "UPDATE enforcement_ledger_entry SET amount_usd = 999"
        " WHERE tenant_id = %s AND sequence = 2",
        [world.id],
    )


def edit_reasons(cursor: psycopg.Cursor, world: World) -> None:
    cursor.execute(
        "UPDATE enforcement_ledger_entry SET reason_codes = '{}'"
        " WHERE tenant_id = %s AND sequence = 5",
        [world.id],
    )


def delete_first(cursor: psycopg.Cursor, world: World) -> None:
    cursor.execute(
        "DELETE FROM enforcement_ledger_entry WHERE tenant_id = %s AND sequence = 1", [world.id]
    )


def delete_middle(cursor: psycopg.Cursor, world: World) -> None:
    cursor.execute(
        "DELETE FROM enforcement_ledger_entry WHERE tenant_id = %s AND sequence = 4", [world.id]
    )


def cut_tail(cursor: psycopg.Cursor, world: World) -> None:
    cursor.execute(
        "DELETE FROM enforcement_ledger_entry WHERE tenant_id = %s AND sequence > 3", [world.id]
    )


def delete_all(cursor: psycopg.Cursor, world: World) -> None:
    cursor.execute("DELETE FROM enforcement_ledger_entry WHERE tenant_id = %s", [world.id])


def set_head_back(cursor: psycopg.Cursor, world: World) -> None:
    cursor.execute(
        "UPDATE enforcement_ledger_head h SET sequence = 4, entry_hash = e.entry_hash"
        "  FROM enforcement_ledger_entry e"
        " WHERE h.tenant_id = %s AND e.tenant_id = h.tenant_id AND e.sequence = 4",
        [world.id],
    )


def drop_head(cursor: psycopg.Cursor, world: World) -> None:
    cursor.execute("DELETE FROM enforcement_ledger_head WHERE tenant_id = %s", [world.id])


def rehash(cursor: psycopg.Cursor, world: World, text: Callable[[str], str]) -> None:
    """Rewrite the last entry with a hash of its own, as somebody who knows the rule would."""
    last = entry_at(world, 5)
    canonical = text(last.canonical)
    digest = hash_entry(last.prev_hash, canonical.encode())
    cursor.execute(
        "UPDATE enforcement_ledger_entry SET canonical = %s, entry_hash = %s"
        " WHERE tenant_id = %s AND sequence = 5",
        [canonical, digest, world.id],
    )


def rehash_last(cursor: psycopg.Cursor, world: World) -> None:
    def forge(text: str) -> str:
        return text.replace('"user:1"', '"user:2"')

    rehash(cursor, world, forge)
    cursor.execute(
        "UPDATE enforcement_ledger_entry SET principal = 'user:2'"
        " WHERE tenant_id = %s AND sequence = 5",
        [world.id],
    )


def respell_last(cursor: psycopg.Cursor, world: World) -> None:
    rehash(cursor, world, lambda text: text.replace('":', '": '))
    cursor.execute(
        "UPDATE enforcement_ledger_head h SET entry_hash = e.entry_hash"
        "  FROM enforcement_ledger_entry e"
        " WHERE h.tenant_id = %s AND e.tenant_id = h.tenant_id AND e.sequence = 5",
        [world.id],
    )


def spoil_last(cursor: psycopg.Cursor, world: World) -> None:
    rehash(cursor, world, lambda text: text[:-1])


def repeat_key_in_last(cursor: psycopg.Cursor, world: World) -> None:
    rehash(cursor, world, lambda text: text[:-1] + ',"event":"reserved"}')


@pytest.mark.parametrize(
    ("tamper", "sequence", "reason", "inspected"),
    [
        (edit_text, 3, "entry_hash is not the hash of the entry", 3),
        (edit_column, 2, "column amount_usd is not what was hashed", 2),
        (edit_reasons, 5, "column reason_codes is not what was hashed", 5),
        (delete_first, 1, "entry is missing; the next one found is 2", 1),
        (delete_middle, 4, "entry is missing; the next one found is 5", 4),
        (cut_tail, 4, "entry is missing at the end; the head row is at 5", 3),
        (delete_all, 1, "entry is missing at the end; the head row is at 5", 0),
        (set_head_back, 5, "entry is beyond the head row, which is at 4", 5),
        (drop_head, 5, "there are entries, but no head row that they lead to", 5),
        (rehash_last, 5, "entry_hash is not the one that the head row keeps", 5),
        (respell_last, 5, "the entry's text is not in RFC 8785 form", 5),
        (spoil_last, 5, "the entry's text is not canonical JSON", 5),
        (repeat_key_in_last, 5, "the entry's text is not canonical JSON", 5),
    ],
)
def test_tampering_is_found_at_the_first_broken_sequence(
    filled: World,
    owner_cursor: psycopg.Cursor,
    tamper: Tamper,
    sequence: int,
    reason: str,
    inspected: int,
) -> None:
    assert run("--tenant", filled.slug)[0] == 0
    with tampering(owner_cursor):
        tamper(owner_cursor, filled)
    code, out, err = run("--tenant", filled.slug)
    assert (code, out) == (
        1,
        f"{filled.slug}: BROKEN at sequence {sequence}: {reason}; {inspected} entries inspected\n",
    )
    assert err == f"broken: {filled.slug}"


@pytest.mark.first
def test_all_ledgers_are_verified_and_the_broken_one_named(
    filled: World, other_tenant: World, owner_cursor: psycopg.Cursor
) -> None:
    append_entries(other_tenant.id, [build_facts()])
    with tampering(owner_cursor):
        edit_column(owner_cursor, filled)
    code, out, err = run("--all")
    assert code == 1
    assert f"{filled.id}: BROKEN at sequence 2" in out
    assert f"{other_tenant.id}: intact; 1 entries inspected" in out
    assert str(filled.id) in err
    assert str(other_tenant.id) not in err


def test_json_says_the_same(filled: World, owner_cursor: psycopg.Cursor) -> None:
    code, out, _ = run("--tenant", filled.slug, "--json")
    whole: dict[str, Any] = json.loads(out)
    assert (code, whole["intact"], whole["entries"]) == (0, True, 5)
    assert whole["ledgers"] == [{
        "tenant": filled.slug, "tenant_id": str(filled.id), "status": "intact", "entries": 5,
        "verified_to": {"sequence": 5, "entry_hash": entry_at(filled, 5).entry_hash.hex()},
        "fault": None,
    }]  # fmt: skip
    with tampering(owner_cursor):
        cut_tail(owner_cursor, filled)
    code, out, _ = run("--tenant", filled.slug, "--json")
    broken = json.loads(out)
    assert (code, broken["intact"], broken["ledgers"][0]["status"]) == (1, False, "broken")
    assert broken["ledgers"][0]["fault"]["sequence"] == 4


@pytest.mark.parametrize("arguments", [("--tenant", "no-such-tenant"), ("--tenant", "a\x00b")])
def test_an_unknown_tenant_exits_2(database: None, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "there is no tenant" in err


@pytest.mark.parametrize("arguments", [(), ("--all", "--tenant", "x")])
def test_the_scope_is_one_tenant_or_all(database: None, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        call_command("verify_ledger", *arguments)


def test_progress_is_told(filled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "PROGRESS_EVERY", 2)
    told: list[tuple[int, int]] = []
    result = verify_ledger(filled.id, progress=lambda done, total: told.append((done, total)))
    assert (result.status, told) == ("intact", [(2, 5), (4, 5)])
