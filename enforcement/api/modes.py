"""The API of emergency modes: an owner puts a lower mode in force at once."""

from __future__ import annotations

from typing import Final, cast

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from enforcement.controls import policies
from governance.api.callers import actor_of
from governance.api.documents import closed_object
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.identity.domain import OWNER
from governance.policies.domain import MODES, SOURCES, Mode
from governance.policies.environments import ENVIRONMENTS
from governance.policies.operations import ModeOrder
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import refuse_unknown_query
from valdrix.kernel.http.times import to_text as time_text
from valdrix.kernel.ids import new_id
from valdrix.kernel.schemas import prose_schema

_TIME: Final = {"type": "string", "format": "date-time"}
_MEMBERS: Final = {
    "source": {"type": "string", "enum": list(SOURCES)},
    "environment": {"type": "string", "enum": list(ENVIRONMENTS)},
    "mode": {"type": "string", "enum": list(MODES[:-1])},
    "reason": prose_schema(),
    "until": {**_TIME, "description": "At most 24 hours from now."},
}
_ORDER: Final = closed_object(_MEMBERS)
_FORCED: Final = closed_object(
    {
        "id": {"type": "string", "format": "uuid"},
        **_MEMBERS,
        "mode_before": {"type": "string", "enum": list(MODES)},
        "forced_at": _TIME,
        "forced_by": {"type": "string"},
    }
)


class EmergencyModeView(ApiView):
    """A lower mode for one source and environment, for at most 24 hours."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="force_mode",
        tags=["policies"],
        request={"application/json": _ORDER},
        responses={201: _FORCED},
    )
    def post(self, request: Request) -> Response:
        """Force a mode below the one in force; it ends by itself."""
        refuse_unknown_query(request)
        order = _read_order(request)
        result = policies.force_mode(actor=actor_of(request, now=timezone.now()), order=order)
        forced = result.forced
        document = {
            "id": str(forced.id),
            "source": forced.source,
            "environment": forced.environment,
            "mode": forced.mode,
            "mode_before": result.mode_before,
            "reason": forced.reason,
            "until": time_text(forced.until_at),
            "forced_at": time_text(forced.forced_at),
            "forced_by": forced.forced_by,
        }
        return Response(document, status=201)


def _read_order(request: Request) -> ModeOrder:
    fields = Fields(request.data)
    source = fields.choice("source", SOURCES, required=True)
    environment = fields.choice("environment", ENVIRONMENTS, required=True)
    # The strictest mode is never lower than another.
    mode = fields.choice("mode", MODES[:-1], required=True)
    reason = fields.prose("reason", required=True)
    until_at = fields.time("until", required=True)
    fields.finish()
    assert source is not None
    assert environment is not None
    assert reason is not None
    assert until_at is not None
    return ModeOrder(
        order_id=new_id(),
        source=source,
        environment=environment,
        mode=cast("Mode", mode),
        reason=reason,
        until_at=until_at,
    )
