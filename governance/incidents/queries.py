"""Reads of incidents."""

from __future__ import annotations

import uuid

from django.db import connection

from governance.incidents.models import OPEN, Incident
from valdrix.kernel.db import transaction_required
from valdrix.kernel.problems import NotFound


def find_open_incidents(
    tenant_id: uuid.UUID, *, kind: str | None = None, limit: int = 100
) -> list[Incident]:
    """Return up to ``limit`` open incidents of a tenant, the one seen last first.

    :param kind: only incidents of this kind; None means all.
    """
    rows = Incident.objects.filter(tenant_id=tenant_id, state=OPEN)
    if kind is not None:
        rows = rows.filter(kind=kind)
    return list(rows.order_by("-last_seen_at", "id")[:limit])


def find_incidents(
    tenant_id: uuid.UUID, *, state: str | None, before: uuid.UUID | None, limit: int
) -> list[Incident]:
    """Return up to ``limit`` incidents of a tenant, the newest first.

    :param state: only incidents in this state; None means all.
    :param before: the id that the list goes on after.
    """
    rows = Incident.objects.filter(tenant_id=tenant_id)
    if state is not None:
        rows = rows.filter(state=state)
    if before is not None:
        rows = rows.filter(id__lt=before)
    return list(rows.order_by("-id")[:limit])


def get_incident(tenant_id: uuid.UUID, incident_id: uuid.UUID) -> Incident:
    """Return one incident, open or resolved.

    :raises NotFound: when the tenant has no such incident.
    """
    incident = Incident.objects.filter(tenant_id=tenant_id, id=incident_id).first()
    if incident is None:
        raise NotFound("No such incident.")
    return incident


def lock_incident(tenant_id: uuid.UUID, incident_id: uuid.UUID) -> Incident:
    """Lock one incident and return it as it is under the lock.

    :raises NotFound: when the tenant has no such incident.
    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    rows = Incident.objects.select_for_update(of=("self",)).filter(tenant_id=tenant_id)
    incident = rows.filter(id=incident_id).first()
    if incident is None:
        raise NotFound("No such incident.")
    return incident


def count_open_of_all_tenants() -> int:
    """Return how many open incidents there are over all tenants: a number for operators, no rows."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT governance_open_incidents()")
        return int(cursor.fetchone()[0])
