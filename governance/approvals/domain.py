"""Routing: which people a policy wants to hear about a change, and why (SPEC 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Whom an approval demands, as it is kept with it.

    :ivar rule_id: of the routing rule; with its trace.
    """

    rule_id: str | None
    trace: tuple[RoutingStep, ...]
    required: int
    reviewer_roles: tuple[str, ...]
    reviewer_groups_all: tuple[str, ...]
    separate_requester: bool


def combine(held: Demand, joining: Demand, *, is_larger: bool) -> Demand:
    """Return whom an approval demands that one more question joins: whatever either of them does.

    A further question is asked under the policy of its own day and with its own risk: it makes no
    terms laxer that people were asked under, and is bound by its own. Who may judge must be let by
    both; where no role is, the larger question's roles hold.

    :param is_larger: whether the joining question asks for more.
    """
    both = tuple(role for role in held.reviewer_roles if role in joining.reviewer_roles)
    leading, other = (joining, held) if is_larger else (held, joining)
    missing = (one for one in other.reviewer_groups_all if one not in leading.reviewer_groups_all)
    combined = Demand(
        rule_id=leading.rule_id,
        trace=leading.trace,
        required=max(held.required, joining.required),
        reviewer_roles=both or leading.reviewer_roles,
        reviewer_groups_all=(*leading.reviewer_groups_all, *missing),
        separate_requester=held.separate_requester or joining.separate_requester,
    )
    if not is_larger and _terms_of(combined) == _terms_of(joining) != _terms_of(held):
        # The joining question's rule alone says what is demanded from now on.
        return replace(combined, rule_id=joining.rule_id, trace=joining.trace)
    return combined


def _terms_of(demand: Demand) -> tuple[object, ...]:
    return (
        demand.required,
        frozenset(demand.reviewer_roles),
        frozenset(demand.reviewer_groups_all),
        demand.separate_requester,
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
