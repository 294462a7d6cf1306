"""The gates that pipelines call: generic, preflight and batch (SPEC 8, 19)."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any, Final

import orjson
from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from enforcement.adapters import terraform
from enforcement.adapters.continuation import build_continuation
from enforcement.adapters.terraform_schema import GATE_BODY_SCHEMA, PREFLIGHT_BODY_SCHEMA
from enforcement.api.gate_schema import (
    BATCH_BODY_SCHEMA,
    BATCH_RESPONSE_SCHEMA,
    GATE_RESPONSE_SCHEMA,
    PREFLIGHT_RESPONSE_SCHEMA,
)
from enforcement.gate.ask import Ask, TimeBudget
from enforcement.gate.batch import Answer, evaluate_all
from enforcement.gate.evaluate import evaluate
from enforcement.gate.inputs import GateRequest
from enforcement.reconciliation.approval import ApprovalPending, ReservationNotActive
from enforcement.reconciliation.operations import confirm
from governance.api.assuming import confirming
from governance.api.authentication import assumption_of
from governance.api.callers import actor_of, principal_of
from governance.api.permissions import RequireRole, require_project
from governance.api.throttling import GateThrottle
from governance.identity.domain import MEMBER
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.problem_response import problem_document
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import Refused

KEY_HEADER: Final = "Idempotency-Key"
PREFLIGHT_BODY_BYTES: Final = 64 * 1024 * 1024
PREFLIGHT_BODY_VALUES: Final = 5_000_000
"""As many as a compact plan of 64 MiB holds; what is denser was made to hold a worker."""
BATCH_LIMIT: Final = 100

_JSON: Final = "application/json"


def ask_gate(
    request: Request,
    gate_request: GateRequest,
    *,
    budget: TimeBudget | None = None,
    may_spend_approval: bool = False,
) -> dict[str, Any]:
    """Put one question to the gate on behalf of a request's principal; return the common response.

    :param budget: what it may take, when the caller waits for less than is configured.
    :param may_spend_approval: an approval of this computed change stands for a token.
    :raises Refused: when the principal may not use the project, or the key or fingerprint
        conflicts; nothing was written then.
    :raises NotAsAssumed: when the request's key is not what it was taken for.
    """
    ask = _build_ask(request, gate_request, may_spend_approval=may_spend_approval)
    return evaluate(ask, budget=budget or configured_budget())


def _build_ask(
    request: Request, gate_request: GateRequest, *, may_spend_approval: bool = False
) -> Ask:
    principal = principal_of(request)
    require_project(principal, gate_request.project_id)
    return Ask(
        tenant_id=principal.tenant_id,
        person_id=principal.person_id,
        request=gate_request,
        decision_id=new_id(),
        charge_id=new_id(),
        approval_id=new_id(),
        clock=timezone.now,
        may_spend_approval=may_spend_approval,
        assumption=assumption_of(request),
    )


def configured_budget(*, at_most_ms: int | None = None) -> TimeBudget:
    """Return what an evaluation may take: as configured, or less when the caller waits for less."""
    total_ms: int = settings.GATE_TIME_BUDGET_MS
    if at_most_ms is not None:
        total_ms = min(total_ms, at_most_ms)
    return TimeBudget(total_ms=total_ms, lock_ms=min(settings.GATE_LOCK_TIMEOUT_MS, total_ms))


def answer(document: dict[str, Any]) -> HttpResponse:
    """Return a document as the 200 that it is."""
    return HttpResponse(orjson.dumps(document), content_type=_JSON)


class GateView(ApiView):
    """A gate: any member may ask; a decision is a 200 whatever it is."""

    permission_classes = (RequireRole(MEMBER),)
    throttle_classes = (GateThrottle,)


class TerraformGateView(GateView):
    """``POST gate/terraform``: the generic gate."""

    @extend_schema(
        operation_id="gate_terraform",
        summary="May this change, with this cost, happen?",
        request={_JSON: GATE_BODY_SCHEMA},
        responses={(200, _JSON): GATE_RESPONSE_SCHEMA},
    )
    @confirming
    def post(self, request: Request) -> HttpResponse:
        """Decide one change; the answer is 200 whatever the decision."""
        principal = principal_of(request)
        gate_request = terraform.to_gate_request(
            request.data, actor=principal.principal_id, header_key=request.headers.get(KEY_HEADER)
        )
        return answer(ask_gate(request, gate_request))


class TerraformPreflightView(GateView):
    """``POST gate/terraform/preflight``: the gate with a cost estimate and a plan."""

    max_body_bytes = PREFLIGHT_BODY_BYTES
    max_body_values = PREFLIGHT_BODY_VALUES

    @extend_schema(
        operation_id="gate_terraform_preflight",
        summary="May this run's stage go ahead, by its estimate and plan?",
        request={_JSON: PREFLIGHT_BODY_SCHEMA},
        responses={(200, _JSON): PREFLIGHT_RESPONSE_SCHEMA},
    )
    @confirming
    def post(self, request: Request) -> HttpResponse:
        """Decide one stage of a run, and say how the pipeline goes on."""
        principal = principal_of(request)
        gate_request = terraform.preflight_to_gate_request(
            request.data, actor=principal.principal_id, header_key=request.headers.get(KEY_HEADER)
        )
        response = ask_gate(request, gate_request)
        if gate_request.stage == response["stage"] == "post_apply" and response["persisted"]:
            _confirm(request, response)
        response["continuation"] = build_continuation(gate_request, response)
        return answer(response)


def _confirm(request: Request, response: dict[str, Any]) -> None:
    """Confirm what a run's last stage says was applied, where something is held for it.

    It has a transaction of its own, and repeating the stage with its key confirms again.
    """
    principal = principal_of(request)
    # A refused change holds nothing to confirm, and one that waits cannot have been applied.
    with contextlib.suppress(ReservationNotActive, ApprovalPending):
        confirm(
            actor=actor_of(request, now=timezone.now()),
            decision_id=uuid.UUID(response["decision_id"]),
            may_use=lambda project_id: require_project(principal, project_id),
        )


class BatchGateView(GateView):
    """``POST gate/batch``: up to 100 gate bodies, each answered as if sent alone."""

    @extend_schema(
        operation_id="gate_batch",
        summary="Decide many changes; one answer an item.",
        request={_JSON: BATCH_BODY_SCHEMA},
        responses={(200, _JSON): BATCH_RESPONSE_SCHEMA},
    )
    @confirming
    def post(self, request: Request) -> HttpResponse:
        """Decide each item in the order given; one item's refusal stops no other."""
        items = _read_items(request)
        read = [_read_item(request, item) for item in items]
        asks = [one for one in read if isinstance(one, Ask)]
        answers = iter(evaluate_all(asks, budget=configured_budget()))
        results = [next(answers) if isinstance(one, Ask) else one for one in read]
        return answer({"results": [_to_result(result) for result in results]})


def _read_items(request: Request) -> list[Any]:
    fields = Fields(request.data)
    items = fields.raw("items", required=True)
    if items is not None and not isinstance(items, list):
        fields.refuse("items", "must be a list", code="invalid_type")
    elif items is not None and not 1 <= len(items) <= BATCH_LIMIT:
        fields.refuse("items", f"must hold 1 to {BATCH_LIMIT} items", code="out_of_range")
    if KEY_HEADER in request.headers:
        fields.refuse("", "a batch takes its keys from its items, not from the header")
    fields.finish()
    return list(items)


def _read_item(request: Request, item: object) -> Ask | Refused:
    """Return one item's question, or the refusal that it would get if it had been sent alone."""
    actor = principal_of(request).principal_id
    try:
        gate_request = terraform.to_gate_request(item, actor=actor, header_key=None)
        return _build_ask(request, gate_request)
    except Refused as refusal:
        return refusal


def _to_result(result: Answer) -> dict[str, Any]:
    """Return one item's status and body."""
    if isinstance(result, Refused):
        body = problem_document(result.problem_code, result.detail, errors=result.errors)
        return {"status": result.status, "body": body}
    return {"status": 200, "body": result}
