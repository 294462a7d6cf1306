"""What a gate tells the telemetry plane after its commit: never read again by anything of truth."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from enforcement.gate.ask import Ask
from enforcement.gate.decision import DENY, REQUIRE_APPROVAL
from valdrix.kernel.emitter import GATE_DECIDED, Observation, emit
from valdrix.kernel.metrics import ENTITLEMENT_DENIALS, GATE_DECISIONS, GATE_LATENCY


def observe(ask: Ask, response: dict[str, Any], *, elapsed_ms: int) -> None:
    """Count a decision after its commit, and emit it, best effort; a replay was counted before.

    A dry run decided nothing and is not emitted.
    """
    if response["replayed"]:
        return
    GATE_DECISIONS.labels(response["source"], response["decision"], response["mode"]).inc()
    GATE_LATENCY.observe(elapsed_ms / 1000)
    exceeded = response["entitlement_reason_code"]
    if exceeded is not None and response["decision"] in {DENY, REQUIRE_APPROVAL}:
        ENTITLEMENT_DENIALS.labels(exceeded).inc()
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
