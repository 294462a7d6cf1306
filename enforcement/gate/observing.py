"""What a gate tells the telemetry plane after its commit: never read again by anything of truth."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from enforcement.gate.ask import Ask
from valdrix.kernel.emitter import GATE_DECIDED, Observation, emit


def observe_decision(ask: Ask, response: dict[str, Any], *, elapsed_ms: int) -> None:
    """Emit one decision, best effort; a dry run decided nothing and is not emitted."""
    if not response["dry_run"]:
        emit(lambda: _build(ask, response, elapsed_ms))


def _build(ask: Ask, response: dict[str, Any], elapsed_ms: int) -> Observation:
    amount = response["estimated_monthly_delta_usd"]
    reasons = response["reason_codes"]
    return Observation(
        id=ask.decision_id,
        tenant_id=ask.tenant_id,
        kind=GATE_DECIDED,
        at=datetime.fromisoformat(response["evaluated_at"]),
        outcome=response["decision"],
        source=response["source"],
        environment=response["environment"],
        duration_ms=elapsed_ms,
        amount_usd=None if amount is None else Decimal(amount),
        attributes={
            "mode": response["mode"],
            "project": response["project_id"],
            "reason": reasons[0] if reasons else None,
            "would_have_been": response["would_have_been"],
        },
    )
