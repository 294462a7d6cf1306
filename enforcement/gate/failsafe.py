"""Fail-safe: what a gate answers when it cannot evaluate (SPEC 3.7). Pure.

The mode says which side is safe: shadow allows, soft asks for an approval, hard denies. Such an
outcome never reserves, opens no approval and does not claim its idempotency key: the retry is
evaluated.
"""

from __future__ import annotations

from typing import Final

import msgspec

from enforcement.gate.decision import Outcome
from valdrix.kernel.money import ZERO

TIMEOUT: Final = "gate_timeout"
EVALUATION_ERROR: Final = "gate_evaluation_error"
LOCK_CONTENDED: Final = "gate_lock_contended"
LOCK_TIMEOUT: Final = "gate_lock_timeout"
REASONS: Final = (TIMEOUT, EVALUATION_ERROR, LOCK_CONTENDED, LOCK_TIMEOUT)

DECISION_BY_MODE: Final = {"shadow": "ALLOW", "soft": "REQUIRE_APPROVAL", "hard": "DENY"}

_REASON_BY_SQLSTATE: Final = {
    "55P03": LOCK_TIMEOUT,
    "40P01": LOCK_CONTENDED,
    "40001": LOCK_CONTENDED,
    "57014": TIMEOUT,
    "25P03": TIMEOUT,
    "25P04": TIMEOUT,
}


class SafeMode(msgspec.Struct, frozen=True, kw_only=True):
    """The mode a fail-safe outcome goes by, and where it was known from."""

    mode: str
    scope: str


CLOSED: Final = SafeMode(mode="hard", scope="fail_closed")
"""For a process that has never seen the tenant's policy."""


def reason_for_sqlstate(sqlstate: str | None) -> str:
    """Return the reason code of a database error by its SQLSTATE."""
    return _REASON_BY_SQLSTATE.get(sqlstate or "", EVALUATION_ERROR)


def decide_safely(safe_mode: SafeMode) -> str:
    """Return the decision of a mode that cannot evaluate."""
    return DECISION_BY_MODE[safe_mode.mode]


def build_outcome(reason: str, safe_mode: SafeMode) -> Outcome:
    """Return the outcome of a gate that could not evaluate: nothing found, nothing held."""
    return Outcome(
        decision=decide_safely(safe_mode),
        mode=safe_mode.mode,
        mode_scope=safe_mode.scope,
        would_have_been=None,
        reason_codes=(reason,),
        entitlement_reason_code=None,
        findings=(),
        stages=(),
        holds=(),
        is_shadow=safe_mode.mode == "shadow",
        increase_usd=ZERO,
        reserved_allocation_usd=ZERO,
        reserved_reserved_credit_usd=ZERO,
        reserved_emergency_credit_usd=ZERO,
        reservation_shared=False,
        shared_reserved_usd=ZERO,
        is_holding=False,
        routing=None,
        tags=(),
    )
