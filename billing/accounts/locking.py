"""The accounts that a gate request can touch: locked in primary-key order, then read."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from django.db import OperationalError, connection

from valdrix.kernel.db import sqlstate_of, transaction_required
from valdrix.kernel.metrics import GATE_LOCK_EVENTS
from valdrix.kernel.problems import Refused

_LOCK = """
SELECT id, kind FROM billing_account
 WHERE tenant_id = %(tenant)s AND (
       kind = 'exposure'
    OR (kind = 'budget' AND active AND project_id = %(project)s
        AND (environment IS NULL OR environment = %(environment)s)
        AND (team IS NULL OR team = %(team)s))
    OR (kind = 'grant' AND voided_at IS NULL AND remaining_usd > 0
        AND (expires_at IS NULL OR expires_at > %(now)s)
        AND (project_id IS NULL OR project_id = %(project)s)))
 ORDER BY id
"""

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


def lock_accounts(scope: AccountScope, *, now: datetime) -> list[uuid.UUID]:
    """Lock every account that a question can touch, ordered by primary key; return their ids.

    The tenant's exposure account is among them always, and is opened the first time.

    :raises GateLockTimeout: when ``lock_timeout`` runs out or a deadlock is broken.
    :raises GateLockContended: when even then there is no row to hold.
    """
    transaction_required()
    try:
        rows = _select(scope, now=now, locking=" FOR UPDATE")
        if not _holds_exposure(rows):
            with connection.cursor() as cursor:
                cursor.execute(_OPEN_EXPOSURE, [scope.tenant_id, now])
            rows = _select(scope, now=now, locking=" FOR UPDATE")
    except OperationalError as error:
        if sqlstate_of(error) not in _NOT_HAD:
            raise
        GATE_LOCK_EVENTS.labels("timeout").inc()
        raise GateLockTimeout("The accounts' locks were not had in time.") from error
    if not _holds_exposure(rows):
        GATE_LOCK_EVENTS.labels("contended").inc()
        raise GateLockContended("The accounts' locks are contended.")
    GATE_LOCK_EVENTS.labels("acquired").inc()
    return [account_id for account_id, _ in rows]


def _holds_exposure(rows: list[tuple[uuid.UUID, str]]) -> bool:
    return any(kind == "exposure" for _, kind in rows)


def find_accounts(scope: AccountScope, *, now: datetime) -> list[uuid.UUID]:
    """Return what :func:`lock_accounts` would lock, without locking: for dry runs."""
    return [account_id for account_id, _ in _select(scope, now=now, locking="")]


def _select(scope: AccountScope, *, now: datetime, locking: str) -> list[tuple[uuid.UUID, str]]:
    parameters: dict[str, Any] = {
        "tenant": scope.tenant_id,
        "project": scope.project_id,
        "environment": scope.environment,
        "team": scope.team,
        "now": now,
    }
    with connection.cursor() as cursor:
        cursor.execute(_LOCK + locking, parameters)
        rows: list[tuple[uuid.UUID, str]] = cursor.fetchall()
    return rows
