"""Reads of the charges that a change may share."""

from __future__ import annotations

import uuid
from typing import Any, Final

from django.db import connection

from billing.accounts.locking import GateLockContended
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
              OR c.change_digest = %(digest)s)
         -- What was applied is over; only the stage that says so still belongs to it.
         AND (c.confirmed_at IS NULL OR %(closes)s)))
 -- The run's own charge of this very change, then the run's own, then another run's.
 ORDER BY coalesce(c.run_id = %(run)s AND c.change_digest IS NOT DISTINCT FROM %(digest)s, false)
          DESC, coalesce(c.run_id = %(run)s, false) DESC, c.id LIMIT 1
"""  # noqa: S608 - columns are constants

_PARENT = f"""
SELECT {_COLUMNS} FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
 WHERE r.decision_id = %(decision)s AND r.tenant_id = %(tenant)s AND r.state = 'active'
   AND c.state = 'active' AND c.is_shadow = %(shadow)s
   AND c.project_id = %(project)s AND c.environment = %(environment)s
"""  # noqa: S608 - columns are constants

_LOCK = """
SELECT id FROM billing_charge WHERE tenant_id = %s AND id = ANY(%s)
 ORDER BY (id <> family_id), id FOR UPDATE
"""
_ATTEMPTS: Final = 3


def lock_change(change: Change) -> None:
    """Wait for the locks of a change's own names, so that its charge is found or opened once."""
    lock_keys(LockClass.CHANGE_KEY, change.tenant_id, change.lock_names())


def lock_charges(
    change: Change, parent_decision_id: uuid.UUID | None
) -> tuple[ChargeState | None, ChargeState | None]:
    """Lock and return the active charges of a change and of a named earlier decision.

    First charges of families are locked before all others, as settlement does it, so that the
    two can wait for one another but never in a circle.

    :raises GateLockContended: when other charges take their place again and again.
    """
    transaction_required()
    for _ in range(_ATTEMPTS):
        found = find_charges(change, parent_decision_id)
        wanted = {id_ for state in found if state for id_ in (state.charge_id, state.family_id)}
        if not wanted:
            return found
        with connection.cursor() as cursor:
            cursor.execute(_LOCK, [change.tenant_id, list(wanted)])
        # Only now do they stand still: what was settled meanwhile is not found again.
        found = find_charges(change, parent_decision_id)
        if all(state is None or state.charge_id in wanted for state in found):
            return found
    raise GateLockContended("The change's reservations are contended.")


def find_charges(
    change: Change, parent_decision_id: uuid.UUID | None
) -> tuple[ChargeState | None, ChargeState | None]:
    """Return what :func:`lock_charges` would, without locking: for dry runs.

    The second is None unless the decision is of the same tenant, project and environment and
    still active.
    """
    parent = None
    if parent_decision_id is not None:
        parent = _find_parent(change, parent_decision_id)
    return _find_same(change), parent


def _find_same(change: Change) -> ChargeState | None:
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
        "closes": change.closes_run,
    }
    return _one(_SAME_CHANGE, parameters)


def _find_parent(change: Change, decision_id: uuid.UUID) -> ChargeState | None:
    parameters = {
        "decision": decision_id,
        "tenant": change.tenant_id,
        "shadow": change.is_shadow,
        "project": change.project_id,
        "environment": change.environment,
    }
    return _one(_PARENT, parameters)


def _one(sql: str, parameters: dict[str, Any]) -> ChargeState | None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        row = cursor.fetchone()
    return None if row is None else ChargeState(*row)
