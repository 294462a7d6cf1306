"""The API of workload issuers: owners register whose OIDC tokens speak for a project."""

from __future__ import annotations

import uuid
from typing import Any, Final

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from governance.api.api_keys import PAGE_PARAMETERS, read_id_cursor
from governance.api.callers import actor_of, principal_of
from governance.api.documents import EMPTY_SCHEMA, closed_object, page_of
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.identity.domain import OWNER
from governance.models import WorkloadIssuer
from governance.workloads import operations, queries
from governance.workloads.domain import IMMUTABLE_CLAIMS, audience_of
from valdrix.kernel.db import reading
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import build_page, read_limit, refuse_unknown_query
from valdrix.kernel.http.times import to_text
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import NotFound
from valdrix.kernel.schemas import text_schema

_TAGS: Final = ["identity"]
_BIGGEST_PERSON_ID: Final = 2**63 - 1
_TEXT: Final = text_schema()
_TIME: Final = {"type": "string", "format": "date-time"}
_MAYBE_TIME: Final = {"type": ["string", "null"], "format": "date-time"}
_JWKS: Final = {
    "type": ["object", "null"],
    "description": "The issuer's public keys (RFC 7517); null means by discovery.",
}
_CONDITIONS: Final = {
    "type": "object",
    "description": (
        "Claims that a token must have, each with a value or a list of values; nested ones by"
        " their path. One of " + ", ".join(IMMUTABLE_CLAIMS) + " is demanded."
    ),
    "additionalProperties": True,
}

ISSUER_SCHEMA: Final = closed_object(
    {
        "id": {"type": "string", "format": "uuid"},
        "name": _TEXT,
        "issuer": {"type": "string"},
        "audience": {"type": "string", "description": "The audience to ask tokens for."},
        "project_id": _TEXT,
        "conditions": _CONDITIONS,
        "jwks": _JWKS,
        "person_id": {"type": "integer"},
        "status": {"type": "string", "enum": ["active", "revoked"]},
        "created_by": {"type": "string"},
        "created_at": _TIME,
        "revoked_at": _MAYBE_TIME,
        "last_used_at": {**_MAYBE_TIME, "description": "To the minute."},
    }
)
NEW_SCHEMA: Final = closed_object(
    {
        "name": _TEXT,
        "issuer": text_schema(operations.ISSUER_LIMIT),
        "project_id": _TEXT,
        "conditions": _CONDITIONS,
        "jwks": _JWKS,
        "person_id": {
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": _BIGGEST_PERSON_ID,
            "description": "A member; the caller's own person if absent.",
        },
    },
    optional=("jwks", "person_id"),
)


class WorkloadIssuersView(ApiView):
    """The tenant's registered issuers."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="list_workload_issuers",
        tags=_TAGS,
        parameters=PAGE_PARAMETERS,
        responses={200: page_of(ISSUER_SCHEMA)},
    )
    def get(self, request: Request) -> Response:
        """List registered issuers, newest first, revoked ones included."""
        refuse_unknown_query(request, "limit", "cursor")
        tenant_id, limit = principal_of(request).tenant_id, read_limit(request)
        before_id = read_id_cursor(request)
        with reading(tenant_id):
            rows = queries.find_issuers(tenant_id, before_id=before_id, limit=limit + 1)
        return Response(
            build_page(
                request, rows, limit=limit, key=lambda row: str(row.pk), render=issuer_document
            )
        )

    @extend_schema(
        operation_id="register_workload_issuer",
        tags=_TAGS,
        request={"application/json": NEW_SCHEMA},
        responses={201: ISSUER_SCHEMA},
    )
    def post(self, request: Request) -> Response:
        """Register whose tokens speak for a project, and by which claims."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        person_id = fields.integer("person_id", minimum=1, maximum=_BIGGEST_PERSON_ID)
        terms = {
            name: fields.raw(name)
            for name in ("name", "issuer", "project_id", "conditions", "jwks")
        }
        fields.finish()
        row = operations.register_issuer(
            actor=actor_of(request, now=timezone.now()),
            issuer_id=new_id(),
            person_id=person_id or principal_of(request).person_id,
            name=terms["name"],
            issuer=terms["issuer"],
            project_id=terms["project_id"],
            conditions=terms["conditions"],
            jwks=terms["jwks"],
        )
        return Response(issuer_document(row), status=201)


class WorkloadIssuerView(ApiView):
    """One registered issuer."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(operation_id="get_workload_issuer", tags=_TAGS, responses={200: ISSUER_SCHEMA})
    def get(self, request: Request, issuer_id: uuid.UUID) -> Response:
        """Show a registered issuer."""
        refuse_unknown_query(request)
        tenant_id = principal_of(request).tenant_id
        with reading(tenant_id):
            row = queries.find_issuer(tenant_id, issuer_id)
        if row is None:
            raise NotFound
        return Response(issuer_document(row))


class WorkloadIssuerKeysView(ApiView):
    """The keys of a registered issuer."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="replace_workload_issuer_keys",
        tags=_TAGS,
        request={"application/json": closed_object({"jwks": _JWKS})},
        responses={200: ISSUER_SCHEMA},
    )
    def put(self, request: Request, issuer_id: uuid.UUID) -> Response:
        """Replace the uploaded keys; null means by discovery from now on."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        jwks = fields.raw("jwks")
        fields.finish()
        row = operations.replace_keys(
            actor=actor_of(request, now=timezone.now()), issuer_id=issuer_id, jwks=jwks
        )
        return Response(issuer_document(row))


class WorkloadIssuerRevocationView(ApiView):
    """The end of a registration."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="revoke_workload_issuer",
        tags=_TAGS,
        request={"application/json": EMPTY_SCHEMA},
        responses={200: ISSUER_SCHEMA},
    )
    def post(self, request: Request, issuer_id: uuid.UUID) -> Response:
        """Revoke a registration for ever; once more changes nothing."""
        refuse_unknown_query(request)
        Fields(request.data).finish()
        row = operations.revoke_issuer(
            actor=actor_of(request, now=timezone.now()), issuer_id=issuer_id
        )
        return Response(issuer_document(row))


def issuer_document(row: WorkloadIssuer) -> dict[str, Any]:
    """Return a registered issuer as its managers see it."""
    return {
        "id": str(row.pk),
        "name": row.name,
        "issuer": row.issuer,
        "audience": audience_of(row.tenant_id),
        "project_id": row.project_id,
        "conditions": row.conditions,
        "jwks": row.jwks,
        "person_id": row.person_id,
        "status": "active" if row.revoked_at is None else "revoked",
        "created_by": row.created_by,
        "created_at": to_text(row.created_at),
        "revoked_at": to_text(row.revoked_at),
        "last_used_at": to_text(row.last_used_at),
    }
