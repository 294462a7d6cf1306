"""The console's exports: finance picks a window and gets the archive of its records."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from enforcement.exports.archive import Export, archive_name
from enforcement.exports.domain import Scope, month_start, next_month
from governance.identity.domain import ADMIN, OWNER
from valdrix.kernel.admin import ConsolePage, seat_of

_SHOWN_MONTHS: Final = 12


def show_exports(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Answer the page on which a window is picked."""
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD"])
    now = timezone.now()
    key = settings.EXPORT_SIGNING_KEY
    context = {
        **context,
        "months": _months(now),
        "today": now.astimezone(UTC).date(),
        "key": None if key is None else {"id": key.key_id, "public": key.public_text},
    }
    return TemplateResponse(request, "valdrix/exports.html", context).render()


def send_archive(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Stream the archive of the days that were picked, from midnight UTC to midnight UTC."""
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD"])
    key = settings.EXPORT_SIGNING_KEY
    first, last = _read_day(request, "from"), _read_day(request, "until")
    if key is None or first is None or last is None or first > last:
        message = "The last day must not be before the first one, and both must be given."
        if key is None:
            message = "No signing key is configured: nothing can be exported."
        context = {**context, "text": message}
        return TemplateResponse(request, "valdrix/message.html", context, status=400).render()
    scope = Scope(
        tenant_id=seat_of(request).tenant_id,
        start_at=_midnight(first),
        end_at=_midnight(last) + timedelta(days=1),
        limit=None,
    )
    response = StreamingHttpResponse(Export(scope, key).stream(), content_type="application/zip")
    response["Content-Disposition"] = f'attachment; filename="{archive_name(scope)}"'
    response["Cache-Control"] = "no-store"
    return response  # type: ignore[return-value]  # Django types streaming apart from the rest


def _months(now: datetime) -> list[dict[str, Any]]:
    """Return the months that are offered, the current one first, each with its first and last day."""
    found = []
    start = month_start(now)
    for _ in range(_SHOWN_MONTHS):
        last = (next_month(start) - timedelta(days=1)).date()
        found.append({"name": f"{start:%B %Y}", "first": start.date(), "last": last})
        start = month_start(start - timedelta(days=1))
    return found


def _read_day(request: HttpRequest, name: str) -> date | None:
    text = request.GET.get(name, "")
    try:
        day = date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        raise SuspiciousOperation(f"{name} is no date") from None
    # The day after the last one must exist too.
    return None if day is None or day >= date.max else day


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=UTC)


EXPORT_PAGES: Final = (
    ConsolePage(
        route="exports/",
        name="exports",
        title="Exports",
        roles=(ADMIN, OWNER),
        view=show_exports,
    ),
    ConsolePage(
        route="exports/archive/",
        name="export_archive",
        title="Export parity CSV",
        roles=(ADMIN, OWNER),
        view=send_archive,
    ),
)
