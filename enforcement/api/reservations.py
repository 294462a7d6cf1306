"""The API of reservations: confirm, reconcile, what is active, what needs a look (SPEC 5)."""

from __future__ import annotations

import uuid
from typing import Any, Final

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from enforcement.reconciliation import operations, queries
from enforcement.reconciliation.operations import Actuals
from governance.api.api_keys import PAGE_PARAMETERS, read_id_cursor
from governance.api.callers import actor_of, principal_of
from governance.api.documents import closed_object, page_of
from governance.api.permissions import RequireRole, RequireWholeTenant, require_project
from governance.identity.domain import ADMIN, MEMBER
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import build_page, read_limit, refuse_unknown_query
from valdrix.kernel.ids import new_id
from valdrix.kernel.money import MONTHLY_PLACES
from valdrix.kernel.schemas import amount_schema, prose_schema, text_schema

REPLAY_HEADER: Final = "Idempotent-Replayed"
_TAGS: Final = ["reservations"]
_USD: Final = {"type": "string", "examples": ["120.0000"], "description": "US dollars a month."}
_TEXT: Final = {"type": "string"}
_MAYBE_TEXT: Final = {"type": ["string", "null"]}
_ID: Final = {"type": "string", "format": "uuid"}
_TIME: Final = {"type": "string", "format": "date-time"}
_MAYBE_TIME: Final = {"type": ["string", "null"], "format": "date-time"}
_IDS: Final = {"type": "array", "items": _ID}

_CONFIRMED: Final = closed_object({"status": _TEXT, "decision_ids": _IDS})
_RECONCILE: Final = closed_object(
    {
        "actual_monthly_delta_usd": amount_schema(examples=["95.50"]),
        "notes": prose_schema(),
        "idempotency_key": text_schema(),
    },
    optional=("notes", "idempotency_key"),
)
_CREDIT: Final = closed_object(
    {
        "grant_id": _ID,
        "pool": _TEXT,
        "reserved_usd": _USD,
        "consumed_usd": _USD,
        "refunded_usd": _USD,
    }
)
_SETTLED: Final = closed_object(
    {
        "status": {"type": "string", "enum": ["settled", "released"]},
        "trigger": _TEXT,
        "decision_ids": _IDS,
        "reserved_usd": _USD,
        "actual_monthly_delta_usd": _USD,
        "posted_usd": _USD,
        "overrun_usd": _USD,
        "drift_usd": _USD,
        "exception_reason": _MAYBE_TEXT,
        "credit_settlement": {"type": "array", "items": _CREDIT},
    }
)
_OVERDUE: Final = closed_object(
    {name: {"type": "integer", "minimum": 0} for name in ("posted", "released", "inconsistent")}
)
_RESERVATION: Final = closed_object(
    {
        "decision_id": _ID,
        "family_id": _ID,
        "project_id": _TEXT,
        "environment": _TEXT,
        "is_shadow": {"type": "boolean"},
        "own_usd": _USD,
        "taken_usd": _USD,
        "reserved_at": _TIME,
        "due_at": _TIME,
        "confirmed_at": _MAYBE_TIME,
        "lines": {
            "type": "array",
            "items": closed_object(
                {"account_id": _ID, "kind": _TEXT, "amount_usd": _USD, "state": _TEXT}
            ),
        },
    }
)
_EXCEPTION: Final = closed_object(
    {
        "id": _ID,
        "decision_id": _ID,
        "project_id": _TEXT,
        "environment": _TEXT,
        "trigger": _TEXT,
        "reserved_usd": _USD,
        "actual_monthly_delta_usd": _USD,
        "posted_usd": _USD,
        "overrun_usd": _USD,
        "drift_usd": _USD,
        "exception_reason": _TEXT,
        "settled_by": _TEXT,
        "settled_at": _TIME,
    }
)


class ConfirmView(ApiView):
    """``POST reservations/{decision_id}/confirm``."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(
        operation_id="confirm_reservation",
        tags=_TAGS,
        request={"application/json": closed_object({})},
        responses={200: _CONFIRMED},
    )
    def post(self, request: Request, decision_id: uuid.UUID) -> Response:
        """Say that a decision's change was applied."""
        refuse_unknown_query(request)
        Fields(request.data).finish()
        principal = principal_of(request)
        result = operations.confirm(
            actor=actor_of(request, now=timezone.now()),
            decision_id=decision_id,
            may_use=lambda project_id: require_project(principal, project_id),
        )
        return Response(result)


class ReconcileView(ApiView):
    """``POST reservations/{decision_id}/reconcile``."""

    permission_classes = (RequireRole(ADMIN), RequireWholeTenant)

    @extend_schema(
        operation_id="reconcile_reservation",
        tags=_TAGS,
        request={"application/json": _RECONCILE},
        responses={200: _SETTLED},
    )
    def post(self, request: Request, decision_id: uuid.UUID) -> Response:
        """Settle a decision's whole family against what was really spent."""
        refuse_unknown_query(request)
        actuals = _read_actuals(request, decision_id)
        result, is_replay = operations.reconcile(
            actor=actor_of(request, now=timezone.now()), actuals=actuals
        )
        headers = {REPLAY_HEADER: "true"} if is_replay else {}
        return Response(result, headers=headers)


class ReconcileOverdueView(ApiView):
    """``POST reservations/reconcile-overdue``."""

    permission_classes = (RequireRole(ADMIN), RequireWholeTenant)

    @extend_schema(
        operation_id="reconcile_overdue_reservations",
        tags=_TAGS,
        request={"application/json": closed_object({})},
        responses={200: _OVERDUE},
    )
    def post(self, request: Request) -> Response:
        """Settle what is past its time: release what was not confirmed, post what was."""
        refuse_unknown_query(request)
        Fields(request.data).finish()
        counts = operations.reconcile_overdue(actor=actor_of(request, now=timezone.now()))
        return Response(counts)


class ActiveReservationsView(ApiView):
    """``GET reservations/active``."""

    permission_classes = (RequireRole(ADMIN),)

    @extend_schema(
        operation_id="list_active_reservations",
        tags=_TAGS,
        parameters=PAGE_PARAMETERS,
        responses={200: page_of(_RESERVATION)},
    )
    def get(self, request: Request) -> Response:
        """List what is held and not yet settled, oldest decision first."""
        refuse_unknown_query(request, "limit", "cursor")
        principal, limit = principal_of(request), read_limit(request)
        rows = queries.find_active(
            principal.tenant_id,
            projects=principal.projects,
            after_id=read_id_cursor(request),
            limit=limit + 1,
        )
        return Response(_page(request, rows, limit, "decision_id"))


class ReconciliationExceptionsView(ApiView):
    """``GET reservations/reconciliation-exceptions``."""

    permission_classes = (RequireRole(ADMIN),)

    @extend_schema(
        operation_id="list_reconciliation_exceptions",
        tags=_TAGS,
        parameters=PAGE_PARAMETERS,
        responses={200: page_of(_EXCEPTION)},
    )
    def get(self, request: Request) -> Response:
        """List settlements that drifted too far or were posted unseen, newest first."""
        refuse_unknown_query(request, "limit", "cursor")
        principal, limit = principal_of(request), read_limit(request)
        rows = queries.find_exceptions(
            principal.tenant_id,
            projects=principal.projects,
            before_id=read_id_cursor(request),
            limit=limit + 1,
        )
        return Response(_page(request, rows, limit, "id"))


def _page(request: Request, rows: list[dict[str, Any]], limit: int, key: str) -> dict[str, Any]:
    return build_page(
        request, rows, limit=limit, key=lambda row: str(row[key]), render=lambda row: row
    )


def _read_actuals(request: Request, decision_id: uuid.UUID) -> Actuals:
    fields = Fields(request.data)
    actual = fields.amount("actual_monthly_delta_usd", places=MONTHLY_PLACES, required=True)
    notes = fields.prose("notes") or ""
    key = fields.text("idempotency_key")
    header = request.headers.get("Idempotency-Key")
    if header is not None and not (0 < len(header) <= 200 and header.isascii()):
        fields.refuse(
            "", "the Idempotency-Key header must have 1 to 200 printable ASCII characters"
        )
    fields.finish()
    assert actual is not None
    return Actuals(
        settlement_id=new_id(),
        decision_id=decision_id,
        actual_monthly_delta_usd=actual,
        notes=notes,
        idempotency_key=header or key,
    )
