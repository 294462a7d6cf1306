"""Nothing that was appended can be changed, removed or forged by the application's own role.

After every refusal the rows are compared with what they were.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection, connections, models
from psycopg import sql
from pytest_django import DjangoDbBlocker

from billing.models import BudgetAlert, CostIngestion, SettlementRecord
from enforcement.ledger.domain import (
    COLUMNS,
    ChainVerifier,
    EntryFacts,
    Fault,
    Head,
    chain,
    hash_entry,
)
from enforcement.ledger.models import AppendOnlyError
from enforcement.ledger.operations import append
from enforcement.ledger.queries import find_head, lock_head, stream_entries
from enforcement.models import Decision, LedgerEntry, LedgerHead
from governance.models import AuditEntry, ForcedMode, PolicyVersion, Review
from tests.factories.rows import append_entries, build_facts, plant_rows
from tests.factories.tenants import World, create_world
from valdrix.kernel.db import (
    NotInTransaction,
    reading,
    snapshot_reading,
    sqlstate_of,
    transaction,
)

APPEND_ONLY = "VX002"
NOT_THE_NEXT_ENTRY = "VX003"
NOT_PERMITTED = "42501"

APPEND_ONLY_MODELS = (
    LedgerEntry,
    Decision,
    PolicyVersion,
    ForcedMode,
    AuditEntry,
    SettlementRecord,
    CostIngestion,
    BudgetAlert,
    Review,
)

each_append_only_table = pytest.mark.parametrize(
    "model", APPEND_ONLY_MODELS, ids=lambda model: model._meta.db_table
)


@pytest.fixture
def planted(tenant: World) -> World:
    """Give a tenant with rows everywhere and three more ledger entries."""
    return plant_history(tenant)


def plant_history(tenant: World) -> World:
    plant_rows(tenant)
    append_entries(tenant.id, [build_facts(amount_usd=Decimal(f"{n}.0000")) for n in range(3)])
    return tenant


@pytest.fixture(scope="module")
def lasting(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> World:
    """Give one tenant with rows everywhere to all tests that see nothing change in it."""
    with django_db_blocker.unblock():
        return plant_history(create_world())


@contextmanager
def refused(*sqlstates: str) -> Iterator[None]:
    """Expect the database to refuse what the block does, with one of these SQLSTATEs."""
    with pytest.raises(DatabaseError) as caught:
        yield
    assert sqlstate_of(caught.value) in sqlstates, caught.value


@contextmanager
def nothing_changes(tenant: World) -> Iterator[None]:
    """Assert that every append-only row, the chain and its triggers are the same after the block."""
    before = everything(tenant)
    assert all(rows for rows in before[0].values()), "nothing was planted"
    yield
    assert everything(tenant) == before
    assert find_fault(tenant.id) is None


def everything(tenant: World) -> tuple[dict[str, list[Any]], list[Any]]:
    rows = {}
    with reading(tenant.id):
        for model in (*APPEND_ONLY_MODELS, LedgerHead):
            table = model._meta.db_table
            rows[table] = fetch_all(f"SELECT t::text FROM {table} t ORDER BY 1")
        triggers = fetch_all(
            "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname"
        )
    return rows, triggers


def find_fault(tenant_id: uuid.UUID) -> Fault | None:
    """Verify a tenant's chain up to its head; return the first fault."""
    verifier = ChainVerifier(tenant_id)
    with snapshot_reading(tenant_id):
        for entry, columns in stream_entries(tenant_id):
            fault = verifier.check(entry, columns)
            if fault is not None:
                return fault
        head = find_head(tenant_id)
    if verifier.head != (head or Head(0, bytes(32))):
        return Fault(verifier.head.sequence + 1, "entries up to the head are missing")
    return None


def execute(statement: Any, parameters: Any = None) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.rowcount


def fetch_all(statement: str, parameters: Any = None) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def a_column(model: type[models.Model]) -> str:
    """Return a text column of a model, for a change that would be noticed."""
    return next(
        field.column
        for field in model._meta.local_concrete_fields
        if isinstance(field, models.TextField | models.CharField) and not field.primary_key
    )


# What every append-only table refuses, as SQL. {table}, {column} and {pk} are filled in.
STATEMENTS = {
    "update": "UPDATE {table} SET {column} = 'forged'",
    "update that changes nothing": "UPDATE {table} SET {column} = {column}",
    "delete": "DELETE FROM {table}",
    "truncate": "TRUNCATE {table}",
    "truncate with what refers to it": "TRUNCATE {table} CASCADE",
    "upsert": (
        "INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM {table}"
        " ON CONFLICT ({pk}) DO UPDATE SET {column} = 'forged'"
    ),
    "merge": ("MERGE INTO {table} t USING {table} s ON t.{pk} = s.{pk} WHEN MATCHED THEN DELETE"),
    "disable triggers": "ALTER TABLE {table} DISABLE TRIGGER ALL",
    "disable own triggers": "ALTER TABLE {table} DISABLE TRIGGER USER",
    "drop the trigger": "DROP TRIGGER {trigger} ON {table}",
    "add a rule": "CREATE RULE quiet AS ON UPDATE TO {table} DO INSTEAD NOTHING",
    "add a trigger": (
        "CREATE TRIGGER a_first BEFORE INSERT ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    ),
    "replace the trigger's function": (
        "CREATE OR REPLACE FUNCTION valdrix_refuse_change() RETURNS trigger"
        " LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
    ),
    "be a replica": "SET LOCAL session_replication_role = replica",
    "drop the table": "DROP TABLE {table}",
    "drop a column": "ALTER TABLE {table} DROP COLUMN {column}",
}


@each_append_only_table
@pytest.mark.parametrize("kind", STATEMENTS)
def test_sql_is_refused(model: type[models.Model], kind: str, lasting: World) -> None:
    table = model._meta.db_table
    statement = sql.SQL(STATEMENTS[kind]).format(
        table=sql.Identifier(table),
        column=sql.Identifier(a_column(model)),
        pk=sql.Identifier(model._meta.pk.column),
        trigger=sql.Identifier(f"{table}_no_change"),
    )
    with (
        nothing_changes(lasting),
        # The ledger's insert trigger refuses the upsert before its conflict is found.
        refused(NOT_PERMITTED, APPEND_ONLY, NOT_THE_NEXT_ENTRY),
        transaction(lasting.id),
    ):
        execute(statement)


ORM_CHANGES: dict[str, Callable[[models.Model], object]] = {
    "save": lambda row: row.save(),
    "save one field": lambda row: row.save(update_fields=[a_column(type(row))]),
    "delete": lambda row: row.delete(),
    "base save": lambda row: models.Model.save_base(row, force_update=True),
    "queryset update": lambda row: manager(row).update(**{a_column(type(row)): "forged"}),
    "queryset delete": lambda row: manager(row).all().delete(),
    "raw delete": lambda row: manager(row).all()._raw_delete("default"),
    "bulk update": lambda row: manager(row).bulk_update([row], [a_column(type(row))]),
    "bulk upsert": lambda row: manager(row).bulk_create(
        [row],
        update_conflicts=True,
        unique_fields=[row._meta.pk.name],
        update_fields=[a_column(type(row))],
    ),
    "update or create": lambda row: manager(row).update_or_create(
        pk=row.pk, defaults={a_column(type(row)): "forged"}
    ),
    "base manager update": lambda row: type(row)._base_manager.update(
        **{a_column(type(row)): "forged"}
    ),
    "base manager delete": lambda row: type(row)._base_manager.all()._raw_delete("default"),
}


def manager(row: models.Model) -> Any:
    return type(row)._default_manager


@each_append_only_table
@pytest.mark.parametrize("kind", ORM_CHANGES)
def test_the_orm_is_refused(model: type[models.Model], kind: str, lasting: World) -> None:
    with nothing_changes(lasting):
        with reading(lasting.id):
            row = model._default_manager.first()
        setattr(row, a_column(model), "forged")
        with pytest.raises((DatabaseError, AppendOnlyError)) as caught, transaction(lasting.id):
            ORM_CHANGES[kind](row)
        if isinstance(caught.value, DatabaseError):
            state = sqlstate_of(caught.value)
            assert state in {NOT_PERMITTED, APPEND_ONLY, NOT_THE_NEXT_ENTRY}, caught.value


@pytest.mark.parametrize("kind", ["create", "bulk create", "get or create", "save", "base save"])
def test_the_orm_cannot_append_to_the_ledger_either(kind: str, lasting: World) -> None:
    entry = LedgerEntry(
        tenant_id=lasting.id, sequence=5, canonical="{}", prev_hash=bytes(32), entry_hash=bytes(32),
        event="forged", at=datetime.now(UTC), principal="user:1", reason_codes=[],
    )  # fmt: skip
    attempts: dict[str, Callable[[], object]] = {
        "create": lambda: LedgerEntry.objects.create(tenant_id=lasting.id),
        "bulk create": lambda: LedgerEntry.objects.bulk_create([entry]),
        "get or create": lambda: LedgerEntry.objects.get_or_create(sequence=99),
        "save": entry.save,
        "base save": lambda: models.Model.save_base(entry),
    }
    with (
        nothing_changes(lasting),
        pytest.raises((DatabaseError, AppendOnlyError)),
        transaction(lasting.id),
    ):
        attempts[kind]()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE enforcement_ledger_head SET sequence = sequence + 1",
        "UPDATE enforcement_ledger_head SET entry_hash = decode(repeat('00', 32), 'hex')",
        "DELETE FROM enforcement_ledger_head",
        "TRUNCATE enforcement_ledger_head",
        "INSERT INTO enforcement_ledger_head SELECT * FROM enforcement_ledger_head",
        (
            "INSERT INTO enforcement_ledger_head SELECT * FROM enforcement_ledger_head"
            " ON CONFLICT (tenant_id) DO UPDATE SET sequence = 0"
        ),
        "SELECT enforcement_chain_ledger_entry()",
    ],
)
def test_the_head_cannot_be_moved(statement: str, lasting: World) -> None:
    # 0A000: a trigger's function cannot be called by itself.
    with (
        nothing_changes(lasting),
        refused(NOT_PERMITTED, "0A000"),
        transaction(lasting.id),
    ):
        execute(statement)


@dataclass(frozen=True)
class Forged:
    """One row for the ledger, as a forger would send it."""

    tenant_id: uuid.UUID
    canonical: str
    prev_hash: bytes
    entry_hash: bytes

    def insert(self) -> None:
        execute(
            "INSERT INTO enforcement_ledger_entry (tenant_id, canonical, prev_hash, entry_hash)"
            " VALUES (%s, %s, %s, %s)",
            [self.tenant_id, self.canonical, self.prev_hash, self.entry_hash],
        )


def forge(tenant_id: uuid.UUID, head: Head, facts: EntryFacts | None = None) -> Forged:
    """Build an entry that follows a head, with a hash that is right for it."""
    (entry,) = chain(tenant_id, head, [facts or build_facts()])
    return Forged(tenant_id, entry.canonical, entry.prev_hash, entry.entry_hash)


def head_of(tenant: World) -> Head:
    """Return the end of a tenant's chain, whichever tenant is set."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            "SELECT sequence, entry_hash FROM enforcement_ledger_head WHERE tenant_id = %s",
            [tenant.id],
        )
        sequence, entry_hash = cursor.fetchone()
    return Head(sequence, bytes(entry_hash))


def with_member(head: Head, entry: Forged, **members: Any) -> Forged:
    """Change members of the canonical entry, and make the hash right for the change."""
    canonical = json.dumps(json.loads(entry.canonical) | members)
    return Forged(
        entry.tenant_id, canonical, entry.prev_hash, hash_entry(head.entry_hash, canonical.encode())
    )


FORGERIES: dict[str, Callable[[World, World, Head], Forged]] = {
    "a place too far": lambda own, _, head: forge(own.id, Head(head.sequence + 1, head.entry_hash)),
    "a place already taken": lambda own, _, head: forge(
        own.id, Head(head.sequence - 1, head.entry_hash)
    ),
    "no place": lambda own, _, head: with_member(head, forge(own.id, head), sequence=None),
    "another entry before": lambda own, _, head: forge(
        own.id, Head(head.sequence, bytes([1]) * 32)
    ),
    "another entry before, under the right hash": lambda own, _, head: Forged(
        own.id, (right := forge(own.id, head)).canonical, bytes([1]) * 32, right.entry_hash
    ),
    "genesis again": lambda own, _, _head: forge(own.id, Head(0, bytes(32))),
    "another hash": lambda own, _, head: Forged(
        own.id, forge(own.id, head).canonical, head.entry_hash, bytes([1]) * 32
    ),
    "another text than was hashed": lambda own, _, head: Forged(
        own.id,
        forge(own.id, head, build_facts(decision="ALLOW")).canonical,
        head.entry_hash,
        forge(own.id, head, build_facts(decision="DENY")).entry_hash,
    ),
    "no hash": lambda own, _, head: Forged(
        own.id, forge(own.id, head).canonical, head.entry_hash, b""
    ),
    "another tenant": lambda _, foreign, head: forge(foreign.id, head),
    "another tenant, in its right place": lambda _, foreign, _head: forge(
        foreign.id, head_of(foreign)
    ),
    "another tenant in the text": lambda own, foreign, head: with_member(
        head, forge(own.id, head), tenant_id=str(foreign.id)
    ),
    "no tenant in the text": lambda own, _, head: with_member(
        head, forge(own.id, head), tenant_id=None
    ),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forged_entry_is_refused(kind: str, lasting: World, other_tenant: World) -> None:
    plant_rows(other_tenant)
    with (
        nothing_changes(lasting),
        nothing_changes(other_tenant),
        refused(NOT_THE_NEXT_ENTRY),
        transaction(lasting.id),
    ):
        FORGERIES[kind](lasting, other_tenant, lock_head()).insert()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "not json", '{"sequence": "many"}'])
def test_an_entry_that_is_no_entry_is_refused(text: str, lasting: World) -> None:
    with reading(lasting.id):
        head = find_head(lasting.id)
    assert head is not None
    forged = Forged(lasting.id, text, head.entry_hash, hash_entry(head.entry_hash, text.encode()))
    # 22P02 and 22023: not JSON, or not of the form that the columns are taken from.
    with (
        nothing_changes(lasting),
        refused(NOT_THE_NEXT_ENTRY, "22P02", "22023"),
        transaction(lasting.id),
    ):
        forged.insert()


def test_an_entry_cannot_come_through_copy(lasting: World) -> None:
    statement = (
        "COPY enforcement_ledger_entry (tenant_id, canonical, prev_hash, entry_hash) FROM STDIN"
    )
    # 0A000: PostgreSQL has no COPY into a table with row-level security.
    with nothing_changes(lasting), refused("0A000"), transaction(lasting.id):
        execute(statement)


def test_columns_come_from_what_was_hashed(planted: World) -> None:
    with transaction(planted.id):
        honest = forge(planted.id, lock_head(), build_facts(decision="DENY", project_id="shop"))
        execute(
            "INSERT INTO enforcement_ledger_entry"
            " (tenant_id, canonical, prev_hash, entry_hash,"
            "  sequence, decision, project_id, amount_usd, reason_codes, at)"
            " VALUES (%s, %s, %s, %s, 4711, 'ALLOW', 'other', 7, '{lied}', '2020-01-01Z')",
            [honest.tenant_id, honest.canonical, honest.prev_hash, honest.entry_hash],
        )
    with reading(planted.id):
        stored = LedgerEntry.objects.order_by("-sequence")[0]
    assert (stored.sequence, stored.decision, stored.project_id) == (5, "DENY", "shop")
    assert stored.amount_usd is None
    assert stored.reason_codes == ["within_budget"]
    assert stored.at.year > 2020
    assert find_fault(planted.id) is None


def test_appending_needs_a_transaction(planted: World) -> None:
    with nothing_changes(planted), pytest.raises(NotInTransaction):
        append(tenant_id=planted.id, facts=[build_facts()])


def test_an_entry_of_a_failed_use_case_leaves_no_gap(planted: World) -> None:
    def fail_after_appending() -> None:
        with transaction(planted.id):
            append(tenant_id=planted.id, facts=[build_facts()])
            raise InterruptedError

    with nothing_changes(planted), pytest.raises(InterruptedError):
        fail_after_appending()
    append_entries(planted.id, [build_facts()])
    with reading(planted.id):
        places = list(LedgerEntry.objects.order_by("sequence").values_list("sequence", flat=True))
    assert places == [1, 2, 3, 4, 5]


def test_even_the_owner_cannot_change_a_row_by_mistake(
    planted: World, owner_cursor: psycopg.Cursor
) -> None:
    with nothing_changes(planted):
        for model in APPEND_ONLY_MODELS:
            table = sql.Identifier(model._meta.db_table)
            for statement in (
                "UPDATE {} SET tenant_id = tenant_id",
                "DELETE FROM {}",
                "TRUNCATE {}",
            ):
                with pytest.raises(psycopg.Error) as caught:
                    owner_cursor.execute(sql.SQL(statement).format(table))
                assert caught.value.sqlstate == APPEND_ONLY, (table, statement)


def test_the_triggers_fire_for_a_replica_too(planted: World, superuser_dsn: str) -> None:
    with (
        nothing_changes(planted),
        psycopg.connect(superuser_dsn, autocommit=True) as superuser,
    ):
        superuser.execute("SET session_replication_role = replica")
        for model in APPEND_ONLY_MODELS:
            table = sql.Identifier(model._meta.db_table)
            for statement in (
                "UPDATE {} SET tenant_id = tenant_id",
                "DELETE FROM {}",
                "TRUNCATE {}",
            ):
                with pytest.raises(psycopg.Error) as caught:
                    superuser.execute(sql.SQL(statement).format(table))
                assert caught.value.sqlstate == APPEND_ONLY, (table, statement)
        superuser.execute("SELECT set_config('valdrix.tenant', %s, false)", [str(planted.id)])
        forged = forge(planted.id, Head(40, bytes(32)))
        with pytest.raises(psycopg.Error) as caught:
            superuser.execute(
                "INSERT INTO enforcement_ledger_entry (tenant_id, canonical, prev_hash, entry_hash)"
                " VALUES (%s, %s, %s, %s)",
                [forged.tenant_id, forged.canonical, forged.prev_hash, forged.entry_hash],
            )
        assert caught.value.sqlstate == NOT_THE_NEXT_ENTRY


# What somebody could do who owns the tables, and where the verification finds it.


@contextmanager
def tampering(cursor: psycopg.Cursor) -> Iterator[None]:
    """Switch the ledger's triggers off for the block, as its owner can."""
    with cursor.connection.transaction():
        cursor.execute("ALTER TABLE enforcement_ledger_entry DISABLE TRIGGER USER")
        yield
        for trigger in (
            "enforcement_ledger_entry_no_change",
            "enforcement_ledger_entry_no_truncate",
            "enforcement_ledger_entry_chain",
        ):
            cursor.execute(f"ALTER TABLE enforcement_ledger_entry ENABLE ALWAYS TRIGGER {trigger}")


def test_an_untouched_chain_verifies(planted: World) -> None:
    assert find_fault(planted.id) is None


@pytest.mark.parametrize(
    ("change", "found_at"),
    [
        ("SET canonical = replace(canonical, 'within_budget', 'within_budge7')", 3),
        ("SET canonical = canonical || ' '", 3),
        ("SET entry_hash = decode(repeat('ab', 32), 'hex')", 3),
        ("SET prev_hash = decode(repeat('ab', 32), 'hex')", 3),
        # Whoever hashes the change as well is found at the entry that follows.
        (
            (
                "SET canonical = canonical || ' ',"
                " entry_hash = sha256(prev_hash || convert_to(canonical || ' ', 'UTF8'))"
            ),
            4,
        ),
        ("SET sequence = 40", 3),
    ],
)
def test_an_edited_entry_is_found(
    change: str, found_at: int, planted: World, owner_cursor: psycopg.Cursor
) -> None:
    with tampering(owner_cursor):
        owner_cursor.execute(
            f"UPDATE enforcement_ledger_entry {change} WHERE tenant_id = %s AND sequence = 3",
            [planted.id],
        )
        assert owner_cursor.rowcount == 1
    fault = find_fault(planted.id)
    assert fault is not None
    assert fault.sequence == found_at


@pytest.mark.parametrize("column", COLUMNS)
def test_an_edited_column_is_found(
    column: str, planted: World, owner_cursor: psycopg.Cursor
) -> None:
    field = LedgerEntry._meta.get_field(column)
    other = {
        "CharField": "'x'",
        "UUIDField": "'00000000-0000-0000-0000-000000000001'",
        "DecimalField": "0.0001",
        "DateTimeField": "'2020-01-01Z'",
        "ArrayField": "'{x}'",
        "IntegerField": "7",
        "PositiveIntegerField": "7",
    }[field.get_internal_type() if column != "reason_codes" else "ArrayField"]
    with tampering(owner_cursor):
        owner_cursor.execute(
            f"UPDATE enforcement_ledger_entry SET {column} = {other}"
            " WHERE tenant_id = %s AND sequence = 2",
            [planted.id],
        )
        assert owner_cursor.rowcount == 1
    fault = find_fault(planted.id)
    assert fault is not None
    assert fault.sequence == 2
    assert column in fault.reason


@pytest.mark.parametrize("place", [1, 2, 4])
def test_a_removed_entry_is_found(place: int, planted: World, owner_cursor: psycopg.Cursor) -> None:
    with tampering(owner_cursor):
        owner_cursor.execute(
            "DELETE FROM enforcement_ledger_entry WHERE tenant_id = %s AND sequence = %s",
            [planted.id, place],
        )
        assert owner_cursor.rowcount == 1
    fault = find_fault(planted.id)
    assert fault is not None
    assert fault.sequence == place


def test_another_tenant_s_chain_does_not_verify_as_one_s_own(
    planted: World, other_tenant: World
) -> None:
    verifier = ChainVerifier(other_tenant.id)
    with reading(planted.id):
        entry, columns = next(stream_entries(planted.id))
    fault = verifier.check(entry, columns)
    assert fault is not None
    assert fault.sequence == 1
