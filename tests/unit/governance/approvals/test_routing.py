"""Routing: the first rule that matches decides, and every rule says why it did or did not."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from governance.approvals.domain import RoutingStep, effective_risk, route
from governance.policies.document import parse_policy

RULE = {
    "id": "large",
    "environment": "prod",
    "action_prefix": "terraform.",
    "monthly_delta_from_usd": "1000.00",
    "risk_levels": ["high", "critical"],
    "reviewer_roles": ["owner"],
    "reviewer_groups_all": ["finance", "platform"],
    "required": 2,
}
CHANGE: dict[str, Any] = {
    "environment": "prod",
    "action": "terraform.apply",
    "monthly_delta_usd": Decimal("1000.0000"),
    "risk_level": "high",
}
APPROVALS = {
    "prod": {"required": 3, "separate_requester": True, "ttl_seconds": 600},
    "nonprod": {"required": 1, "separate_requester": False, "ttl_seconds": 60},
}


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({}, "matched"),
        ({"monthly_delta_usd": None}, "matched"),
        ({"risk_level": "unheard-of"}, "matched"),
        ({"environment": "nonprod"}, "environment"),
        ({"action": "k8s.create"}, "action_prefix"),
        ({"action": "Terraform.apply"}, "action_prefix"),
        ({"monthly_delta_usd": Decimal("999.9999")}, "monthly_delta"),
        ({"monthly_delta_usd": Decimal("-2000.0000")}, "monthly_delta"),
        ({"risk_level": "medium"}, "risk_level"),
    ],
)
def test_each_condition_of_a_rule(change: dict[str, Any], outcome: str) -> None:
    policy = parse_policy({"approval_routing_rules": [RULE], "approvals": APPROVALS})

    routing = route(policy, **{**CHANGE, **change})

    assert [(step.rule_id, step.outcome) for step in routing.trace] == [("large", outcome)]
    if outcome == "matched":
        assert routing.rule_id == "large"
        assert routing.required == 2
        assert routing.reviewer_roles == ("owner",)
        assert routing.reviewer_groups_all == ("finance", "platform")
    else:
        assert routing.rule_id is None
        assert routing.required == (1 if change.get("environment") == "nonprod" else 3)
        assert routing.reviewer_roles == ("owner", "admin")
        assert routing.reviewer_groups_all == ()


def test_the_first_matching_rule_of_the_document_wins() -> None:
    rules = [{"id": "nonprod", "environment": "nonprod"}, {"id": "any"}, RULE]
    policy = parse_policy({"approval_routing_rules": rules, "approvals": APPROVALS})

    routing = route(policy, **CHANGE)

    assert routing.rule_id == "any"
    assert routing.required == 3
    assert routing.trace == (
        RoutingStep(rule_id="nonprod", outcome="environment"),
        RoutingStep(rule_id="any", outcome="matched"),
        RoutingStep(rule_id="large", outcome="after_match"),
    )


def test_terms_come_from_the_environment() -> None:
    policy = parse_policy({"approvals": APPROVALS})
    prod, nonprod = route(policy, **CHANGE), route(policy, **{**CHANGE, "environment": "nonprod"})

    assert (prod.separate_requester, prod.ttl_seconds, prod.required) == (True, 600, 3)
    assert (nonprod.separate_requester, nonprod.ttl_seconds, nonprod.required) == (False, 60, 1)
    assert prod.trace == ()


@pytest.mark.parametrize(
    ("computed", "declared", "effective"),
    [
        ("low", None, "low"),
        ("low", "high", "high"),
        ("low", " CRITICAL ", "critical"),
        ("high", "low", "high"),
        ("high", "high", "high"),
        ("medium", "hihg", "medium"),
        ("medium", 7, "medium"),
        ("medium", ["critical"], "medium"),
        ("critical", "low", "critical"),
        ("unheard-of", "low", "unheard-of"),
    ],
)
def test_a_caller_may_raise_the_risk_and_never_lower_it(
    computed: str, declared: object, effective: str
) -> None:
    assert effective_risk(computed=computed, declared=declared) == effective
