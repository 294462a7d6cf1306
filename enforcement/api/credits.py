"""The API of credit grants: members read them, admins grant and void them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Final

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from billing.accounts.domain import POOLS
from billing.accounts.operations import GrantTerms
from billing.accounts.queries import Grant
from enforcement.controls import credits as use_cases
from governance.api.api_keys import PAGE_PARAMETERS, read_id_cursor
from governance.api.assuming import confirming
from governance.api.callers import actor_of, principal_of
from governance.api.documents import closed_object, page_of
from governance.api.permissions import RequireRole, require_project, require_whole_tenant
from governance.identity.domain import ADMIN, MEMBER
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import build_page, read_limit, refuse_unknown_query
from valdrix.kernel.http.times import to_text as time_text
from valdrix.kernel.ids import new_id
from valdrix.kernel.money import MONTHLY_PLACES, to_text
from valdrix.kernel.rows import rendering
from valdrix.kernel.schemas import amount_schema, prose_schema, text_schema

_TAGS: Final = ["credits"]
_DEFAULT_PRIORITY: Final = 100
_MAX_PRIORITY: Final = 1000
_AMOUNT: Final = {"type": "string", "examples": ["500.0000"], "description": "US dollars."}
_MAYBE_TIME: Final = {"type": ["string", "null"], "format": "date-time"}
_POOL: Final = {"type": "string", "enum": list(POOLS)}
_PRIORITY: Final = {
    "type": "integer",
    "minimum": 0,
    "maximum": _MAX_PRIORITY,
    "description": "Among grants that expire together, the lowest number burns first.",
}
_PROJECT: Final = text_schema(is_optional=True, description="null offers it to every project.")
_GRANT: Final = closed_object(
    {
        "id": {"type": "string", "format": "uuid"},
        "pool": _POOL,
        "project_id": _PROJECT,
        "status": {"type": "string", "enum": ["active", "exhausted", "expired", "voided"]},
        "total_amount_usd": _AMOUNT,
        "remaining_amount_usd": _AMOUNT,
        "reserved_amount_usd": _AMOUNT,
        "consumed_amount_usd": _AMOUNT,
        "headroom_usd": {**_AMOUNT, "description": "What decisions can take now, US dollars."},
        "priority": _PRIORITY,
        "reason": {"type": "string"},
        "expires_at": _MAYBE_TIME,
        "voided_at": _MAYBE_TIME,
        "created_at": {"type": "string", "format": "date-time"},
        "created_by": {"type": "string"},
    }
)
_NEW_GRANT: Final = closed_object(
    {
        "pool": _POOL,
        "total_amount_usd": amount_schema(is_signed=False, examples=["500.00"]),
        "project_id": _PROJECT,
        "expires_at": _MAYBE_TIME,
        "priority": _PRIORITY,
        "reason": prose_schema(),
    },
    optional=("project_id", "expires_at", "priority"),
)
_VOID: Final = closed_object({"reason": prose_schema()}, optional=("reason",))


class CreditsView(ApiView):
    """The tenant's credit grants."""

    permission_classes = (RequireRole(MEMBER, to_write=ADMIN),)

    @extend_schema(
        operation_id="list_credits",
        tags=_TAGS,
        parameters=PAGE_PARAMETERS,
        responses={200: page_of(_GRANT)},
    )
    @confirming
    def get(self, request: Request) -> Response:
        """List credit grants, oldest first; a bound credential sees those it may draw on."""
        refuse_unknown_query(request, "limit", "cursor")
        principal, limit = principal_of(request), read_limit(request)
        found = use_cases.find_credits(
            principal.tenant_id,
            projects=principal.projects,
            after_id=read_id_cursor(request),
            limit=limit + 1,
            now=timezone.now(),
        )
        page = build_page(
            request, found, limit=limit, key=lambda one: str(one.account.id), render=_shown
        )
        return Response(page)

    @extend_schema(
        operation_id="grant_credit",
        tags=_TAGS,
        request={"application/json": _NEW_GRANT},
        responses={201: _GRANT},
    )
    def post(self, request: Request) -> Response:
        """Grant prepaid headroom to a project or to the whole tenant."""
        refuse_unknown_query(request)
        now = timezone.now()
        terms = _read_terms(request, now=now)
        if terms.project_id is None:
            require_whole_tenant(principal_of(request))
        else:
            require_project(principal_of(request), terms.project_id)
        actor = actor_of(request, now=now)
        grant = use_cases.grant_credit(actor=actor, grant_id=new_id(), terms=terms)
        return Response(_render(grant), status=201)


class CreditView(ApiView):
    """One credit grant."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(operation_id="get_credit", tags=_TAGS, responses={200: _GRANT})
    def get(self, request: Request, grant_id: uuid.UUID) -> Response:
        """Show a credit grant as it stands now."""
        refuse_unknown_query(request)
        principal = principal_of(request)
        grant = use_cases.get_credit(
            principal.tenant_id, grant_id, projects=principal.projects, now=timezone.now()
        )
        return Response(_render(grant))


class CreditVoidView(ApiView):
    """The end of a credit grant's headroom."""

    permission_classes = (RequireRole(ADMIN),)

    @extend_schema(
        operation_id="void_credit",
        tags=_TAGS,
        request={"application/json": _VOID},
        responses={200: _GRANT},
    )
    def post(self, request: Request, grant_id: uuid.UUID) -> Response:
        """Void a credit grant: no headroom from now on; its amounts stay and take refunds."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        reason = fields.prose("reason")
        fields.finish()
        grant = use_cases.void_credit(
            actor=actor_of(request, now=timezone.now()),
            projects=principal_of(request).projects,
            grant_id=grant_id,
            reason=reason,
        )
        return Response(_render(grant))


def _read_terms(request: Request, *, now: datetime) -> GrantTerms:
    fields = Fields(request.data)
    pool = fields.choice("pool", POOLS, required=True)
    total_usd = fields.amount("total_amount_usd", places=MONTHLY_PLACES, required=True)
    if total_usd is not None and total_usd <= 0:
        fields.refuse("total_amount_usd", "must be above 0", code="out_of_range")
    project_id = fields.text("project_id")
    expires_at = fields.time("expires_at")
    if expires_at is not None and expires_at <= now:
        fields.refuse("expires_at", "must be in the future", code="out_of_range")
    priority = fields.integer("priority", minimum=0, maximum=_MAX_PRIORITY)
    reason = fields.prose("reason", required=True)
    fields.finish()
    assert pool is not None
    assert total_usd is not None
    assert reason is not None
    return GrantTerms(
        pool=pool,
        total_usd=total_usd,
        project_id=project_id,
        expires_at=expires_at,
        priority=_DEFAULT_PRIORITY if priority is None else priority,
        reason=reason,
    )


def _render(grant: Grant) -> dict[str, Any]:
    row = grant.account
    return {
        "id": str(row.id),
        "pool": row.pool,
        "project_id": row.project_id,
        "status": grant.status,
        "total_amount_usd": to_text(row.total_usd),
        "remaining_amount_usd": to_text(row.remaining_usd),
        "reserved_amount_usd": to_text(row.reserved_usd),
        "consumed_amount_usd": to_text(row.consumed_usd),
        "headroom_usd": to_text(grant.headroom_usd),
        "priority": row.priority,
        "reason": row.reason,
        "expires_at": time_text(row.expires_at),
        "voided_at": time_text(row.voided_at),
        "created_at": time_text(row.created_at),
        "created_by": row.created_by,
    }


_shown: Final = rendering(_render)
