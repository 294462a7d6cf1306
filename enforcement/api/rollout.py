"""The API of rollout: how far each mode is, and whether modes rise by promotion only."""

from __future__ import annotations

from typing import Any, Final

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from enforcement.rollout.domain import THRESHOLDS, Figures
from enforcement.rollout.operations import Rollout, Standing, read_rollout
from governance.api.callers import actor_of
from governance.api.documents import closed_object
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.identity.domain import ADMIN, OWNER
from governance.policies.domain import MODES, SOURCES
from governance.policies.environments import ENVIRONMENTS
from governance.tenants.operations import require_promotion
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import refuse_unknown_query
from valdrix.kernel.http.times import to_text as time_text

_COUNT: Final = {"type": "integer", "minimum": 0}
_RATE: Final = {"type": "string"}
_MODE: Final = {"type": "string", "enum": list(MODES)}
_MAYBE_MODE: Final = {"type": ["string", "null"], "enum": [*MODES, None]}
_STANDING: Final = closed_object(
    {
        "source": {"type": "string", "enum": list(SOURCES)},
        "environment": {"type": "string", "enum": list(ENVIRONMENTS)},
        "mode": _MODE,
        "next_mode": _MAYBE_MODE,
        "figures": closed_object(
            {
                "decisions": _COUNT,
                "refusals": _COUNT,
                "false_positives": _COUNT,
                "false_positive_rate": _RATE,
                "errors": _COUNT,
                "error_rate": _RATE,
                "p95_ms": {"type": ["integer", "null"]},
            }
        ),
        "thresholds": {
            "type": ["object", "null"],
            "properties": {
                "decisions": _COUNT,
                "false_positive_rate": _RATE,
                "error_rate": _RATE,
                "p95_ms": _COUNT,
            },
        },
        "missing": {"type": "array", "items": {"type": "string"}},
        "proposal": {
            "type": ["object", "null"],
            "properties": {
                "id": {"type": "string", "format": "uuid"},
                "to_mode": _MODE,
                "proposed_by": {"type": "string"},
                "proposed_at": {"type": "string", "format": "date-time"},
                "expires_at": {"type": "string", "format": "date-time"},
            },
        },
    }
)
_ROLLOUT: Final = closed_object(
    {
        "promotion_required": {"type": "boolean"},
        "results": {"type": "array", "items": _STANDING},
    }
)
_SETTING: Final = closed_object({"promotion_required": {"type": "boolean"}})


class RolloutView(ApiView):
    """Modes, figures, thresholds and proposals; the tenant's setting."""

    def get_permissions(self) -> list[Any]:
        """Return admin to read, owner to change the setting."""
        role = ADMIN if self.request.method == "GET" else OWNER
        return [RequireRole(role)(), RequireWholeTenant()]

    @extend_schema(operation_id="get_rollout", tags=["policies"], responses={200: _ROLLOUT})
    def get(self, request: Request) -> Response:
        """Give how far each source and environment has come, and what the next step lacks."""
        refuse_unknown_query(request)
        return Response(render_rollout(read_rollout(actor_of(request, now=timezone.now()))))

    @extend_schema(
        operation_id="set_promotion_required",
        tags=["policies"],
        request={"application/json": _SETTING},
        responses={200: _SETTING},
    )
    def patch(self, request: Request) -> Response:
        """Say whether modes rise by promotion only; it is audited."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        # Null is no answer: nobody turns the requirement off by leaving the answer open.
        fields.raw("promotion_required", required=True)
        is_required = fields.boolean("promotion_required", default=False)
        fields.finish()
        require_promotion(actor=actor_of(request, now=timezone.now()), is_required=is_required)
        return Response({"promotion_required": is_required})


def render_rollout(rollout: Rollout) -> dict[str, Any]:
    """Return a tenant's rollout as the API and the command answer it."""
    return {
        "promotion_required": rollout.is_required,
        "results": [_render(standing) for standing in rollout.standings],
    }


def _render(standing: Standing) -> dict[str, Any]:
    asked = THRESHOLDS[standing.next_mode] if standing.next_mode else None
    proposal = standing.proposal
    return {
        "source": standing.source,
        "environment": standing.environment,
        "mode": standing.mode,
        "next_mode": standing.next_mode,
        "figures": _figures(standing.figures),
        "thresholds": None
        if asked is None
        else {
            "decisions": asked.decisions,
            "false_positive_rate": str(asked.false_positive_rate),
            "error_rate": str(asked.error_rate),
            "p95_ms": asked.p95_ms,
        },
        "missing": list(standing.missing),
        "proposal": None
        if proposal is None
        else {
            "id": str(proposal.pk),
            "to_mode": proposal.to_mode,
            "proposed_by": proposal.proposed_by,
            "proposed_at": time_text(proposal.proposed_at),
            "expires_at": time_text(proposal.expires_at),
        },
    }


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "decisions": figures.decisions,
        "refusals": figures.refusals,
        "false_positives": figures.false_positives,
        "false_positive_rate": str(figures.false_positive_rate),
        "errors": figures.errors,
        "error_rate": str(figures.error_rate),
        "p95_ms": figures.p95_ms,
    }
