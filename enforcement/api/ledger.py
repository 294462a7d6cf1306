"""The API of the ledger: admins read what was decided, by whom, and the hashes that bind it."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson
from django.conf import settings
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from enforcement.api.policies import read_number_cursor
from enforcement.ledger.checkpoint import SCHEMA, build_checkpoint
from enforcement.ledger.domain import COLUMNS, GENESIS_HASH, Head
from enforcement.ledger.queries import EntryFilter, find_head, read_shown
from governance.api.api_keys import PAGE_PARAMETERS
from governance.api.assuming import confirming
from governance.api.callers import principal_of
from governance.api.documents import closed_object, page_of
from governance.api.permissions import (
    RequireRole,
    RequireWholeTenant,
    require_project,
    require_whole_tenant,
)
from governance.identity.domain import ADMIN
from valdrix.kernel.db import reading
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import build_page, read_limit, refuse_unknown_query
from valdrix.kernel.problems import Refused
from valdrix.kernel.rows import rendering
from valdrix.kernel.signing import ALGORITHM

_ORDERS: Final = ("asc", "desc")
_HASH: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_TYPES: Final[dict[str, dict[str, Any]]] = {
    "event": {"type": "string"},
    "at": {"type": "string", "format": "date-time"},
    "principal": {"type": "string"},
    "reason_codes": {"type": "array", "items": {"type": "string"}},
    "decision_id": {"type": ["string", "null"], "format": "uuid"},
    "approval_request_id": {"type": ["string", "null"], "format": "uuid"},
    "risk_score": {"type": ["integer", "null"]},
    "policy_version": {"type": ["integer", "null"]},
}
_ENTRY: Final = closed_object(
    {
        "sequence": {"type": "integer"},
        **{name: _TYPES.get(name, {"type": ["string", "null"]}) for name in COLUMNS},
        "prev_hash": _HASH,
        "entry_hash": _HASH,
    }
)


_CHECKPOINT: Final = closed_object(
    {
        "checkpoint": closed_object(
            {
                "schema_version": {"type": "string", "const": SCHEMA},
                "tenant_id": {"type": "string", "format": "uuid"},
                "sequence": {"type": "integer", "minimum": 0},
                "entry_hash": _HASH,
                "at": {"type": "string", "format": "date-time"},
            }
        ),
        "signature": {"type": "string", "description": "base64url, over RFC 8785 bytes."},
        "signature_algorithm": {"type": "string", "const": ALGORITHM},
        "signature_key_id": {"type": "string"},
        "public_key": {"type": "string", "description": "Raw Ed25519 public key, base64url."},
    }
)


class SigningKeyMissing(Refused):
    """No signing key is configured, so that nothing can be signed (503)."""

    code = "signing_key_missing"


class CheckpointView(ApiView):
    """The signed head of the tenant's ledger."""

    permission_classes = (RequireRole(ADMIN), RequireWholeTenant)

    @extend_schema(
        operation_id="get_ledger_checkpoint", tags=["ledger"], responses={200: _CHECKPOINT}
    )
    def get(self, request: Request) -> Response:
        """Sign the ledger's head; kept elsewhere, it shows later that no tail was cut."""
        refuse_unknown_query(request)
        key = settings.EXPORT_SIGNING_KEY
        if key is None:
            raise SigningKeyMissing("ENFORCEMENT_EXPORT_SIGNING_KEY is not configured.")
        tenant_id = principal_of(request).tenant_id
        with reading(tenant_id):
            head = find_head(tenant_id) or Head(0, GENESIS_HASH)
        return Response(
            build_checkpoint(tenant_id=tenant_id, head=head, at=timezone.now(), key=key)
        )


class LedgerView(ApiView):
    """The tenant's ledger."""

    permission_classes = (RequireRole(ADMIN),)

    @extend_schema(
        operation_id="list_ledger_entries",
        tags=["ledger"],
        parameters=[
            *PAGE_PARAMETERS,
            OpenApiParameter("decision_id", str),
            OpenApiParameter("project_id", str),
            OpenApiParameter("order", str, enum=_ORDERS, default="desc"),
        ],
        responses={200: page_of(_ENTRY)},
    )
    @confirming
    def get(self, request: Request) -> Response:
        """List entries, newest first; a bound credential names one of its projects."""
        refuse_unknown_query(request, "limit", "cursor", "decision_id", "project_id", "order")
        principal, limit = principal_of(request), read_limit(request)
        after_sequence = read_number_cursor(request)
        fields = Fields(request.GET.dict())
        decision_id = fields.identifier("decision_id")
        project_id = fields.text("project_id")
        order = fields.choice("order", _ORDERS) or "desc"
        fields.raw("limit")
        fields.raw("cursor")
        fields.finish("The query has invalid parameters.")
        if project_id is None:
            require_whole_tenant(principal)
        else:
            require_project(principal, project_id)
        wanted = EntryFilter(
            decision_id=decision_id,
            project_id=project_id,
            after_sequence=after_sequence,
            newest_first=order == "desc",
        )
        entries = read_shown(principal.tenant_id, wanted, limit=limit + 1)
        page = build_page(
            request, entries, limit=limit, key=lambda one: str(one.sequence), render=_render
        )
        return Response(page)


@rendering
def _render(entry: Any) -> orjson.Fragment:
    """Return an entry as it was hashed: what is shown is what the chain proves."""
    return orjson.Fragment(msgspec.json.encode(entry))
