"""Opening an approval: the one write that a gate makes here."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
from django.db import connection
from psycopg.types.json import Jsonb

from governance.approvals.domain import Demand, Routing, RoutingStep, combine
from governance.approvals.models import APPROVED, CONSUMED, EXPIRED, OPEN, Approval
from governance.approvals.queries import lock_open
from valdrix.kernel.db import transaction_required

_OPEN = """
INSERT INTO governance_approval (id, tenant_id, decision_id, status, source, project_id,
    environment, action, change_fingerprint, change_is_computed, monthly_delta_usd,
    hourly_delta_usd, requested_by, requester_person_id, routing_rule_id, routing_trace, required,
    reviewer_roles, reviewer_groups_all, separate_requester, requested_at, ttl_seconds, expires_at)
VALUES (%(id)s, %(tenant)s, %(decision)s, 'pending', %(source)s, %(project)s, %(environment)s,
    %(action)s, %(fingerprint)s, %(computed)s, %(monthly)s, %(hourly)s, %(requested_by)s,
    %(person)s, %(rule)s, %(trace)s, %(required)s, %(roles)s, %(groups)s, %(separate)s, %(at)s,
    %(ttl)s, %(expires)s)
ON CONFLICT (tenant_id, source, change_fingerprint)
    WHERE status = 'pending' AND change_is_computed DO NOTHING
RETURNING id
"""
_FIND_PENDING = """
SELECT id, monthly_delta_usd, routing_rule_id, routing_trace, required, reviewer_roles,
       reviewer_groups_all, separate_requester
  FROM governance_approval
 WHERE tenant_id = %(tenant)s AND source = %(source)s AND change_fingerprint = %(fingerprint)s
   AND status = 'pending' AND change_is_computed FOR UPDATE
"""
# A joined approval is for the largest amount that was asked; an unknown amount is the largest.
_JOIN = """
UPDATE governance_approval
   SET monthly_delta_usd = CASE WHEN %(larger)s THEN %(monthly)s ELSE monthly_delta_usd END,
       hourly_delta_usd = CASE WHEN %(larger)s THEN %(hourly)s ELSE hourly_delta_usd END,
       routing_rule_id = %(rule)s, routing_trace = %(trace)s, required = %(required)s,
       reviewer_roles = %(roles)s, reviewer_groups_all = %(groups)s,
       separate_requester = %(separate)s
 WHERE id = %(id)s
"""


@dataclass(frozen=True, slots=True)
class ApprovalOrder:
    """What an approval is opened from; amounts in US dollars."""

    approval_id: uuid.UUID
    tenant_id: uuid.UUID
    decision_id: uuid.UUID
    source: str
    project_id: str
    environment: str
    action: str
    change_fingerprint: str
    change_is_computed: bool
    monthly_delta_usd: Decimal | None
    hourly_delta_usd: Decimal | None
    requested_by: str
    requester_person_id: int
    routing: Routing
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class OpenedApproval:
    """The approval a decision waits for: its own, or one it joined."""

    approval_id: uuid.UUID
    is_joined: bool


def open_approval(*, order: ApprovalOrder) -> OpenedApproval:
    """Open an approval, or join the one that is pending for the same computed change (SPEC 6).

    :raises NotInTransaction: outside the decision's transaction.
    """
    transaction_required()
    routing = order.routing
    demand = Demand(
        rule_id=routing.rule_id,
        trace=routing.trace,
        required=routing.required,
        reviewer_roles=tuple(routing.reviewer_roles),
        reviewer_groups_all=routing.reviewer_groups_all,
        separate_requester=routing.separate_requester,
    )
    parameters: dict[str, Any] = {
        "id": order.approval_id,
        "tenant": order.tenant_id,
        "decision": order.decision_id,
        "source": order.source,
        "project": order.project_id,
        "environment": order.environment,
        "action": order.action,
        "fingerprint": order.change_fingerprint,
        "computed": order.change_is_computed,
        "monthly": order.monthly_delta_usd,
        "hourly": order.hourly_delta_usd,
        "requested_by": order.requested_by,
        "person": order.requester_person_id,
        **_parameters_of(demand),
        "at": order.requested_at,
        "ttl": routing.ttl_seconds,
        "expires": order.requested_at + timedelta(seconds=routing.ttl_seconds),
    }
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, parameters)
        row = cursor.fetchone()
        if row is not None:
            return OpenedApproval(approval_id=row[0], is_joined=False)
        cursor.execute(_FIND_PENDING, parameters)
        row = cursor.fetchone()
        if row is None:
            raise ApprovalMoved("the pending approval of this change ended while it was joined")
        approval_id, held_usd, held = row[0], row[1], _demand_of(row[2:])
        is_larger = _is_larger(order.monthly_delta_usd, held_usd)
        combined = combine(held, demand, is_larger=is_larger)
        if is_larger or combined != held:
            joined = {"id": approval_id, "larger": is_larger, **_parameters_of(combined)}
            cursor.execute(_JOIN, {**parameters, **joined})
    return OpenedApproval(approval_id=approval_id, is_joined=True)


def _is_larger(asked_usd: Decimal | None, held_usd: Decimal | None) -> bool:
    return held_usd is not None and (asked_usd is None or asked_usd > held_usd)


def _parameters_of(demand: Demand) -> dict[str, Any]:
    return {
        "rule": demand.rule_id,
        "trace": Jsonb(
            [{"rule_id": step.rule_id, "outcome": step.outcome} for step in demand.trace]
        ),
        "required": demand.required,
        "roles": list(demand.reviewer_roles),
        "groups": list(demand.reviewer_groups_all),
        "separate": demand.separate_requester,
    }


def _demand_of(row: tuple[Any, ...]) -> Demand:
    rule_id, trace, required, roles, groups, is_separate = row
    return Demand(
        rule_id=rule_id,
        trace=tuple(RoutingStep(**step) for step in orjson.loads(trace)),
        required=required,
        reviewer_roles=tuple(roles),
        reviewer_groups_all=tuple(groups),
        separate_requester=is_separate,
    )


class ApprovalMoved(RuntimeError):
    """A pending approval ended between two statements; the gate fails safe and is asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """By what an approval is spent without a token: the decision that goes ahead, and its run."""

    tenant_id: uuid.UUID
    approval_id: uuid.UUID
    decision_id: uuid.UUID
    run_id: str | None
    at: datetime


def spend_approval(*, spending: Spending) -> None:
    """Spend a locked approval on a decision that goes ahead by it, once.

    :raises ApprovalMoved: when it was not approved any more.
    :raises NotInTransaction: outside the decision's transaction.
    """
    transaction_required()
    rows = Approval.objects.filter(
        tenant_id=spending.tenant_id, pk=spending.approval_id, status=APPROVED
    )
    moved = rows.update(
        status=CONSUMED,
        closed_at=spending.at,
        consumed_by_decision_id=spending.decision_id,
        consumed_run_id=spending.run_id,
    )
    if moved != 1:
        raise ApprovalMoved("the approval was spent or ended while a decision went ahead by it")


def expire_due(*, tenant_id: uuid.UUID, approval_id: uuid.UUID, at: datetime) -> bool:
    """Expire an approval whose time is over; return False when it is not open or not due.

    :raises NotInTransaction: outside a transaction.
    """
    approval = lock_open(tenant_id, approval_id)
    if approval is None or approval.expires_at > at:
        return False
    moved = Approval.objects.filter(pk=approval.pk, status__in=OPEN).update(
        status=EXPIRED, closed_at=at
    )
    return moved == 1
