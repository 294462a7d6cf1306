"""From findings to outcome: the whole matrix, what is held, modes, sharing (SPEC 3.5, 3.6, 3.10)."""

from __future__ import annotations

from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcement.gate.decision import Outcome, decide
from tests.builders import (
    CENT_OF_CENT,
    EXPOSURE_ID,
    MICROSECOND,
    NOW,
    a_budget,
    a_context,
    a_cost,
    a_grant,
    a_policy,
    a_sharing,
    an_exposure,
    an_outcome,
    some_accounts,
    usd,
)

STRICTNESS = ("ALLOW", "ALLOW_WITH_CREDITS", "REQUIRE_APPROVAL", "DENY")
LETTERS = {
    "A": "ALLOW",
    "C": "ALLOW_WITH_CREDITS",
    "R": "REQUIRE_APPROVAL",
    "D": "DENY",
}

# One row for the strictest finding beside the coverage, one column for the coverage.
# Capital letters hold what they were asked for, small ones hold nothing.
#           budget reserved automatic approval uncovered
EXPECTED = {
    "hard": {
        "none": "A C C R d",
        "warning": "A C C R d",
        "approval": "R R R R d",
        "breach": "d d d d d",
        "deny": "d d d d d",
        "absolute": "d d d d d",
    },
    "soft": {
        "none": "A C C R r",
        "warning": "A C C R r",
        "approval": "R R R R r",
        "breach": "r r r r r",
        "deny": "d d d d d",
        "absolute": "d d d d d",
    },
}
EXPECTED["shadow"] = EXPECTED["hard"]

COVERAGE: dict[str, dict[str, Any]] = {
    "budget": {"budgets": (a_budget(limit=100),)},
    "reserved": {"budgets": (a_budget(limit=60),), "grants": (a_grant(remaining=40),)},
    "automatic": {
        "budgets": (a_budget(limit=60),),
        "grants": (a_grant(remaining=30), a_grant(12, pool="emergency", remaining=10)),
    },
    "approval": {
        "budgets": (a_budget(limit=60),),
        "grants": (a_grant(remaining=30), a_grant(12, pool="emergency", remaining=10)),
    },
    "uncovered": {
        "budgets": (a_budget(limit=60),),
        "grants": (a_grant(remaining=30), a_grant(12, pool="emergency", remaining="9.9999")),
    },
}
PARTS = {
    "budget": ("100", "0", "0"),
    "reserved": ("60", "40", "0"),
    "automatic": ("60", "30", "10"),
    "approval": ("60", "30", "10"),
    "uncovered": ("60", "30", "9.9999"),
}
EFFECTS = tuple(EXPECTED["hard"])
CELLS = list(product(EFFECTS, COVERAGE))
MATRIX = list(product(EXPECTED, EFFECTS, COVERAGE))


def matrix_outcome(mode: str, effect: str, coverage: str) -> Outcome:
    """Return the outcome of one cell: each axis sets one fact and no other."""
    sections: dict[str, Any] = {
        "credits": {"emergency": {"prod": "approval" if coverage != "automatic" else "automatic"}},
    }
    facts: dict[str, Any] = {}
    ceilings: dict[str, Any] = {}
    match effect:
        case "warning":
            facts["parent_decision_id"] = "00000000-0000-7000-8000-000000000077"
        case "approval":
            sections["thresholds"] = {"prod": {"require_approval_from_usd": "100.00"}}
        case "breach":
            ceilings["plan_ceiling_usd"] = usd("99.9999")
        case "deny":
            sections["thresholds"] = {
                "prod": {"require_approval_from_usd": "100.00", "deny_from_usd": "100.00"}
            }
        case "absolute":
            ceilings["enterprise_ceiling_usd"] = usd("99.9999")
    accounts = some_accounts(**COVERAGE[coverage], **ceilings)
    return an_outcome(a_policy(mode, **sections), accounts=accounts, **facts)


@pytest.mark.parametrize(("mode", "effect", "coverage"), MATRIX)
def test_matrix(mode: str, effect: str, coverage: str) -> None:
    letter = EXPECTED[mode][effect].split()[list(COVERAGE).index(coverage)]
    strict, holds = LETTERS[letter.upper()], letter.isupper()
    outcome = matrix_outcome(mode, effect, coverage)
    is_shadow = mode == "shadow"

    assert outcome.mode == mode
    assert outcome.decision == ("ALLOW" if is_shadow else strict)
    expected = strict if is_shadow and strict != "ALLOW" else None
    assert outcome.would_have_been == expected
    assert (outcome.is_holding, outcome.is_shadow) == (holds, is_shadow)
    assert bool(outcome.holds) == holds
    reserved = tuple(usd(part) for part in PARTS[coverage])
    nothing = (usd(0),) * 3
    assert (
        outcome.reserved_allocation_usd,
        outcome.reserved_reserved_credit_usd,
        outcome.reserved_emergency_credit_usd,
    ) == (reserved if holds and not is_shadow else nothing)
    assert (outcome.routing is not None) == (outcome.decision == "REQUIRE_APPROVAL")
    assert outcome.reason_codes


def test_matrix_is_whole() -> None:
    assert len(MATRIX) == 90
    for table in EXPECTED.values():
        assert all(len(row.split()) == len(COVERAGE) for row in table.values())


@pytest.mark.parametrize(("effect", "coverage"), CELLS)
def test_findings_and_stages_are_the_same_in_every_mode(effect: str, coverage: str) -> None:
    shadow, soft, hard = (
        matrix_outcome(mode, effect, coverage) for mode in ("shadow", "soft", "hard")
    )
    assert shadow.findings == soft.findings == hard.findings
    assert shadow.stages == soft.stages == hard.stages
    codes = {outcome.entitlement_reason_code for outcome in (shadow, soft, hard)}
    assert len(codes) == 1


@pytest.mark.parametrize(("effect", "coverage"), CELLS)
def test_a_stricter_mode_is_never_more_lenient(effect: str, coverage: str) -> None:
    ranks = [
        STRICTNESS.index(matrix_outcome(mode, effect, coverage).decision)
        for mode in ("shadow", "soft", "hard")
    ]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize(
    ("effect", "coverage", "code"),
    [
        ("none", "budget", None),
        ("none", "reserved", "project_budget_exceeded"),
        ("none", "uncovered", "project_budget_exceeded"),
        ("breach", "budget", "plan_limit_exceeded"),
        ("breach", "uncovered", "plan_limit_exceeded"),
        ("absolute", "budget", "enterprise_ceiling_exceeded"),
        ("absolute", "uncovered", "project_budget_exceeded"),
    ],
)
def test_the_first_stage_that_limits_gives_the_code(
    effect: str, coverage: str, code: str | None
) -> None:
    for mode in ("shadow", "soft", "hard"):
        assert matrix_outcome(mode, effect, coverage).entitlement_reason_code == code


def test_reason_codes_tell_first_what_decided() -> None:
    policy = a_policy(
        "hard",
        thresholds={"prod": {"require_approval_from_usd": "1.00", "deny_from_usd": "50.00"}},
        partial_cost={"prod": "allow"},
        rules=[
            {"id": "t", "when": "input.stage == null", "effect": "tag", "message": "Tag."},
            {
                "id": "r",
                "when": "input.stage == null",
                "effect": "require_approval",
                "message": "Ask.",
            },
        ],
    )
    accounts = some_accounts(
        budgets=(a_budget(limit=50),),
        grants=(a_grant(),),
        plan_ceiling_usd=usd(1),
        enterprise_ceiling_usd=usd(1),
    )
    outcome = an_outcome(policy, accounts=accounts, cost=a_cost(state="partial"))
    assert outcome.reason_codes == (
        "enterprise_ceiling_exceeded",
        "deny_threshold_reached",
        "plan_limit_exceeded",
        "policy_rule_requires_approval",
        "cost_partial",
        "project_budget_exceeded",
    )
    assert outcome.tags == ("t",)


def test_a_code_found_twice_is_told_once() -> None:
    twice = [
        {"id": name, "when": "input.stage == null", "effect": "deny", "message": name}
        for name in ("one", "two")
    ]
    outcome = an_outcome(a_policy(rules=twice))
    assert outcome.reason_codes == ("policy_rule_denied",)
    assert [found.reference for found in outcome.findings] == ["one", "two"]


@pytest.mark.parametrize(
    ("coverage", "codes"),
    [
        ("budget", ("within_budget",)),
        ("reserved", ("project_budget_exceeded", "covered_by_reserved_credits")),
        (
            "automatic",
            (
                "project_budget_exceeded",
                "reserved_credits_exhausted",
                "covered_by_reserved_credits",
                "covered_by_emergency_credits",
            ),
        ),
    ],
)
def test_an_allowed_change_is_told_what_covers_it(coverage: str, codes: tuple[str, ...]) -> None:
    assert matrix_outcome("hard", "none", coverage).reason_codes == codes


# What nothing can lift.


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_the_enterprise_ceiling_is_lifted_by_nothing(mode: str) -> None:
    exception = {
        "id": "all",
        "project_id": "shop",
        "until": "2030-01-01T00:00:00Z",
        "max_monthly_delta_usd": "1000000.00",
        "reason": "everything",
    }
    policy = a_policy(
        mode,
        exceptions=[exception],
        credits={"emergency": {"prod": "automatic"}},
        no_budget={"prod": "allow"},
    )
    grants = (a_grant(remaining=10_000), a_grant(12, pool="emergency", remaining=10_000))
    for budgets in ((a_budget(limit=10_000),), (a_budget(limit=0),), ()):
        accounts = some_accounts(
            budgets=budgets, grants=grants, enterprise_ceiling_usd=usd("99.9999")
        )
        outcome = an_outcome(policy, accounts=accounts)
        assert (outcome.decision, outcome.holds, outcome.routing) == ("DENY", (), None)


def test_a_pending_decision_never_stands_above_the_plan_ceiling() -> None:
    accounts = some_accounts(plan_ceiling_usd=usd("99.9999"))
    outcome = an_outcome(a_policy("soft"), accounts=accounts)
    assert (outcome.decision, outcome.is_holding) == ("REQUIRE_APPROVAL", False)
    assert outcome.reserved_allocation_usd == 0
    fits = an_outcome(
        a_policy("soft", thresholds={}), accounts=some_accounts(plan_ceiling_usd=usd(100))
    )
    assert (fits.decision, fits.is_holding) == ("REQUIRE_APPROVAL", True)


def test_a_refusal_keeps_what_the_stages_covered_in_its_trace() -> None:
    outcome = matrix_outcome("hard", "none", "uncovered")
    consumed = [str(stage.consumed_usd) for stage in outcome.stages]
    assert consumed == ["100.0000", "60.0000", "30.0000", "9.9999", "0.0000"]
    assert (outcome.decision, outcome.holds) == ("DENY", ())


# Modes.


@pytest.mark.parametrize(
    ("own", "forced", "mode", "scope"),
    [
        ("hard", None, "hard", "terraform.default"),
        ("hard", "soft", "soft", "emergency"),
        ("hard", "shadow", "shadow", "emergency"),
        ("soft", "shadow", "shadow", "emergency"),
        ("soft", "soft", "soft", "terraform.default"),
        ("soft", "hard", "soft", "terraform.default"),
        ("shadow", "soft", "shadow", "terraform.default"),
        ("shadow", "hard", "shadow", "terraform.default"),
    ],
)
def test_a_forced_mode_only_lowers(own: str, forced: str | None, mode: str, scope: str) -> None:
    outcome = an_outcome(a_policy(own), forced_mode=forced)
    assert (outcome.mode, outcome.mode_scope) == (mode, scope)


@pytest.mark.parametrize(
    ("modes", "environment", "mode", "scope"),
    [
        ({"default": "shadow", "prod": "soft"}, "prod", "soft", "terraform.prod"),
        ({"default": "shadow", "prod": "soft"}, "nonprod", "shadow", "terraform.default"),
        ({"nonprod": "soft"}, "nonprod", "soft", "terraform.nonprod"),
        ({"nonprod": "soft"}, "prod", "hard", "builtin.default"),
        ({}, "prod", "hard", "builtin.default"),
    ],
)
def test_the_mode_is_that_of_source_and_environment(
    modes: dict[str, str], environment: str, mode: str, scope: str
) -> None:
    policy = a_policy(modes={"terraform": modes, "k8s_admission": {"default": "shadow"}})
    outcome = an_outcome(policy, environment=environment)
    assert (outcome.mode, outcome.mode_scope) == (mode, scope)


# Shadow.


def test_shadow_says_what_hard_would_have_said_with_its_own_earlier_holds() -> None:
    accounts = some_accounts(budgets=(a_budget(limit=100, shadow_usd=usd("0.0001")),))
    shadow = an_outcome(a_policy("shadow"), accounts=accounts)
    hard = an_outcome(a_policy("hard"), accounts=accounts)
    assert (shadow.decision, shadow.would_have_been) == ("ALLOW", "DENY")
    assert shadow.entitlement_reason_code == "project_budget_exceeded"
    assert hard.decision == "ALLOW", "shadow holds limit nobody else"


def test_shadow_holds_only_shadow_lines() -> None:
    outcome = an_outcome(a_policy("shadow"))
    assert [(line.account_id, line.amount_usd) for line in outcome.holds] == [
        (a_budget().account_id, usd(100)),
        (EXPOSURE_ID, usd(100)),
    ]
    assert outcome.is_shadow
    assert outcome.reserved_allocation_usd == 0


def test_shadow_holds_nothing_for_what_hard_would_have_refused() -> None:
    outcome = an_outcome(a_policy("shadow"), accounts=some_accounts(budgets=(a_budget(limit=1),)))
    assert (outcome.would_have_been, outcome.holds) == ("DENY", ())


# Savings, zero, unknown.


@pytest.mark.parametrize("cost", [a_cost("-50"), a_cost(0), a_cost(None)])
def test_what_adds_nothing_opens_zero_lines_and_frees_nothing(cost: Any) -> None:
    policy = a_policy(unknown_cost={"prod": "allow"})
    budgets = (a_budget(1, limit=10, pending_usd=usd(10)), a_budget(2, limit=5))
    outcome = an_outcome(policy, cost=cost, accounts=some_accounts(budgets=budgets))
    assert outcome.decision == "ALLOW"
    assert outcome.increase_usd == 0
    assert [line.amount_usd for line in outcome.holds] == [usd(0)] * 3
    assert outcome.reserved_allocation_usd == 0


@pytest.mark.parametrize(
    ("state", "verb", "decision"),
    [
        ("unknown", "allow", "ALLOW"),
        ("unknown", "require_approval", "REQUIRE_APPROVAL"),
        ("unknown", "deny", "DENY"),
        ("partial", "allow", "ALLOW"),
        ("partial", "require_approval", "REQUIRE_APPROVAL"),
        ("partial", "deny", "DENY"),
    ],
)
@pytest.mark.parametrize("environment", ["prod", "nonprod"])
def test_cost_states_by_the_verb_of_their_environment(
    environment: str, state: str, verb: str, decision: str
) -> None:
    cost = a_cost(None) if state == "unknown" else a_cost(state="partial")
    other = {"prod": "nonprod", "nonprod": "prod"}[environment]
    verbs = {environment: verb, other: "deny" if verb == "allow" else "allow"}
    policy = a_policy(**{f"{state}_cost": verbs})
    outcome = an_outcome(policy, cost=cost, environment=environment)
    assert outcome.decision == decision
    assert "no_cost_increase" not in outcome.reason_codes


def test_a_partial_cost_reserves_its_known_part() -> None:
    outcome = an_outcome(a_policy(partial_cost={"prod": "allow"}), cost=a_cost(state="partial"))
    assert outcome.reserved_allocation_usd == usd(100)


# No budget.


@pytest.mark.parametrize(
    ("verb", "decision", "holds"),
    [
        ("allow", "ALLOW", True),
        ("require_approval", "REQUIRE_APPROVAL", True),
        ("deny", "DENY", False),
    ],
)
def test_without_a_budget(verb: str, decision: str, holds: bool) -> None:
    grants = (a_grant(remaining=1000), a_grant(12, pool="emergency", remaining=1000))
    outcome = an_outcome(
        a_policy(no_budget={"prod": verb}), accounts=some_accounts(budgets=(), grants=grants)
    )
    assert outcome.decision == decision
    assert outcome.reserved_allocation_usd == 0
    assert outcome.reserved_reserved_credit_usd == 0
    assert outcome.stages[1].consumed_usd == 0
    lines = [(line.kind, line.amount_usd) for line in outcome.holds]
    assert lines == ([("exposure", usd(100))] if holds else [])
    assert outcome.entitlement_reason_code is None


# Sharing.


@pytest.mark.parametrize(
    ("covered", "amount", "increase"),
    [
        ("40", "100", "60"),
        ("100", "100", "0"),
        ("99.9999", "100", "0.0001"),
        ("500", "100", "0"),
        ("40", "-100", "0"),
        ("0", "100", "100"),
    ],
)
def test_only_the_increase_is_reserved(covered: str, amount: str, increase: str) -> None:
    sharing = a_sharing(covered_usd=usd(covered), family_held_usd=usd(covered))
    outcome = an_outcome(cost=a_cost(amount), sharing=sharing)
    assert outcome.increase_usd == usd(increase)
    assert outcome.reserved_allocation_usd == usd(increase)
    assert outcome.shared_reserved_usd == usd(covered) + usd(increase)
    assert outcome.reservation_shared
    lines = [(line.kind, line.amount_usd) for line in outcome.holds]
    own = [("allocation", usd(increase)), ("exposure", usd(increase))]
    assert lines == (own if usd(increase) else []), "the charge has its zero lines already"


def test_what_is_shared_is_not_asked_of_the_accounts_again() -> None:
    full = some_accounts(
        budgets=(a_budget(limit=100, pending_usd=usd(100)),),
        exposure=an_exposure(pending_usd=usd(100)),
        plan_ceiling_usd=usd(100),
        enterprise_ceiling_usd=usd(100),
    )
    shared = a_sharing(covered_usd=usd(100), family_held_usd=usd(100))
    assert an_outcome(accounts=full, sharing=shared).decision == "ALLOW"
    more = an_outcome(accounts=full, sharing=shared, cost=a_cost("100.0001"))
    assert more.decision == "DENY"
    assert (more.reservation_shared, more.shared_reserved_usd, more.holds) == (False, usd(0), ())
    assert an_outcome(accounts=full).decision == "DENY"


def test_shadow_shares_in_shadow_and_says_nothing_of_real_reservations() -> None:
    outcome = an_outcome(a_policy("shadow"), sharing=a_sharing())
    assert outcome.increase_usd == usd(60)
    assert (outcome.reservation_shared, outcome.shared_reserved_usd) == (False, usd(0))


def test_asking_again_does_not_skip_a_pending_approval() -> None:
    """A stage that shares what emergency credits hold until approved waits for the same people."""
    spent = some_accounts(
        budgets=(a_budget(limit=60, pending_usd=usd(60)),),
        grants=(a_grant(12, pool="emergency", remaining=0),),
    )
    pending = a_sharing(covered_usd=usd(100), family_held_usd=usd(100), awaits_approval=True)
    outcome = an_outcome(accounts=spent, sharing=pending)
    assert outcome.decision == "REQUIRE_APPROVAL"
    assert (outcome.is_holding, outcome.holds) == (True, ())


# Routing.


def test_an_approval_is_routed_by_the_computed_risk_which_a_caller_may_only_raise() -> None:
    rule = {"id": "critical-only", "risk_levels": ["critical"], "reviewer_roles": ["owner"]}
    policy = a_policy(thresholds={}, approval_routing_rules=[rule])

    def rule_of(**metadata: str) -> str | None:
        routing = an_outcome(policy, metadata=metadata).routing
        assert routing is not None
        return routing.rule_id

    assert rule_of() is None
    assert rule_of(risk_level="low") is None
    assert rule_of(risk_level="critical") == "critical-only"


# Monotonicity over random worlds.

AMOUNTS = st.integers(-50_000, 2_000_000).map(lambda units: Decimal(units) * CENT_OF_CENT)
LIMITS = st.integers(0, 2_000_000).map(lambda units: Decimal(units) * CENT_OF_CENT)


@st.composite
def _worlds(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return facts of a context and sections of a policy without rules in CEL."""
    budgets = tuple(
        a_budget(number, limit=draw(LIMITS), pending_usd=draw(LIMITS), shadow_usd=draw(LIMITS))
        for number in range(draw(st.integers(0, 2)))
    )
    grants = tuple(
        a_grant(
            number, remaining=draw(LIMITS), pool=draw(st.sampled_from(["reserved", "emergency"]))
        )
        for number in range(11, 11 + draw(st.integers(0, 3)))
    )
    accounts = some_accounts(
        budgets=budgets,
        grants=grants,
        exposure=an_exposure(pending_usd=draw(LIMITS)),
        plan_ceiling_usd=draw(LIMITS) * 3,
        enterprise_ceiling_usd=draw(st.none() | LIMITS.map(lambda limit: limit * 3)),
    )
    approval, denial = sorted((draw(LIMITS), draw(LIMITS)))
    verbs = st.sampled_from(["deny", "require_approval", "allow"])
    sections: dict[str, Any] = {
        "thresholds": {
            "prod": {"require_approval_from_usd": str(approval), "deny_from_usd": str(denial)}
        },
        "unknown_cost": {"prod": draw(verbs)},
        "no_budget": {"prod": draw(verbs)},
        "credits": {"emergency": {"prod": draw(st.sampled_from(["approval", "automatic"]))}},
    }
    if draw(st.booleans()):
        sections["exceptions"] = [
            {
                "id": "e",
                "project_id": "shop",
                "until": (NOW + MICROSECOND).isoformat(),
                "max_monthly_delta_usd": str(draw(LIMITS)),
                "reason": "agreed",
            }
        ]
    if draw(st.booleans()):
        sections["freezes"] = [
            {
                "id": "f",
                "from": NOW.isoformat(),
                "to": (NOW + MICROSECOND).isoformat(),
                "effect": draw(st.sampled_from(["deny", "require_approval"])),
            }
        ]
    sharing = draw(
        st.none() | st.builds(a_sharing, covered_usd=LIMITS, awaits_approval=st.booleans())
    )
    return {"accounts": accounts, "sharing": sharing}, sections


@settings(deadline=None, max_examples=200)
@given(world=_worlds(), amounts=st.tuples(AMOUNTS, AMOUNTS), mode=st.sampled_from(["soft", "hard"]))
def test_a_larger_amount_is_never_treated_more_leniently(
    world: tuple[dict[str, Any], dict[str, Any]], amounts: tuple[Decimal, Decimal], mode: str
) -> None:
    facts, sections = world
    policy = a_policy(mode, **sections)
    small, large = (
        an_outcome(policy, cost=a_cost(amount), **facts).decision for amount in sorted(amounts)
    )
    assert STRICTNESS.index(small) <= STRICTNESS.index(large)


@settings(deadline=None, max_examples=200)
@given(world=_worlds(), amount=st.none() | AMOUNTS)
def test_a_stricter_mode_is_never_more_lenient_in_any_world(
    world: tuple[dict[str, Any], dict[str, Any]], amount: Decimal | None
) -> None:
    facts, sections = world
    decisions = [
        an_outcome(a_policy(mode, **sections), cost=a_cost(amount), **facts).decision
        for mode in ("shadow", "soft", "hard")
    ]
    ranks = [STRICTNESS.index(decision) for decision in decisions]
    assert ranks == sorted(ranks)


@settings(deadline=None, max_examples=200)
@given(
    world=_worlds(),
    amount=st.none() | AMOUNTS,
    mode=st.sampled_from(["shadow", "soft", "hard"]),
)
def test_what_is_held_fits_and_adds_up(
    world: tuple[dict[str, Any], dict[str, Any]], amount: Decimal | None, mode: str
) -> None:
    facts, sections = world
    context = a_context(cost=a_cost(amount), **facts)
    outcome = decide(context, a_policy(mode, **sections))
    accounts, with_shadow = context.accounts, mode == "shadow"
    if not outcome.is_holding:
        assert outcome.holds == ()
        return
    rooms = {b.account_id: b.headroom_usd(with_shadow=with_shadow) for b in accounts.budgets}
    rooms |= {
        g.account_id: g.headroom_usd(now=NOW, with_shadow=with_shadow) for g in accounts.grants
    }
    ceilings = [accounts.plan_ceiling_usd, accounts.enterprise_ceiling_usd or Decimal(10**9)]
    used = accounts.exposure.used_usd(with_shadow=with_shadow)
    rooms[EXPOSURE_ID] = max(Decimal(0), min(ceilings) - used)
    for line in outcome.holds:
        assert 0 <= line.amount_usd <= rooms[line.account_id]
    if accounts.budgets:
        credits_held = sum(line.amount_usd for line in outcome.holds if "credit" in line.kind)
        allocated = max(
            (line.amount_usd for line in outcome.holds if line.kind == "allocation"),
            default=Decimal(0),
        )
        assert credits_held + allocated == outcome.increase_usd, "the whole amount or nothing"
