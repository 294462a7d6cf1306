"""Reads of past decisions by people and pipelines."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from enforcement.decisions.models import Decision
from valdrix.kernel.problems import NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionFilter:
    """Which decisions are wanted; None lets all pass.

    :ivar since_at: decisions made at this moment or later.
    """

    projects: Collection[str] | None = None
    decision: str | None = None
    since_at: datetime | None = None


def get_decision(tenant_id: uuid.UUID, decision_id: uuid.UUID) -> Decision:
    """Return one decision with its stored response.

    :raises NotFound: when the tenant has no such decision.
    """
    decision = (
        Decision.objects.filter(tenant_id=tenant_id, id=decision_id)
        .only("id", "project_id", "response_json")
        .first()
    )
    if decision is None:
        raise NotFound("No such decision.")
    return decision


def find_decisions(
    tenant_id: uuid.UUID,
    wanted: DecisionFilter,
    *,
    before_id: uuid.UUID | None = None,
    limit: int,
) -> list[Decision]:
    """Return up to ``limit`` decisions with their stored responses, newest first.

    :param before_id: the decision after which, in that order, they start.
    """
    rows = Decision.objects.filter(tenant_id=tenant_id)
    if wanted.projects is not None:
        rows = rows.filter(project_id__in=wanted.projects)
    if wanted.decision is not None:
        rows = rows.filter(decision=wanted.decision)
    if wanted.since_at is not None:
        rows = rows.filter(created_at__gte=wanted.since_at)
    if before_id is not None:
        rows = rows.filter(id__lt=before_id)
    return list(rows.only("id", "project_id", "response_json").order_by("-id")[:limit])
