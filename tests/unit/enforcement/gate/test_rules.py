"""Every rule by a pair of contexts that differ in one fact and flip what is found (SPEC 3.5, 3.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from enforcement.gate import rules
from enforcement.gate.explanation import REASONS
from governance.policies.expressions import EVERYTHING, compile_together
from tests.builders import (
    CENT_OF_CENT,
    MICROSECOND,
    NOW,
    a_budget,
    a_cost,
    a_grant,
    a_policy,
    a_sharing,
    an_outcome,
    codes_of,
    some_accounts,
    usd,
)

PARENT = "00000000-0000-7000-8000-000000000077"


@dataclass(frozen=True)
class Pair:
    """Two contexts: ``without`` finds nothing, ``added`` on top of it yields the finding."""

    code: str
    effect: str
    added: Mapping[str, Any]
    without: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    policy_added: Mapping[str, Any] = field(default_factory=dict)
    decisions: tuple[str, str] = ("ALLOW", "ALLOW")


def thresholds(**sides: str) -> dict[str, Any]:
    return {"thresholds": {"prod": sides, "nonprod": {"require_approval_from_usd": "1000000.00"}}}


def rule(when: str, effect: str) -> dict[str, Any]:
    return {"rules": [{"id": "mine", "when": when, "effect": effect, "message": "Because."}]}


def freeze(effect: str = "deny", *, start: int = -1, end: int = 1, **more: Any) -> dict[str, Any]:
    """Return a freeze from ``start`` to ``end`` microseconds from now."""
    window = {
        "id": "year-end",
        "from": (NOW + start * MICROSECOND).isoformat(),
        "to": (NOW + end * MICROSECOND).isoformat(),
        "effect": effect,
    }
    return {"freezes": [window | more]}


def verbs(name: str, prod: str, nonprod: str = "allow") -> dict[str, Any]:
    return {name: {"prod": prod, "nonprod": nonprod}}


NONPROD = {"environment": "nonprod"}
UNKNOWN = {"cost": a_cost(None)}
PARTIAL = {"cost": a_cost(state="partial", reasons=("price_not_found",))}
NO_BUDGET = {"accounts": some_accounts(budgets=())}
NO_EFFECT = some_accounts(budgets=(a_budget(limit=50),))
RESERVED = some_accounts(budgets=(a_budget(limit=50),), grants=(a_grant(),))
EMERGENCY = some_accounts(budgets=(a_budget(limit=50),), grants=(a_grant(pool="emergency"),))

PAIRS = {
    # Cost states: what is not known is never zero.
    "unknown, default of prod": Pair(
        "cost_unknown", "require_approval", UNKNOWN, decisions=("ALLOW", "REQUIRE_APPROVAL")
    ),
    "unknown, default of nonprod": Pair("cost_unknown", "warn", UNKNOWN, without=NONPROD),
    "unknown, deny": Pair(
        "cost_unknown",
        "deny",
        UNKNOWN,
        policy=verbs("unknown_cost", "deny"),
        decisions=("ALLOW", "DENY"),
    ),
    "unknown, allow in prod": Pair(
        "cost_unknown", "warn", UNKNOWN, policy=verbs("unknown_cost", "allow")
    ),
    "unknown, other side's verb": Pair(
        "cost_unknown",
        "deny",
        UNKNOWN,
        without=NONPROD,
        policy=verbs("unknown_cost", "allow", "deny"),
        decisions=("ALLOW", "DENY"),
    ),
    "partial takes the verb of unknown": Pair(
        "cost_partial",
        "deny",
        PARTIAL,
        policy=verbs("unknown_cost", "deny"),
        decisions=("ALLOW", "DENY"),
    ),
    "partial has its own verb": Pair(
        "cost_partial",
        "warn",
        PARTIAL,
        policy=verbs("unknown_cost", "deny") | verbs("partial_cost", "allow"),
    ),
    "partial, default of prod": Pair(
        "cost_partial", "require_approval", PARTIAL, decisions=("ALLOW", "REQUIRE_APPROVAL")
    ),
    # Thresholds begin at their very amount.
    "approval threshold reached": Pair(
        "approval_threshold_reached",
        "require_approval",
        {"cost": a_cost("500")},
        without={"cost": a_cost("499.9999")},
        policy=thresholds(require_approval_from_usd="500.00"),
        decisions=("ALLOW", "REQUIRE_APPROVAL"),
    ),
    "deny threshold reached": Pair(
        "deny_threshold_reached",
        "deny",
        {"cost": a_cost("500")},
        without={"cost": a_cost("499.9999")},
        policy=thresholds(require_approval_from_usd="500.00", deny_from_usd="500.00"),
        decisions=("ALLOW", "DENY"),
    ),
    "the default threshold stops the smallest increase": Pair(
        "approval_threshold_reached",
        "require_approval",
        {"cost": a_cost(CENT_OF_CENT)},
        without={"cost": a_cost(0)},
        policy={"thresholds": {}},
        decisions=("ALLOW", "REQUIRE_APPROVAL"),
    ),
    "thresholds are the environment's": Pair(
        "deny_threshold_reached",
        "deny",
        {"environment": "prod"},
        without=NONPROD,
        policy=thresholds(require_approval_from_usd="1.00", deny_from_usd="1.00"),
        decisions=("ALLOW", "DENY"),
    ),
    # Rules of the tenant.
    "rule denies": Pair(
        "policy_rule_denied",
        "deny",
        {"metadata": {"family": "p5"}},
        without={"metadata": {"family": "t3"}},
        policy=rule("input.metadata.family == 'p5'", "deny"),
        decisions=("ALLOW", "DENY"),
    ),
    "rule asks for approval": Pair(
        "policy_rule_requires_approval",
        "require_approval",
        {"team": "web"},
        without={"team": "data"},
        policy=rule("input.team == 'web'", "require_approval"),
        decisions=("ALLOW", "REQUIRE_APPROVAL"),
    ),
    "rule tags": Pair(
        "policy_rule_tagged",
        "tag",
        {"action": "terraform.destroy"},
        policy=rule("input.action == 'terraform.destroy'", "tag"),
    ),
    "rule over the context": Pair(
        "policy_rule_denied",
        "deny",
        {"environment": "prod"},
        without=NONPROD,
        policy=rule("context.risk_score >= 20", "deny"),
        decisions=("ALLOW", "DENY"),
    ),
    "rule over exact money": Pair(
        "policy_rule_denied",
        "deny",
        {"cost": a_cost("100.0001")},
        policy=rule("input.estimated_monthly_delta_micros > 100000000", "deny"),
        decisions=("ALLOW", "DENY"),
    ),
    "rule that fails counts as matched": Pair(
        "policy_rule_failed",
        "deny",
        {"metadata": {"size": "many"}},
        without={"metadata": {"size": 1}},
        policy=rule("input.metadata.size > 5", "deny"),
        decisions=("ALLOW", "DENY"),
    ),
    "approval rule that fails": Pair(
        "policy_rule_failed",
        "require_approval",
        {"metadata": {"size": None}},
        without={"metadata": {"size": 1}},
        policy=rule("input.metadata.size > 5", "require_approval"),
        decisions=("ALLOW", "REQUIRE_APPROVAL"),
    ),
    "tag rule that fails only warns": Pair(
        "policy_rule_failed",
        "warn",
        {"metadata": {"size": "many"}},
        without={"metadata": {"size": 1}},
        policy=rule("input.metadata.size > 5", "tag"),
    ),
    "rule that asks for a missing key": Pair(
        "policy_rule_skipped",
        "note",
        {"metadata": {}},
        without={"metadata": {"ticket": "yes"}},
        policy=rule("input.metadata.ticket != 'yes'", "deny"),
    ),
    # Freezes: start inclusive, end exclusive.
    "freeze": Pair("freeze_active", "deny", {}, policy_added=freeze(), decisions=("ALLOW", "DENY")),
    "freeze that asks for approval": Pair(
        "freeze_active",
        "require_approval",
        {},
        policy_added=freeze("require_approval"),
        decisions=("ALLOW", "REQUIRE_APPROVAL"),
    ),
    "freeze begins at its start": Pair(
        "freeze_active",
        "deny",
        {"evaluated_at": NOW},
        without={"evaluated_at": NOW - MICROSECOND},
        policy=freeze(start=0),
        decisions=("ALLOW", "DENY"),
    ),
    "freeze is over at its end": Pair(
        "freeze_active",
        "deny",
        {"evaluated_at": NOW - MICROSECOND},
        without={"evaluated_at": NOW},
        policy=freeze(end=0),
        decisions=("ALLOW", "DENY"),
    ),
    "freeze of one environment": Pair(
        "freeze_active",
        "deny",
        {"environment": "prod"},
        without=NONPROD,
        policy=freeze(environments=["prod"]),
        decisions=("ALLOW", "DENY"),
    ),
    # Earlier decisions.
    "parent has nothing to share": Pair(
        "parent_decision_not_applicable",
        "warn",
        {"parent_is_applicable": False},
        without={"parent_decision_id": PARENT, "parent_is_applicable": True},
    ),
    "shared reservation awaits approval": Pair(
        "shared_reservation_awaits_approval",
        "require_approval",
        {"sharing": a_sharing(awaits_approval=True)},
        without={"sharing": a_sharing()},
        decisions=("ALLOW", "REQUIRE_APPROVAL"),
    ),
    # No budget.
    "no budget, default of prod": Pair(
        "no_budget_configured",
        "require_approval",
        NO_BUDGET,
        decisions=("ALLOW", "REQUIRE_APPROVAL"),
    ),
    "no budget, default of nonprod": Pair(
        "no_budget_configured", "info", NO_BUDGET, without=NONPROD
    ),
    "no budget, deny": Pair(
        "no_budget_configured",
        "deny",
        NO_BUDGET,
        policy=verbs("no_budget", "deny"),
        decisions=("ALLOW", "DENY"),
    ),
    "no budget, other side's verb": Pair(
        "no_budget_configured",
        "deny",
        NO_BUDGET,
        without=NONPROD,
        policy=verbs("no_budget", "allow", "deny"),
        decisions=("ALLOW", "DENY"),
    ),
    # The waterfall.
    "plan ceiling": Pair(
        "plan_limit_exceeded",
        "breach",
        {"accounts": some_accounts(plan_ceiling_usd=usd("99.9999"))},
        without={"accounts": some_accounts(plan_ceiling_usd=usd(100))},
        decisions=("ALLOW", "DENY"),
    ),
    "enterprise ceiling": Pair(
        "enterprise_ceiling_exceeded",
        "absolute",
        {"accounts": some_accounts(enterprise_ceiling_usd=usd("99.9999"))},
        without={"accounts": some_accounts(enterprise_ceiling_usd=usd(100))},
        decisions=("ALLOW", "DENY"),
    ),
    "budget that nothing helps": Pair(
        "project_budget_exceeded", "breach", {"accounts": NO_EFFECT}, decisions=("ALLOW", "DENY")
    ),
    "budget that credits help": Pair(
        "project_budget_exceeded",
        "info",
        {"accounts": RESERVED},
        decisions=("ALLOW", "ALLOW_WITH_CREDITS"),
    ),
    "reserved credits at their end": Pair(
        "reserved_credits_exhausted",
        "breach",
        {"accounts": NO_EFFECT},
        without={"accounts": RESERVED},
        decisions=("ALLOW_WITH_CREDITS", "DENY"),
    ),
    "reserved credits that emergency ones help": Pair(
        "reserved_credits_exhausted",
        "info",
        {"accounts": EMERGENCY},
        without=NONPROD,
        decisions=("ALLOW", "ALLOW_WITH_CREDITS"),
    ),
    "emergency credits at their end": Pair(
        "emergency_credits_exhausted",
        "breach",
        {"accounts": NO_EFFECT},
        without={"accounts": EMERGENCY} | NONPROD,
        decisions=("ALLOW_WITH_CREDITS", "DENY"),
    ),
    "emergency credits by approval": Pair(
        "emergency_credits_require_approval",
        "require_approval",
        {"environment": "prod"},
        without={"accounts": EMERGENCY} | NONPROD,
        decisions=("ALLOW_WITH_CREDITS", "REQUIRE_APPROVAL"),
    ),
    "emergency credits, automatic": Pair(
        "emergency_credits_require_approval",
        "require_approval",
        {"environment": "nonprod"},
        without={"accounts": EMERGENCY, "environment": "prod"},
        policy={"credits": {"emergency": {"prod": "automatic", "nonprod": "approval"}}},
        decisions=("ALLOW_WITH_CREDITS", "REQUIRE_APPROVAL"),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_one_fact_flips_the_finding(name: str) -> None:
    pair = PAIRS[name]
    before = an_outcome(a_policy(**pair.policy), **pair.without)
    after = an_outcome(
        a_policy(**pair.policy, **pair.policy_added), **{**pair.without, **pair.added}
    )
    finding = (pair.code, pair.effect, None)
    assert finding not in codes_of(before)
    assert finding in codes_of(after)
    assert (before.decision, after.decision) == pair.decisions


def test_every_code_that_a_rule_can_emit_is_in_a_pair() -> None:
    effects = {
        rules.DENIES,
        rules.ABSOLUTE,
        rules.BREACHES,
        rules.NEEDS_APPROVAL,
        rules.WARNS,
        rules.TAGS,
        rules.INFORMS,
        rules.NOTES,
    }
    texts = {value for name, value in vars(rules).items() if name.isupper() and type(value) is str}
    codes = texts - effects - {rules.KNOWN, rules.PARTIAL}
    codes -= {rules.EXCEPTION_APPLIED}  # it waives what others found: see below
    found = {pair.code for pair in PAIRS.values()}
    assert codes <= found
    assert found <= REASONS.keys()
    assert {pair.effect for pair in PAIRS.values()} == effects


EXCEPTION = {
    "id": "migration",
    "project_id": "shop",
    "until": (NOW + MICROSECOND).isoformat(),
    "max_monthly_delta_usd": "100.00",
    "reason": "agreed move",
}
THRESHOLD = thresholds(require_approval_from_usd="100.00")


def waived(policy: Mapping[str, Any], exception: Mapping[str, Any], **changes: Any) -> list[str]:
    outcome = an_outcome(a_policy(**policy, exceptions=[EXCEPTION | exception]), **changes)
    by_exception = [found.code for found in outcome.findings if found.waived_by == "migration"]
    applied = "policy_exception_applied" in outcome.reason_codes
    assert applied == bool(by_exception), "an exception is told of when it lifted something"
    assert not set(by_exception) & set(outcome.reason_codes)
    return by_exception


@pytest.mark.parametrize(
    ("exception", "changes"),
    [
        ({}, {}),
        ({"environment": "prod"}, {}),
        ({}, {"evaluated_at": NOW - timedelta(days=300)}),
        ({"max_monthly_delta_usd": "100.0000"}, {}),
    ],
)
def test_an_exception_lifts_the_approval_threshold(
    exception: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert waived(THRESHOLD, exception, **changes) == ["approval_threshold_reached"]


@pytest.mark.parametrize(
    ("exception", "changes"),
    [
        ({"project_id": "shop2"}, {}),
        ({"environment": "nonprod"}, {}),
        ({"until": NOW.isoformat()}, {}),
        ({"max_monthly_delta_usd": "99.9999"}, {}),
        ({}, {"cost": a_cost("100.0001")}),
        ({}, {"evaluated_at": NOW + MICROSECOND}),
        ({}, {"cost": a_cost(state="partial")}),
    ],
)
def test_one_fact_less_and_the_exception_lifts_nothing(
    exception: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert waived(THRESHOLD, exception, **changes) == []


@pytest.mark.parametrize("effect", ["deny", "require_approval"])
def test_an_exception_lifts_a_freeze(effect: str) -> None:
    assert waived(freeze(effect), {}) == ["freeze_active"]
    policy = a_policy(**freeze(effect), exceptions=[EXCEPTION])
    assert an_outcome(policy).decision == "ALLOW"


@pytest.mark.parametrize(
    ("policy", "changes", "decision"),
    [
        (verbs("unknown_cost", "deny"), UNKNOWN, "DENY"),
        (verbs("unknown_cost", "deny"), PARTIAL, "DENY"),
        (thresholds(require_approval_from_usd="1.00", deny_from_usd="100.00"), {}, "DENY"),
        (rule("input.environment == 'prod'", "deny"), {}, "DENY"),
        (rule("input.environment == 'prod'", "require_approval"), {}, "REQUIRE_APPROVAL"),
        (verbs("no_budget", "deny"), NO_BUDGET, "DENY"),
        ({}, {"accounts": NO_EFFECT}, "DENY"),
        ({}, {"accounts": EMERGENCY}, "REQUIRE_APPROVAL"),
        ({}, {"accounts": some_accounts(plan_ceiling_usd=usd(1))}, "DENY"),
        ({}, {"accounts": some_accounts(enterprise_ceiling_usd=usd(1))}, "DENY"),
        ({}, {"sharing": a_sharing(awaits_approval=True)}, "REQUIRE_APPROVAL"),
    ],
)
def test_an_exception_lifts_nothing_else(
    policy: dict[str, Any], changes: dict[str, Any], decision: str
) -> None:
    assert waived(policy, {}, **changes) == []
    assert an_outcome(a_policy(**policy, exceptions=[EXCEPTION]), **changes).decision == decision


def test_a_waived_finding_is_recorded_and_what_stands_beside_it_still_counts() -> None:
    policy = a_policy(
        **THRESHOLD, **rule("input.environment == 'prod'", "deny"), exceptions=[EXCEPTION]
    )
    outcome = an_outcome(policy)
    assert codes_of(outcome) == [
        ("approval_threshold_reached", "require_approval", "migration"),
        ("policy_rule_denied", "deny", None),
        ("policy_exception_applied", "info", None),
    ]
    assert outcome.decision == "DENY"


def test_the_first_exception_that_covers_is_named() -> None:
    exceptions = [
        EXCEPTION | {"id": "small", "max_monthly_delta_usd": "1.00"},
        EXCEPTION | {"id": "first"},
        EXCEPTION | {"id": "second"},
    ]
    outcome = an_outcome(a_policy(**THRESHOLD, exceptions=exceptions))
    assert {found.waived_by for found in outcome.findings} == {"first", None}


@pytest.mark.parametrize("amount", ["0", "-0.0001", "-1000000"])
def test_what_adds_nothing_meets_no_money_rule(amount: str) -> None:
    accounts = some_accounts(
        budgets=(a_budget(limit=0, overrun_usd=usd(9)),),
        plan_ceiling_usd=usd(0),
        enterprise_ceiling_usd=usd(0),
    )
    outcome = an_outcome(a_policy(thresholds={}), cost=a_cost(amount), accounts=accounts)
    assert (outcome.decision, outcome.findings) == ("ALLOW", ())
    assert outcome.reason_codes == ("no_cost_increase",)


@pytest.mark.parametrize("verb", ["deny", "require_approval", "allow"])
def test_what_is_known_to_add_nothing_needs_no_budget(verb: str) -> None:
    policy = a_policy(**verbs("no_budget", verb))
    outcome = an_outcome(policy, cost=a_cost("-5"), **NO_BUDGET)
    assert outcome.decision == "ALLOW"
    assert codes_of(outcome) == [("no_budget_configured", "info", None)]


@pytest.mark.parametrize("cost", [a_cost(None), a_cost(0, state="partial"), a_cost("0.0001")])
def test_what_is_not_known_to_add_nothing_does_need_one(cost: Any) -> None:
    policy = a_policy(**verbs("no_budget", "deny"), **verbs("unknown_cost", "allow"))
    assert an_outcome(policy, cost=cost, **NO_BUDGET).decision == "DENY"


def test_a_change_without_a_budget_meets_the_same_answer_when_asked_again() -> None:
    shared = a_sharing(covered_usd=usd(100))
    assert an_outcome(sharing=shared, **NO_BUDGET).decision == "REQUIRE_APPROVAL"


@pytest.mark.parametrize(
    ("sharing", "cost"),
    [
        (a_sharing(awaits_approval=True, covered_usd=usd(0)), a_cost()),
        (a_sharing(awaits_approval=True), a_cost("-1")),
    ],
)
def test_a_pending_approval_binds_only_what_leans_on_it(sharing: Any, cost: Any) -> None:
    assert an_outcome(sharing=sharing, cost=cost).decision == "ALLOW"


def test_thresholds_look_at_the_whole_change_not_at_the_increase() -> None:
    shared = a_sharing(covered_usd=usd(100))
    outcome = an_outcome(a_policy(**THRESHOLD), sharing=shared)
    assert outcome.increase_usd == 0
    assert outcome.decision == "REQUIRE_APPROVAL"


def test_thresholds_see_the_known_part_of_a_partial_cost() -> None:
    policy = a_policy(
        **thresholds(require_approval_from_usd="1.00", deny_from_usd="100.00"),
        **verbs("partial_cost", "allow"),
    )
    assert an_outcome(policy, **PARTIAL).decision == "DENY"


def test_a_rule_that_asks_for_metadata_that_is_not_there_does_not_match() -> None:
    policy = a_policy(**rule("input.metadata.family == 'p5'", "deny"))
    outcome = an_outcome(policy, metadata={})
    assert codes_of(outcome) == [("policy_rule_skipped", "note", None)]
    assert "policy_rule_skipped" not in outcome.reason_codes


def test_all_rules_are_evaluated_whatever_the_first_says() -> None:
    several = [
        {"id": name, "when": "input.environment == 'prod'", "effect": effect, "message": name}
        for name, effect in (
            ("first", "deny"),
            ("second", "tag"),
            ("third", "deny"),
            ("fourth", "tag"),
        )
    ]
    outcome = an_outcome(a_policy(rules=several))
    assert [found.reference for found in outcome.findings] == [
        "first",
        "second",
        "third",
        "fourth",
    ]
    assert outcome.tags == ("second", "fourth")


FIELDS_OF_THE_BASE_CASE = {
    "input": {
        "source": "'terraform'",
        "project_id": "'shop'",
        "environment": "'prod'",
        "environment_original": "'prod'",
        "action": "'terraform.apply'",
        "resource_reference": "'module.shop'",
        "estimated_monthly_delta_usd": "100.0",
        "estimated_monthly_delta_micros": "100000000",
        "estimated_hourly_delta_usd": "0.136986",
        "estimated_hourly_delta_micros": "136986",
        "cost_state": "'known'",
        "cost_state_reasons": "[]",
        "team": "'checkout'",
        "actor": "'ada'",
        "change_digest": "'d'",
        "change_digest_is_computed": "true",
        "parent_decision_id": "null",
        "run_id": "'r-1'",
        "stage": "'pre_apply'",
        "dry_run": "false",
    },
    "context": {
        "mtd_spend_usd": "1000.0",
        "mtd_spend_micros": "1000000000",
        "burn_rate_daily_usd": "100.0",
        "burn_rate_daily_micros": "100000000",
        "forecast_eom_usd": "3000.0",
        "forecast_eom_micros": "3000000000",
        "anomaly_kind": "'none'",
        "anomaly_delta_usd": "0.0",
        "anomaly_delta_micros": "0",
        "anomaly_percent": "0.0",
        "risk_class": "'low'",
        "risk_score": "20",
        "risk_factors": "['production_environment']",
        "context_version": "'1'",
        "generated_at": "'2026-11-20T12:00:00+00:00'",
        "month_start": "'2026-11-01'",
        "month_end": "'2026-11-30'",
        "month_elapsed_days": "20",
        "month_total_days": "30",
        "observed_cost_days": "10",
        "latest_cost_date": "'2026-11-20'",
        "data_source_mode": "'final'",
    },
}
TERMS = [
    *(
        f"{variable}.{name} == {value}"
        for variable, fields in FIELDS_OF_THE_BASE_CASE.items()
        for name, value in fields.items()
    ),
    "input.metadata.family == 'p5'",
]
GIVEN = {
    "run_id": "r-1",
    "stage": "pre_apply",
    "team": "checkout",
    "actor": "ada",
    "change_digest": "d",
    "change_digest_is_computed": True,
    "metadata": {"family": "p5"},
}


@pytest.mark.parametrize("term", TERMS)
def test_rules_see_every_field_that_policies_may_name(term: str) -> None:
    outcome = an_outcome(a_policy(**rule(term, "tag")), **GIVEN)
    assert codes_of(outcome) == [("policy_rule_tagged", "tag", None)]


def test_the_terms_name_every_field_and_are_true_together() -> None:
    assert compile_together(tuple(TERMS)).asked == EVERYTHING
    rules_together = [
        {"id": f"rule-{place}", "when": term, "effect": "tag", "message": "x"}
        for place, term in enumerate(TERMS)
    ]
    outcome = an_outcome(a_policy(rules=rules_together), **GIVEN)
    assert outcome.tags == tuple(f"rule-{place}" for place in range(len(TERMS)))


def test_a_freeze_is_told_in_utc() -> None:
    window = {
        "id": "f",
        "from": "2026-11-20T13:00:00+02:00",
        "to": "2026-11-20T15:30:00+02:00",
        "effect": "deny",
    }
    found = an_outcome(a_policy(freezes=[window])).findings[0]
    assert found.detail == "Freeze f is in force until 2026-11-20T13:30:00Z."
