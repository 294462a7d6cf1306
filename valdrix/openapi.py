"""The description of the API: OpenAPI 3.1, made once a process, and its browsable pages."""

from __future__ import annotations

import functools
from typing import Any, Final

import orjson
from django.http import HttpResponse
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularSwaggerView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from typing_extensions import override

from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.problems import CONTENT_TYPE, STATUS_BY_CODE
from valdrix.openapi_links import describe_links

_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "Why a request was refused (RFC 9457).",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer", "enum": sorted(set(STATUS_BY_CODE.values()))},
        "code": {
            "type": "string",
            "description": "Stable; programs decide by it.",
            "enum": sorted(STATUS_BY_CODE),
        },
        "detail": {"type": "string", "description": "For people."},
        "request_id": {"type": ["string", "null"]},
        "errors": {"type": "array", "items": {"$ref": "#/components/schemas/FieldError"}},
    },
    "required": ["type", "title", "status", "code", "detail"],
}
_FIELD_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "description": "One thing that is wrong with the request.",
    "properties": {
        "pointer": {"type": "string", "description": "Where: a JSON pointer (RFC 6901)."},
        "code": {"type": "string"},
        "detail": {"type": "string"},
    },
    "required": ["pointer", "code", "detail"],
}
_REFUSED: Final[dict[str, Any]] = {
    "description": "Refused; `code` says why. The table of codes is in docs/api/conventions.md.",
    "headers": {"X-Request-ID": {"description": "The request's id.", "schema": {"type": "string"}}},
    "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describes how a request carries its API key."""

    target_class = "governance.api.authentication.ApiKeyAuthentication"
    name = ["bearer", "apiKeyHeader"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        """Return the two headers that are read, of which a request sends one."""
        return [
            {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "vdx_…",
                "description": "An API key: `Authorization: Bearer vdx_…`.",
            },
            {
                "type": "apiKey",
                "in": "header",
                "name": "X-API-Key",
                "description": "The same API key, for clients that cannot set Authorization.",
            },
        ]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[str]]]:
        """Return the alternatives: either header alone is enough."""
        return [{"bearer": []}, {"apiKeyHeader": []}]


class ClusterScheme(ApiKeyScheme):  # type: ignore[no-untyped-call]
    """Describes how a cluster's own secret, or an API key, comes with a review."""

    target_class = "governance.api.cluster_authentication.ClusterAuthentication"
    name = ["clusterBearer", "clusterApiKeyHeader"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        """Return the two headers that are read, of which a request sends one."""
        bearer, header = super().get_security_definition(auto_schema)
        description = "The cluster's secret, `Authorization: Bearer vds_…`, or an API key."
        return [{**bearer, "bearerFormat": "vds_…", "description": description}, header]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[str]]]:
        """Return the alternatives: either header alone is enough."""
        return [{"clusterBearer": []}, {"clusterApiKeyHeader": []}]


class RunTaskScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describes how a run task's call is signed."""

    target_class = "enforcement.api.run_tasks.RunTaskSignature"
    name = "runTaskSignature"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """Return the header that carries the signature."""
        return {
            "type": "apiKey",
            "in": "header",
            "name": "X-TFC-Task-Signature",
            "description": "Hex HMAC-SHA512 of the raw body, by the integration's secret.",
        }


class ValdrixSchemaGenerator(SchemaGenerator):
    """Generates the description and adds the refusals that every operation can give."""

    @override
    def get_schema(self, request: Any = None, public: bool = False) -> dict[str, Any]:
        """Return the description as a JSON object."""
        schema: dict[str, Any] = super().get_schema(  # type: ignore[no-untyped-call]
            request=request, public=public
        )
        return document_problems(schema)


def document_problems(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the problem document once, and refer to it from every operation's ``default``."""
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {}).update(Problem=_PROBLEM, FieldError=_FIELD_ERROR)
    components.setdefault("responses", {})["Refused"] = _REFUSED
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].setdefault("default", {"$ref": "#/components/responses/Refused"})
            _demand_body(operation)
    describe_links(schema)
    return schema


def _demand_body(operation: dict[str, Any]) -> None:
    """Say that a body must come where one that is empty would lack something."""
    body = operation.get("requestBody", {})
    schemas = [media.get("schema", {}) for media in body.get("content", {}).values()]
    if any(
        schema.get("required") or schema.get("minProperties") or schema.get("type") == "array"
        for schema in schemas
    ):
        body["required"] = True


@functools.cache
def build_schema() -> bytes:
    """Return the whole API's description as JSON; it is the same for everybody."""
    generator = ValdrixSchemaGenerator()  # type: ignore[no-untyped-call]
    return orjson.dumps(generator.get_schema(request=None, public=True))


class SchemaView(ApiView):
    """The description."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        """Answer the OpenAPI document."""
        return HttpResponse(build_schema(), content_type="application/json")


class DocsView(SpectacularSwaggerView):
    """Browsable pages over the description; every file comes from this server."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    # Its one renderer is for the page: it has no form for what OPTIONS would tell.
    http_method_names = ("get", "head")
    url_name = "schema"

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Answer the page."""
        response: Response = super().get(  # type: ignore[no-untyped-call]
            request, *args, **kwargs
        )
        # By default the page shows the description's address to a validator on the internet.
        response.data["settings"] = orjson.dumps(
            {"deepLinking": True, "validatorUrl": None}
        ).decode()
        return response
