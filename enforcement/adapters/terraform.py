"""The Terraform gates: a pipeline's JSON body becomes a ``GateRequest`` (SPEC 8, 19).

``to_gate_request`` reads the generic gate, ``preflight_to_gate_request`` the preflight, which may
carry a cost document and a plan. Both name everything that is wrong with a body in one 422.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from enforcement.adapters.gate_body import (
    DELTAS,
    Statement,
    Surface,
    read_body,
    read_declared_cost,
    read_statement,
    refuse_faults,
)
from enforcement.adapters.infracost import read_cost
from enforcement.adapters.terraform_plan import InvalidPlan, Plan, qualify_cost, read_plan
from enforcement.gate.inputs import TERRAFORM, UNESTIMATED, Cost, GateRequest
from valdrix.kernel.fields import Fields
from valdrix.kernel.problems import InvalidRequest

DEFAULT_ACTION: Final = "terraform.apply"
STAGES: Final = ("pre_plan", "post_plan", "pre_apply", "post_apply")
COST_FORMATS: Final = ("infracost",)
PREFLIGHT_NAMESPACE: Final = "terraform.preflight"
RUN_ID_PATTERN: Final = re.compile(r"[\x20-\x7e]+", re.ASCII)
PREFLIGHT_RUN_ID_LIMIT: Final = 170
"""Leaves room for the surface's own key, which is shown as ``terraform:{run_id}:{stage}``."""

_SURFACE: Final = Surface(TERRAFORM, DEFAULT_ACTION)


def to_gate_request(body: object, *, actor: str, header_key: str | None) -> GateRequest:
    """Return the question that a body of ``POST gate/terraform`` asks (SPEC 19).

    :param body: the parsed JSON body, of any type.
    :param actor: principal id of whoever asks.
    :param header_key: the ``Idempotency-Key`` header, None when there was none.
    :raises InvalidRequest: with every fault of the body; ``DeltaMismatch`` when the only fault
        is that its two deltas disagree.
    """
    fields = Fields(body)
    request = read_body(fields, _SURFACE, actor=actor, header_key=header_key)
    run_id = fields.text("run_id")
    cost = read_declared_cost(fields, read_statement(fields))
    fields.refuse_unknown()
    refuse_faults(fields)
    return msgspec.structs.replace(request, run_id=run_id, cost=cost)


def preflight_to_gate_request(body: object, *, actor: str, header_key: str | None) -> GateRequest:
    """Return the question that a body of ``POST gate/terraform/preflight`` asks (SPEC 8).

    A cost document is the delta: a declared value that differs is a ``delta_mismatch``. A plan
    gives the computed change digest and says whether the estimate can be the whole cost.

    :raises InvalidRequest: with every fault of the body; ``DeltaMismatch`` or ``InvalidPlan``
        when all of them are of that kind.
    """
    fields = Fields(body)
    request = read_body(fields, _SURFACE, actor=actor, header_key=header_key)
    run_id = fields.text(
        "run_id", required=True, max_length=PREFLIGHT_RUN_ID_LIMIT, pattern=RUN_ID_PATTERN
    )
    stage = fields.choice("stage", STAGES, required=True)
    statement = read_statement(fields)
    documented = _documented_cost(fields, statement)
    plan = _plan(fields, request.change_digest)
    cost = documented or read_declared_cost(fields, statement)
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


def _documented_cost(fields: Fields, statement: Statement) -> Cost | None:
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
        (DELTAS[0], statement.monthly, cost.monthly_delta_usd),
        (DELTAS[1], statement.hourly, cost.hourly_delta_usd),
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
    errors = tuple(fields.errors)
    if errors and all(f"{error.pointer}/".startswith("/plan/") for error in errors):
        raise InvalidPlan("The plan is not a valid Terraform plan.", errors=errors)
    refuse_faults(fields)
