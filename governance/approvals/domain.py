"""Routing: which people a policy wants to hear about a change, and why (SPEC 6)."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

import msgspec

from governance.policies.domain import (
    DEFAULT_REVIEWER_ROLES,
    RISK_LEVELS,
    Policy,
    Role,
    RoutingRule,
)

Outcome = Literal[
    "matched", "environment", "action_prefix", "monthly_delta", "risk_level", "after_match"
]
"""``matched``, else the first condition that failed, or that an earlier rule had matched."""

_RANK_BY_RISK: Final = {level: rank for rank, level in enumerate(RISK_LEVELS)}


class RoutingStep(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one routing rule."""

    rule_id: str
    outcome: Outcome


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """Who may review a change, how many of them must agree, and for how long it may take.

    :ivar rule_id: the rule that matched; None when the environment's own terms hold.
    :ivar trace: one step for each rule, in document order.
    """

    rule_id: str | None
    trace: tuple[RoutingStep, ...]
    required: int
    reviewer_roles: tuple[Role, ...]
    reviewer_groups_all: tuple[str, ...]
    separate_requester: bool
    ttl_seconds: int


def route(
    policy: Policy,
    *,
    environment: str,
    action: str,
    monthly_delta_usd: Decimal | None,
    risk_level: str,
) -> Routing:
    """Return who reviews a change: the first rule of the document that matches decides.

    :param monthly_delta_usd: None when unknown, which reaches every ``monthly_delta_from_usd``:
        an unknown cost is never a small one.
    :param risk_level: the effective one; a level that is not known counts as the highest.
    """
    matched: RoutingRule | None = None
    trace = []
    for rule in policy.routing_rules:
        outcome: Outcome
        if matched is not None:
            outcome = "after_match"
        else:
            outcome = _outcome(
                rule,
                environment=environment,
                action=action,
                monthly_delta_usd=monthly_delta_usd,
                risk_level=risk_level,
            )
        if outcome == "matched":
            matched = rule
        trace.append(RoutingStep(rule_id=rule.id, outcome=outcome))
    terms = policy.approval_terms(environment)
    return Routing(
        rule_id=matched.id if matched else None,
        trace=tuple(trace),
        required=(matched and matched.required) or terms.required,
        reviewer_roles=matched.reviewer_roles if matched else DEFAULT_REVIEWER_ROLES,
        reviewer_groups_all=matched.reviewer_groups_all if matched else (),
        separate_requester=terms.separate_requester,
        ttl_seconds=terms.ttl_seconds,
    )


def effective_risk(*, computed: str, declared: object) -> str:
    """Return the risk level that routing sees: a caller may raise the computed one, not lower it.

    :param declared: a caller's ``metadata.risk_level``; what is no level says nothing.
    """
    word = declared.strip().lower() if isinstance(declared, str) else ""
    if _RANK_BY_RISK.get(word, -1) > _rank(computed):
        return word
    return computed


def _outcome(
    rule: RoutingRule,
    *,
    environment: str,
    action: str,
    monthly_delta_usd: Decimal | None,
    risk_level: str,
) -> Outcome:
    if rule.environment not in (None, environment):
        return "environment"
    if rule.action_prefix is not None and not action.startswith(rule.action_prefix):
        return "action_prefix"
    least = rule.monthly_delta_from_usd
    if least is not None and monthly_delta_usd is not None and monthly_delta_usd < least:
        return "monthly_delta"
    level = RISK_LEVELS[_rank(risk_level)]
    if rule.risk_levels and level not in rule.risk_levels:
        return "risk_level"
    return "matched"


def _rank(level: str) -> int:
    return _RANK_BY_RISK.get(level, len(RISK_LEVELS) - 1)
