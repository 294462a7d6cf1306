"""Reads of registered issuers."""

from __future__ import annotations

import uuid

from django.db.models import F, Func, TextField

from governance.identity.models import Membership
from governance.workloads.models import WorkloadIssuer

_MOST_OF_ONE_ISSUER = 500


def find_issuer(tenant_id: uuid.UUID, issuer_id: uuid.UUID) -> WorkloadIssuer | None:
    """Return one registered issuer of a tenant, revoked or not."""
    return WorkloadIssuer.objects.filter(tenant_id=tenant_id, pk=issuer_id).first()


def find_issuers(
    tenant_id: uuid.UUID, *, before_id: uuid.UUID | None = None, limit: int
) -> list[WorkloadIssuer]:
    """Return up to ``limit`` registered issuers, newest first, revoked ones included.

    :param before_id: the one after which, in that order, they start.
    """
    rows = WorkloadIssuer.objects.filter(tenant_id=tenant_id)
    if before_id is not None:
        rows = rows.filter(pk__lt=before_id)
    return list(rows.order_by("-pk")[:limit])


def find_speaking(tenant_id: uuid.UUID, issuer: str) -> tuple[list[WorkloadIssuer], str | None]:
    """Return what is registered for an issuer and in use, oldest first, and the tenant's plan.

    Whatever a person answers for stops when they leave or are deactivated.
    """
    people = Membership.objects.filter(tenant_id=tenant_id, user__is_active=True)
    rows = (
        WorkloadIssuer.objects.filter(
            tenant_id=tenant_id,
            issuer=issuer,
            revoked_at__isnull=True,
            person_id__in=people.values("user_id"),
        )
        .annotate(
            plan=Func(F("tenant_id"), function="governance_plan_of", output_field=TextField())
        )
        .order_by("pk")[:_MOST_OF_ONE_ISSUER]
    )
    return list(rows), next((row.plan for row in rows), None)
