"""Connections to the store, and the names of the ways in which it can fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import psycopg
from django.conf import settings

Connection = psycopg.Connection[tuple[Any, ...]]

NOT_CONFIGURED: Final = "not_configured"
UNREACHABLE: Final = "store_unreachable"
TIMEOUT: Final = "timeout"
TABLE_MISSING: Final = "table_missing"
SCHEMA_MISMATCH: Final = "schema_mismatch"
NOT_PERMITTED: Final = "not_permitted"
FAILED: Final = "store_failed"
_REASONS: Final = {
    "57014": TIMEOUT,
    "55P03": TIMEOUT,
    "42P01": TABLE_MISSING,
    "42703": SCHEMA_MISMATCH,
    "42804": SCHEMA_MISMATCH,
    "42883": SCHEMA_MISMATCH,
    "42501": NOT_PERMITTED,
}
_CONNECT_SECONDS: Final = 2


class NotConfigured(Exception):
    """This process was given no way into the store."""


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How long one use of the store may wait, in milliseconds."""

    statement_timeout_ms: int
    lock_timeout_ms: int
    is_read_only: bool = False


WRITING: Final = StoreLimits(statement_timeout_ms=2_000, lock_timeout_ms=300)
CLEANING: Final = StoreLimits(statement_timeout_ms=5_000, lock_timeout_ms=300)


def open_store(limits: StoreLimits) -> Connection:
    """Open a connection in autocommit mode; the caller closes it.

    :raises NotConfigured: when neither a URL nor a password of the role is set.
    :raises psycopg.Error: when the store does not answer within two seconds.
    """
    given = settings.TELEMETRY_STORE
    if given is None:
        raise NotConfigured
    main = settings.DATABASES["default"]
    # What is not given for the store is as it is for the database of truth, read at this moment.
    where = {"host": main["HOST"], "port": main["PORT"], "dbname": main["NAME"], **given}
    connection = psycopg.connect(
        **{name: value for name, value in where.items() if value},
        autocommit=True,
        connect_timeout=_CONNECT_SECONDS,
        application_name="valdrix-telemetry",
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=2,
        tcp_user_timeout=3_000,
    )
    try:
        connection.execute(
            "SELECT set_config('statement_timeout', %s, false),"
            " set_config('lock_timeout', %s, false),"
            " set_config('idle_in_transaction_session_timeout', '5000', false),"
            " set_config('synchronous_commit', 'off', false),"
            " set_config('default_transaction_read_only', %s, false)",
            [
                str(limits.statement_timeout_ms),
                str(limits.lock_timeout_ms),
                "on" if limits.is_read_only else "off",
            ],
        )
    except BaseException:
        connection.close()
        raise
    return connection


def reason_of(error: BaseException) -> str:
    """Return the name of how the store failed."""
    if isinstance(error, NotConfigured):
        return NOT_CONFIGURED
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str) and not state.startswith(("08", "57P", "53")):
        return _REASONS.get(state, FAILED)
    if isinstance(error, psycopg.OperationalError | OSError):
        return UNREACHABLE
    return FAILED
