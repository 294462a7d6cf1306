"""The API of integrations: owners connect other systems; a secret is shown once."""

from __future__ import annotations

import os
import uuid
from typing import Any, Final

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from governance.api.api_keys import PAGE_PARAMETERS, read_id_cursor
from governance.api.callers import actor_of, principal_of
from governance.api.documents import EMPTY_SCHEMA, closed_object, page_of
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.identity.domain import OWNER
from governance.integrations import operations, queries
from governance.integrations.domain import CLUSTER, KINDS, RUN_TASK, SECRET_BYTES, WEBHOOK
from governance.models import Integration
from valdrix.kernel.db import reading
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import build_page, read_limit, refuse_unknown_query
from valdrix.kernel.http.times import to_text
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import FieldError, InvalidRequest, NotFound
from valdrix.kernel.schemas import text_schema

_TAGS: Final = ["integrations"]
_BIGGEST_PERSON_ID: Final = 2**63 - 1
_CALLED_AT: Final = {
    RUN_TASK: "/api/v1/enforcement/gate/terraform/run-task/{id}",
    CLUSTER: "/api/v1/enforcement/gate/k8s/admission/review/{id}",
}
"""Where the other system calls, for the kinds that have an address of their own."""

_TEXT: Final = text_schema()
_MAYBE_TEXT: Final = text_schema(is_optional=True)
_TIME: Final = {"type": "string", "format": "date-time"}
_MAYBE_TIME: Final = {"type": ["string", "null"], "format": "date-time"}
_SETTINGS: Final = {
    "type": ["object", "null"],
    "description": (
        f"As the kind has them. {RUN_TASK}: environment. {CLUSTER}: cluster, environment, api_key_id. {WEBHOOK}: url."
    ),
}
_KIND: Final = {"type": "string", "enum": list(KINDS)}

INTEGRATION_SCHEMA: Final = closed_object(
    {
        "id": {"type": "string", "format": "uuid"},
        "kind": _KIND,
        "name": _TEXT,
        "project_id": {
            **_MAYBE_TEXT,
            "description": "The project that whatever comes through it belongs to.",
        },
        "settings": {"type": "object"},
        "person_id": {"type": "integer", "description": "The person who answers for it."},
        "status": {"type": "string", "enum": ["active", "revoked"]},
        "path": {
            "type": ["string", "null"],
            "description": "Where the other system calls, on this server.",
        },
        "created_by": {"type": "string"},
        "created_at": _TIME,
        "rotated_at": _MAYBE_TIME,
        "revoked_at": _MAYBE_TIME,
        "last_used_at": {**_MAYBE_TIME, "description": "To the minute."},
    }
)
MADE_SCHEMA: Final = closed_object(
    {
        **INTEGRATION_SCHEMA["properties"],
        "secret": {"type": "string", "description": "The secret, shown this once."},
    }
)
NEW_SCHEMA: Final = closed_object(
    {
        "kind": _KIND,
        "name": _TEXT,
        "project_id": _MAYBE_TEXT,
        "settings": _SETTINGS,
        "person_id": {
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": _BIGGEST_PERSON_ID,
            "description": "A member; the caller's own person if absent.",
        },
    },
    optional=("project_id", "settings", "person_id"),
)


class IntegrationsView(ApiView):
    """The tenant's integrations."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="list_integrations",
        tags=_TAGS,
        parameters=[*PAGE_PARAMETERS, OpenApiParameter("kind", str, enum=KINDS)],
        responses={200: page_of(INTEGRATION_SCHEMA)},
    )
    def get(self, request: Request) -> Response:
        """List integrations, newest first, revoked ones included."""
        refuse_unknown_query(request, "limit", "cursor", "kind")
        tenant_id, limit = principal_of(request).tenant_id, read_limit(request)
        before_id, kind = read_id_cursor(request), _read_kind(request)
        with reading(tenant_id):
            rows = queries.find_integrations(
                tenant_id, kind=kind, before_id=before_id, limit=limit + 1
            )
        return Response(
            build_page(
                request,
                rows,
                limit=limit,
                key=lambda row: str(row.pk),
                render=integration_document,
            )
        )

    @extend_schema(
        operation_id="create_integration",
        tags=_TAGS,
        request={"application/json": NEW_SCHEMA},
        responses={201: MADE_SCHEMA},
    )
    def post(self, request: Request) -> Response:
        """Connect another system; its secret is in this answer and nowhere else."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        kind = fields.choice("kind", KINDS, required=True)
        name = fields.text("name", required=True)
        project_id = fields.text("project_id")
        person_id = fields.integer("person_id", minimum=1, maximum=_BIGGEST_PERSON_ID)
        settings = fields.raw("settings")
        fields.finish()
        integration, secret = operations.create_integration(
            actor=actor_of(request, now=timezone.now()),
            integration_id=new_id(),
            random_bytes=os.urandom(SECRET_BYTES),
            kind=str(kind),
            name=str(name),
            project_id=project_id,
            person_id=person_id or principal_of(request).person_id,
            settings=settings,
        )
        return _made(integration, secret, status=201)


class IntegrationView(ApiView):
    """One integration."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(operation_id="get_integration", tags=_TAGS, responses={200: INTEGRATION_SCHEMA})
    def get(self, request: Request, integration_id: uuid.UUID) -> Response:
        """Show an integration; never its secret."""
        refuse_unknown_query(request)
        tenant_id = principal_of(request).tenant_id
        with reading(tenant_id):
            integration = queries.find_integration(tenant_id, integration_id)
        if integration is None:
            raise NotFound
        return Response(integration_document(integration))


class IntegrationRotationView(ApiView):
    """The replacement of an integration's secret."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="rotate_integration",
        tags=_TAGS,
        request={"application/json": EMPTY_SCHEMA},
        responses={200: MADE_SCHEMA},
    )
    def post(self, request: Request, integration_id: uuid.UUID) -> Response:
        """Replace an integration's secret; the old one stops at once."""
        refuse_unknown_query(request)
        Fields(request.data).finish()
        integration, secret = operations.rotate_secret(
            actor=actor_of(request, now=timezone.now()),
            integration_id=integration_id,
            random_bytes=os.urandom(SECRET_BYTES),
        )
        return _made(integration, secret, status=200)


class IntegrationRevocationView(ApiView):
    """The end of an integration."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="revoke_integration",
        tags=_TAGS,
        request={"application/json": EMPTY_SCHEMA},
        responses={200: INTEGRATION_SCHEMA},
    )
    def post(self, request: Request, integration_id: uuid.UUID) -> Response:
        """Revoke an integration for ever and forget its secret; once more changes nothing."""
        refuse_unknown_query(request)
        Fields(request.data).finish()
        integration = operations.revoke_integration(
            actor=actor_of(request, now=timezone.now()), integration_id=integration_id
        )
        return Response(integration_document(integration))


def integration_document(integration: Integration) -> dict[str, Any]:
    """Return an integration as its managers see it; its secret never leaves the database."""
    path = _CALLED_AT.get(integration.kind)
    return {
        "id": str(integration.pk),
        "kind": integration.kind,
        "name": integration.name,
        "project_id": integration.project_id,
        "settings": integration.settings,
        "person_id": integration.person_id,
        "status": "active" if integration.revoked_at is None else "revoked",
        "path": None if path is None else path.format(id=integration.pk),
        "created_by": integration.created_by,
        "created_at": to_text(integration.created_at),
        "rotated_at": to_text(integration.rotated_at),
        "revoked_at": to_text(integration.revoked_at),
        "last_used_at": to_text(integration.last_used_at),
    }


def _read_kind(request: Request) -> str | None:
    kind = request.GET.get("kind")
    if kind is not None and kind not in KINDS:
        detail = "must be one of " + ", ".join(KINDS)
        raise InvalidRequest(
            "The kind is not valid.", errors=(FieldError("/kind", "invalid_choice", detail),)
        )
    return kind


def _made(integration: Integration, secret: str, *, status: int) -> Response:
    document = integration_document(integration) | {"secret": secret}
    return Response(document, status=status, headers={"Cache-Control": "no-store"})
