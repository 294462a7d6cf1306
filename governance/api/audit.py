"""The API of the audit log: owners read every administrative change of the tenant."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from governance.api import documents
from governance.api.api_keys import PAGE_PARAMETERS
from governance.api.callers import principal_of
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.audit.queries import AuditFilter, AuditPlace, find_changes
from governance.identity.domain import OWNER
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
from valdrix.kernel.schemas import text_schema

_FILTERS = ("object_type", "object_id", "actor")


class AuditView(ApiView):
    """The tenant's audit log."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="list_changes",
        tags=["identity"],
        parameters=[
            *PAGE_PARAMETERS,
            *(OpenApiParameter(name, text_schema()) for name in _FILTERS),
        ],
        responses={200: documents.page_of(documents.AUDIT_ENTRY_SCHEMA)},
    )
    def get(self, request: Request) -> Response:
        """List administrative changes, newest first."""
        refuse_unknown_query(request, "limit", "cursor", *_FILTERS)
        tenant_id, limit = principal_of(request).tenant_id, read_limit(request)
        wanted = AuditFilter(
            object_type=read_filter(request, "object_type"),
            object_id=read_filter(request, "object_id"),
            actor=read_filter(request, "actor"),
        )
        after = _read_place(request)
        with reading(tenant_id):
            entries = find_changes(tenant_id, wanted, after=after, limit=limit + 1)
        return Response(
            build_page(
                request,
                entries,
                limit=limit,
                key=lambda entry: f"{entry.at.isoformat()} {entry.pk}",
                render=documents.audit_document,
            )
        )


def _read_place(request: Request) -> AuditPlace | None:
    text = read_cursor(request)
    if text is None:
        return None
    at, _, entry_id = text.partition(" ")
    try:
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise InvalidPage("The cursor is not valid.")
        return AuditPlace(moment.astimezone(UTC), uuid.UUID(entry_id))
    except (ValueError, OverflowError):
        raise InvalidPage("The cursor is not valid.") from None
