"""What is answered when nothing can be evaluated (SPEC 3.7)."""

from __future__ import annotations

import pytest

from enforcement.gate import failsafe
from enforcement.gate.explanation import REASONS, explain
from enforcement.gate.failsafe import SafeMode


@pytest.mark.parametrize(
    ("mode", "decision"), [("shadow", "ALLOW"), ("soft", "REQUIRE_APPROVAL"), ("hard", "DENY")]
)
@pytest.mark.parametrize("reason", failsafe.REASONS)
def test_the_mode_says_which_side_is_safe(reason: str, mode: str, decision: str) -> None:
    outcome = failsafe.build_outcome(reason, SafeMode(mode=mode, scope="terraform.default"))
    assert (outcome.decision, outcome.mode, outcome.mode_scope) == (
        decision,
        mode,
        "terraform.default",
    )
    assert outcome.reason_codes == (reason,)


@pytest.mark.parametrize("mode", failsafe.DECISION_BY_MODE)
def test_it_reserves_nothing_and_asks_nobody(mode: str) -> None:
    outcome = failsafe.build_outcome(failsafe.TIMEOUT, SafeMode(mode=mode, scope="s"))
    reserved = (
        outcome.reserved_allocation_usd,
        outcome.reserved_reserved_credit_usd,
        outcome.reserved_emergency_credit_usd,
        outcome.shared_reserved_usd,
        outcome.increase_usd,
    )
    assert set(reserved) == {0}
    assert (outcome.holds, outcome.is_holding, outcome.routing) == ((), False, None)
    assert not outcome.reservation_shared
    assert outcome.would_have_been is None


def test_a_process_that_never_saw_the_tenant_fails_closed() -> None:
    outcome = failsafe.build_outcome(failsafe.EVALUATION_ERROR, failsafe.CLOSED)
    assert (outcome.decision, outcome.mode, outcome.mode_scope) == ("DENY", "hard", "fail_closed")


@pytest.mark.parametrize(
    ("sqlstate", "reason"),
    [
        ("55P03", "gate_lock_timeout"),
        ("40P01", "gate_lock_contended"),
        ("40001", "gate_lock_contended"),
        ("57014", "gate_timeout"),
        ("25P03", "gate_timeout"),
        ("25P04", "gate_timeout"),
        ("57P01", "gate_evaluation_error"),
        ("08006", "gate_evaluation_error"),
        ("VX001", "gate_evaluation_error"),
        ("", "gate_evaluation_error"),
        (None, "gate_evaluation_error"),
    ],
)
def test_a_database_error_by_its_state(sqlstate: str | None, reason: str) -> None:
    assert failsafe.reason_for_sqlstate(sqlstate) == reason


@pytest.mark.parametrize("reason", failsafe.REASONS)
def test_its_reason_says_retry(reason: str) -> None:
    assert "again" in REASONS[reason][1]
    explanation = explain(failsafe.build_outcome(reason, failsafe.CLOSED))
    assert [told["code"] for told in explanation["reason_codes"]] == [reason]
    assert explanation["first_limiting_stage"] is None
    assert explanation["summary"].startswith("Denied: ")
