"""Writes of events: one message a batch, a transaction of the store's own connection."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import psycopg

from telemetry.events.domain import Row
from telemetry.store.connection import Connection

_COLUMNS: Final = (
    ("id", "uuid"),
    ("tenant_id", "uuid"),
    ("kind", "text"),
    ("at", "timestamptz"),
    ("outcome", "text"),
    ("source", "text"),
    ("environment", "text"),
    ("duration_ms", "bigint"),
    ("amount_usd", "numeric"),
    ("attributes", "text"),
)
_TENANT_S_OWN: Final = (
    "SELECT set_config('valdrix.tenant', %s, true);"  # noqa: S608 - constants
    f"INSERT INTO telemetry_event ({', '.join(name for name, _ in _COLUMNS)})"
    " SELECT * FROM json_to_recordset(%s)"
    f" AS given({', '.join(f'{name} {kind}' for name, kind in _COLUMNS)})"
    " ON CONFLICT (id) DO NOTHING"
)
_NAMES: Final = tuple(name for name, _ in _COLUMNS)
_ROW_S_OWN: Final = ("22", "23")
"""Classes of SQLSTATE that say something about a row: data and constraints."""


@dataclass(slots=True)
class Written:
    """What became of a batch: events written, known already, and rejected by the table."""

    written: int = 0
    known: int = 0
    rejected: int = 0


def write_batch(*, store: Connection, rows: Sequence[Row]) -> Written:
    """Write a batch; when one row spoils it, each is written alone and only that one is rejected.

    :raises psycopg.Error: when the store failed; then nothing of the batch is kept.
    """
    try:
        return _write(store, rows)
    except psycopg.Error as error:
        if not _is_of_a_row(error):
            raise
    done = Written()
    for row in rows:
        try:
            one = _write(store, [row])
        except psycopg.Error as error:
            if not _is_of_a_row(error):
                raise
            one = Written(rejected=1)
        done.written += one.written
        done.known += one.known
        done.rejected += one.rejected
    return done


def read_switch(*, store: Connection) -> bool | None:
    """Return whether telemetry is switched on, or None where the switch cannot be read.

    :raises psycopg.Error: when the connection is lost.
    """
    try:
        row = store.execute("SELECT is_on FROM telemetry_switch WHERE id = 1").fetchone()
    except psycopg.Error:
        if store.closed:
            raise
        return None
    return None if row is None else bool(row[0])


def _write(store: Connection, rows: Sequence[Row]) -> Written:
    """Write rows of any tenants by one message, which is one transaction to the server."""
    values: list[str] = []
    sizes: list[int] = []
    for tenant_id, group in groupby(sorted(rows, key=_tenant), key=_tenant):
        own = [dict(zip(_NAMES, row, strict=True)) for row in group]
        values += (str(tenant_id), json.dumps(own, default=str))
        sizes.append(len(own))
    done = Written()
    with psycopg.ClientCursor(store) as cursor:
        cursor.execute(";".join([_TENANT_S_OWN] * len(sizes)), values)
        for size in sizes:
            cursor.nextset()  # Behind the tenant's name comes the count of its rows.
            done.written += cursor.rowcount
            done.known += size - cursor.rowcount
            cursor.nextset()
    return done


def _is_of_a_row(error: psycopg.Error) -> bool:
    return (error.sqlstate or "")[:2] in _ROW_S_OWN


def _tenant(row: Row) -> uuid.UUID:
    return row.tenant_id
