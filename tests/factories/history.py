"""A long history: real decisions cloned by the thousand, chained by the rule that the gate uses."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psycopg
from psycopg import sql

from enforcement.ledger.domain import COLUMNS, hash_entry
from valdrix.kernel.canonical import canonical_bytes
from valdrix.kernel.ids import new_id

_TABLES = ("enforcement_decision", "enforcement_ledger_entry")
_DECISION = """
INSERT INTO enforcement_decision ({columns})
SELECT {values} FROM clone k JOIN enforcement_decision d ON d.id = k.template
"""
_CHARGE = """
INSERT INTO billing_charge ({columns})
SELECT {values} FROM clone k JOIN billing_reservation r ON r.decision_id = k.template
  JOIN billing_charge d ON d.id = r.charge_id
"""
_RESERVATION = """
INSERT INTO billing_reservation ({columns})
SELECT {values} FROM clone k JOIN billing_reservation d ON d.decision_id = k.template
"""
_LINE = """
INSERT INTO billing_reservation_line ({columns})
SELECT {values} FROM clone k JOIN billing_reservation_line d ON d.reservation_id = k.template
"""
_CLONED = {
    "enforcement_decision": (_DECISION, {"id": "k.id", "created_at": "k.at"}),
    "billing_charge": (_CHARGE, {"id": "k.id", "family_id": "k.id"}),
    "billing_reservation": (_RESERVATION, {"decision_id": "k.id", "charge_id": "k.id"}),
    "billing_reservation_line": (_LINE, {"id": None, "reservation_id": "k.id"}),
}


def clone_decisions(
    cursor: psycopg.Cursor[Any], tenant_id: uuid.UUID, templates: Sequence[str], *, number: int
) -> None:
    """Commit ``number`` copies of a tenant's decisions with their entries and reservations.

    Kept totals are not moved: what this makes is a record, not a balance.

    :param cursor: the tables' owner's.
    """
    for table in _TABLES:
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    try:
        clones = _name_clones(cursor, templates, number)
        for table, (statement, replaced) in _CLONED.items():
            _insert(cursor, table, statement, replaced)
        _chain(cursor, tenant_id, clones)
        for table in _CLONED:
            cursor.execute(f"ANALYZE {table}")
        cursor.execute("ANALYZE enforcement_ledger_entry")
    finally:
        for table in _TABLES:
            for name in _triggers(cursor, table):
                cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def _name_clones(
    cursor: psycopg.Cursor[Any], templates: Sequence[str], number: int
) -> list[tuple[uuid.UUID, str, datetime]]:
    began = datetime.now(UTC)
    clones = [
        (new_id(), templates[place % len(templates)], began + timedelta(microseconds=place))
        for place in range(number)
    ]
    cursor.execute("CREATE TEMP TABLE clone (id uuid, template uuid, at timestamptz)")
    with cursor.copy("COPY clone FROM STDIN") as copy:
        for clone in clones:
            copy.write_row(clone)
    cursor.execute("ANALYZE clone")
    return clones


def _insert(
    cursor: psycopg.Cursor[Any], table: str, statement: str, replaced: dict[str, str | None]
) -> None:
    cursor.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND table_name = %s",
        [table],
    )
    columns = [name for (name,) in cursor.fetchall() if replaced.get(name, "") is not None]
    values = [replaced.get(name) or f'd."{name}"' for name in columns]
    quoted = ", ".join(f'"{name}"' for name in columns)
    cursor.execute(statement.format(columns=quoted, values=", ".join(values)))


def _chain(
    cursor: psycopg.Cursor[Any],
    tenant_id: uuid.UUID,
    clones: Sequence[tuple[uuid.UUID, str, datetime]],
) -> None:
    """Continue the tenant's chain with each clone's entries."""
    cursor.execute(
        "SELECT sequence, entry_hash FROM enforcement_ledger_head WHERE tenant_id = %s",
        [tenant_id],
    )
    head = cursor.fetchone()
    assert head is not None
    cursor.execute(
        "SELECT decision_id::text, canonical FROM enforcement_ledger_entry"
        " WHERE tenant_id = %s AND decision_id IS NOT NULL ORDER BY sequence",
        [tenant_id],
    )
    facts: dict[str, list[dict[str, Any]]] = {}
    for decision_id, canonical in cursor.fetchall():
        facts.setdefault(decision_id, []).append(orjson.loads(canonical))
    cursor.execute(
        "CREATE TEMP TABLE link (place bigint, canonical text, prev_hash bytea, entry_hash bytea)"
    )
    sequence, entry_hash = head
    with cursor.copy("COPY link FROM STDIN") as copy:
        for row in _links(clones, facts, (sequence, bytes(entry_hash))):
            copy.write_row(row)
            sequence, entry_hash = row[0], row[3]
    names = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    cells = sql.SQL(", ").join(sql.SQL("r.{}").format(sql.Identifier(name)) for name in COLUMNS)
    cursor.execute(
        sql.SQL(
            "INSERT INTO enforcement_ledger_entry"
            " (tenant_id, sequence, canonical, prev_hash, entry_hash, {names})"
            " SELECT r.tenant_id, w.place, w.canonical, w.prev_hash, w.entry_hash, {cells}"
            " FROM link w, jsonb_populate_record(NULL::enforcement_ledger_entry,"
            " w.canonical::jsonb) AS r ORDER BY w.place"
        ).format(names=names, cells=cells)
    )
    cursor.execute(
        "UPDATE enforcement_ledger_head SET sequence = %s, entry_hash = %s WHERE tenant_id = %s",
        [sequence, entry_hash, tenant_id],
    )


def _links(
    clones: Sequence[tuple[uuid.UUID, str, datetime]],
    facts: dict[str, list[dict[str, Any]]],
    head: tuple[int, bytes],
) -> Iterator[tuple[int, str, bytes, bytes]]:
    sequence, previous = head
    for identity, template, at in clones:
        for fact in facts[template]:
            sequence += 1
            moment = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            document = fact | {"decision_id": str(identity), "at": moment, "sequence": sequence}
            canonical = canonical_bytes(document)
            entry_hash = hash_entry(previous, canonical)
            yield sequence, canonical.decode(), previous, entry_hash
            previous = entry_hash


def _triggers(cursor: psycopg.Cursor[Any], table: str) -> list[str]:
    cursor.execute(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", [table]
    )
    return [name for (name,) in cursor.fetchall()]
