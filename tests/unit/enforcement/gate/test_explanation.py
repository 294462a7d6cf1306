"""Explanations: complete, in words, and derived from the outcome alone (SPEC 3.8)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from enforcement.gate import decision, failsafe, rules, waterfall
from enforcement.gate.decision import encode
from enforcement.gate.explanation import REASONS, explain
from tests.builders import (
    NOW,
    a_budget,
    a_cost,
    a_grant,
    a_policy,
    a_sharing,
    an_outcome,
    some_accounts,
    usd,
)

NO_CODES = {
    # Names, modes, decisions, effects, stages, statuses and kinds of lines.
    *decision.MODES,
    decision.ENGINE_VERSION,
    decision.ALLOW,
    decision.ALLOW_WITH_CREDITS,
    decision.REQUIRE_APPROVAL,
    decision.DENY,
    rules.DENIES,
    rules.ABSOLUTE,
    rules.BREACHES,
    rules.NEEDS_APPROVAL,
    rules.WARNS,
    rules.TAGS,
    rules.INFORMS,
    rules.KNOWN,
    rules.PARTIAL,
    waterfall.PLAN_LIMIT,
    waterfall.PROJECT_ALLOCATION,
    waterfall.RESERVED_CREDITS,
    waterfall.EMERGENCY_CREDITS,
    waterfall.ENTERPRISE_CEILING,
    waterfall.PASS,
    rules.NOTES,
    waterfall.LIMITED,
    waterfall.SKIPPED,
    waterfall.ALLOCATION,
    waterfall.RESERVED_CREDIT,
    waterfall.EMERGENCY_CREDIT,
    waterfall.EXPOSURE,
    waterfall.RESERVED_POOL,
    waterfall.EMERGENCY_POOL,
}


def test_every_code_has_a_title_and_what_to_do() -> None:
    texts = {
        value
        for module in (decision, failsafe, rules, waterfall)
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and type(value) is str
    }
    assert texts - NO_CODES == REASONS.keys()
    for title, action in REASONS.values():
        assert title[0].isupper()
        assert not title.endswith(".")
        assert action.endswith(".")


OUTCOMES: dict[str, Any] = {
    "allowed": an_outcome(),
    "with credits": an_outcome(
        accounts=some_accounts(budgets=(a_budget(limit=50),), grants=(a_grant(),))
    ),
    "unknown": an_outcome(cost=a_cost(None)),
    "unbudgeted": an_outcome(accounts=some_accounts(budgets=())),
    "breach": an_outcome(accounts=some_accounts(budgets=(a_budget(limit=0),))),
    "shadow": an_outcome(a_policy("shadow"), accounts=some_accounts(plan_ceiling_usd=usd(1))),
    "shared": an_outcome(sharing=a_sharing()),
    "saving": an_outcome(cost=a_cost("-3")),
    "failed": failsafe.build_outcome(failsafe.TIMEOUT, failsafe.CLOSED),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_each_reason_is_explained_in_its_order_and_nothing_else(name: str) -> None:
    outcome = OUTCOMES[name]
    before = encode(outcome)
    explanation = explain(outcome)
    assert encode(outcome) == before
    assert [told["code"] for told in explanation["reason_codes"]] == list(outcome.reason_codes)
    assert all(
        set(told) == {"code", "title", "detail", "action"} for told in explanation["reason_codes"]
    )
    assert all(told["detail"].endswith(".") for told in explanation["reason_codes"])
    assert "\n" not in explanation["summary"]


@pytest.mark.parametrize(
    ("name", "summary", "stage"),
    [
        ("allowed", "Allowed: the budget covers it.", None),
        ("saving", "Allowed: the change adds no cost.", None),
        (
            "with credits",
            "Allowed with credits: reserved credits are used.",
            "project_allocation",
        ),
        ("unknown", "Needs approval: the cost is unknown.", None),
        ("unbudgeted", "Needs approval: no budget matches.", None),
        ("breach", "Denied: the project's budget does not cover it.", "project_allocation"),
        (
            "shadow",
            "Allowed in shadow mode (hard mode: denied): the tenant's plan ceiling is reached.",
            "plan_limit",
        ),
        ("failed", "Denied: the evaluation took too long.", None),
    ],
)
def test_summary_and_first_limiting_stage(name: str, summary: str, stage: str | None) -> None:
    explanation = explain(OUTCOMES[name])
    assert (explanation["summary"], explanation["first_limiting_stage"]) == (summary, stage)


def test_details_are_those_of_the_findings() -> None:
    several = [
        {"id": name, "when": "input.stage == null", "effect": "deny", "message": f"Not {name}."}
        for name in ("here", "now")
    ]
    explanation = explain(an_outcome(a_policy(rules=several)))
    assert [told["detail"] for told in explanation["reason_codes"]] == ["Not here. Not now."]


def test_what_an_exception_lifted_is_not_told_as_a_reason() -> None:
    exception = {
        "id": "migration",
        "project_id": "shop",
        "until": NOW.replace(year=2027).isoformat(),
        "max_monthly_delta_usd": "100.00",
        "reason": "agreed move",
    }
    outcome = an_outcome(a_policy(thresholds={}, exceptions=[exception]))
    told = explain(outcome)["reason_codes"]
    assert [reason["code"] for reason in told] == ["policy_exception_applied", "within_budget"]
    assert "agreed move" in told[0]["detail"]


def test_an_outcome_says_no_to_being_changed() -> None:
    with pytest.raises(AttributeError):
        OUTCOMES["allowed"].decision = "DENY"
    assert msgspec.structs.asdict(OUTCOMES["allowed"])["decision"] == "ALLOW"
