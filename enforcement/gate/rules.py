"""The rules of a decision, one ordered tuple, read from top to bottom (SPEC 3.5, 3.6).

Each rule looks at the same facts and yields findings; none stops another. The strictest finding
that no exception waives wins. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

import msgspec

from enforcement.gate import waterfall
from enforcement.gate.context import ComputedContext
from enforcement.gate.inputs import KNOWN, PARTIAL, GateInput
from enforcement.gate.waterfall import Waterfall
from governance.policies.domain import Policy
from governance.policies.expressions import (
    Together,
    build_facts,
    compile_together,
    evaluate_together,
)

DENIES: Final = "deny"
"""Refused in soft and in hard mode."""
ABSOLUTE: Final = "absolute"
"""Refused in soft and in hard mode, and no approval or credit can lift it."""
BREACHES: Final = "breach"
"""Refused in hard mode, needs an approval in soft mode."""
NEEDS_APPROVAL: Final = "require_approval"
WARNS: Final = "warn"
TAGS: Final = "tag"
INFORMS: Final = "info"
NOTES: Final = "note"
"""Recorded among the findings only."""

COST_UNKNOWN: Final = "cost_unknown"
COST_PARTIAL: Final = "cost_partial"
DENY_THRESHOLD_REACHED: Final = "deny_threshold_reached"
APPROVAL_THRESHOLD_REACHED: Final = "approval_threshold_reached"
FREEZE_ACTIVE: Final = "freeze_active"
EXCEPTION_APPLIED: Final = "policy_exception_applied"
RULE_DENIED: Final = "policy_rule_denied"
RULE_REQUIRES_APPROVAL: Final = "policy_rule_requires_approval"
RULE_TAGGED: Final = "policy_rule_tagged"
RULE_FAILED: Final = "policy_rule_failed"
RULE_SKIPPED: Final = "policy_rule_skipped"
EMERGENCY_NEEDS_APPROVAL: Final = "emergency_credits_require_approval"
PARENT_NOT_APPLICABLE: Final = "parent_decision_not_applicable"
SHARED_AWAITS_APPROVAL: Final = "shared_reservation_awaits_approval"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a rule found.

    :ivar reference: the policy's rule, freeze or exception, or the waterfall's stage, if any.
    :ivar waived_by: the exception or the approval that lifts it; a waived finding is recorded and
        counts nothing.
    """

    code: str
    effect: str
    detail: str
    reference: str | None = None
    waived_by: str | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules look at.

    :ivar shared_awaits_approval: the change shares a reservation that nobody has approved yet.
    """

    gate_input: GateInput
    policy: Policy
    computed: ComputedContext
    waterfall: Waterfall
    evaluated_at: datetime
    parent_is_applicable: bool
    shared_awaits_approval: bool = False


Rule = Callable[[Facts], Iterator[Finding]]


def find_all(facts: Facts) -> tuple[Finding, ...]:
    """Return everything that every rule finds, with what an exception waives marked as such."""
    findings = tuple(finding for rule in RULES for finding in rule(facts))
    return _waive(facts, findings)


def _cost_state(facts: Facts) -> Iterator[Finding]:
    """Ask the policy what an unknown or partial cost means; unknown is never zero."""
    cost = facts.gate_input.cost
    if cost.state == KNOWN:
        return
    verb = facts.policy.cost_verb(cost.state, facts.gate_input.environment)
    yield Finding(
        code=COST_PARTIAL if cost.state == PARTIAL else COST_UNKNOWN,
        effect={"allow": WARNS, "deny": DENIES}.get(verb, NEEDS_APPROVAL),
        detail=f"The cost is {cost.state}: {', '.join(cost.reasons) or 'no reason given'}.",
    )


def _thresholds(facts: Facts) -> Iterator[Finding]:
    """Find the threshold that an increase reaches: it needs approval, or is refused."""
    delta = facts.gate_input.cost.monthly_delta_usd
    if delta is None:
        return
    threshold = facts.policy.threshold(facts.gate_input.environment)
    verb = threshold.finding(delta)
    if verb == "deny":
        yield Finding(
            code=DENY_THRESHOLD_REACHED,
            effect=DENIES,
            detail=f"{delta} US dollars a month is at or above the limit of"
            f" {threshold.deny_from_usd}.",
        )
    elif verb == "require_approval":
        yield Finding(
            code=APPROVAL_THRESHOLD_REACHED,
            effect=NEEDS_APPROVAL,
            detail=f"{delta} US dollars a month needs approval from"
            f" {threshold.require_approval_from_usd} on.",
        )


_RULE_FINDINGS: Final = {
    "deny": (RULE_DENIED, DENIES),
    "require_approval": (RULE_REQUIRES_APPROVAL, NEEDS_APPROVAL),
    "tag": (RULE_TAGGED, TAGS),
}


def _custom_rules(facts: Facts) -> Iterator[Finding]:
    """Evaluate the tenant's own rules; one that fails counts as matched: the strict side.

    A tag says something about a change that holds: one that fails is not set, and warned of.
    """
    if not facts.policy.rules:
        return
    together, of_input, of_context = _prepare(tuple([rule.when for rule in facts.policy.rules]))
    documents = build_facts(
        input_document={name: read(facts.gate_input) for name, read in of_input},
        context_document={name: read(facts.computed) for name, read in of_context},
        asked=together.asked,
    )
    verdicts = evaluate_together(together, documents)
    for rule, verdict in zip(facts.policy.rules, verdicts, strict=True):
        code, effect = _RULE_FINDINGS[rule.effect]
        if verdict.error is not None:
            meaning = "its tag is not set" if effect == TAGS else "counts as matched"
            yield Finding(
                code=RULE_FAILED,
                effect=effect if effect != TAGS else WARNS,
                detail=f"Rule {rule.id} could not be evaluated and {meaning}.",
                reference=rule.id,
            )
        elif verdict.matched:
            yield Finding(code=code, effect=effect, detail=rule.message, reference=rule.id)
        elif verdict.missing:
            # It let the change pass because a key was left out: that must be seen.
            yield Finding(
                code=RULE_SKIPPED,
                effect=NOTES,
                detail=f"Rule {rule.id} asks for metadata that the request does not have.",
                reference=rule.id,
            )


def _freezes(facts: Facts) -> Iterator[Finding]:
    """Find the freeze windows in force, in which nothing new is let through."""
    for freeze in facts.policy.active_freezes(
        environment=facts.gate_input.environment, at=facts.evaluated_at
    ):
        yield Finding(
            code=FREEZE_ACTIVE,
            effect=DENIES if freeze.effect == "deny" else NEEDS_APPROVAL,
            detail=f"Freeze {freeze.id} is in force until {freeze.to_at:%Y-%m-%dT%H:%M:%SZ}.",
            reference=freeze.id,
        )


def _parent(facts: Facts) -> Iterator[Finding]:
    """Tell the caller when the named earlier decision has nothing to share."""
    if facts.gate_input.parent_decision_id is not None and not facts.parent_is_applicable:
        yield Finding(
            code=PARENT_NOT_APPLICABLE,
            effect=WARNS,
            detail="The named decision holds nothing that this change could share.",
        )


def _shared_approval(facts: Facts) -> Iterator[Finding]:
    """Refuse to lean on what still waits for its approval: asking again is no way around."""
    if facts.shared_awaits_approval:
        yield Finding(
            code=SHARED_AWAITS_APPROVAL,
            effect=NEEDS_APPROVAL,
            detail="The reservation that this change shares has not been approved yet.",
        )


def _no_budget(facts: Facts) -> Iterator[Finding]:
    """Ask the policy what no budget means: inventing a project is no way around.

    What is known to add nothing needs no budget. The whole amount counts, not the increase over
    what is shared: a second question about the same change meets the same answer.
    """
    stage = facts.waterfall.stages[1]
    if stage.reason_code != waterfall.NO_BUDGET_CONFIGURED:
        return
    verb = facts.policy.no_budget.of(facts.gate_input.environment)
    if facts.gate_input.cost.state == KNOWN and facts.gate_input.amount_usd == 0:
        verb = "allow"
    yield Finding(
        code=waterfall.NO_BUDGET_CONFIGURED,
        effect={"allow": INFORMS, "deny": DENIES}.get(verb, NEEDS_APPROVAL),
        detail="No active budget matches this project, environment and team.",
        reference=stage.stage,
    )


def _entitlement(facts: Facts) -> Iterator[Finding]:
    """Call what the waterfall limits a breach, unless a later stage covered what was missing."""
    is_covered = facts.waterfall.uncovered_usd == 0
    for stage in facts.waterfall.stages:
        if stage.status != waterfall.LIMITED:
            continue
        effect = BREACHES
        if stage.stage == waterfall.ENTERPRISE_CEILING:
            effect = ABSOLUTE
        elif stage.stage != waterfall.PLAN_LIMIT and is_covered:
            effect = INFORMS
        yield Finding(
            code=stage.reason_code or waterfall.PROJECT_BUDGET_EXCEEDED,
            effect=effect,
            detail=f"{stage.requested_usd} was asked of {stage.headroom_usd} left"
            f" (limit {stage.limit_usd}, used {stage.used_usd}).",
            reference=stage.stage,
        )


def _emergency_credits(facts: Facts) -> Iterator[Finding]:
    """Ask the policy whether emergency credits burn at once or by approval."""
    use = facts.policy.emergency_credits.of(facts.gate_input.environment)
    if facts.waterfall.emergency_credit_usd > 0 and use != "automatic":
        yield Finding(
            code=EMERGENCY_NEEDS_APPROVAL,
            effect=NEEDS_APPROVAL,
            detail=f"{facts.waterfall.emergency_credit_usd} would come from emergency credits.",
            reference=waterfall.EMERGENCY_CREDITS,
        )


RULES: Final[tuple[Rule, ...]] = (
    _cost_state,
    _thresholds,
    _custom_rules,
    _freezes,
    _parent,
    _shared_approval,
    _no_budget,
    _entitlement,
    _emergency_credits,
)

_WAIVABLE: Final = frozenset({APPROVAL_THRESHOLD_REACHED, FREEZE_ACTIVE})
"""An exception is an agreed move: it lifts what a person would wave through, never money rules."""


def _waive(facts: Facts, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    delta = facts.gate_input.cost.monthly_delta_usd
    if delta is None or facts.gate_input.cost.state != KNOWN:
        return findings
    exception = facts.policy.find_exception(
        project_id=facts.gate_input.project_id,
        environment=facts.gate_input.environment,
        monthly_delta_usd=delta,
        at=facts.evaluated_at,
    )
    if exception is None or not any(finding.code in _WAIVABLE for finding in findings):
        return findings
    applied = Finding(
        code=EXCEPTION_APPLIED,
        effect=INFORMS,
        detail=f"Exception {exception.id} covers this change: {exception.reason}",
        reference=exception.id,
    )
    waived = tuple(
        msgspec.structs.replace(finding, waived_by=exception.id)
        if finding.code in _WAIVABLE
        else finding
        for finding in findings
    )
    return (*waived, applied)


def _in_iso(name: str) -> Callable[[ComputedContext], str | None]:
    def read(computed: ComputedContext) -> str | None:
        value = getattr(computed, name)
        return None if value is None else value.isoformat()

    return read


_Reader = Callable[[Any], object]
_OF_INPUT: Final[dict[str, _Reader]] = {
    "source": attrgetter("source"),
    "project_id": attrgetter("project_id"),
    "environment": attrgetter("environment"),
    "environment_original": attrgetter("environment_original"),
    "action": attrgetter("action"),
    "resource_reference": attrgetter("resource_reference"),
    "estimated_monthly_delta_usd": attrgetter("cost.monthly_delta_usd"),
    "estimated_hourly_delta_usd": attrgetter("cost.hourly_delta_usd"),
    "cost_state": attrgetter("cost.state"),
    "cost_state_reasons": attrgetter("cost.reasons"),
    "team": attrgetter("team"),
    "metadata": attrgetter("metadata"),
    "actor": attrgetter("actor"),
    "change_digest": attrgetter("change_digest"),
    "change_digest_is_computed": attrgetter("change_digest_is_computed"),
    "parent_decision_id": attrgetter("parent_decision_id"),
    "run_id": attrgetter("run_id"),
    "stage": attrgetter("stage"),
    "dry_run": attrgetter("dry_run"),
}
_OF_CONTEXT: Final[dict[str, _Reader]] = {
    name: attrgetter(name) for name in ComputedContext.__struct_fields__
} | {
    name: _in_iso(name) for name in ("generated_at", "month_start", "month_end", "latest_cost_date")
}
"""How each field that expressions know is read, amounts by their name in US dollars."""


_Readers = tuple[tuple[str, _Reader], ...]


@lru_cache(maxsize=128)
def _prepare(texts: tuple[str, ...]) -> tuple[Together, _Readers, _Readers]:
    """Return a policy's rules, compiled, and how the fields that they name are read."""
    together = compile_together(texts)
    return (
        together,
        tuple(one for one in _OF_INPUT.items() if one[0] in together.asked.input),
        tuple(one for one in _OF_CONTEXT.items() if one[0] in together.asked.context),
    )
