"""Reads of charges; each one locks what it returns."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import connection

from billing.reservations.domain import Change, ChargeState
from valdrix.kernel.db import transaction_required
from valdrix.kernel.locks import LockClass, lock_keys

_COLUMNS = "c.id, c.family_id, c.held_usd, c.own_usd, c.taken_usd, c.change_is_computed"

_SAME_CHANGE = f"""
SELECT {_COLUMNS} FROM billing_charge c
 WHERE c.tenant_id = %(tenant)s AND c.state = 'active' AND c.is_shadow = %(shadow)s
   AND ((%(computed)s AND c.change_is_computed AND c.change_fingerprint = %(fingerprint)s
         AND c.confirmed_at IS NULL)
     OR (c.run_id = %(run)s AND c.project_id = %(project)s
         AND c.environment = %(environment)s AND c.action = %(action)s
         AND c.resource_reference = %(reference)s
         -- Within one run a stage without a digest asks about the change that has one.
         AND (c.change_digest IS NULL OR %(digest)s::text IS NULL
              OR c.change_digest = %(digest)s)))
 ORDER BY c.change_is_computed DESC, c.id LIMIT 1
"""  # noqa: S608 - columns are constants

_PARENT = f"""
SELECT {_COLUMNS} FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
 WHERE r.decision_id = %(decision)s AND r.tenant_id = %(tenant)s AND r.state = 'active'
   AND c.state = 'active' AND c.is_shadow = %(shadow)s
   AND c.project_id = %(project)s AND c.environment = %(environment)s
"""  # noqa: S608 - columns are constants


def lock_change(change: Change) -> None:
    """Wait for the locks of a change's own names, so that its charge is found or opened once."""
    lock_keys(LockClass.CHANGE_KEY, change.tenant_id, change.lock_names())


def lock_charge_of_change(change: Change) -> ChargeState | None:
    """Lock and return the active charge that already stands for a change, if there is one."""
    transaction_required()
    return _find_same(change, " FOR UPDATE OF c")


def find_charge_of_change(change: Change) -> ChargeState | None:
    """Return what :func:`lock_charge_of_change` would, without locking: for dry runs."""
    return _find_same(change, "")


def lock_charge_of_decision(change: Change, decision_id: uuid.UUID) -> ChargeState | None:
    """Lock and return the active charge of a named earlier decision.

    None unless the decision is of the same tenant, project and environment and still active.
    """
    transaction_required()
    return _find_parent(change, decision_id, " FOR UPDATE OF c")


def find_charge_of_decision(change: Change, decision_id: uuid.UUID) -> ChargeState | None:
    """Return what :func:`lock_charge_of_decision` would, without locking: for dry runs."""
    return _find_parent(change, decision_id, "")


def _find_same(change: Change, locking: str) -> ChargeState | None:
    if not change.is_computed and change.run_id is None:
        return None
    parameters = {
        "tenant": change.tenant_id,
        "shadow": change.is_shadow,
        "computed": change.is_computed,
        "fingerprint": change.fingerprint,
        "run": change.run_id,
        "project": change.project_id,
        "environment": change.environment,
        "action": change.action,
        "reference": change.resource_reference,
        "digest": change.digest,
    }
    return _one(_SAME_CHANGE + locking, parameters)


def _find_parent(change: Change, decision_id: uuid.UUID, locking: str) -> ChargeState | None:
    parameters = {
        "decision": decision_id,
        "tenant": change.tenant_id,
        "shadow": change.is_shadow,
        "project": change.project_id,
        "environment": change.environment,
    }
    return _one(_PARENT + locking, parameters)


def _one(sql: str, parameters: dict[str, Any]) -> ChargeState | None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        row = cursor.fetchone()
    return None if row is None else ChargeState(*row)
