"""The Terraform gates: a pipeline's JSON body becomes a ``GateRequest`` (SPEC 8, 19).

``to_gate_request`` reads the generic gate, ``preflight_to_gate_request`` the preflight, which may
carry a cost document and a plan. Both name everything that is wrong with a body in one 422.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

import msgspec

from enforcement.adapters.infracost import read_cost
from enforcement.adapters.terraform_plan import InvalidPlan, Plan, qualify_cost, read_plan
from enforcement.gate.inputs import (
    TERRAFORM,
    UNESTIMATED,
    Cost,
    DeltaMismatch,
    GateRequest,
    build_cost,
)
from valdrix.kernel.fields import Fields
from valdrix.kernel.money import HOURLY_PLACES, MONTHLY_PLACES, AmountError
from valdrix.kernel.problems import FieldError, InvalidRequest

DEFAULT_ACTION: Final = "terraform.apply"
STAGES: Final = ("pre_plan", "post_plan", "pre_apply", "post_apply")
COST_FORMATS: Final = ("infracost",)
PREFLIGHT_NAMESPACE: Final = "terraform.preflight"
CALLER_NAMESPACE: Final = "caller"

ACTION_PATTERN: Final = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)+", re.ASCII)
DIGEST_PATTERN: Final = re.compile(r"[A-Za-z0-9:_\-.+/=]{1,200}", re.ASCII)
KEY_PATTERN: Final = re.compile(r"[\x20-\x7e]{1,200}", re.ASCII)
RUN_ID_PATTERN: Final = re.compile(r"[\x20-\x7e]+", re.ASCII)
RESOURCE_REFERENCE_LIMIT: Final = 2000
ENVIRONMENT_LIMIT: Final = 200
PREFLIGHT_RUN_ID_LIMIT: Final = 170
"""Leaves room for the surface's own key, which is shown as ``terraform:{run_id}:{stage}``."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DELTAS: Final = ("estimated_monthly_delta_usd", "estimated_hourly_delta_usd")


class _Statement(msgspec.Struct, frozen=True):
    """What a body says of its cost in its own two fields."""

    monthly: Decimal | None
    hourly: Decimal | None


def to_gate_request(body: object, *, actor: str, header_key: str | None) -> GateRequest:
    """Return the question that a body of ``POST gate/terraform`` asks (SPEC 19).

    :param body: the parsed JSON body, of any type.
    :param actor: principal id of whoever asks.
    :param header_key: the ``Idempotency-Key`` header, None when there was none.
    :raises InvalidRequest: with every fault of the body; ``DeltaMismatch`` when the only fault
        is that its two deltas disagree.
    """
    fields = Fields(body)
    request = _common(fields, actor=actor, header_key=header_key)
    run_id = fields.text("run_id")
    cost = _declared_cost(fields, _statement(fields))
    _finish(fields)
    return msgspec.structs.replace(request, run_id=run_id, cost=cost)


def preflight_to_gate_request(body: object, *, actor: str, header_key: str | None) -> GateRequest:
    """Return the question that a body of ``POST gate/terraform/preflight`` asks (SPEC 8).

    A cost document is the delta: a declared value that differs is a ``delta_mismatch``. A plan
    gives the computed change digest and says whether the estimate can be the whole cost.

    :raises InvalidRequest: with every fault of the body; ``DeltaMismatch`` or ``InvalidPlan``
        when all of them are of that kind.
    """
    fields = Fields(body)
    request = _common(fields, actor=actor, header_key=header_key)
    run_id = fields.text(
        "run_id", required=True, max_length=PREFLIGHT_RUN_ID_LIMIT, pattern=RUN_ID_PATTERN
    )
    stage = fields.choice("stage", STAGES, required=True)
    statement = _statement(fields)
    documented = _documented_cost(fields, statement)
    plan = _plan(fields, request.change_digest)
    cost = documented or _declared_cost(fields, statement)
    _finish(fields)
    request = msgspec.structs.replace(request, run_id=run_id, stage=stage, cost=cost)
    if request.idempotency_key is None and not request.dry_run:
        request = msgspec.structs.replace(
            request,
            idempotency_key=f"terraform:{run_id}:{stage}",
            # Run ids are numbered in each project for itself.
            idempotency_namespace=f"{PREFLIGHT_NAMESPACE}:{request.project_id}",
        )
    if plan is None:
        return request
    return msgspec.structs.replace(
        request,
        cost=qualify_cost(cost, plan=plan),
        change_digest=plan.change_digest,
        # All plans without a change look alike: such a digest names nothing that could be shared.
        change_digest_is_computed=plan.resource_count > 0,
    )


def _common(fields: Fields, *, actor: str, header_key: str | None) -> GateRequest:
    """Read what both bodies have; the request is of use only when :func:`_finish` passes."""
    parent = fields.identifier("parent_decision_id")
    dry_run = fields.boolean("dry_run", default=False)
    key = _idempotency_key(fields, header_key)
    return GateRequest(
        source=TERRAFORM,
        project_id=fields.text("project_id", required=True) or "",
        environment=_environment(fields),
        action=fields.text("action", pattern=ACTION_PATTERN) or DEFAULT_ACTION,
        resource_reference=fields.text(
            "resource_reference", required=True, max_length=RESOURCE_REFERENCE_LIMIT
        )
        or "",
        cost=UNESTIMATED,
        actor=actor,
        team=fields.text("team"),
        metadata=fields.document("metadata") or {},
        change_digest=fields.text("change_digest", pattern=DIGEST_PATTERN),
        parent_decision_id=None if parent is None else str(parent),
        idempotency_key=None if dry_run else key,
        idempotency_namespace=CALLER_NAMESPACE,
        expected_request_fingerprint=fields.text("expected_request_fingerprint"),
        dry_run=dry_run,
    )


def _environment(fields: Fields) -> str:
    """Return the caller's text as it came; absent and empty are kept and mean prod (SPEC 2)."""
    value = fields.raw("environment")
    if value is None:
        return ""
    if not isinstance(value, str):
        fields.refuse("environment", "must be a string", code="invalid_type")
    elif len(value) > ENVIRONMENT_LIMIT:
        fields.refuse(
            "environment", f"must have at most {ENVIRONMENT_LIMIT} characters", code="too_long"
        )
    elif _CONTROL.search(value):
        fields.refuse("environment", "must not hold control characters")
    else:
        return value
    return ""


def _idempotency_key(fields: Fields, header_key: str | None) -> str | None:
    """Return the caller's key: the header wins, and both must be well-formed (SPEC 3.9)."""
    body_key = fields.text("idempotency_key", pattern=KEY_PATTERN)
    if header_key is None:
        return body_key
    if not KEY_PATTERN.fullmatch(header_key):
        fields.refuse(
            "", "the Idempotency-Key header must have 1 to 200 printable ASCII characters"
        )
    return header_key


def _statement(fields: Fields) -> _Statement:
    monthly, hourly = _DELTAS
    return _Statement(
        fields.amount(monthly, places=MONTHLY_PLACES), fields.amount(hourly, places=HOURLY_PLACES)
    )


def _declared_cost(fields: Fields, statement: _Statement) -> Cost:
    """Return the cost that the two declared deltas name (SPEC 3.1)."""
    try:
        return build_cost(monthly=statement.monthly, hourly=statement.hourly)
    except DeltaMismatch as mismatch:
        fields.errors.extend(mismatch.errors)
    except AmountError as error:
        fields.refuse(
            "estimated_hourly_delta_usd", f"names a monthly delta that {error}", code=error.code
        )
    return UNESTIMATED


def _documented_cost(fields: Fields, statement: _Statement) -> Cost | None:
    """Return the cost that the body's cost document names, None without one."""
    envelope = fields.raw("cost_estimate")
    if envelope is None:
        return None
    inner = Fields(envelope, pointer="/cost_estimate")
    cost = None
    if isinstance(envelope, dict):
        inner.choice("format", COST_FORMATS, required=True)
        document = inner.raw("document", required=True)
        inner.refuse_unknown()
        if document is not None:
            try:
                cost = read_cost(document, pointer="/cost_estimate/document")
            except InvalidRequest as refusal:
                inner.errors.extend(refusal.errors)
    fields.errors.extend(inner.errors)
    if cost is None:
        return UNESTIMATED
    for name, declared, documented in (
        (_DELTAS[0], statement.monthly, cost.monthly_delta_usd),
        (_DELTAS[1], statement.hourly, cost.hourly_delta_usd),
    ):
        if declared is not None and declared != documented:
            fields.refuse(name, "is not what the cost document names", code="delta_mismatch")
    return cost


def _plan(fields: Fields, declared_digest: str | None) -> Plan | None:
    """Return what is kept of the body's plan, None without one."""
    document = fields.raw("plan")
    if document is None:
        return None
    try:
        plan = read_plan(document, pointer="/plan")
    except InvalidPlan as refusal:
        fields.errors.extend(refusal.errors)
        return None
    if declared_digest not in (None, plan.change_digest):
        fields.refuse("change_digest", f"is not the plan's own digest {plan.change_digest}")
    return plan


def _finish(fields: Fields) -> None:
    """Refuse the body when anything is wrong with it, by the most telling code.

    :raises InvalidRequest: or ``DeltaMismatch``, ``InvalidPlan``, when every fault is of its kind.
    """
    fields.refuse_unknown()
    errors: tuple[FieldError, ...] = tuple(fields.errors)
    if not errors:
        return
    if all(error.code == DeltaMismatch.code for error in errors):
        raise DeltaMismatch("The request names its cost twice, and differently.", errors=errors)
    if all(f"{error.pointer}/".startswith("/plan/") for error in errors):
        raise InvalidPlan("The plan is not a valid Terraform plan.", errors=errors)
    raise InvalidRequest("The request has invalid fields.", errors=errors)
