"""The accounts that a gate request can touch: locked in primary-key order, then read."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from django.db import DatabaseError, OperationalError, connection

from valdrix.kernel.db import Rows, sqlstate_of, transaction_required
from valdrix.kernel.metrics import GATE_LOCK_EVENTS
from valdrix.kernel.problems import Refused

_SELECT = "SELECT id, kind FROM billing_gate_accounts(%s, %s, %s, %s, %s, %s)"

_NOT_HAD = frozenset({"55P03", "40P01"})

_OPEN_EXPOSURE = """
INSERT INTO billing_account (id, tenant_id, kind, created_at, created_by, pending_usd,
    shadow_pending_usd, active, basis, total_usd, remaining_usd, reserved_usd, consumed_usd,
    priority, reason)
VALUES (gen_random_uuid(), %s, 'exposure', %s, 'system:gate', 0, 0, true, 'run_rate', 0, 0, 0, 0,
    100, '')
ON CONFLICT DO NOTHING
"""


class GateLockTimeout(Refused):
    """The accounts were not had within the lock's time-out (409 inside; a gate fails safe)."""

    code = "gate_lock_timeout"


class GateLockContended(Refused):
    """The lock statement came back with no row to hold (409 inside; a gate fails safe)."""

    code = "gate_lock_contended"


class AccountScope:
    """Which accounts a question touches: its tenant's that match project, environment and team."""

    __slots__ = ("environment", "project_id", "team", "tenant_id")

    def __init__(
        self, *, tenant_id: uuid.UUID, project_id: str, environment: str, team: str | None
    ) -> None:
        self.tenant_id = tenant_id
        self.project_id = project_id
        self.environment = environment
        self.team = team

    @property
    def name(self) -> tuple[str, str, str | None]:
        """Return what tells it from the other scopes of its tenant."""
        return self.project_id, self.environment, self.team


def lock_accounts(
    scope: AccountScope, *, now: datetime, rows: Rows | None = None
) -> list[uuid.UUID]:
    """Lock every account that a question can touch, ordered by primary key; return their ids.

    The tenant's exposure account is among them always, and is opened the first time.

    :param rows: the ids and kinds of what a call sent ahead has locked.
    :raises GateLockTimeout: when ``lock_timeout`` runs out or a deadlock is broken.
    :raises GateLockContended: when even then there is no row to hold.
    """
    transaction_required()
    try:
        if rows is None:
            rows = _select(scope, now=now, locking=True)
        if not _holds_exposure(rows):
            with connection.cursor() as cursor:
                cursor.execute(_OPEN_EXPOSURE, [scope.tenant_id, now])
            rows = _select(scope, now=now, locking=True)
    except OperationalError as error:
        refuse_lock(error)
        raise
    if not _holds_exposure(rows):
        GATE_LOCK_EVENTS.labels("contended").inc()
        raise GateLockContended("The accounts' locks are contended.")
    GATE_LOCK_EVENTS.labels("acquired").inc()
    return [account_id for account_id, _ in rows]


def refuse_lock(error: DatabaseError) -> None:
    """Count and refuse a lock that was not had in time; any other error passes.

    :raises GateLockTimeout: when ``lock_timeout`` ran out or a deadlock was broken.
    """
    if sqlstate_of(error) in _NOT_HAD:
        GATE_LOCK_EVENTS.labels("timeout").inc()
        raise GateLockTimeout("The accounts' locks were not had in time.") from error


def _holds_exposure(rows: Rows) -> bool:
    return any(kind == "exposure" for _, kind in rows)


def find_accounts(scope: AccountScope, *, now: datetime) -> list[uuid.UUID]:
    """Return what :func:`lock_accounts` would lock, without locking: for dry runs."""
    return [account_id for account_id, _ in _select(scope, now=now, locking=False)]


def _select(scope: AccountScope, *, now: datetime, locking: bool) -> Rows:
    with connection.cursor() as cursor:
        cursor.execute(_SELECT, _parameters(scope, now=now, locking=locking))
        rows: Rows = cursor.fetchall()
    return rows


def _parameters(scope: AccountScope, *, now: datetime, locking: bool) -> tuple[Any, ...]:
    return (scope.tenant_id, scope.project_id, scope.environment, scope.team, now, locking)
