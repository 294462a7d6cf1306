"""Reads of the audit log."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q

from governance.audit.models import AuditEntry


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which changes to show; None leaves that member open."""

    object_type: str | None = None
    object_id: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class AuditPlace:
    """An entry's place in the log's order, newest first."""

    at: datetime
    entry_id: uuid.UUID


def find_changes(
    tenant_id: uuid.UUID, wanted: AuditFilter, *, after: AuditPlace | None = None, limit: int
) -> list[AuditEntry]:
    """Return up to ``limit`` administrative changes, newest first.

    :param after: the place after which, in that order, they start.
    """
    rows = AuditEntry.objects.filter(tenant_id=tenant_id)
    if wanted.object_type is not None:
        rows = rows.filter(object_type=wanted.object_type)
    if wanted.object_id is not None:
        rows = rows.filter(object_id=wanted.object_id)
    if wanted.actor is not None:
        rows = rows.filter(actor=wanted.actor)
    if after is not None:
        # The first condition alone lets the index find the place.
        rows = rows.filter(at__lte=after.at).filter(Q(at__lt=after.at) | Q(pk__lt=after.entry_id))
    return list(rows.order_by("-at", "-pk")[:limit])
