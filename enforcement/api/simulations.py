"""The API of simulations: admins run a policy on history before they publish it."""

from __future__ import annotations

import uuid
from typing import Any, Final

import orjson
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from enforcement.exports.domain import build_scope
from enforcement.replay.models import STATUSES, Simulation
from enforcement.replay.operations import (
    JOB,
    SimulationOrder,
    get_simulation,
    order_simulation,
)
from enforcement.replay.queries import Span
from governance.api.callers import principal_of
from governance.api.documents import closed_object
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.identity.domain import ADMIN
from governance.policies.document import InvalidPolicy
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import refuse_unknown_query
from valdrix.kernel.http.times import to_text as time_text
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import FieldError
from valdrix.kernel.prompting import prompt

_POINTER: Final = "/policy_document"
_TIME: Final = {"type": "string", "format": "date-time"}
_ORDER: Final = closed_object(
    {
        "policy_document": {"type": "object", "description": "See GET policies/schema."},
        "window_start": {**_TIME, "description": "The current UTC month's start without it."},
        "window_end": {**_TIME, "description": "Exclusive."},
    },
    optional=("window_start", "window_end"),
)
_SIMULATION: Final = closed_object(
    {
        "id": {"type": "string", "format": "uuid"},
        "status": {"type": "string", "enum": list(STATUSES)},
        "policy_document_sha256": {"type": "string"},
        "window_start": _TIME,
        "window_end": _TIME,
        "requested_by": {"type": "string"},
        "requested_at": _TIME,
        "finished_at": {"type": ["string", "null"], "format": "date-time"},
        "progress": closed_object({"done": {"type": "integer"}, "total": {"type": "integer"}}),
        "result": {
            "type": ["object", "null"],
            "description": "docs/replay.md describes it; null until the status is done.",
        },
        "error": {"type": ["string", "null"]},
    }
)


class SimulationsView(ApiView):
    """Simulations that are asked for."""

    permission_classes = (RequireRole(ADMIN), RequireWholeTenant)

    @extend_schema(
        operation_id="simulate_policy",
        tags=["policies"],
        request={"application/json": _ORDER},
        responses={200: _SIMULATION, 202: _SIMULATION},
    )
    def post(self, request: Request) -> Response:
        """Run a policy on a window's decisions: at once for a short history (200), else soon (202)."""
        refuse_unknown_query(request)
        principal, now = principal_of(request), timezone.now()
        fields = Fields(request.data)
        # The policy reader names every place itself, by the policy's own pointers.
        document = fields.raw("policy_document", required=True)
        window = fields.time("window_start"), fields.time("window_end")
        fields.finish()
        scope = build_scope(tenant_id=principal.tenant_id, window=window, limit=None, now=now)
        order = SimulationOrder(
            simulation_id=new_id(),
            document=document,
            span=Span(tenant_id=principal.tenant_id, start_at=scope.start_at, end_at=scope.end_at),
            requested_by=principal.principal_id,
            requested_at=now,
        )
        try:
            simulation = order_simulation(order=order, clock=timezone.now)
        except InvalidPolicy as refusal:
            errors = tuple(
                FieldError(_POINTER + one.pointer, one.code, one.detail) for one in refusal.errors
            )
            raise InvalidPolicy(refusal.detail, errors=errors) from refusal
        is_done = simulation.finished_at is not None
        if not is_done:
            prompt(JOB)
        status = 200 if is_done else 202
        return Response(render_simulation(simulation), status=status)


class SimulationView(ApiView):
    """One simulation."""

    permission_classes = (RequireRole(ADMIN), RequireWholeTenant)

    @extend_schema(operation_id="get_simulation", tags=["policies"], responses={200: _SIMULATION})
    def get(self, request: Request, simulation_id: uuid.UUID) -> Response:
        """Give a simulation's progress, and its result once it is done."""
        refuse_unknown_query(request)
        simulation = get_simulation(
            tenant_id=principal_of(request).tenant_id, simulation_id=simulation_id
        )
        return Response(render_simulation(simulation))


def render_simulation(simulation: Simulation) -> dict[str, Any]:
    """Return a simulation as the API answers it."""
    finished_at, result = simulation.finished_at, simulation.result_json
    return {
        "id": str(simulation.pk),
        "status": simulation.status,
        "policy_document_sha256": simulation.policy_sha256,
        "window_start": time_text(simulation.start_at),
        "window_end": time_text(simulation.end_at),
        "requested_by": simulation.requested_by,
        "requested_at": time_text(simulation.requested_at),
        "finished_at": None if finished_at is None else time_text(finished_at),
        "progress": {"done": simulation.done, "total": simulation.total},
        "result": None if result is None else orjson.loads(result),
        "error": simulation.error,
    }
