"""Writes of incidents."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from governance.audit.operations import Actor, record_change
from governance.incidents.models import OPEN, RESOLVED, Incident
from governance.incidents.queries import lock_incident
from valdrix.kernel.db import transaction, transaction_required

_OPEN = """
INSERT INTO governance_incident AS kept
    (id, tenant_id, kind, subject, detail, state, occurrences, opened_at, last_seen_at)
VALUES (%(id)s, %(tenant)s, %(kind)s, %(subject)s, %(detail)s, 'open', 1, %(at)s, %(at)s)
ON CONFLICT (tenant_id, kind, subject) WHERE state = 'open'
DO UPDATE SET occurrences = kept.occurrences + 1, last_seen_at = excluded.last_seen_at,
              detail = excluded.detail
"""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen to be wrong, with whom, and when."""

    incident_id: uuid.UUID
    tenant_id: uuid.UUID
    kind: str
    subject: str
    detail: str
    at: datetime


def open_incident(*, sighting: Sighting) -> None:
    """Open an incident, or count one more occurrence of the open one of its kind and subject.

    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    with connection.cursor() as cursor:
        cursor.execute(
            _OPEN,
            {
                "id": sighting.incident_id,
                "tenant": sighting.tenant_id,
                "kind": sighting.kind,
                "subject": sighting.subject,
                "detail": sighting.detail,
                "at": sighting.at,
            },
        )


def resolve_incident(*, actor: Actor, incident_id: uuid.UUID, reason: str) -> Incident:
    """Close an incident, in a transaction of its own, and say so in the audit log.

    Nothing is checked or repaired: what still is wrong opens a new one when it is seen again.
    An incident that is resolved already stays as it is, and nothing is written.

    :param reason: what was done about it; kept in the audit log.
    :raises NotFound: when the actor's tenant has no such incident.
    """
    with transaction(actor.tenant_id):
        incident = lock_incident(actor.tenant_id, incident_id)
        if incident.state != OPEN:
            return incident
        incident.state, incident.resolved_at = RESOLVED, actor.at
        incident.save(update_fields=["state", "resolved_at"])
        record_change(
            actor=actor,
            action="incident.resolve",
            subject=("incident", str(incident.id)),
            before={"state": OPEN},
            after={
                "state": RESOLVED,
                "kind": incident.kind,
                "subject": incident.subject,
                "reason": reason,
            },
        )
        return incident
