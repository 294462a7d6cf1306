"""The generic admission gate: a gate body whose metadata may be an object's own (SPEC 8). Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from enforcement.adapters.gate_body import (
    DELTAS,
    Surface,
    read_body,
    read_declared_cost,
    read_statement,
    refuse_faults,
)
from enforcement.adapters.kubernetes_object import read_claims, read_object_cost
from enforcement.gate.inputs import K8S_ADMISSION, Cost, GateRequest, build_cost
from valdrix.kernel.fields import Fields
from valdrix.kernel.problems import FieldError, escape_pointer

DEFAULT_ACTION: Final = "k8s.create"
_SURFACE: Final = Surface(K8S_ADMISSION, DEFAULT_ACTION)


def to_gate_request(body: object, *, actor: str, header_key: str | None) -> GateRequest:
    """Return the question that a body of ``POST gate/k8s/admission`` asks.

    Its ``metadata`` may hold ``labels`` and ``annotations`` as a Kubernetes object does: costs below
    ``valdrix.io/`` are read from them where the body itself states none. Where the change belongs
    is the body's to say.

    :raises InvalidRequest: with every fault of the body, a wrong annotation included;
        ``DeltaMismatch`` when the only fault is that two statements of the cost disagree.
    """
    fields = Fields(body)
    request = read_body(fields, _SURFACE, actor=actor, header_key=header_key)
    run_id = fields.text("run_id")
    statement = read_statement(fields)
    declared = read_declared_cost(fields, statement)
    annotated = _annotated_cost(fields, request.metadata)
    if annotated is not None:
        for name, stated, said in (
            (DELTAS[0], statement.monthly, annotated.monthly_delta_usd),
            (DELTAS[1], statement.hourly, annotated.hourly_delta_usd),
        ):
            if stated is not None and stated != said:
                fields.refuse(name, "is not what the annotations say", code="delta_mismatch")
    fields.refuse_unknown()
    refuse_faults(fields)
    return msgspec.structs.replace(request, run_id=run_id, cost=annotated or declared)


def _annotated_cost(fields: Fields, metadata: dict[str, Any]) -> Cost | None:
    """Return the cost that a body's metadata states, None where it states none."""
    for member in ("labels", "annotations"):
        texts = metadata.get(member)
        for name, value in (texts if isinstance(texts, dict) else {}).items():
            if name.startswith("valdrix.io/") and not isinstance(value, str):
                pointer = f"/metadata/{member}/{escape_pointer(name)}"
                fields.errors.append(FieldError(pointer, "invalid_type", "must be a string"))
                return None
    found = read_object_cost(read_claims({"metadata": metadata}))
    if found.fault is not None:
        pointer = "/metadata/annotations"
        fields.errors.append(FieldError(pointer, "invalid_amount", found.fault))
    return None if found.monthly_usd is None else build_cost(monthly=found.monthly_usd, hourly=None)
