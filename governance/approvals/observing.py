"""What an approval's end tells the telemetry plane after its commit: read again by nothing of truth."""

from __future__ import annotations

from datetime import datetime, timedelta

from governance.approvals.models import Approval
from valdrix.kernel.emitter import APPROVAL_ENDED, Observation, emit


def observe_ended(approval: Approval, *, ending: str, at: datetime) -> None:
    """Emit how an approval ended and how long it waited, best effort."""
    emit(lambda: _build(approval, ending, at))


def _build(approval: Approval, ending: str, at: datetime) -> Observation:
    return Observation(
        id=approval.pk,
        tenant_id=approval.tenant_id,
        kind=APPROVAL_ENDED,
        at=at,
        outcome=ending,
        source=approval.source,
        environment=approval.environment,
        duration_ms=max(0, (at - approval.requested_at) // timedelta(milliseconds=1)),
        amount_usd=approval.monthly_delta_usd,
        attributes={"project": approval.project_id},
    )
