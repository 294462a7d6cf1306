"""Spending an approval without a token: the computed change itself is the proof (SPEC 6)."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Final

from django.db import connection

from enforcement.gate.ask import Ask
from enforcement.gate.decision import GateContext, GivenApproval
from enforcement.gate.inputs import GateInput
from governance.approvals.operations import Spending, spend_approval
from governance.tokens.operations import revoke_tokens

# One that this very run has spent covers the run's later stages; it is taken before another.
# A part of a cost is under a ceiling only where it was a part that was approved.
_FROM: Final = """
  FROM governance_approval a
  JOIN billing_reservation r ON r.decision_id = a.held_decision_id AND r.state = 'active'
  JOIN enforcement_decision d ON d.id = a.held_decision_id
 WHERE a.tenant_id = {tenant} AND a.change_fingerprint = {fingerprint}
   AND a.change_is_computed AND a.source = {source}
   AND a.project_id = {project} AND a.environment = {environment}
   AND a.max_monthly_delta_usd >= {delta}
   AND ({state} = 'known' OR d.cost_state = {state})
   AND ((a.status = 'approved' AND a.expires_at > {now})
     OR (a.status = 'consumed' AND a.consumed_run_id = {run}))
"""
_DESCRIBED: Final = ("fingerprint", "source", "project", "environment", "delta", "state", "run")
_FIND: Final = (
    "SELECT a.id, a.max_monthly_delta_usd, a.status = 'consumed'"
    + _FROM.format(**{name: f"%({name})s" for name in (*_DESCRIBED, "tenant", "now")})
    + " ORDER BY a.status DESC, a.id LIMIT 1"
)
GIVEN: Final = "SELECT 1" + _FROM.format(
    tenant="p_tenant",
    now="p_now",
    **{name: f"p_change->'spends'->>'{name}'" for name in _DESCRIBED if name != "delta"},
    delta="(p_change->'spends'->>'delta')::numeric",
)
"""Whether an approval covers a question, for the database: by what :func:`describe` says."""


def describe(gate_input: GateInput) -> dict[str, Any] | None:
    """Return what an approval has to cover, or None for a question that none can.

    Only a computed change digest qualifies, and only a cost that is at or below the ceiling; an
    unknown cost is below none.
    """
    delta = gate_input.cost.monthly_delta_usd
    if not gate_input.change_digest_is_computed or delta is None:
        return None
    return {
        "fingerprint": gate_input.change_fingerprint,
        "source": gate_input.source,
        "project": gate_input.project_id,
        "environment": gate_input.environment,
        "delta": delta,
        "state": gate_input.cost.state,
        "run": gate_input.run_id,
    }


def lock_given(
    tenant_id: uuid.UUID, gate_input: GateInput, *, now: datetime
) -> GivenApproval | None:
    """Lock and return an approval that covers a question, or None.

    :param now: the clock, read after the accounts were locked.
    """
    return _find(tenant_id, gate_input, now, " FOR UPDATE OF a")


def find_given(
    tenant_id: uuid.UUID, gate_input: GateInput, *, now: datetime
) -> GivenApproval | None:
    """Return what :func:`lock_given` would, without locking: for dry runs."""
    return _find(tenant_id, gate_input, now, "")


def spend_given(ask: Ask, context: GateContext) -> tuple[uuid.UUID, ...]:
    """Spend the locked approval by which a decision goes ahead, unless its run has already.

    :return: the live token that nobody can spend any more, if there is one.
    """
    given = context.given
    assert given is not None
    if given.is_spent:
        return ()
    approval_id = uuid.UUID(given.approval_id)
    spend_approval(
        spending=Spending(
            tenant_id=ask.tenant_id,
            approval_id=approval_id,
            decision_id=ask.decision_id,
            run_id=context.gate_input.run_id,
            at=context.evaluated_at,
        )
    )
    return tuple(
        revoke_tokens(
            tenant_id=ask.tenant_id,
            approval_id=approval_id,
            by=context.gate_input.actor,
            at=context.evaluated_at,
        )
    )


def _find(
    tenant_id: uuid.UUID, gate_input: GateInput, now: datetime, locking: str
) -> GivenApproval | None:
    described = describe(gate_input)
    if described is None:
        return None
    with connection.cursor() as cursor:
        cursor.execute(_FIND + locking, {**described, "tenant": tenant_id, "now": now})
        row = cursor.fetchone()
    if row is None:
        return None
    approval_id, ceiling, is_spent = row
    return GivenApproval(
        approval_id=str(approval_id), max_monthly_delta_usd=ceiling, is_spent=is_spent
    )
