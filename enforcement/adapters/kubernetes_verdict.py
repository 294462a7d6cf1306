"""What a validating webhook is told: a gate's response, an exemption or a fault as a verdict. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from enforcement.adapters.admission_review import Verdict
from enforcement.gate.failsafe import REASONS as FAIL_SAFE_REASONS
from enforcement.gate.rules import WARNS

_ALLOWED: Final = frozenset({"ALLOW", "ALLOW_WITH_CREDITS"})
_DETAILS: Final = 2
INVALID_CODE: Final = 422


def verdict_of(response: dict[str, Any], *, notes: Iterable[str] = ()) -> Verdict:
    """Return the verdict that a gate's response is.

    :param notes: what the object's author should know besides.
    """
    allowed = response["decision"] in _ALLOWED
    return Verdict(
        allowed=allowed,
        message="" if allowed else _message(response),
        warnings=(*(f"Valdrix: {note}" for note in notes), *_warnings(response)),
        audit={
            "decision": response["decision"],
            "decision-id": response["decision_id"] or "",
            "mode": response["mode"],
            "reason-codes": ",".join(response["reason_codes"]),
            "project": response["project_id"],
            "environment": response["environment"],
            "cost-state": response["cost_state"],
            "monthly-delta-usd": response["estimated_monthly_delta_usd"] or "",
            "approval-request-id": response["approval_request_id"] or "",
            "policy-version": str(response["policy_version"]),
        },
    )


def exempt(reason: str) -> Verdict:
    """Return the verdict on what the gate was not asked about."""
    return Verdict(allowed=True, audit={"exempt": reason})


def refuse_fault(fault: str) -> Verdict:
    """Return the verdict on an object whose author states its cost wrongly."""
    return Verdict(
        allowed=False,
        code=INVALID_CODE,
        reason="Invalid",
        message=f"{fault}. Correct the annotation, or leave it out.",
        audit={"decision": "none", "reason-codes": "invalid_cost_annotation"},
    )


def refuse_place(detail: str, *, is_shadow: bool) -> Verdict:
    """Return the verdict on what the credential may not ask about; shadow mode refuses nothing."""
    return Verdict(
        allowed=is_shadow,
        message="" if is_shadow else detail,
        warnings=(f"Valdrix: {detail}",) if is_shadow else (),
        audit={"decision": "none", "reason-codes": "project_not_allowed"},
    )


def _message(response: dict[str, Any]) -> str:
    """Return why something is refused, and what can be done about it."""
    explanation = response["explanation"]
    reasons = explanation["reason_codes"][:_DETAILS]
    parts = [explanation["summary"], *(reason["detail"] for reason in reasons)]
    if response["approval_request_id"]:
        parts.append(
            f"Approval {response['approval_request_id']} waits for a reviewer;"
            " apply again once it is given."
        )
    elif reasons:
        parts.append(reasons[0]["action"])
    if response["decision_id"]:
        parts.append(f"Decision {response['decision_id']}.")
    return " ".join(dict.fromkeys(parts))


def _warnings(response: dict[str, Any]) -> Iterable[str]:
    if response["decision"] not in _ALLOWED:
        return
    if response["would_have_been"]:
        codes = ", ".join(response["reason_codes"])
        yield f"Valdrix: hard mode would say {response['would_have_been']} ({codes})."
    for code in response["reason_codes"]:
        if code in FAIL_SAFE_REASONS:
            yield f"Valdrix could not evaluate ({code}); {response['mode']} mode lets it through."
    warned = {one["code"] for one in response["findings"] if one["effect"] == WARNS}
    for reason in response["explanation"]["reason_codes"]:
        if reason["code"] in warned:
            yield f"Valdrix: {reason['title']}. {reason['detail']}"
