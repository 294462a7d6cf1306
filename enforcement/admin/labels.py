"""Words and colours for what the gate says."""

from __future__ import annotations

from typing import Final

from django.utils.html import format_html
from django.utils.safestring import SafeString

from enforcement.decisions.models import ALLOW, ALLOW_WITH_CREDITS, DENY, REQUIRE_APPROVAL
from enforcement.gate import rules, waterfall
from enforcement.gate.explanation import REASONS
from enforcement.gate.inputs import KNOWN, PARTIAL
from valdrix.kernel.admin_display import BAD, GOOD, INFO, NEUTRAL, NOTHING, WARN, badge, words

_DECISIONS: Final = {
    ALLOW: ("Allowed", GOOD),
    ALLOW_WITH_CREDITS: ("Allowed with credits", INFO),
    REQUIRE_APPROVAL: ("Needs approval", WARN),
    DENY: ("Denied", BAD),
}
_STAGES: Final = {
    waterfall.PLAN_LIMIT: "Plan ceiling",
    waterfall.PROJECT_ALLOCATION: "Project budget",
    waterfall.RESERVED_CREDITS: "Reserved credits",
    waterfall.EMERGENCY_CREDITS: "Emergency credits",
    waterfall.ENTERPRISE_CEILING: "Enterprise ceiling",
}
_STATUSES: Final = {
    waterfall.PASS: ("Fits", GOOD),
    waterfall.LIMITED: ("Limits", BAD),
    waterfall.SKIPPED: ("Skipped", NEUTRAL),
}
_EFFECTS: Final = {
    rules.ABSOLUTE: ("Denies, no way round", BAD),
    rules.DENIES: ("Denies", BAD),
    rules.BREACHES: ("Breach", BAD),
    rules.NEEDS_APPROVAL: ("Needs approval", WARN),
    rules.WARNS: ("Warns", WARN),
    rules.TAGS: ("Tags", INFO),
    rules.INFORMS: ("Informs", INFO),
}


def decision_label(decision: str) -> str:
    """Return a decision as words."""
    return _DECISIONS.get(decision, (decision, NEUTRAL))[0]


def decision_tone(decision: str) -> str:
    """Return the tone that a decision is shown in."""
    return _DECISIONS.get(decision, (decision, NEUTRAL))[1]


def decision_badge(decision: str | None) -> SafeString | str:
    """Return a decision as a badge."""
    return badge(decision_label(decision), decision_tone(decision)) if decision else NOTHING


def mode_badge(mode: str | None) -> SafeString | str:
    """Return a mode as a tag: the stricter, the heavier."""
    return format_html('<span class="vx-tag vx-tag--{}">{}</span>', mode, mode) if mode else NOTHING


def cost_badge(cost_state: str | None) -> SafeString | str:
    """Return a cost state as a badge."""
    if not cost_state:
        return NOTHING
    return badge(cost_state, {KNOWN: GOOD, PARTIAL: WARN}.get(cost_state, BAD))


def stage_label(stage: str | None) -> str:
    """Return a stage of the waterfall as words."""
    return _STAGES.get(stage or "", words(stage))


def stage_badge(status: str) -> SafeString:
    """Return how a stage ended as a badge."""
    text, tone = _STATUSES.get(status, (status, NEUTRAL))
    return badge(text, tone)


def effect_badge(effect: str) -> SafeString:
    """Return what a finding does as a badge."""
    text, tone = _EFFECTS.get(effect, (words(effect), NEUTRAL))
    return badge(text, tone)


def reason_title(code: str | None) -> str:
    """Return what a reason code says in one line."""
    if not code:
        return NOTHING
    known = REASONS.get(code)
    return known[0] if known else words(code)
