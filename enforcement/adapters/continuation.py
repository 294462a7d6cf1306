"""How a pipeline goes on after a preflight: what to poll, what binds the token, how to spend it.

Pure: derived from the stored response and the request, so that a replay gives the same bytes.
"""

from __future__ import annotations

from typing import Any, Final

from enforcement.gate.inputs import GateRequest

_BASE: Final = "/api/v1/enforcement"


def build_continuation(request: GateRequest, response: dict[str, Any]) -> dict[str, Any]:
    """Return the ``continuation`` member of a preflight's response (SPEC 8).

    :param response: the common response of the decision that the request got.
    """
    approval_id = response["approval_request_id"]
    decision_id = response["decision_id"]
    poll = None
    if approval_id is not None:
        poll = {"method": "GET", "url": f"{_BASE}/approvals/{approval_id}"}
    elif decision_id is not None:
        poll = {"method": "GET", "url": f"{_BASE}/decisions/{decision_id}"}
    return {
        "run_id": request.run_id,
        "stage": request.stage,
        "may_proceed": response["decision"] in {"ALLOW", "ALLOW_WITH_CREDITS"},
        "poll": poll,
        "binding": {
            "expected_request_fingerprint": response["request_fingerprint"],
            "change_fingerprint": response["change_fingerprint"],
            "change_digest": request.change_digest,
            "expected_project_id": response["project_id"],
            "expected_environment": response["environment"],
            "monthly_delta_usd": response["estimated_monthly_delta_usd"],
            "hourly_delta_usd": response["estimated_hourly_delta_usd"],
        },
        "token": _token_calls(approval_id),
    }


def _token_calls(approval_id: str | None) -> dict[str, Any] | None:
    """Return how the requester claims the approval's token and how the pipeline spends it."""
    if approval_id is None:
        return None
    return {
        "claim": {"method": "POST", "url": f"{_BASE}/approvals/{approval_id}/token"},
        "consume": {
            "method": "POST",
            "url": f"{_BASE}/approvals/consume",
            "required": ["approval_token", "monthly_delta_usd"],
            "one_of": ["change_digest", "expected_request_fingerprint"],
            "optional": ["hourly_delta_usd", "expected_project_id", "expected_environment"],
        },
    }
