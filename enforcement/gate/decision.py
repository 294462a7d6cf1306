"""``decide``: from everything that a question depends on to its outcome (SPEC 3.3, 3.6).

Pure: no I/O, no clock, no randomness. Replay runs it on stored contexts and compares bytes;
a change that could alter an outcome raises ``ENGINE_VERSION``.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from enforcement.gate import rules, waterfall
from enforcement.gate.context import ComputedContext
from enforcement.gate.inputs import GateInput
from enforcement.gate.rules import Finding
from enforcement.gate.waterfall import Accounts, Hold, Stage, Waterfall
from governance.approvals.domain import Routing, effective_risk, route
from governance.policies.domain import MODES, Policy
from valdrix.kernel.money import ZERO
from valdrix.kernel.structs import json_reader

ENGINE_VERSION: Final = "decide-1/cel-expr-python-0.1.3"

ALLOW: Final = "ALLOW"
ALLOW_WITH_CREDITS: Final = "ALLOW_WITH_CREDITS"
REQUIRE_APPROVAL: Final = "REQUIRE_APPROVAL"
DENY: Final = "DENY"

SHADOW: Final = "shadow"
SOFT: Final = "soft"
HARD: Final = "hard"

WITHIN_BUDGET: Final = "within_budget"
COVERED_BY_RESERVED: Final = "covered_by_reserved_credits"
COVERED_BY_EMERGENCY: Final = "covered_by_emergency_credits"
NO_INCREASE: Final = "no_cost_increase"
RESERVATION_SHARED: Final = "reservation_shared"
APPROVAL_SPENT: Final = "approval_spent"


class Sharing(msgspec.Struct, frozen=True, kw_only=True):
    """What earlier decisions already hold for this change (SPEC 3.10).

    :ivar covered_usd: how much of this change needs no new reservation.
    :ivar family_held_usd: what the family holds before this decision adds to it.
    :ivar awaits_approval: a decision that holds a part of it still waits for its approval.
    """

    charge_id: str
    family_id: str
    covered_usd: Decimal
    family_held_usd: Decimal
    awaits_approval: bool = False


class GivenApproval(msgspec.Struct, frozen=True, kw_only=True):
    """An approval that people gave for this computed change, and that covers its cost (SPEC 6).

    :ivar is_spent: an earlier stage of this very run has spent it already.
    """

    approval_id: str
    max_monthly_delta_usd: Decimal
    is_spent: bool


class GateContext(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a decision depends on, read under the locks; stored with the decision.

    The policy itself is immutable and stored once: its version and digest stand for it.

    :ivar forced_mode: the lower mode that an owner has put in force, or None.
    :ivar sharing: the charge that this change shares, or None.
    :ivar parent_is_applicable: whether a named parent decision has anything left to share.
    :ivar given: the approval that the question may spend, or None.
    """

    gate_input: GateInput
    evaluated_at: datetime
    policy_version: int
    policy_sha256: str
    policy_schema_version: str
    forced_mode: str | None
    accounts: Accounts
    sharing: Sharing | None
    parent_is_applicable: bool
    computed: ComputedContext
    given: GivenApproval | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided and why; amounts in US dollars a month.

    :ivar would_have_been: in shadow mode what hard mode would have said, where it differs.
    :ivar holds: lines to reserve, real or shadow ones; empty when nothing is to be held.
    :ivar is_holding: True for what goes ahead, or waits with its whole amount covered.
    :ivar is_shadow: True when the holds only count in shadow totals.
    :ivar increase_usd: the part of the change that no earlier reservation covers.
    :ivar routing: who is to review, when the decision is ``REQUIRE_APPROVAL``.
    """

    decision: str
    mode: str
    mode_scope: str
    would_have_been: str | None
    reason_codes: tuple[str, ...]
    entitlement_reason_code: str | None
    findings: tuple[Finding, ...]
    stages: tuple[Stage, ...]
    holds: tuple[Hold, ...]
    is_shadow: bool
    increase_usd: Decimal
    reserved_allocation_usd: Decimal
    reserved_reserved_credit_usd: Decimal
    reserved_emergency_credit_usd: Decimal
    reservation_shared: bool
    shared_reserved_usd: Decimal
    is_holding: bool
    routing: Routing | None
    tags: tuple[str, ...]


def decide(context: GateContext, policy: Policy) -> Outcome:
    """Return the outcome of a question: the strictest finding wins, nothing short-circuits."""
    gate_input = context.gate_input
    mode, scope = _mode(context, policy)
    is_shadow = mode == SHADOW
    covered = context.sharing.covered_usd if context.sharing else ZERO
    increase = max(ZERO, gate_input.amount_usd - covered)
    fall = waterfall.run_waterfall(
        context.accounts,
        requested_usd=increase,
        now=context.evaluated_at,
        with_shadow=is_shadow,
    )
    findings = rules.find_all(
        rules.Facts(
            gate_input=gate_input,
            policy=policy,
            computed=context.computed,
            waterfall=fall,
            evaluated_at=context.evaluated_at,
            parent_is_applicable=context.parent_is_applicable,
            shared_awaits_approval=_leans_on_pending(context),
        )
    )
    findings = _lift(findings, context)
    strict = _verdict(findings, HARD if is_shadow else mode, fall)
    decision = ALLOW if is_shadow else strict
    is_holding = _is_holding(strict, fall)
    holds = _holds(fall, context) if is_holding else ()
    is_real = is_holding and not is_shadow
    shared = context.sharing if is_real else None
    limiting = fall.limiting_stage
    return Outcome(
        decision=decision,
        mode=mode,
        mode_scope=scope,
        would_have_been=strict if is_shadow and strict != decision else None,
        reason_codes=_reason_codes(findings, strict, fall, context),
        entitlement_reason_code=limiting.reason_code if limiting else None,
        findings=findings,
        stages=fall.stages,
        holds=holds,
        is_shadow=is_shadow,
        increase_usd=increase,
        reserved_allocation_usd=fall.allocation_usd if is_real else ZERO,
        reserved_reserved_credit_usd=fall.reserved_credit_usd if is_real else ZERO,
        reserved_emergency_credit_usd=fall.emergency_credit_usd if is_real else ZERO,
        reservation_shared=shared is not None,
        shared_reserved_usd=shared.family_held_usd + increase if shared is not None else ZERO,
        is_holding=is_holding,
        routing=_routing(context, policy) if decision == REQUIRE_APPROVAL else None,
        tags=tuple(
            finding.reference
            for finding in findings
            if finding.effect == rules.TAGS and finding.reference is not None
        ),
    )


def _mode(context: GateContext, policy: Policy) -> tuple[str, str]:
    """Return the mode and where it comes from; a forced mode only ever lowers."""
    choice = policy.mode(context.gate_input.source, context.gate_input.environment)
    forced = context.forced_mode
    if forced is not None and MODES.index(forced) < MODES.index(choice.mode):
        return forced, "emergency"
    return choice.mode, choice.scope


def _verdict(findings: tuple[Finding, ...], mode: str, fall: Waterfall) -> str:
    """Return what the strictest finding means in soft or hard mode."""
    effects = {finding.effect for finding in findings if finding.waived_by is None}
    if rules.ABSOLUTE in effects or rules.DENIES in effects:
        return DENY
    if rules.BREACHES in effects:
        return DENY if mode == HARD else REQUIRE_APPROVAL
    if rules.NEEDS_APPROVAL in effects:
        return REQUIRE_APPROVAL
    from_credits = fall.reserved_credit_usd + fall.emergency_credit_usd
    return ALLOW_WITH_CREDITS if from_credits > 0 else ALLOW


def _lift(findings: tuple[Finding, ...], context: GateContext) -> tuple[Finding, ...]:
    """Return findings of which a given approval has lifted those that asked for one.

    It lifts no breach and no refusal: what it covers is held already.
    """
    if context.given is None:
        return findings
    return tuple(
        msgspec.structs.replace(finding, waived_by=context.given.approval_id)
        if finding.effect == rules.NEEDS_APPROVAL and finding.waived_by is None
        else finding
        for finding in findings
    )


def _leans_on_pending(context: GateContext) -> bool:
    """Tell whether a part of the amount is covered by what nobody has approved yet."""
    sharing = context.sharing
    return (
        sharing is not None
        and sharing.awaits_approval
        and min(sharing.covered_usd, context.gate_input.amount_usd) > 0
    )


def _is_holding(strict: str, fall: Waterfall) -> bool:
    """Tell whether a verdict holds: what goes ahead does, what waits only as a whole.

    While it waits, nothing may stand above the plan's ceiling either: with approvals pending,
    reservations never exceed a headroom (SPEC 3.10).
    """
    if strict == REQUIRE_APPROVAL:
        return fall.uncovered_usd == 0 and not fall.is_limited(waterfall.PLAN_LIMIT)
    return strict != DENY


def _holds(fall: Waterfall, context: GateContext) -> tuple[Hold, ...]:
    """Return the lines to hold.

    A change without an increase of its own, such as a saving, still opens zero lines, so that
    its actual can be posted later; one that shares a charge has those lines already.
    """
    if context.sharing is not None:
        return tuple(hold for hold in fall.holds if hold.amount_usd > 0)
    return fall.holds


_SHOWN_EFFECTS: Final = (
    rules.ABSOLUTE,
    rules.DENIES,
    rules.BREACHES,
    rules.NEEDS_APPROVAL,
    rules.WARNS,
    rules.INFORMS,
)
"""Effects in the order in which their codes are told: what decided comes first."""


def _reason_codes(
    findings: tuple[Finding, ...], strict: str, fall: Waterfall, context: GateContext
) -> tuple[str, ...]:
    """Return every code that counts, the strictest first, each once."""
    codes = [
        finding.code
        for effect in _SHOWN_EFFECTS
        for finding in findings
        if finding.effect == effect and finding.waived_by is None
    ]
    if strict in {ALLOW, ALLOW_WITH_CREDITS}:
        codes.extend(_coverage_codes(fall, context))
    return tuple(dict.fromkeys(codes))


def _coverage_codes(fall: Waterfall, context: GateContext) -> list[str]:
    codes = []
    if context.gate_input.cost.state == "known" and context.gate_input.amount_usd == 0:
        codes.append(NO_INCREASE)
    elif fall.stages[1].status == waterfall.PASS and fall.stages[1].requested_usd > 0:
        codes.append(WITHIN_BUDGET)
    if context.given is not None:
        codes.append(APPROVAL_SPENT)
    if context.sharing is not None:
        codes.append(RESERVATION_SHARED)
    if fall.reserved_credit_usd > 0:
        codes.append(COVERED_BY_RESERVED)
    if fall.emergency_credit_usd > 0:
        codes.append(COVERED_BY_EMERGENCY)
    return codes


def _routing(context: GateContext, policy: Policy) -> Routing:
    gate_input = context.gate_input
    return route(
        policy,
        environment=gate_input.environment,
        action=gate_input.action,
        monthly_delta_usd=gate_input.cost.monthly_delta_usd,
        risk_level=effective_risk(
            computed=context.computed.risk_class, declared=gate_input.metadata.get("risk_level")
        ),
    )


_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_read_context: Final = json_reader(GateContext)


def is_spending(context: GateContext, outcome: Outcome) -> bool:
    """Tell whether an outcome goes ahead by the approval that its question may spend."""
    return context.given is not None and outcome.decision in {ALLOW, ALLOW_WITH_CREDITS}


def encode(value: GateContext | Outcome) -> str:
    """Return the stored form of a context or an outcome: JSON with sorted keys."""
    return _ENCODER.encode(value).decode()


def decode_context(text: str) -> GateContext:
    """Return the context that :func:`encode` stored."""
    return _read_context(text)


def outcome_sha256(outcome_json: str) -> str:
    """Return the digest by which replay compares outcomes."""
    return hashlib.sha256(outcome_json.encode()).hexdigest()
