"""The API of costs: files are taken, and what projects spend is shown (SPEC 3.4)."""

from __future__ import annotations

import calendar
import io
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any, Final

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from billing.costs.domain import (
    ACCOUNT_LIMIT,
    AUTO,
    DEFAULT_TAG_KEYS,
    EARLIEST_DATE,
    FORMATS,
    MOST_TAG_KEYS,
)
from billing.costs.files import CSV, JSON, PARQUET, CostFile
from enforcement.controls import costs as use_cases
from enforcement.controls.costs import INGESTED, Ingestion, Means, Spending
from governance.api.api_keys import PAGE_PARAMETERS
from governance.api.callers import actor_of, principal_of
from governance.api.documents import closed_object, page_of
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.identity.domain import ADMIN
from valdrix.kernel.fields import TEXT_LIMIT, Fields
from valdrix.kernel.http.bodies import MAX_BODY_BYTES, read_bounded
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import (
    InvalidPage,
    build_page,
    read_cursor,
    read_filter,
    read_limit,
    refuse_unknown_query,
)
from valdrix.kernel.http.times import to_text as time_text
from valdrix.kernel.ids import new_id
from valdrix.kernel.money import to_text
from valdrix.kernel.problems import FieldError, InvalidRequest
from valdrix.kernel.schemas import text_schema

_TAGS: Final = ["costs"]
_AMOUNT: Final = {"type": "string", "examples": ["20.5202"], "description": "US dollars."}
_COUNT: Final = {"type": "integer"}
_TEXT: Final = {"type": "string"}
_DATE: Final = {"type": "string", "format": "date"}
_MAYBE_DATE: Final = {"type": ["string", "null"], "format": "date"}
_TIME: Final = {"type": "string", "format": "date-time"}

_MONTH: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])", re.ASCII)
_MOST_PLACE: Final = 2**63 - 1
_CARRIERS: Final = {
    "text/csv": CSV,
    "application/vnd.apache.parquet": PARQUET,
    "application/json": JSON,
}

_FILE: Final = {"type": "string", "format": "binary"}
_ROWS: Final = closed_object(
    {
        "rows": {
            "type": "array",
            "items": closed_object(
                {
                    "date": _DATE,
                    "project": text_schema(),
                    "amount": {"type": ["string", "number"], "examples": ["12.50"]},
                    "currency": {"type": "string", "enum": ["USD"]},
                },
                optional=("currency",),
            ),
        }
    }
)
_INGESTION: Final = closed_object(
    {
        "status": {"type": "string", "enum": [INGESTED, use_cases.ALREADY_INGESTED]},
        "ingestion_id": {"type": "string", "format": "uuid"},
        "content_sha256": _TEXT,
        "format": {"type": "string", "enum": list(FORMATS)},
        "rows": _COUNT,
        "units_added": {**_COUNT, "description": "Projects' days of bills that are new."},
        "units_restated": {**_COUNT, "description": "Those that replaced another figure."},
        "units_unchanged": _COUNT,
        "units_absent": {
            **_COUNT,
            "description": "Those of the same bills and days that the file does not name; "
            "with whole_days they became zero.",
        },
        "first_date": _DATE,
        "last_date": _DATE,
        "total_usd": {**_AMOUNT, "description": "Sum of the file, rounded once, US dollars."},
        "difference_usd": {**_AMOUNT, "description": "What restating added, US dollars."},
    }
)
_SPENDING: Final = closed_object(
    {
        "project_id": _TEXT,
        "month": {"type": "string", "examples": ["2026-11"]},
        "mtd_spend_usd": _AMOUNT,
        "burn_rate_daily_usd": _AMOUNT,
        "forecast_eom_usd": _AMOUNT,
        "observed_cost_days": _COUNT,
        "month_elapsed_days": _COUNT,
        "month_total_days": _COUNT,
        "latest_cost_date": _MAYBE_DATE,
        "data_source_mode": _TEXT,
        "anomaly_kind": _TEXT,
        "anomaly_delta_usd": _AMOUNT,
        "anomaly_percent": {"type": "string"},
        "context_version": _TEXT,
        "generated_at": _TIME,
    }
)
_MAPPING: Final = closed_object(
    {
        "sub_account_id": text_schema(ACCOUNT_LIMIT),
        "project_id": text_schema(is_optional=True),
    }
)


class _FileParser(BaseParser):
    """Takes a body as it is, within the bound: its digest is of these very bytes."""

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the body as a file of costs.

        :raises BodyTooLarge: above 10 MiB.
        """
        body = read_bounded(stream, declared_bytes=None, limit_bytes=MAX_BODY_BYTES)
        return CostFile(io.BytesIO(body), carrier=_CARRIERS[self.media_type])


class _CsvParser(_FileParser):
    media_type = "text/csv"


class _ParquetParser(_FileParser):
    media_type = "application/vnd.apache.parquet"


class _JsonParser(_FileParser):
    media_type = "application/json"


class CostsView(ApiView):
    """Files of costs."""

    permission_classes = (RequireRole(ADMIN), RequireWholeTenant)
    parser_classes = (_JsonParser, _CsvParser, _ParquetParser)
    max_body_values = 1_500_000

    @extend_schema(
        operation_id="ingest_costs",
        tags=_TAGS,
        parameters=[
            OpenApiParameter("format", {"type": "string", "enum": [AUTO, *FORMATS]}),
            OpenApiParameter(
                "project_tags",
                {"type": "string", "examples": ["project,team"]},
                description="Tags that name the project, in order of preference.",
            ),
            OpenApiParameter(
                "whole_days",
                {"type": "string", "enum": ["true", "false"]},
                description="The file names all that its bills have of its days.",
            ),
        ],
        request={
            "application/json": _ROWS,
            "text/csv": _FILE,
            "application/vnd.apache.parquet": _FILE,
        },
        responses={200: _INGESTION, 201: _INGESTION},
    )
    def post(self, request: Request) -> Response:
        """Take a file whole, once: FOCUS 1.x as CSV or Parquet, or plain rows as CSV or JSON.

        200 when the same file was taken before, and nothing changes.
        """
        refuse_unknown_query(request, "format", "project_tags", "whole_days")
        file_format, means = _read_format(request), _read_means(request)
        body: Any = request.data
        if not isinstance(body, CostFile):  # A request without a body is not parsed.
            raise InvalidRequest("The request has no body.")
        result = use_cases.ingest_costs(
            actor=actor_of(request, now=timezone.now()),
            ingestion_id=new_id(),
            file=CostFile(body.stream, body.carrier, file_format),
            means=means,
        )
        return Response(_render(result), status=201 if result.status == INGESTED else 200)


class CostSummaryView(ApiView):
    """What projects spend."""

    permission_classes = (RequireRole(ADMIN), RequireWholeTenant)

    @extend_schema(
        operation_id="show_costs",
        tags=_TAGS,
        parameters=[
            *PAGE_PARAMETERS,
            OpenApiParameter("project", text_schema()),
            OpenApiParameter(
                "month",
                {"type": "string", "pattern": f"^{_MONTH.pattern}$", "examples": ["2026-11"]},
            ),
        ],
        responses={200: page_of(_SPENDING)},
    )
    def get(self, request: Request) -> Response:
        """Show each project's month so far, or a past month, by the gate's own rules."""
        refuse_unknown_query(request, "project", "month", "limit", "cursor")
        limit = read_limit(request)
        found = use_cases.find_spending(
            principal_of(request).tenant_id,
            project_id=read_filter(request, "project"),
            as_of=_read_month(request, now=timezone.now()),
            after=_read_place(request),
            limit=limit + 1,
        )
        page = build_page(
            request, found, limit=limit, key=lambda one: str(one.place), render=_render_spending
        )
        return Response(page)


class SubAccountsView(ApiView):
    """Which project a sub-account belongs to, where no tag says so."""

    permission_classes = (RequireRole(ADMIN), RequireWholeTenant)

    @extend_schema(operation_id="list_sub_accounts", tags=_TAGS, responses={200: page_of(_MAPPING)})
    def get(self, request: Request) -> Response:
        """List the map from sub-accounts to projects, whole."""
        refuse_unknown_query(request)
        found = use_cases.find_sub_accounts(principal_of(request).tenant_id)
        results = [
            {"sub_account_id": account, "project_id": found[account]} for account in sorted(found)
        ]
        return Response({"results": results, "next": None})

    @extend_schema(
        operation_id="map_sub_account",
        tags=_TAGS,
        request={"application/json": _MAPPING},
        responses={200: _MAPPING},
    )
    def put(self, request: Request) -> Response:
        """Give a sub-account's costs to a project, in files taken from now on; null forgets it."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        account = fields.text("sub_account_id", required=True, max_length=ACCOUNT_LIMIT)
        project_id = fields.text("project_id")
        if isinstance(request.data, dict) and "project_id" not in request.data:
            fields.refuse("project_id", "is required; null forgets the map", code="required")
        fields.finish()
        assert account is not None
        actor = actor_of(request, now=timezone.now())
        use_cases.map_sub_account(actor=actor, sub_account_id=account, project_id=project_id)
        return Response({"sub_account_id": account, "project_id": project_id})


def _read_format(request: Request) -> str:
    text = request.GET.get("format", AUTO)
    if text not in {AUTO, *FORMATS}:
        raise _refused("format", "must be one of " + ", ".join((AUTO, *FORMATS)), "invalid_choice")
    return text


def _read_means(request: Request) -> Means:
    text = request.GET.get("whole_days", "false")
    if text not in {"true", "false"}:
        raise _refused("whole_days", "must be true or false", "invalid_choice")
    return Means(tag_keys=_read_tag_keys(request), has_whole_days=text == "true")


def _read_tag_keys(request: Request) -> tuple[str, ...]:
    text = request.GET.get("project_tags")
    if text is None:
        return DEFAULT_TAG_KEYS
    keys = tuple(key.strip() for key in text.split(","))
    usable = all(key and key.isprintable() and len(key) <= TEXT_LIMIT for key in keys)
    if not usable or len(keys) > MOST_TAG_KEYS:
        raise _refused("project_tags", f"must be 1 to {MOST_TAG_KEYS} names, with commas between")
    return keys


def _read_month(request: Request, *, now: datetime) -> datetime:
    """Return the moment up to which a month is looked at: now, or a past month's last second."""
    text = request.GET.get("month")
    if text is None:
        return now
    match = _MONTH.fullmatch(text)
    if match is None:
        raise _refused("month", "must be a month such as 2026-11")
    year, month = int(match[1]), int(match[2])
    today = now.astimezone(UTC)
    if (year, month) == (today.year, today.month):
        return now
    if (year, month) > (today.year, today.month) or year < EARLIEST_DATE.year:
        raise _refused("month", "must not be in the future, nor before 2000", "out_of_range")
    last_day = calendar.monthrange(year, month)[1]
    return datetime(year, month, last_day, 23, 59, 59, tzinfo=UTC)


def _read_place(request: Request) -> int:
    text = read_cursor(request)
    if text is None:
        return 0
    if text.isdigit() and len(text) <= 19 and int(text) <= _MOST_PLACE:
        return int(text)
    raise InvalidPage(
        "The cursor is not valid.",
        errors=(FieldError("/cursor", "invalid_cursor", "was not given by this list"),),
    )


def _refused(name: str, detail: str, code: str = "invalid_value") -> InvalidRequest:
    return InvalidRequest(
        "The query has invalid parameters.", errors=(FieldError(f"/{name}", code, detail),)
    )


def _render(result: Ingestion) -> dict[str, Any]:
    return {
        "status": result.status,
        "ingestion_id": str(result.ingestion_id),
        "content_sha256": result.content_sha256,
        "format": result.file_format,
        "rows": result.rows,
        "units_added": result.units_added,
        "units_restated": result.units_restated,
        "units_unchanged": result.units_unchanged,
        "units_absent": result.units_absent,
        "first_date": result.first_date.isoformat(),
        "last_date": result.last_date.isoformat(),
        "total_usd": to_text(result.total_usd),
        "difference_usd": to_text(result.difference_usd),
    }


def _render_spending(spending: Spending) -> dict[str, Any]:
    computed = spending.computed
    latest = computed.latest_cost_date
    return {
        "project_id": spending.project_id,
        "month": computed.month_start.isoformat()[:7],
        "mtd_spend_usd": to_text(computed.mtd_spend_usd),
        "burn_rate_daily_usd": to_text(computed.burn_rate_daily_usd),
        "forecast_eom_usd": to_text(computed.forecast_eom_usd),
        "observed_cost_days": computed.observed_cost_days,
        "month_elapsed_days": computed.month_elapsed_days,
        "month_total_days": computed.month_total_days,
        "latest_cost_date": None if latest is None else latest.isoformat(),
        "data_source_mode": computed.data_source_mode,
        "anomaly_kind": computed.anomaly_kind,
        "anomaly_delta_usd": to_text(computed.anomaly_delta_usd),
        "anomaly_percent": to_text(computed.anomaly_percent),
        "context_version": computed.context_version,
        "generated_at": time_text(computed.generated_at),
    }
