"""Profile ``failure_injection``: five scenarios, really run, by two people (BSAFE-010).

The scenarios and the tests that prove them are those of the failure injection matrix.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from governance.evidence.domain import Examination

PROFILE: Final = "enforcement_failure_injection"
RUNNER: Final = "staged_failure_injection"
EXECUTION_CLASS: Final = "staged"
PASSED: Final = "passed"
FAILED: Final = "failed"

_API: Final = "tests/unit/enforcement/test_enforcement_api.py"
_SERVICE: Final = "tests/unit/enforcement/test_enforcement_service.py"
_HELPERS: Final = "tests/unit/enforcement/test_enforcement_service_helpers.py"
_CONCURRENCY: Final = "tests/unit/enforcement/test_enforcement_property_and_concurrency.py"
_RATE_LIMIT: Final = "tests/unit/core/test_rate_limit.py"
SCENARIOS: Final = {
    "FI-001": (
        f"{_API}::test_gate_failsafe_timeout_and_error_modes",
        f"{_SERVICE}::test_resolve_fail_safe_gate_timeout_mode_behavior",
    ),
    "FI-002": (
        f"{_API}::test_gate_lock_failures_route_to_failsafe_with_lock_reason_codes",
        f"{_HELPERS}::test_acquire_gate_evaluation_lock_rowcount_zero_raises_contended_reason",
    ),
    "FI-003": (
        f"{_API}::test_consume_approval_token_endpoint_rejects_replay_and_tamper",
        f"{_SERVICE}::test_consume_approval_token_rejects_replay",
    ),
    "FI-004": (
        f"{_CONCURRENCY}::test_concurrency_reconcile_same_idempotency_key_settles_credit_once",
        f"{_CONCURRENCY}::test_concurrency_reconcile_overdue_claims_each_reservation_once",
    ),
    "FI-005": (
        f"{_RATE_LIMIT}::test_global_rate_limit_throttles_cross_tenant_requests",
        f"{_API}::test_enforcement_global_gate_limit_uses_configured_cap",
    ),
}
"""The scenarios, each with the tests whose run is its evidence."""

_MEMBERS: Final = frozenset(
    {
        "profile", "runner", "execution_class", "captured_at", "executed_by", "approved_by",
        "scenarios", "summary",
    }
)  # fmt: skip
_SCENARIO_MEMBERS: Final = frozenset(
    {
        "id", "status", "duration_seconds", "checks", "evidence_refs",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FailureInjectionTerms:
    """What a release asks of this evidence."""

    max_age: timedelta | None = None


def verify_failure_injection(
    examination: Examination, terms: FailureInjectionTerms, *, now: datetime
) -> None:
    """Note everything that is wrong with failure-injection evidence."""
    examination.unknown_members("", _MEMBERS)
    for name, expected in (
        ("profile", PROFILE), ("runner", RUNNER), ("execution_class", EXECUTION_CLASS),
    ):  # fmt: skip
        examination.same(
            f"/{name}", examination.text(f"/{name}"), expected, because="this evidence has"
        )
    examination.fresh("/captured_at", now=now, at_most=terms.max_age)
    verify_two_people(examination, "/executed_by", "/approved_by")
    passed, total = _verify_scenarios(examination)
    _verify_summary(examination, passed, total)


def verify_two_people(examination: Examination, first: str, second: str) -> None:
    """Note a second person who is the first one, however the name is written."""
    one, other = examination.text(first), examination.text(second)
    for pointer, name in ((first, one), (second, other)):
        if name is not None and not name_of_person(name):
            examination.refuse(pointer, "not_text", "must have a letter that can be seen")
    if one is not None and other is not None and name_of_person(one) == name_of_person(other):
        examination.refuse(second, "same_person", f"is the same person as {first}")


def name_of_person(text: str) -> str:
    """Return what is left of a name without case, width, blanks, and what cannot be seen."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(
        one for one in folded if not one.isspace() and unicodedata.category(one)[0] != "C"
    )


def _verify_scenarios(examination: Examination) -> tuple[int, int]:
    rows = examination.items("/scenarios")
    passed = 0
    seen: list[str] = []
    for index in range(len(rows)):
        pointer = f"/scenarios/{index}"
        name = examination.text(f"{pointer}/id")
        if name is not None:
            seen.append(name)
            if name not in SCENARIOS:
                examination.refuse(f"{pointer}/id", "unknown_scenario", f"{name} is not one")
        passed += _verify_scenario(examination, pointer, name)
    examination.once("/scenarios", seen)
    for name in SCENARIOS:
        if name not in seen:
            examination.refuse("/scenarios", "scenario_missing", f"{name} is missing")
    return passed, len(rows)


def _verify_scenario(examination: Examination, pointer: str, name: str | None) -> bool:
    examination.unknown_members(pointer, _SCENARIO_MEMBERS)
    status = examination.text(f"{pointer}/status")
    if status is not None and status != PASSED:
        examination.refuse(f"{pointer}/status", "not_passed", f"is {status}, not {PASSED}")
    duration = examination.number(f"{pointer}/duration_seconds")
    if duration is not None and duration <= 0:
        examination.refuse(f"{pointer}/duration_seconds", "not_positive", "must be above 0")
    refs = examination.texts(f"{pointer}/evidence_refs")
    examination.once(f"{pointer}/evidence_refs", refs)
    for test in SCENARIOS.get(name or "", ()):
        if refs and test not in refs:
            examination.refuse(f"{pointer}/evidence_refs", "reference_missing", f"lacks {test}")
    ran = _verify_checks(examination, f"{pointer}/checks", refs)
    return status == PASSED and ran


def _verify_checks(examination: Examination, pointer: str, refs: list[str]) -> bool:
    """Check that each referenced test is among what ran, and that all of it passed."""
    rows = examination.items(pointer)
    ran: list[str | None] = []
    sound = bool(rows)
    for index in range(len(rows)):
        examination.unknown_members(f"{pointer}/{index}", {"test", "outcome"})
        test = examination.text(f"{pointer}/{index}/test")
        ran.append(test)
        if test is not None and refs and not _is_of(test, refs):
            examination.refuse(f"{pointer}/{index}/test", "unknown_check", "is of no reference")
        outcome = examination.text(f"{pointer}/{index}/outcome")
        if outcome is not None and outcome != PASSED:
            examination.refuse(f"{pointer}/{index}/outcome", "not_passed", f"is {outcome}")
            sound = False
    examination.once(pointer, ran)
    for ref in refs:
        # A parametrised test has run under its own name and its parameters.
        if rows and not any(one is not None and one.split("[")[0] == ref for one in ran):
            examination.refuse(pointer, "check_missing", f"{ref} did not run")
            sound = False
    return sound


def _is_of(test: str, refs: list[str]) -> bool:
    """Tell whether a test that ran is a referenced one, as it is or with its parameters."""
    name, bracket, parameters = test.partition("[")
    return name in refs and (not bracket or parameters.endswith("]"))


def _verify_summary(examination: Examination, passed: int, total: int) -> None:
    sums = {
        "total_scenarios": total,
        "passed_scenarios": passed,
        "failed_scenarios": total - passed,
    }
    examination.unknown_members("/summary", {*sums, "overall_passed"})
    for name, computed in sums.items():
        pointer = f"/summary/{name}"
        examination.same(
            pointer, examination.count(pointer), computed, because="the scenarios themselves give"
        )
    examination.is_true("/summary/overall_passed", because="the run did not pass")
    overall = (
        examination.flag("/summary/overall_passed")
        if examination.has("/summary/overall_passed")
        else None
    )
    examination.same(
        "/summary/overall_passed", overall, passed == total == len(SCENARIOS),
        because="the scenarios themselves say",
    )  # fmt: skip
