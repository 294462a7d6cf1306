"""The API of incidents: admins read what is wrong and needs a person."""

from __future__ import annotations

import uuid
from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from governance.api.api_keys import PAGE_PARAMETERS
from governance.api.callers import principal_of
from governance.api.documents import closed_object, page_of
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.identity.domain import ADMIN
from governance.incidents.models import STATES
from governance.incidents.queries import find_incidents, get_incident
from governance.models import Incident
from valdrix.kernel.db import reading
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import (
    InvalidPage,
    build_page,
    read_cursor,
    read_filter,
    read_limit,
    refuse_unknown_query,
)
from valdrix.kernel.http.times import to_text
from valdrix.kernel.problems import FieldError, InvalidRequest

_TIME: Final = {"type": "string", "format": "date-time"}
_INCIDENT: Final = closed_object(
    {
        "id": {"type": "string", "format": "uuid"},
        "kind": {"type": "string"},
        "subject": {"type": "string"},
        "detail": {"type": "string"},
        "state": {"type": "string", "enum": list(STATES)},
        "occurrences": {"type": "integer"},
        "opened_at": _TIME,
        "last_seen_at": _TIME,
        "resolved_at": {"type": ["string", "null"], "format": "date-time"},
    }
)
_TAGS: Final = ["incidents"]


class IncidentsView(ApiView):
    """The tenant's incidents."""

    permission_classes = (RequireRole(ADMIN), RequireWholeTenant)

    @extend_schema(
        operation_id="list_incidents",
        tags=_TAGS,
        parameters=[*PAGE_PARAMETERS, OpenApiParameter("state", str, enum=list(STATES))],
        responses={200: page_of(_INCIDENT)},
    )
    def get(self, request: Request) -> Response:
        """List incidents, the newest first."""
        refuse_unknown_query(request, "limit", "cursor", "state")
        tenant_id, limit = principal_of(request).tenant_id, read_limit(request)
        state, before = read_filter(request, "state"), _read_place(request)
        if state is not None and state not in STATES:
            error = FieldError("/state", "unknown_value", f"must be one of {', '.join(STATES)}")
            raise InvalidRequest("There is no such state.", errors=(error,))
        with reading(tenant_id):
            rows = find_incidents(tenant_id, state=state, before=before, limit=limit + 1)
        return Response(
            build_page(
                request, rows, limit=limit, key=lambda row: str(row.pk), render=_incident_document
            )
        )


class IncidentView(ApiView):
    """One incident."""

    permission_classes = (RequireRole(ADMIN), RequireWholeTenant)

    @extend_schema(operation_id="get_incident", tags=_TAGS, responses={200: _INCIDENT})
    def get(self, request: Request, incident_id: uuid.UUID) -> Response:
        """Show one incident, open or resolved."""
        refuse_unknown_query(request)
        tenant_id = principal_of(request).tenant_id
        with reading(tenant_id):
            return Response(_incident_document(get_incident(tenant_id, incident_id)))


def _incident_document(row: Incident) -> dict[str, Any]:
    return {
        "id": str(row.pk),
        "kind": row.kind,
        "subject": row.subject,
        "detail": row.detail,
        "state": row.state,
        "occurrences": row.occurrences,
        "opened_at": to_text(row.opened_at),
        "last_seen_at": to_text(row.last_seen_at),
        "resolved_at": None if row.resolved_at is None else to_text(row.resolved_at),
    }


def _read_place(request: Request) -> uuid.UUID | None:
    text = read_cursor(request)
    if text is None:
        return None
    try:
        return uuid.UUID(text)
    except ValueError:
        raise InvalidPage("The cursor is not valid.") from None
