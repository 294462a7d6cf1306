"""The API of past decisions: the very response that each of them got."""

from __future__ import annotations

import uuid
from typing import Final

import orjson
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from enforcement.decisions.history import DecisionFilter, find_decisions, get_decision
from enforcement.decisions.models import DECISIONS
from governance.api.api_keys import PAGE_PARAMETERS, read_id_cursor
from governance.api.callers import principal_of
from governance.api.documents import page_of
from governance.api.permissions import RequireRole, require_project
from governance.identity.domain import MEMBER, Principal
from valdrix.kernel.db import reading
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import build_page, read_limit, refuse_unknown_query
from valdrix.kernel.schemas import text_schema

_TAGS: Final = ["decisions"]
_DECISION: Final = {
    "type": "object",
    "description": "The stored response of the gate call, as docs/api/gate.md describes it.",
    "properties": {
        "decision_id": {"type": "string", "format": "uuid"},
        "decision": {"type": "string", "enum": list(DECISIONS)},
        "project_id": {"type": "string"},
    },
    "required": ["decision_id", "decision", "project_id"],
}


class DecisionsView(ApiView):
    """The tenant's decisions."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(
        operation_id="list_decisions",
        tags=_TAGS,
        parameters=[
            *PAGE_PARAMETERS,
            OpenApiParameter("project", text_schema()),
            OpenApiParameter("decision", str, enum=DECISIONS),
            OpenApiParameter(
                "since", OpenApiTypes.DATETIME, description="Made at this time or later."
            ),
        ],
        responses={200: page_of(_DECISION)},
    )
    def get(self, request: Request) -> Response:
        """List decisions, newest first; a bound credential sees those of its projects."""
        refuse_unknown_query(request, "limit", "cursor", "project", "decision", "since")
        principal, limit = principal_of(request), read_limit(request)
        wanted, before_id = _read_filter(request, principal), read_id_cursor(request)
        with reading(principal.tenant_id):
            found = find_decisions(
                principal.tenant_id, wanted, before_id=before_id, limit=limit + 1
            )
        page = build_page(
            request,
            found,
            limit=limit,
            key=lambda one: str(one.id),
            render=lambda one: orjson.loads(one.response_json),
        )
        return Response(page)


class DecisionView(ApiView):
    """One decision."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(operation_id="get_decision", tags=_TAGS, responses={200: _DECISION})
    def get(self, request: Request, decision_id: uuid.UUID) -> Response:
        """Show the stored response of a decision."""
        refuse_unknown_query(request)
        principal = principal_of(request)
        with reading(principal.tenant_id):
            decision = get_decision(principal.tenant_id, decision_id)
        require_project(principal, decision.project_id)
        return Response(orjson.loads(decision.response_json))


def _read_filter(request: Request, principal: Principal) -> DecisionFilter:
    fields = Fields(request.GET.dict())
    project_id = fields.text("project")
    decision = fields.choice("decision", DECISIONS)
    since_at = fields.time("since")
    fields.raw("limit")
    fields.raw("cursor")
    fields.finish("The query has invalid parameters.")
    projects = principal.projects
    if project_id is not None:
        require_project(principal, project_id)
        projects = frozenset({project_id})
    return DecisionFilter(projects=projects, decision=decision, since_at=since_at)
