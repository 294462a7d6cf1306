"""Explanations: what a person is told about an outcome. Derived from it, and cannot change it.

Every reason code has a title and what the caller can do (SPEC 3.8, BSAFE-005); a test holds the
table complete.
"""

from __future__ import annotations

from typing import Any, Final

from enforcement.gate import decision as gate
from enforcement.gate import failsafe, rules, waterfall
from enforcement.gate.decision import Outcome

_RETRY: Final = "Send the request again with the same idempotency key."

REASONS: Final[dict[str, tuple[str, str]]] = {
    waterfall.PLAN_LIMIT_EXCEEDED: (
        "The tenant's plan ceiling is reached",
        "Ask an admin to raise the policy's plan ceiling or to release what is no longer needed.",
    ),
    waterfall.PROJECT_BUDGET_EXCEEDED: (
        "The project's budget does not cover it",
        "Make the change smaller, or ask an admin for a larger budget or a credit grant.",
    ),
    waterfall.RESERVED_CREDITS_EXHAUSTED: (
        "Reserved credits do not cover the rest",
        "Ask an admin for a credit grant of the reserved pool.",
    ),
    waterfall.EMERGENCY_CREDITS_EXHAUSTED: (
        "Emergency credits do not cover the rest",
        "Ask an owner for a grant of the emergency pool.",
    ),
    waterfall.ENTERPRISE_CEILING_EXCEEDED: (
        "The enterprise ceiling would be passed",
        "No approval can lift this cap; make the change smaller or wait for next month.",
    ),
    waterfall.NO_CEILING_CONFIGURED: ("No such ceiling is set", "Nothing to do."),
    waterfall.NOTHING_TO_COVER: ("Nothing was left to cover", "Nothing to do."),
    waterfall.NO_BUDGET_CONFIGURED: (
        "No budget matches",
        "Check the project, environment and team, or ask an admin to create a budget.",
    ),
    rules.COST_UNKNOWN: (
        "The cost is unknown",
        "Send a cost estimate that prices every project, or have the change approved.",
    ),
    rules.COST_PARTIAL: (
        "A part of the cost is unknown",
        "Price the missing resources, or have the change approved.",
    ),
    rules.DENY_THRESHOLD_REACHED: (
        "The change is above the hard limit",
        "Make the change smaller; the policy refuses this amount outright.",
    ),
    rules.APPROVAL_THRESHOLD_REACHED: (
        "The change is large enough to need approval",
        "Wait for a reviewer, or make the change smaller.",
    ),
    rules.FREEZE_ACTIVE: (
        "A freeze window is in force",
        "Wait until the window ends, or ask for an exception.",
    ),
    rules.EXCEPTION_APPLIED: (
        "An exception covers this change",
        "Nothing to do; the exception and its end are in the policy.",
    ),
    rules.RULE_DENIED: (
        "A policy rule refuses it",
        "Change what the rule's message names.",
    ),
    rules.RULE_REQUIRES_APPROVAL: (
        "A policy rule asks for approval",
        "Wait for a reviewer, or change what the rule's message names.",
    ),
    rules.RULE_SKIPPED: (
        "A policy rule asks for metadata that is not there",
        "Send the metadata that the rule names, if it concerns this change.",
    ),
    rules.RULE_TAGGED: ("A policy rule tagged it", "Nothing to do."),
    rules.RULE_FAILED: (
        "A policy rule could not be evaluated",
        "Ask the policy's author to correct the rule; until then it counts as matched.",
    ),
    rules.EMERGENCY_NEEDS_APPROVAL: (
        "Emergency credits need approval here",
        "Wait for a reviewer, or ask an admin for a larger budget.",
    ),
    rules.PARENT_NOT_APPLICABLE: (
        "The named decision has nothing to share",
        "Name an active decision of the same project and environment, or none.",
    ),
    rules.SHARED_AWAITS_APPROVAL: (
        "An earlier decision about it awaits approval",
        "Wait for the reviewer of the earlier decision.",
    ),
    gate.WITHIN_BUDGET: ("The budget covers it", "Nothing to do."),
    gate.NO_INCREASE: ("The change adds no cost", "Nothing to do."),
    gate.APPROVAL_SPENT: (
        "An approval was given for this very change",
        "Nothing to do; the approval is spent, and another change needs its own.",
    ),
    gate.RESERVATION_SHARED: (
        "An earlier decision's reservation is shared",
        "Nothing to do; the change is charged once.",
    ),
    gate.COVERED_BY_RESERVED: ("Reserved credits are used", "Nothing to do."),
    gate.COVERED_BY_EMERGENCY: ("Emergency credits are used", "Nothing to do."),
    failsafe.TIMEOUT: ("The evaluation took too long", _RETRY),
    failsafe.EVALUATION_ERROR: ("The evaluation failed", _RETRY),
    failsafe.LOCK_CONTENDED: ("Another evaluation holds the lock", _RETRY),
    failsafe.LOCK_TIMEOUT: ("The lock was not had in time", _RETRY),
}

_SUMMARIES: Final = {
    gate.ALLOW: "Allowed",
    gate.ALLOW_WITH_CREDITS: "Allowed with credits",
    gate.REQUIRE_APPROVAL: "Needs approval",
    gate.DENY: "Denied",
}


def explain(outcome: Outcome) -> dict[str, Any]:
    """Return the explanation of an outcome as its JSON member."""
    details: dict[str, list[str]] = {}
    for finding in outcome.findings:
        if finding.waived_by is None:
            details.setdefault(finding.code, []).append(finding.detail)
    for code, stage_name, text in _COVERAGE:
        for stage in outcome.stages:
            if stage.stage == stage_name and code in outcome.reason_codes:
                details[code] = [text.format(consumed=stage.consumed_usd, left=stage.headroom_usd)]
    limiting = next((s.stage for s in outcome.stages if s.status == waterfall.LIMITED), None)
    return {
        "summary": _summary(outcome),
        "reason_codes": [
            {
                "code": code,
                "title": REASONS[code][0],
                "detail": " ".join(details.get(code, ())) or f"{REASONS[code][0]}.",
                "action": REASONS[code][1],
            }
            for code in outcome.reason_codes
        ],
        "first_limiting_stage": limiting,
    }


# What covered a change, in the words of its stage: what was covered and what there was.
_COVERAGE: Final = (
    (gate.WITHIN_BUDGET, waterfall.PROJECT_ALLOCATION, "{consumed} of {left} left."),
    (gate.COVERED_BY_RESERVED, waterfall.RESERVED_CREDITS,
     "{consumed} of {left} in reserved credits."),
    (gate.COVERED_BY_EMERGENCY, waterfall.EMERGENCY_CREDITS,
     "{consumed} of {left} in emergency credits."),
)  # fmt: skip
_CREDIT_CODES: Final = (gate.COVERED_BY_RESERVED, gate.COVERED_BY_EMERGENCY)


def _telling_code(outcome: Outcome) -> str | None:
    """Return the code that tells most: with credits, that they are used, not what they cover."""
    if outcome.decision == gate.ALLOW_WITH_CREDITS:
        for code in outcome.reason_codes:
            if code in _CREDIT_CODES:
                return code
    return outcome.reason_codes[0] if outcome.reason_codes else None


def _summary(outcome: Outcome) -> str:
    first = _telling_code(outcome)
    text = _SUMMARIES[outcome.decision]
    if outcome.would_have_been is not None:
        text += f" in shadow mode (hard mode: {_SUMMARIES[outcome.would_have_been].lower()})"
    if first is None:
        return f"{text}."
    title = REASONS[first][0]
    return f"{text}: {title[0].lower()}{title[1:]}."
