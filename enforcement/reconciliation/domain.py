"""Which settlements a person should look at, and what a settlement answers. Pure."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any, Final

from billing.reservations.settlement import Settlement
from governance.policies.domain import ReservationTerms
from valdrix.kernel.money import to_text

DRIFT: Final = "drift_above_threshold"
OVERDUE_POSTED: Final = "overdue_posted_at_reserved"

_POOL_BY_KIND: Final = {"reserved_credit": "reserved", "emergency_credit": "emergency"}


def find_exception_reason(settlement: Settlement, terms: ReservationTerms) -> str | None:
    """Return why a settlement needs a person's look, or None: drift beyond either threshold."""
    drift = abs(settlement.drift_usd)
    if drift == 0:
        return None
    if drift > terms.drift_threshold_usd:
        return DRIFT
    if drift * 100 > terms.drift_threshold_percent * settlement.reserved_usd:
        return DRIFT
    return None


def build_result(
    settlement: Settlement,
    *,
    decision_ids: tuple[uuid.UUID, ...],
    trigger: str,
    exception_reason: str | None,
) -> dict[str, Any]:
    """Return what a settlement answers: amounts, drift, and what became of each grant."""
    return {
        "status": "released" if trigger == "auto_release" else "settled",
        "trigger": trigger,
        "decision_ids": [str(decision_id) for decision_id in decision_ids],
        "reserved_usd": to_text(settlement.reserved_usd),
        "actual_monthly_delta_usd": to_text(settlement.actual_usd),
        "posted_usd": to_text(settlement.posted_usd),
        "overrun_usd": to_text(settlement.overrun_usd),
        "drift_usd": to_text(settlement.drift_usd),
        "exception_reason": exception_reason,
        "credit_settlement": _credit_settlement(settlement),
    }


def _credit_settlement(settlement: Settlement) -> list[dict[str, str]]:
    """Return one row a grant, in burn order."""
    totals: dict[uuid.UUID, tuple[str, Decimal, Decimal]] = {}
    for one in settlement.lines:
        pool = _POOL_BY_KIND.get(one.line.kind)
        if pool is None:
            continue
        _, reserved, consumed = totals.get(one.line.account_id, (pool, Decimal(0), Decimal(0)))
        totals[one.line.account_id] = (
            pool,
            reserved + one.line.amount_usd,
            consumed + one.posted_usd,
        )
    return [
        {
            "grant_id": str(grant_id),
            "pool": pool,
            "reserved_usd": to_text(reserved),
            "consumed_usd": to_text(consumed),
            "refunded_usd": to_text(reserved - consumed),
        }
        for grant_id, (pool, reserved, consumed) in totals.items()
    ]
