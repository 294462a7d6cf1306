"""The API of exports: figures that bind a window's records to one another, and the archive."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.http import StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from enforcement.api.ledger import SigningKeyMissing
from enforcement.exports.archive import Export, archive_name, build_parity
from enforcement.exports.domain import LIMIT_MAXIMUM, Scope, build_scope
from enforcement.exports.verifier.layout import CONTEXT_LINEAGE, FILES, POLICY_LINEAGE, SUMS
from governance.api.assuming import confirming
from governance.api.callers import principal_of
from governance.api.documents import closed_object
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.identity.domain import ADMIN
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import refuse_unknown_query
from valdrix.kernel.signing import ALGORITHM, SigningKey

PARITY_LIMIT: Final = 50
_HASH: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_TIME: Final = {"type": "string", "format": "date-time"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_USD: Final = {"type": "string"}
_MAYBE: Final = {"type": ["string", "integer", "null"]}
_PARAMETERS: Final = [
    OpenApiParameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": LIMIT_MAXIMUM},
        description="How many decisions at most, the earliest first.",
    ),
    OpenApiParameter("window_start", OpenApiTypes.DATETIME, description="The month's start."),
    OpenApiParameter("window_end", OpenApiTypes.DATETIME, description="Exclusive."),
]


def _lineage(names: tuple[str, ...]) -> dict[str, Any]:
    members = {**dict.fromkeys(names, _MAYBE), "decisions": _COUNT}
    return {"type": "array", "items": closed_object(members)}


_PARITY: Final = closed_object(
    {
        "tenant_id": {"type": "string", "format": "uuid"},
        "window_start": _TIME,
        "window_end": _TIME,
        "limit": {"type": ["integer", "null"]},
        "truncated": {"type": "boolean", "description": "The limit left out decisions."},
        "ledger_position": _COUNT,
        "ledger_position_hash": _HASH,
        "ledger_first_sequence": _COUNT,
        "ledger_last_sequence": _COUNT,
        "ledger_last_hash": _HASH,
        "files": closed_object(
            {
                name: closed_object(
                    {"rows": _COUNT, "bytes": _COUNT, "sha256": _HASH, "last_row_sha256": _HASH}
                )
                for name in FILES
            }
        ),
        "figures": closed_object(
            {
                name: {
                    "type": "object",
                    "additionalProperties": closed_object(
                        {"rows": _COUNT, **dict.fromkeys(SUMS[name], _USD)}
                    ),
                }
                for name in FILES
            }
        ),
        "bindings": closed_object(
            {
                name: closed_object({"rows": _COUNT, "bound": _COUNT})
                for name in FILES
                if name != "ledger.csv"
            }
        ),
        "parity_ok": {"type": "boolean", "description": "Every row agrees with its ledger entry."},
        "policy_lineage": _lineage(POLICY_LINEAGE),
        "policy_lineage_sha256": _HASH,
        "policy_lineage_entries": _COUNT,
        "computed_context_lineage": _lineage(CONTEXT_LINEAGE),
        "computed_context_lineage_sha256": _HASH,
        "computed_context_lineage_entries": _COUNT,
        "manifest_content_sha256": _HASH,
        "manifest_signature": {"type": "string", "description": "base64url, over that content."},
        "manifest_signature_algorithm": {"type": "string", "const": ALGORITHM},
        "manifest_signature_key_id": {"type": "string"},
    }
)


class _ZipRenderer(BaseRenderer):
    """Names the archive's type in the schema; the archive itself is never rendered."""

    media_type = "application/zip"
    format = "zip"


class _AnyType(BaseContentNegotiation):
    """Takes every Accept header: the answer is a ZIP, refusals are problem documents."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        """Return the first parser: there is no body."""
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        """Return the first renderer, whatever was asked for."""
        return renderers[0], renderers[0].media_type


class ExportParityView(ApiView):
    """Counts, sums and hashes of a window."""

    permission_classes = (RequireRole(ADMIN), RequireWholeTenant)

    @extend_schema(
        operation_id="get_export_parity",
        tags=["exports"],
        parameters=_PARAMETERS,
        responses={200: _PARITY},
    )
    @confirming
    def get(self, request: Request) -> Response:
        """Give the figures of the archive that the same query gives, from the same bytes."""
        scope = _read_scope(request, default_limit=PARITY_LIMIT)
        return Response(build_parity(Export(scope, _signing_key()).finish()))


class ExportArchiveView(ApiView):
    """The archive of a window."""

    permission_classes = (RequireRole(ADMIN), RequireWholeTenant)
    content_negotiation_class = _AnyType

    @extend_schema(
        operation_id="get_export_archive",
        tags=["exports"],
        parameters=_PARAMETERS,
        responses={(200, "application/zip"): OpenApiTypes.BINARY},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """Stream the ZIP; one that ends early has no directory and is no archive."""
        scope = _read_scope(request, default_limit=None)
        return build_archive_response(scope, _signing_key())


def build_archive_response(scope: Scope, key: SigningKey) -> StreamingHttpResponse:
    """Return a response that reads and sends an archive at the pace of its receiver."""
    return StreamingHttpResponse(
        Export(scope, key).stream(),
        content_type="application/zip",
        headers={
            "Content-Disposition": f'attachment; filename="{archive_name(scope)}"',
            "Cache-Control": "no-store",
        },
    )


def _read_scope(request: Request, *, default_limit: int | None) -> Scope:
    refuse_unknown_query(request, "limit", "window_start", "window_end")
    fields = Fields(request.GET.dict())
    start_at, end_at = fields.time("window_start"), fields.time("window_end")
    limit = _read_limit(fields)
    fields.finish("The query has invalid parameters.")
    window: tuple[datetime | None, datetime | None] = (start_at, end_at)
    return build_scope(
        tenant_id=principal_of(request).tenant_id,
        window=window,
        limit=default_limit if limit is None else limit,
        now=timezone.now(),
    )


def _read_limit(fields: Fields) -> int | None:
    text = fields.raw("limit")
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= LIMIT_MAXIMUM:
        return int(text)
    fields.refuse(
        "limit", f"must be a whole number between 1 and {LIMIT_MAXIMUM}", code="out_of_range"
    )
    return None


def _signing_key() -> SigningKey:
    key: SigningKey | None = settings.EXPORT_SIGNING_KEY
    if key is None:
        raise SigningKeyMissing("ENFORCEMENT_EXPORT_SIGNING_KEY is not configured.")
    return key
