"""Floors of the database: the rows of a real gate, written in one round trip and in seven.

The tables are copies with the same columns, constraints and indexes, without row-level security,
triggers and foreign keys: what durability and the amount of data alone allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from tests.benchmarks.measuring import Reading, run_pgbench

SCHEMA = "bench"
_TENANT = "('00000000-0000-7000-8000-' || lpad(({n})::bigint::text, 12, '0'))::uuid"

_ROWS = {
    "enforcement_idempotency_key": "decision_id = %(decision)s",
    "billing_account": "tenant_id = (SELECT tenant_id FROM enforcement_decision"
    " WHERE id = %(decision)s)",
    "billing_charge": "id = (SELECT charge_id FROM billing_reservation"
    " WHERE decision_id = %(decision)s)",
    "billing_reservation": "decision_id = %(decision)s",
    "billing_reservation_line": "reservation_id = %(decision)s",
    "enforcement_decision": "id = %(decision)s",
    "enforcement_ledger_entry": "decision_id = %(decision)s",
    "enforcement_ledger_head": "tenant_id = (SELECT tenant_id FROM enforcement_decision"
    " WHERE id = %(decision)s)",
}
"""The tables that a gate writes, and which rows of them one decision wrote."""

_COUNTED = (
    "enforcement_idempotency_key",
    "billing_reservation_line",
    "enforcement_ledger_entry",
)
"""Tables whose primary key the database counts."""


@dataclass(frozen=True)
class Floors:
    """Scripts of pgbench, and the database that they run on."""

    url: str
    folder: Path

    def run(self, name: str, *, clients: int, seconds: float) -> Reading:
        """Run one of the scripts ``floor_hot``, ``floor_spread`` and ``naive_…`` likewise."""
        # Of a statement it prepares, pgbench takes every colon in a JSON text for a variable.
        return run_pgbench(
            self.url,
            self.folder / f"{name}.sql",
            clients=clients,
            seconds=seconds,
            protocol="simple" if name.startswith("naive") else "prepared",
        )


def build_floors(url: str, folder: Path, *, decision_id: str, tenants: int) -> Floors:
    """Copy the tables, make the one-round-trip function, and write the scripts."""
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        rows = {
            table: connection.execute(
                f"SELECT * FROM {table} WHERE {where} ORDER BY 1",
                {"decision": decision_id},
            ).fetchall()
            for table, where in _ROWS.items()
        }
        _copy_tables(connection, rows, tenants)
        steps = _steps(connection, rows)
        connection.execute(_function(steps))
    for name, draw in (("hot", "1"), ("spread", f"random(2, {tenants + 1})")):
        chosen = f"\\set n {draw}\n"
        (folder / f"floor_{name}.sql").write_text(f"{chosen}SELECT {SCHEMA}.gate(:n);\n")
        (folder / f"naive_{name}.sql").write_text(chosen + _naive(steps))
    return Floors(url, folder)


def _copy_tables(connection: Any, rows: Mapping[str, list[Any]], tenants: int) -> None:
    connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    connection.execute(f"CREATE SCHEMA {SCHEMA}")
    for table in rows:
        connection.execute(f"CREATE TABLE {SCHEMA}.{table} (LIKE public.{table} INCLUDING ALL)")
    connection.execute(f"CREATE SEQUENCE {SCHEMA}.number CACHE 100")
    for number in range(1, tenants + 2):
        own = {"tenant_id": _TENANT.format(n=number)}
        for account in rows["billing_account"]:
            given = own | {"id": "gen_random_uuid()", "pending_usd": "0"}
            connection.execute(_insert(connection, "billing_account", account, given))
        head = rows["enforcement_ledger_head"][0]
        connection.execute(_insert(connection, "enforcement_ledger_head", head, own))
    connection.execute("ANALYZE")


def _steps(connection: Any, rows: Mapping[str, list[Any]]) -> dict[str, list[str]]:
    """Return the statements of one gate, by what they do; ``{t}``, ``{d}`` and ``{k}`` are open."""
    own, decision = {"tenant_id": "{t}"}, {"decision_id": "{d}"}

    def insert(table: str, place: int = 0, **given: str) -> str:
        values = own | given
        return _insert(connection, table, rows[table][place], values, braces=True)

    lines = [
        insert("billing_reservation_line", place, reservation_id="{d}", account_id="{d}")
        for place in range(len(rows["billing_reservation_line"]))
    ]
    entries = [
        insert(
            "enforcement_ledger_entry",
            place,
            **decision,
            sequence=f"nextval('{SCHEMA}.number')",
        )
        for place in range(len(rows["enforcement_ledger_entry"]))
    ]
    key = "{k}::text"
    charge = insert("billing_charge", id="{d}", family_id="{d}", run_id=key)
    reservation = insert("billing_reservation", **decision, charge_id="{d}")
    return {
        "claim": [
            insert("enforcement_idempotency_key", stored_key=key, **decision)
            + " ON CONFLICT DO NOTHING"
        ],
        "lock": [
            (
                f"SELECT id, pending_usd, monthly_limit_usd FROM {SCHEMA}.billing_account"
                " WHERE tenant_id = {t} ORDER BY id FOR UPDATE"
            )
        ],
        "charge": [
            (
                f"UPDATE {SCHEMA}.billing_account SET pending_usd = pending_usd + 0.5"
                " WHERE tenant_id = {t}"
            )
        ],
        "decision": [charge, reservation, *lines, insert("enforcement_decision", id="{d}")],
        "ledger": [
            *entries,
            (
                f"UPDATE {SCHEMA}.enforcement_ledger_head SET sequence = sequence + 1"
                " WHERE tenant_id = {t}"
            ),
        ],
    }


def _function(steps: Mapping[str, list[str]]) -> str:
    """Return the function that does everything in one call."""
    statements = [one for step in steps.values() for one in step]
    body = ";\n            ".join(
        one.replace("SELECT id,", "PERFORM id,", 1) if one.startswith("SELECT") else one
        for one in statements
    ).format(t="t", d="d", k="d")
    return f"""
        CREATE FUNCTION {SCHEMA}.gate(n bigint) RETURNS void LANGUAGE plpgsql AS $gate$
        DECLARE
            t uuid := {_TENANT.format(n="n")};
            d uuid := gen_random_uuid();
        BEGIN
            {body};
        END $gate$"""


def _naive(steps: Mapping[str, list[str]]) -> str:
    """Return the script of seven round trips: the same rows, a statement after the other."""
    t, d = _TENANT.format(n=":n"), "lpad(to_hex(:d::bigint), 32, '0')::uuid"
    trips = ["BEGIN", *(_as_one(step) for step in steps.values()), "COMMIT"]
    filled = [
        trip if place in {0, 6} else trip.format(t=t, d=d, k=d) for place, trip in enumerate(trips)
    ]
    return "\\set d random(1, 9223372036854775806)\n" + ";\n".join(filled) + ";\n"


def _as_one(statements: list[str]) -> str:
    """Return several writes as one statement, the way one round trip carries them."""
    *first, last = statements
    parts = ", ".join(f"s{place} AS ({one})" for place, one in enumerate(first))
    return f"WITH {parts} {last}" if first else last


def _insert(
    connection: Any, table: str, row: dict[str, Any], given: dict[str, str], *, braces: bool = False
) -> str:
    """Return the INSERT of one row, some of its columns given as SQL."""
    names, values = [], []
    for name, value in row.items():
        if name == "id" and table in _COUNTED:
            continue
        literal = sql.Literal(value).as_string(connection)
        if braces:
            literal = literal.replace("{", "{{").replace("}", "}}")
        names.append(name)
        values.append(given.get(name, literal))
    return f"INSERT INTO {SCHEMA}.{table} ({', '.join(names)}) VALUES ({', '.join(values)})"
