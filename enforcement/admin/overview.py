"""The console's landing page: a tenant's state at a glance, in a fixed number of statements."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from django.db.models import Count, Q
from django.urls import reverse

from billing.accounts.domain import BUDGET, EXPOSURE
from billing.models import Account, Subscription
from billing.plans.domain import FREE, MONTHLY_EXPOSURE_CEILING_USD
from enforcement.admin import labels
from enforcement.admin.accounts import attach_states, budget_bar, fill_badge, scope_of
from enforcement.decisions.models import DECISIONS
from enforcement.ledger.queries import find_head
from enforcement.models import Decision
from enforcement.notifications.queries import count_dead
from enforcement.review.queue import find_queue
from governance.approvals.models import PENDING
from governance.identity.domain import ADMIN, OWNER, Principal
from governance.incidents.queries import find_open_incidents
from governance.models import Approval, PolicyVersion
from governance.policies.domain import SOURCES, Policy
from governance.policies.environments import ENVIRONMENTS
from governance.policies.governing import GoverningPolicy
from governance.policies.queries import read_governing_policy
from valdrix.kernel.admin import Tenancy
from valdrix.kernel.admin_display import Bar, age, build_bar, delta_usd, short, usd, utc, words
from valdrix.kernel.money import ZERO

_COUNTED: Final = 10_000
_READ_BUDGETS: Final = 500
_SHOWN_BUDGETS: Final = 4
_LATEST: Final = 10
_SHOWN_INCIDENTS: Final = 3
_COUNTED_MINE: Final = 100
_SHOWN_MINE: Final = 5
_COUNTED_INCIDENTS: Final = 100


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for one person: how many, and the oldest of them."""

    count: int
    is_cut: bool
    oldest: Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Proof:
    """What stands behind the figures: open incidents, and the ledger's newest place."""

    incidents: Sequence[dict[str, Any]]
    more_incidents: int
    sequence: int
    digest: Any
    given_up: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What the landing page shows.

    :ivar policy: the live version's number, digest and publication, or None.
    :ivar mine: what waits for this person, the oldest first.
    :ivar pending_approvals: None for who may not see them.
    """

    today: str
    policy: dict[str, Any] | None
    modes: Sequence[dict[str, Any]]
    environments: Sequence[str]
    outcomes: Sequence[dict[str, Any]]
    decided_today: int
    is_cut: bool
    budgets: Sequence[dict[str, Any]]
    more_budgets: int
    exposure: dict[str, Any]
    latest: Sequence[dict[str, Any]]
    mine: Waiting
    pending_approvals: int | None
    proof: Proof | None


def build_overview(*, tenancy: Tenancy, principal: Principal, now: datetime) -> Overview:
    """Return the landing page's figures, inside the tenant's reading transaction."""
    tenant_id = tenancy.tenant_id
    governing = read_governing_policy(tenant_id, now)
    accounts = Account.objects.filter(tenant_id=tenant_id, kind__in=(BUDGET, EXPOSURE), active=True)
    # The exposure account sorts after budgets; read it first, so that no limit can cut it off.
    rows = attach_states(tenant_id, list(accounts.order_by("-kind", "id")[:_READ_BUDGETS]), now=now)
    budgets = [row for row in rows if row.kind == BUDGET]
    outcomes, total = _outcomes(tenant_id, now)
    sees_approvals = tenancy.role in {ADMIN, OWNER}
    return Overview(
        today=f"{now.astimezone(UTC):%A, %d %B %Y}",
        policy=_policy(tenant_id, governing),
        modes=_modes(governing),
        environments=ENVIRONMENTS,
        outcomes=outcomes,
        decided_today=total,
        is_cut=total >= _COUNTED,
        budgets=[_budget(row) for row in sorted(budgets, key=_fullness)[:_SHOWN_BUDGETS]],
        more_budgets=max(0, len(budgets) - _SHOWN_BUDGETS),
        exposure=_exposure(tenant_id, rows, governing.policy),
        latest=[_latest(row) for row in _newest(tenant_id)],
        mine=_mine(principal, now),
        pending_approvals=_pending_approvals(tenant_id) if sees_approvals else None,
        proof=_proof(tenant_id) if sees_approvals else None,
    )


def _policy(tenant_id: uuid.UUID, governing: GoverningPolicy) -> dict[str, Any] | None:
    rows = PolicyVersion.objects.filter(tenant_id=tenant_id, number=governing.version)
    version = rows.values("number", "published_at", "author", "comment").first()
    if version is None:
        return None
    return {
        "number": version["number"],
        "url": reverse("admin:governance_policyversion_change", args=[str(version["number"])]),
        "published": utc(version["published_at"]),
        "author": version["author"],
        "comment": version["comment"],
        "digest": short(governing.sha256),
    }


def _modes(governing: GoverningPolicy) -> list[dict[str, Any]]:
    """Return the mode of every source and environment, forced ones marked."""
    rows = []
    for source in SOURCES:
        cells = []
        for environment in ENVIRONMENTS:
            choice = governing.mode(source, environment)
            cells.append(
                {"badge": labels.mode_badge(choice.mode), "forced": choice.scope == "emergency"}
            )
        rows.append({"source": words(source), "cells": cells})
    return rows


def _outcomes(tenant_id: uuid.UUID, now: datetime) -> tuple[list[dict[str, Any]], int]:
    """Return today's decisions by outcome, of the newest 10,000 at most, and their number."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    newest = Decision.objects.filter(tenant_id=tenant_id).order_by("-id")[:_COUNTED]
    today = Q(created_at__gte=midnight)
    counted = newest.aggregate(
        **{name: Count("pk", filter=today & Q(decision=name)) for name in DECISIONS}
    )
    total = sum(counted.values())
    list_url = reverse("admin:enforcement_decision_changelist")
    return [
        {
            "name": labels.decision_label(name),
            "count": counted[name],
            "url": f"{list_url}?decision={name}",
            "bar": build_bar(
                [(labels.decision_tone(name), Decimal(counted[name]))],
                limit=Decimal(total),
                label=f"{counted[name]} of {total} decisions today",
            ),
        }
        for name in DECISIONS
    ], total


def _fullness(row: Any) -> tuple[Decimal, str]:
    """Return a budget's place: the fullest first."""
    used, limit = row.state.used_usd(with_shadow=False), row.state.limit_usd
    share = used / limit if limit else (Decimal(1) if used else ZERO)
    return -share, str(row.id)


def _budget(row: Any) -> dict[str, Any]:
    return {
        "name": scope_of(row),
        "url": reverse("admin:billing_account_change", args=[str(row.id)]),
        "badge": fill_badge(row.state, active=row.active),
        "bar": budget_bar(row.state),
        "used": usd(row.state.used_usd(with_shadow=False)),
        "limit": usd(row.state.limit_usd),
    }


def _exposure(tenant_id: uuid.UUID, rows: Sequence[Any], policy: Policy) -> dict[str, Any]:
    """Return what went ahead this month against the plan's ceiling, the policy's or the tier's."""
    state = next((row.state for row in rows if row.kind == EXPOSURE), None)
    used = state.used_usd(with_shadow=False) if state else ZERO
    ceiling = policy.limits.plan_monthly_ceiling_usd
    if ceiling is None:
        tiers = Subscription.objects.filter(tenant_id=tenant_id).values_list("tier", flat=True)
        ceiling = MONTHLY_EXPOSURE_CEILING_USD[tiers.first() or FREE]
    label = f"Exposure {usd(used)} of the plan ceiling of {usd(ceiling)} USD"
    bar: Bar = build_bar([("used", used)], limit=ceiling, label=label)
    return {"used": usd(used), "ceiling": usd(ceiling), "bar": bar}


def _newest(tenant_id: uuid.UUID) -> list[Decision]:
    rows = Decision.objects.filter(tenant_id=tenant_id).defer(
        "context_json", "outcome_json", "response_json"
    )
    return list(rows.order_by("-id")[:_LATEST])


def _latest(row: Decision) -> dict[str, Any]:
    return {
        "url": reverse("admin:enforcement_decision_change", args=[str(row.id)]),
        "time": utc(row.created_at),
        "badge": labels.decision_badge(row.decision),
        "project": row.project_id,
        "environment": row.environment,
        "action": row.action,
        "resource": row.resource_reference,
        "delta": delta_usd(row.monthly_delta_usd),
        "reason": labels.reason_title(row.reason_codes[0] if row.reason_codes else None),
    }


def _mine(principal: Principal, now: datetime) -> Waiting:
    found = find_queue(principal, limit=_COUNTED_MINE, now=now)
    return Waiting(
        count=len(found),
        is_cut=len(found) >= _COUNTED_MINE,
        oldest=[
            {
                "url": reverse("admin:governance_approval_change", args=[str(one.pk)]),
                "name": f"{one.project_id} / {one.environment}",
                "action": one.action,
                "delta": delta_usd(one.monthly_delta_usd),
                "age": age(now - one.requested_at),
                "left": age(one.expires_at - now),
            }
            for one in found[:_SHOWN_MINE]
        ],
    )


def _proof(tenant_id: uuid.UUID) -> Proof:
    found = find_open_incidents(tenant_id, limit=_COUNTED_INCIDENTS)
    head = find_head(tenant_id)
    return Proof(
        incidents=[
            {
                "url": reverse("admin:governance_incident_change", args=[str(one.id)]),
                "kind": words(one.kind),
                "seen": utc(one.last_seen_at),
            }
            for one in found[:_SHOWN_INCIDENTS]
        ],
        more_incidents=max(0, len(found) - _SHOWN_INCIDENTS),
        sequence=head.sequence if head else 0,
        digest=short(head.entry_hash.hex()) if head else None,
        given_up=count_dead(tenant_id, most=_COUNTED_INCIDENTS),
    )


def _pending_approvals(tenant_id: uuid.UUID) -> int:
    return Approval.objects.filter(tenant_id=tenant_id, status=PENDING)[:_COUNTED].count()
