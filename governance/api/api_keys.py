"""The API of API keys: owners issue, rotate and revoke them; a text is shown once."""

from __future__ import annotations

import os
import uuid

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from governance.api import documents
from governance.api.callers import actor_of, principal_of
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.identity import operations, queries
from governance.identity.domain import OWNER, RANDOM_BYTES, ROLES
from governance.models import ApiKey
from valdrix.kernel.db import reading
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import (
    MAX_LIMIT,
    InvalidPage,
    build_page,
    read_cursor,
    read_limit,
    refuse_unknown_query,
)
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import NotFound

_TAGS = ["identity"]
_MOST_ITEMS = 100
_BIGGEST_PERSON_ID = 2**63 - 1
PAGE_PARAMETERS = [
    OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}),
    OpenApiParameter(
        "cursor",
        {"type": "string", "minLength": 1, "maxLength": 300},
        description="As the page before gives it in `next`.",
    ),
]


class ApiKeysView(ApiView):
    """The tenant's API keys."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="list_api_keys",
        tags=_TAGS,
        parameters=PAGE_PARAMETERS,
        responses={200: documents.page_of(documents.API_KEY_SCHEMA)},
    )
    def get(self, request: Request) -> Response:
        """List API keys, newest first, revoked and expired ones included."""
        refuse_unknown_query(request, "limit", "cursor")
        tenant_id, now, limit = principal_of(request).tenant_id, timezone.now(), read_limit(request)
        before_id = read_id_cursor(request)
        with reading(tenant_id):
            keys = queries.find_api_keys(tenant_id, before_id=before_id, limit=limit + 1)
        return Response(
            build_page(
                request,
                keys,
                limit=limit,
                key=lambda key: str(key.pk),
                render=lambda key: documents.api_key_document(key, now=now),
            )
        )

    @extend_schema(
        operation_id="issue_api_key",
        tags=_TAGS,
        request={"application/json": documents.NEW_KEY_SCHEMA},
        responses={201: documents.ISSUED_KEY_SCHEMA},
    )
    def post(self, request: Request) -> Response:
        """Issue an API key; its text is in this answer and nowhere else."""
        refuse_unknown_query(request)
        terms = _read_terms(request)
        actor = actor_of(request, now=timezone.now())
        key, text = operations.issue_api_key(
            actor=actor, key_id=new_id(), random_bytes=os.urandom(RANDOM_BYTES), **terms
        )
        return _issued(key, text, status=201)


class ApiKeyView(ApiView):
    """One API key."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="get_api_key", tags=_TAGS, responses={200: documents.API_KEY_SCHEMA}
    )
    def get(self, request: Request, key_id: uuid.UUID) -> Response:
        """Show an API key; never its text."""
        refuse_unknown_query(request)
        tenant_id = principal_of(request).tenant_id
        with reading(tenant_id):
            key = queries.find_api_key(tenant_id, key_id)
        if key is None:
            raise NotFound
        return Response(documents.api_key_document(key, now=timezone.now()))


class ApiKeyRotationView(ApiView):
    """The replacement of a key's text."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="rotate_api_key",
        tags=_TAGS,
        request={"application/json": documents.EMPTY_SCHEMA},
        responses={200: documents.ISSUED_KEY_SCHEMA},
    )
    def post(self, request: Request, key_id: uuid.UUID) -> Response:
        """Replace a key's text; the old one stops at once."""
        refuse_unknown_query(request)
        Fields(request.data).finish()
        key, text = operations.rotate_api_key(
            actor=actor_of(request, now=timezone.now()),
            key_id=key_id,
            random_bytes=os.urandom(RANDOM_BYTES),
        )
        return _issued(key, text, status=200)


class ApiKeyRevocationView(ApiView):
    """The end of a key."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="revoke_api_key",
        tags=_TAGS,
        request={"application/json": documents.EMPTY_SCHEMA},
        responses={200: documents.API_KEY_SCHEMA},
    )
    def post(self, request: Request, key_id: uuid.UUID) -> Response:
        """Revoke a key for ever; once more changes nothing."""
        refuse_unknown_query(request)
        Fields(request.data).finish()
        now = timezone.now()
        key = operations.revoke_api_key(actor=actor_of(request, now=now), key_id=key_id)
        return Response(documents.api_key_document(key, now=now))


def read_id_cursor(request: Request) -> uuid.UUID | None:
    """Return the id after which a list ordered by id goes on.

    :raises InvalidPage: for a cursor that such a list does not give.
    """
    text = read_cursor(request)
    if text is None:
        return None
    try:
        return uuid.UUID(text)
    except ValueError:
        raise InvalidPage("The cursor is not valid.") from None


def _read_terms(request: Request) -> operations.KeyTerms:
    fields = Fields(request.data)
    name = fields.text("name", required=True)
    role = fields.choice("role", ROLES, required=True)
    person_id = fields.integer("person_id", minimum=1, maximum=_BIGGEST_PERSON_ID)
    scopes, projects = _read_texts(fields, "scopes"), _read_texts(fields, "projects")
    expires_at = fields.time("expires_at")
    fields.finish()
    return operations.KeyTerms(
        name=str(name),
        role=str(role),
        person_id=person_id or principal_of(request).person_id,
        scopes=scopes or (),
        projects=projects,
        expires_at=expires_at,
    )


def _read_texts(fields: Fields, name: str) -> list[str] | None:
    value = fields.raw(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        fields.refuse(name, "must be a list of strings", code="invalid_type")
    elif len(value) > _MOST_ITEMS:
        fields.refuse(name, f"must have at most {_MOST_ITEMS} items", code="too_long")
    else:
        return value
    return None


def _issued(key: ApiKey, text: str, *, status: int) -> Response:
    document = documents.api_key_document(key, now=key.created_at) | {"key": text}
    return Response(document, status=status, headers={"Cache-Control": "no-store"})
