"""The API of namespace bindings: owners say which project a cluster's namespace belongs to."""

from __future__ import annotations

import uuid
from typing import Any, Final

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from governance.api.api_keys import PAGE_PARAMETERS, read_id_cursor
from governance.api.callers import actor_of, principal_of
from governance.api.documents import closed_object, page_of
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.identity.domain import OWNER
from governance.integrations import bindings, queries
from governance.integrations.domain import (
    ENVIRONMENT_LIMIT,
    NAMESPACE,
    PROJECT_LIMIT,
    BindingTerms,
)
from governance.models import ClusterBinding
from valdrix.kernel.db import reading
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import build_page, read_limit, refuse_unknown_query
from valdrix.kernel.http.times import to_text
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import NotFound
from valdrix.kernel.schemas import text_schema

_TAGS: Final = ["integrations"]
_UUID: Final = {"type": "string", "format": "uuid"}
_TERMS: Final[dict[str, Any]] = {
    "project_id": text_schema(PROJECT_LIMIT),
    "environment": text_schema(
        ENVIRONMENT_LIMIT, description="Free text, classified by the policy."
    ),
}
_NAMESPACE: Final[dict[str, Any]] = {
    "type": "string",
    "pattern": f"^(?:{NAMESPACE.pattern})$",
    "description": "A namespace's name, or `*` for every one that is not bound itself.",
}
BINDING_SCHEMA: Final = closed_object(
    {
        "id": _UUID,
        "integration_id": _UUID,
        "namespace": _NAMESPACE,
        **_TERMS,
        "created_by": {"type": "string"},
        "created_at": {"type": "string", "format": "date-time"},
    }
)
NEW_SCHEMA: Final = closed_object({"namespace": _NAMESPACE, **_TERMS})
TERMS_SCHEMA: Final = closed_object(_TERMS)


class BindingsView(ApiView):
    """The namespace bindings of one cluster."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="list_namespace_bindings",
        tags=_TAGS,
        parameters=PAGE_PARAMETERS,
        responses={200: page_of(BINDING_SCHEMA)},
    )
    def get(self, request: Request, integration_id: uuid.UUID) -> Response:
        """List a cluster's bindings, newest first."""
        refuse_unknown_query(request, "limit", "cursor")
        tenant_id, limit = principal_of(request).tenant_id, read_limit(request)
        before_id = read_id_cursor(request)
        with reading(tenant_id):
            if queries.find_integration(tenant_id, integration_id) is None:
                raise NotFound
            rows = queries.find_bindings(
                tenant_id, integration_id, before_id=before_id, limit=limit + 1
            )
        return Response(
            build_page(
                request,
                rows,
                limit=limit,
                key=lambda row: str(row.pk),
                render=binding_document,
            )
        )

    @extend_schema(
        operation_id="bind_namespace",
        tags=_TAGS,
        request={"application/json": NEW_SCHEMA},
        responses={201: BINDING_SCHEMA},
    )
    def post(self, request: Request, integration_id: uuid.UUID) -> Response:
        """Say where a namespace belongs."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        namespace = fields.text("namespace", required=True, pattern=NAMESPACE)
        terms = _read_terms(fields)
        binding = bindings.bind_namespace(
            actor=actor_of(request, now=timezone.now()),
            binding_id=new_id(),
            integration_id=integration_id,
            namespace=str(namespace),
            terms=terms,
        )
        return Response(binding_document(binding), status=201)


class BindingView(ApiView):
    """One namespace binding."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="rebind_namespace",
        tags=_TAGS,
        request={"application/json": TERMS_SCHEMA},
        responses={200: BINDING_SCHEMA},
    )
    def put(self, request: Request, integration_id: uuid.UUID, binding_id: uuid.UUID) -> Response:
        """Say anew where a bound namespace belongs."""
        refuse_unknown_query(request)
        binding = bindings.rebind_namespace(
            actor=actor_of(request, now=timezone.now()),
            integration_id=integration_id,
            binding_id=binding_id,
            terms=_read_terms(Fields(request.data)),
        )
        return Response(binding_document(binding))

    @extend_schema(operation_id="unbind_namespace", tags=_TAGS, responses={204: None})
    def delete(
        self, request: Request, integration_id: uuid.UUID, binding_id: uuid.UUID
    ) -> Response:
        """Forget where a namespace belongs."""
        refuse_unknown_query(request)
        bindings.unbind_namespace(
            actor=actor_of(request, now=timezone.now()),
            integration_id=integration_id,
            binding_id=binding_id,
        )
        return Response(status=204)


def binding_document(binding: ClusterBinding) -> dict[str, Any]:
    """Return a binding as its managers see it."""
    return {
        "id": str(binding.pk),
        "integration_id": str(binding.integration_id),
        "namespace": binding.namespace,
        "project_id": binding.project_id,
        "environment": binding.environment,
        "created_by": binding.created_by,
        "created_at": to_text(binding.created_at),
    }


def _read_terms(fields: Fields) -> BindingTerms:
    project_id = fields.text("project_id", required=True, max_length=PROJECT_LIMIT)
    environment = fields.text("environment", required=True, max_length=ENVIRONMENT_LIMIT)
    fields.finish()
    return BindingTerms(str(project_id), str(environment))
