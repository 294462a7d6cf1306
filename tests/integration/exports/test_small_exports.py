"""Small exports: read at once, the same bytes as the archive, and counted anew when a row changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from enforcement.exports import counting, queries
from enforcement.exports.columns import SOURCES
from enforcement.exports.domain import Scope
from enforcement.exports.lines import QUOTE_FUNCTION, is_unquoted
from enforcement.exports.queries import Rows, find_rows, read_rows
from enforcement.exports.verifier.layout import FILES
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.integration.exports.history import FORMULA, archive_of, export, make_history, unpack
from tests.reviews import approve
from valdrix.kernel.db import reading

ODD = (
    *("", "plain", "a,b", 'quo"te', '"', "line\nbreak", "line\rbreak", "\\.", " blank ", "é%s"),
    *("\x01", "\x01\x01", "NULL", "tab\t", FORMULA),
)
LIMIT = 50


@pytest.fixture
def shop(tenant: World, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(counting, "_memory", counting._Memory(size=2))
    return make_history(tenant)


def digest(world: World) -> str:
    return export(world, limit=LIMIT).finish().sha256


def archived(world: World) -> str:
    canonical = unpack(archive_of(world, limit=LIMIT))["manifest.canonical.json"]
    return hashlib.sha256(canonical).hexdigest()


def scope_of(world: World) -> Scope:
    return export(world, limit=LIMIT)._scope


def rows_of(world: World, known: str | None = None) -> Rows:
    rows = find_rows(scope_of(world), known=known)
    assert rows is not None
    return rows


@contextmanager
def unguarded(cursor: Any, table: str) -> Iterator[None]:
    trigger = f"{table}_no_change"
    cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}")
    try:
        yield
    finally:
        cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")


def test_its_rows_are_those_of_the_archive(shop: Shop, owner_cursor: Any) -> None:
    shop.ask("1.00", resource_reference="tagged", metadata={"gpu": True})
    asked = shop.ask("350.00", environment="prod", resource_reference="given")
    approve(shop.world.owner, asked["approval_request_id"], reason=FORMULA)
    _make_odd(owner_cursor, shop.world)
    gathered = rows_of(shop.world)
    at_once = {name: list(read_rows(rows)) for name, rows in gathered.files.items()}
    with reading(shop.world.id):
        streamed = {
            name: list(queries.stream_rows(name, scope_of(shop.world), gathered.segment))
            for name in FILES
        }
    assert at_once == streamed
    assert all(len(rows) > 3 for rows in at_once.values())
    assert sum(b'"' in row for row in at_once["decisions.csv"]) > 5
    assert digest(shop.world) == archived(shop.world)
    _check_types(shop.world)


def _make_odd(cursor: Any, world: World) -> None:
    """Give decisions texts, and codes, that no door would have let in."""
    with reading(world.id), connection.cursor() as own:
        own.execute("SELECT id FROM enforcement_decision ORDER BY id")
        ids = [row[0] for row in own.fetchall()]
    with unguarded(cursor, "enforcement_decision"):
        for place, decision_id in enumerate(ids):
            texts = (ODD[(place + step) % len(ODD)] for step in (0, 5, 10))
            cursor.execute(
                "UPDATE enforcement_decision SET resource_reference = %s, action = %s, actor = %s,"
                " mode = %s WHERE id = %s",
                [*texts, ODD[place % 3], decision_id],
            )


def _check_types(world: World) -> None:
    """Check that cells which are never quoted have a type that never needs it."""
    harmless = {"bigint", "integer", "smallint", "numeric", "uuid", "date"}
    made_here = ("to_char(", "CASE WHEN", "encode(")
    everything = {"tenant": world.id, "start": "-infinity", "end": "infinity"}
    with reading(world.id), connection.cursor() as cursor:
        for source in SOURCES.values():
            cells = {name: cell for name, cell in source.cells.items() if is_unquoted(name)}
            types = ", ".join(f"pg_typeof({cell})::text" for cell in cells.values())
            statement = f"SELECT {types}{source.tables} LIMIT 1"
            cursor.execute(statement, {**everything, "after": 0, "last": 10**6})
            for (name, cell), kind in zip(cells.items(), cursor.fetchone(), strict=True):
                assert kind in harmless or cell.startswith(made_here), name


def test_a_cell_is_quoted_as_copy_quotes_it(database: None) -> None:
    with connection.cursor() as cursor:
        for text in ODD:
            cursor.execute(f"SELECT {QUOTE_FUNCTION}(%s)", [text])
            (cell,) = cursor.fetchone()
            statement = "COPY (SELECT 1, %s::text) TO STDOUT (FORMAT csv)"
            with cursor.copy(statement, [text]) as rows:
                assert b"".join(bytes(row) for row in rows) == f"1,{cell}\n".encode()


def test_what_is_the_same_is_neither_read_nor_counted_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rows_of(shop.world)
    assert set(first.files) == set(FILES)
    lasting, changing = first.versions.split(" ")
    assert set(rows_of(shop.world, first.versions).files) == set()
    assert set(rows_of(shop.world, lasting).files) == {"approvals.csv", "reservations.csv"}
    assert set(rows_of(shop.world, f"- {changing}").files) == {"decisions.csv", "ledger.csv"}
    assert set(rows_of(shop.world, "0" * 64).files) == set(FILES)
    counted: list[str] = []
    count = counting.count
    monkeypatch.setattr(
        counting, "count", lambda name, rows: counted.append(name) or count(name, rows)
    )

    before = digest(shop.world)
    assert sorted(counted) == sorted(FILES)
    counted.clear()
    with CaptureQueriesContext(connection) as captured:
        assert digest(shop.world) == before
    assert before == archived(shop.world)
    assert first.versions in captured.captured_queries[0]["sql"]
    assert counted == []

    waiting = shop.api.get("approvals/queue", key=shop.world.owner.key).json()["results"]
    known = next(one["id"] for one in waiting if not one["ceiling_required"])
    approve(shop.world.owner, known, reason="yes")
    given = digest(shop.world)
    assert before != given == archived(shop.world)
    assert set(counted) == {"approvals.csv", "ledger.csv"}
    shop.ask("1.00", resource_reference="later")
    assert given != digest(shop.world) == archived(shop.world)


def test_a_row_that_was_changed_is_counted_anew(shop: Shop, owner_cursor: Any) -> None:
    with reading(shop.world.id), connection.cursor() as cursor:
        cursor.execute("SELECT id FROM enforcement_decision WHERE decision = 'ALLOW' LIMIT 1")
        (decision_id,) = cursor.fetchone()
    decision, entry = "enforcement_decision", "enforcement_ledger_entry"
    for table, key, change in (
        (decision, "id", "monthly_delta_usd = monthly_delta_usd + 1"),
        (decision, "id", "decision = 'DENY'"),
        (entry, "decision_id", "project_id = 'other'"),
        (entry, "decision_id", "at = at"),
    ):
        before, versions = digest(shop.world), rows_of(shop.world).versions
        with unguarded(owner_cursor, table):
            owner_cursor.execute(f"UPDATE {table} SET {change} WHERE {key} = %s", [decision_id])
        after = digest(shop.world)
        assert rows_of(shop.world).versions != versions, change
        assert after == archived(shop.world), change
        assert (after == before) is (change == "at = at"), change


CHANGES = (
    ("governance_approval", "requested_by = 'another'"),
    ("governance_approval_token", "status = 'revoked'"),
    ("governance_review", "person_id = person_id"),
    ("billing_reservation", "taken_usd = taken_usd + 0.5"),
    ("billing_charge", "project_id = 'another'"),
    ("billing_settlement", "actual_usd = actual_usd + 1"),
    ("billing_reservation_line", "amount_usd = amount_usd + 1"),
)


def test_every_row_behind_a_cell_has_its_version(shop: Shop, owner_cursor: Any) -> None:
    asked = shop.ask("350.00", environment="prod", resource_reference="given")
    approval = asked["approval_request_id"]
    approve(shop.world.owner, approval, reason="yes")
    claimed = shop.api.post(f"approvals/{approval}/token", {}, key=shop.world.key)
    assert claimed.status_code == 200, claimed.content
    for table, change in CHANGES:
        before, versions = digest(shop.world), rows_of(shop.world).versions.split(" ")
        guarded = table in {"governance_review", "billing_settlement"}
        with unguarded(owner_cursor, table) if guarded else nullcontext():
            owner_cursor.execute(
                f"UPDATE {table} SET {change} WHERE tenant_id = %s", [shop.world.id]
            )
        assert owner_cursor.rowcount, table
        after, changed = digest(shop.world), rows_of(shop.world).versions.split(" ")
        assert changed[0] == versions[0], table
        assert changed[1] != versions[1], table
        assert after == archived(shop.world), table
        assert (after == before) is (table == "governance_review"), table


def test_a_long_part_of_the_chain_is_not_gathered_and_the_memory_is_bounded(
    shop: Shop, other_tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in (10, 20, 30):
        export(shop.world, limit=limit).finish()
    memory: Any = counting._memory
    assert [scope.limit for scope in memory._kept] == [20, 30]
    export(shop.world, limit=20).finish()
    export(other_tenant, limit=20).finish()
    assert [scope.tenant_id for scope in memory._kept] == [shop.world.id, other_tenant.id]

    at_once = digest(shop.world)
    monkeypatch.setattr(queries, "_SMALL_ENTRIES", 3)
    assert find_rows(scope_of(shop.world), known=None) is None
    assert digest(shop.world) == at_once == archived(shop.world)
