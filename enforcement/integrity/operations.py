"""Checking with consequences: what does not hold becomes an incident, and is never repaired."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Final

import orjson

from enforcement.integrity.domain import Finding, Report
from enforcement.integrity.queries import Progress, run_checks
from governance.incidents.operations import Sighting, open_incident
from valdrix.kernel.db import transaction
from valdrix.kernel.ids import new_id

INCIDENT_KIND: Final = "integrity"


def check_integrity(
    *, tenant_id: uuid.UUID, at: datetime, progress: Progress | None = None
) -> Report:
    """Check a tenant's invariants and open one incident for each that is violated.

    An incident that is open already counts one more occurrence and shows the newest finding.
    """
    report = run_checks(tenant_id, progress=progress)
    if report.violated:
        with transaction(tenant_id):
            for finding in report.violated:
                open_incident(sighting=_sighting(tenant_id, finding, at))
    return report


def _sighting(tenant_id: uuid.UUID, finding: Finding, at: datetime) -> Sighting:
    detail = {"sentence": finding.invariant.sentence, **finding.to_document()}
    return Sighting(
        incident_id=new_id(),
        tenant_id=tenant_id,
        kind=INCIDENT_KIND,
        subject=finding.invariant.name,
        detail=orjson.dumps(detail).decode(),
        at=at,
    )
