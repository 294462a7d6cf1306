"""HCP Terraform run tasks: a signed call becomes a question, its outcome becomes a callback (SPEC 8).

Terraform Enterprise speaks the same. The call's fields and the callback's shape are those of the
run tasks integration API; unknown fields are tolerated, because the platform adds some.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any, Final

import msgspec
import orjson

from enforcement.adapters.foreign import ForeignReader
from enforcement.adapters.terraform import DEFAULT_ACTION, STAGES
from enforcement.adapters.terraform_plan import Plan, qualify_cost
from enforcement.gate.inputs import TERRAFORM, UNKNOWN, Cost, GateRequest
from valdrix.kernel.problems import InvalidRequest
from valdrix.kernel.structs import json_reader

REGISTRATION_TOKEN: Final = "test-token"  # noqa: S105 - the platform's own word, not a secret
REGISTRATION_LEVEL: Final = "test"
KEY_NAMESPACE: Final = "terraform.run_task"
CALLBACK_TYPE: Final = "application/vnd.api+json"
PRE_PLAN, POST_PLAN, PRE_APPLY, POST_APPLY = STAGES
PLAN_UNREADABLE: Final = Cost(
    monthly_delta_usd=None, hourly_delta_usd=None, state=UNKNOWN, reasons=("diff_unavailable",)
)

RUNNING: Final = "running"
PASSED: Final = "passed"
FAILED: Final = "failed"

_ID: Final = re.compile(r"[\x21-\x7e]{1,170}", re.ASCII)
_LONGEST: Final = {
    "access_token": 4000,
    "task_result_callback_url": 4000,
    "plan_json_api_url": 4000,
}
_LONGEST_NAME: Final = 200
_LONGEST_MESSAGE: Final = 500
_SHA512_HEX: Final = re.compile(r"[0-9a-fA-F]{128}", re.ASCII)
_GOES_AHEAD: Final = frozenset({"ALLOW", "ALLOW_WITH_CREDITS"})
_LABELS: Final = {
    "ALLOW": ("Allowed", "info"),
    "ALLOW_WITH_CREDITS": ("Allowed with credits", "info"),
    "REQUIRE_APPROVAL": ("Needs approval", "warning"),
    "DENY": ("Denied", "error"),
}


class RunTaskCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the platform: a stage of a run asks whether it may go on.

    :ivar wants_outcomes: whether details may be sent beside the result.
    """

    stage: str
    run_id: str
    task_result_id: str
    organization_name: str
    workspace_name: str
    is_speculative: bool
    wants_outcomes: bool
    callback_url: str
    access_token: str
    plan_url: str | None

    def __repr__(self) -> str:
        return f"RunTaskCall({self.task_result_id!r}, {self.stage!r})"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run's cost lands, by the integration that it came through, and who asks."""

    integration_id: str
    project_id: str | None
    environment: str | None
    actor: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the platform is told at the end: ``passed`` or ``failed``, why, and where to look."""

    status: str
    message: str
    url: str | None = None
    outcomes: list[dict[str, Any]] = []


decode_call: Final = json_reader(RunTaskCall)
"""Reads a call as it is stored."""
decode_verdict: Final = json_reader(Verdict)
"""Reads a verdict as it is stored."""


def is_signed(body: bytes, *, signature: str | None, secret: str | None) -> bool:
    """Tell whether a signature is the hex HMAC-SHA512 of the raw body; None never is."""
    if not secret or signature is None or not _SHA512_HEX.fullmatch(signature):
        return False
    expected = hmac.new(secret.encode(), body, hashlib.sha512).hexdigest()
    return hmac.compare_digest(expected, signature.lower())


def is_registration(document: object) -> bool:
    """Tell whether a call only tests that the address and the key are right."""
    return (
        isinstance(document, dict)
        and document.get("access_token") == REGISTRATION_TOKEN
        and document.get("task_result_enforcement_level") == REGISTRATION_LEVEL
    )


def read_call(document: object) -> RunTaskCall:
    """Return the call that a body makes.

    :param document: the parsed JSON body, of any type.
    :raises InvalidRequest: with every fault of the members that are read.
    """
    reader = ForeignReader(refusal=InvalidRequest, detail="The call is not one of a run task.")
    root = reader.as_object(document, "")
    if root is None:
        reader.finish()
    assert root is not None
    capabilities = reader.object(root, "capabilities", "") or {}
    call = RunTaskCall(
        stage=_one_of(reader, root, "stage", STAGES),
        run_id=_name(reader, root, "run_id", _ID),
        task_result_id=_name(reader, root, "task_result_id", _ID),
        organization_name=_name(reader, root, "organization_name"),
        workspace_name=_name(reader, root, "workspace_name"),
        is_speculative=reader.flag(root, "is_speculative", "") is True,
        wants_outcomes=reader.flag(capabilities, "outcomes", "/capabilities") is True,
        callback_url=_name(reader, root, "task_result_callback_url"),
        access_token=_name(reader, root, "access_token"),
        plan_url=reader.text(root, "plan_json_api_url", "") or None,
    )
    reader.finish()
    return call


def to_gate_request(
    call: RunTaskCall, *, place: Place, cost: Cost, plan: Plan | None, dry_run: bool
) -> GateRequest:
    """Return the question that a stage of a run asks, by its plan and what is known of its cost.

    The reference is the workspace, not the run: a later run with the same plan is the same change.
    """
    has_changes = plan is not None and plan.resource_count > 0
    return GateRequest(
        source=TERRAFORM,
        project_id=place.project_id or call.workspace_name,
        environment=place.environment or call.workspace_name,
        action=DEFAULT_ACTION,
        resource_reference=f"{call.organization_name}/{call.workspace_name}",
        cost=cost if plan is None else qualify_cost(cost, plan=plan),
        actor=place.actor,
        metadata={"organization": call.organization_name, "workspace": call.workspace_name},
        change_digest=None if plan is None else plan.change_digest,
        change_digest_is_computed=has_changes,
        run_id=call.run_id,
        stage=call.stage,
        idempotency_key=None if dry_run else call.task_result_id,
        idempotency_namespace=f"{KEY_NAMESPACE}:{place.integration_id}",
        dry_run=dry_run,
    )


def build_verdict(call: RunTaskCall, response: dict[str, Any], *, base_url: str | None) -> Verdict:
    """Return what the platform is told of a decision.

    What needs approval fails with a link to it: a run cannot wait in this stage for a person. A
    speculative run and the stage before the plan hold nothing and open nothing, so there it only
    says what will be asked.
    """
    decision: str = response["decision"]
    is_rehearsal = call.is_speculative or call.stage == PRE_PLAN
    will_ask = is_rehearsal and decision == "REQUIRE_APPROVAL"
    message: str = response["explanation"]["summary"]  # It begins with the decision in words.
    if will_ask:
        why = message.removeprefix(f"{_LABELS[decision][0]}: ")
        message = f"Applying this will need approval: {why}"
    url = _page_of(response, base_url)
    return Verdict(
        status=PASSED if decision in _GOES_AHEAD or will_ask else FAILED,
        message=_shorten(message),
        url=url,
        outcomes=[_outcome(response, url)],
    )


def refuse_other_plan(*, is_shadow: bool) -> Verdict:
    """Return what a run is told whose plan is not, or cannot be shown to be, the one decided on."""
    message = "The plan at this stage is not the one that was decided on after planning."
    if is_shadow:
        return Verdict(status=PASSED, message=f"{message} (shadow: reported only)")
    return Verdict(status=FAILED, message=f"{message} Start a new run.")


def build_callback(
    *, status: str, message: str, url: str | None = None, outcomes: list[dict[str, Any]] | None
) -> bytes:
    """Return the body of a callback.

    :param outcomes: None where the platform did not say that it takes any.
    """
    attributes = {"status": status, "message": message}
    if url is not None:
        attributes["url"] = url
    data: dict[str, Any] = {"type": "task-results", "attributes": attributes}
    if outcomes:
        data["relationships"] = {"outcomes": {"data": outcomes}}
    return orjson.dumps({"data": data})


def _name(
    reader: ForeignReader, root: dict[str, Any], name: str, form: re.Pattern[str] | None = None
) -> str:
    value = reader.text(root, name, "", required=True) or ""
    limit = _LONGEST.get(name, _LONGEST_NAME)
    if len(value) > limit:
        reader.refuse(f"/{name}", f"must have at most {limit} characters", code="too_long")
    elif value and not (form.fullmatch(value) if form else value.isprintable()):
        reader.refuse(f"/{name}", "must not hold control or other unprintable characters")
    return value


def _one_of(
    reader: ForeignReader, root: dict[str, Any], name: str, choices: tuple[str, ...]
) -> str:
    value = reader.text(root, name, "", required=True) or ""
    if value and value not in choices:
        reader.refuse(f"/{name}", "must be one of " + ", ".join(choices), code="invalid_choice")
    return value


def _page_of(response: dict[str, Any], base_url: str | None) -> str | None:
    if base_url is None or response["decision_id"] is None:
        return None
    approval_id = response["approval_request_id"]
    if approval_id is not None:
        return f"{base_url}/admin/governance/approval/{approval_id}/change/"
    return f"{base_url}/admin/enforcement/decision/{response['decision_id']}/change/"


def _outcome(response: dict[str, Any], url: str | None) -> dict[str, Any]:
    label, level = _LABELS[response["decision"]]
    delta = response["estimated_monthly_delta_usd"]
    lines = [
        f"**{response['explanation']['summary']}**",
        "",
        (
            f"- Monthly delta: {'unknown' if delta is None else f'{delta} USD'}"
            f" ({response['cost_state']})"
        ),
        f"- Project {_code(response['project_id'])}",
        f"- Environment {response['environment']}, mode {response['mode']}",
    ]
    lines += [
        f"- `{reason['code']}`: {reason['detail']} {reason['action']}".rstrip()
        for reason in response["explanation"]["reason_codes"]
    ]
    attributes: dict[str, Any] = {
        "outcome-id": "valdrix-cost",
        "description": _shorten(response["explanation"]["summary"]),
        "body": "\n".join(lines),
        "tags": {"Status": [{"label": label, "level": level}]},
    }
    if url is not None:
        attributes["url"] = url
    return {"type": "task-result-outcomes", "attributes": attributes}


def _code(text: str) -> str:
    return "`" + text.replace("`", "'") + "`"


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"
