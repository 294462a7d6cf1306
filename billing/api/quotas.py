"""The API of metered use: what is left of a day, and what is held, committed and released."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from billing.plans.domain import FREE
from billing.quotas.domain import (
    ACTORS,
    METERS,
    QUOTA_EXCEEDED,
    QUOTAS,
    STATES,
    SYSTEM,
    TENANT_HOLDER,
    USER,
    Count,
    MeteredRequest,
    Quota,
    Refusal,
    day_of,
    seconds_left,
)
from billing.quotas.models import QuotaReservation
from billing.quotas.operations import Origin, commit, release, reserve
from billing.quotas.queries import find_counts, get_reservation
from governance.api.callers import principal_of
from governance.api.permissions import RequireRole, require_role
from governance.identity.domain import ADMIN, MEMBER, Principal
from valdrix.kernel.db import reading
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import refuse_unknown_query
from valdrix.kernel.http.problem_response import problem_response
from valdrix.kernel.http.times import to_text
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import NotFound
from valdrix.kernel.schemas import closed_object, text_schema

_TAGS: Final = ["quotas"]
_MOST_UNITS: Final = 10**12
_NOTHING: Final = Count(reserved_units=0, used_units=0)
_METER: Final = {"type": "string", "enum": list(METERS)}
_UNITS: Final = {"type": "integer", "minimum": 0, "maximum": _MOST_UNITS}
_TIME: Final = {"type": "string", "format": "date-time"}
_SHARE: Final = closed_object(
    {"limit_units": _UNITS, "reserved_units": _UNITS, "used_units": _UNITS, "left_units": _UNITS}
)
_QUOTA: Final = closed_object(
    {
        "meter": _METER,
        "day": {"type": "string", "format": "date"},
        "resets_at": _TIME,
        "tier": {"type": "string"},
        "tenant": _SHARE,
        "user": {**_SHARE, "description": "The caller's own person."},
        "system": _SHARE,
        "request_units": _UNITS,
        "request_days": _UNITS,
        "request_records": _UNITS,
        "providers": {"type": "array", "items": {"type": "string"}},
        "suspended": {"type": "boolean"},
    }
)
_LISTED: Final = closed_object({"results": {"type": "array", "items": _QUOTA}})
_RESERVATION: Final = closed_object(
    {
        "id": {"type": "string", "format": "uuid"},
        "meter": _METER,
        "day": {"type": "string", "format": "date"},
        "actor": {"type": "string", "enum": list(ACTORS)},
        "provider": {"type": "string"},
        "units": _UNITS,
        "used_units": {"type": ["integer", "null"]},
        "state": {"type": "string", "enum": list(STATES)},
        "reserved_at": _TIME,
        "expires_at": _TIME,
    }
)
_NEW: Final = closed_object(
    {
        "meter": _METER,
        "units": {"type": "integer", "minimum": 1, "maximum": _MOST_UNITS},
        "actor": {"type": "string", "enum": list(ACTORS), "description": "Admins: the system."},
        "days": _UNITS,
        "records": _UNITS,
        "provider": text_schema(is_optional=True, description="null takes the plan's first."),
    },
    optional=("actor", "days", "records", "provider"),
)
_COMMIT: Final = closed_object({"used_units": _UNITS})


class QuotasView(ApiView):
    """What is left of today."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(operation_id="list_quotas", tags=_TAGS, responses={200: _LISTED})
    def get(self, request: Request) -> Response:
        """Show each meter's limits, and what is held and used of the UTC day."""
        refuse_unknown_query(request)
        principal, now = principal_of(request), timezone.now()
        with reading(principal.tenant_id):
            counts = {
                meter: find_counts(principal.tenant_id, meter, day_of(now)) for meter in METERS
            }
        return Response(
            {"results": [_show(principal, meter, counts[meter], now) for meter in METERS]}
        )


class QuotaReservationsView(ApiView):
    """Reservations of metered use."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(
        operation_id="reserve_quota",
        tags=_TAGS,
        request={"application/json": _NEW},
        responses={201: _RESERVATION},
    )
    def post(self, request: Request) -> HttpResponse:
        """Hold what a request may need; it is given back when its time is over."""
        refuse_unknown_query(request)
        principal, now = principal_of(request), timezone.now()
        wanted = _read_request(request, principal)
        made = reserve(
            origin=Origin(
                tenant_id=principal.tenant_id,
                reservation_id=new_id(),
                principal_id=principal.principal_id,
                at=now,
            ),
            wanted=wanted,
            quota=_quota_of(principal, wanted.meter),
            is_suspended=settings.METERED_USE_SUSPENDED,
        )
        if isinstance(made, Refusal):
            wait = {"Retry-After": str(seconds_left(now))} if made.code == QUOTA_EXCEEDED else {}
            return problem_response(made.code, made.detail, headers=wait)
        return Response(_render(made), status=201)


class QuotaReservationView(ApiView):
    """One reservation."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(operation_id="get_quota_reservation", tags=_TAGS, responses={200: _RESERVATION})
    def get(self, request: Request, reservation_id: uuid.UUID) -> Response:
        """Show a reservation; members see those of their own person."""
        refuse_unknown_query(request)
        principal = principal_of(request)
        _check_own(principal, reservation_id)
        with reading(principal.tenant_id):
            return Response(_render(get_reservation(principal.tenant_id, reservation_id)))


class QuotaCommitView(ApiView):
    """The end of a reservation that was used."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(
        operation_id="commit_quota",
        tags=_TAGS,
        request={"application/json": _COMMIT},
        responses={200: _RESERVATION},
    )
    def post(self, request: Request, reservation_id: uuid.UUID) -> Response:
        """Count what was really used, also above what was held; the rest goes back."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        used = fields.integer("used_units", minimum=0, maximum=_MOST_UNITS, required=True)
        fields.finish()
        principal = principal_of(request)
        _check_own(principal, reservation_id)
        row = commit(
            tenant_id=principal.tenant_id,
            reservation_id=reservation_id,
            used_units=used or 0,
            at=timezone.now(),
        )
        return Response(_render(row))


class QuotaReleaseView(ApiView):
    """The end of a reservation that was not used."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(
        operation_id="release_quota",
        tags=_TAGS,
        request={"application/json": closed_object({})},
        responses={200: _RESERVATION},
    )
    def post(self, request: Request, reservation_id: uuid.UUID) -> Response:
        """Give back what was held."""
        refuse_unknown_query(request)
        Fields(request.data).finish()
        principal = principal_of(request)
        _check_own(principal, reservation_id)
        row = release(
            tenant_id=principal.tenant_id, reservation_id=reservation_id, at=timezone.now()
        )
        return Response(_render(row))


def _read_request(request: Request, principal: Principal) -> MeteredRequest:
    fields = Fields(request.data)
    meter = fields.choice("meter", METERS, required=True)
    units = fields.integer("units", minimum=1, maximum=_MOST_UNITS, required=True)
    actor = fields.choice("actor", ACTORS) or USER
    days = fields.integer("days", minimum=0, maximum=_MOST_UNITS)
    records = fields.integer("records", minimum=0, maximum=_MOST_UNITS)
    provider = fields.text("provider")
    fields.finish()
    if actor == SYSTEM:
        # What no person answers for must not be a way around a person's own share.
        require_role(principal, ADMIN)
    return MeteredRequest(
        meter=str(meter),
        units=units or 0,
        person_id=None if actor == SYSTEM else principal.person_id,
        days=days or 0,
        records=records or 0,
        provider=provider,
    )


def _check_own(principal: Principal, reservation_id: uuid.UUID) -> None:
    """Refuse members what is another's, as if it were not there."""
    with reading(principal.tenant_id):
        row = get_reservation(principal.tenant_id, reservation_id)
    if row.holder != f"{USER}:{principal.person_id}" and not principal.has_role(ADMIN):
        raise NotFound


def _quota_of(principal: Principal, meter: str) -> Quota:
    return QUOTAS[meter][principal.plan or FREE]


def _show(
    principal: Principal, meter: str, counts: dict[str, Count], now: datetime
) -> dict[str, Any]:
    quota = _quota_of(principal, meter)
    holders = {
        "tenant": TENANT_HOLDER,
        "user": f"{USER}:{principal.person_id}",
        "system": SYSTEM,
    }
    resets_at = datetime.combine(day_of(now), time(), UTC) + timedelta(days=1)
    return {
        "meter": meter,
        "day": str(day_of(now)),
        "resets_at": to_text(resets_at),
        "tier": principal.plan or FREE,
        **{
            name: _share(counts.get(holder, _NOTHING), quota.daily(holder))
            for name, holder in holders.items()
        },
        "request_units": quota.request_units,
        "request_days": quota.request_days,
        "request_records": quota.request_records,
        "providers": list(quota.providers),
        "suspended": settings.METERED_USE_SUSPENDED,
    }


def _share(count: Count, limit: int) -> dict[str, int]:
    taken = count.reserved_units + count.used_units
    return {
        "limit_units": limit,
        "reserved_units": count.reserved_units,
        "used_units": count.used_units,
        "left_units": max(0, limit - taken),
    }


def _render(row: QuotaReservation) -> dict[str, Any]:
    return {
        "id": str(row.pk),
        "meter": row.meter,
        "day": str(row.day),
        "actor": SYSTEM if row.holder == SYSTEM else USER,
        "provider": row.provider,
        "units": row.units,
        "used_units": row.used_units,
        "state": row.state,
        "reserved_at": to_text(row.reserved_at),
        "expires_at": to_text(row.expires_at),
    }
