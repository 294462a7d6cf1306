"""Charts: telemetry's readings as the console's page of them shows them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils import timezone

from enforcement.admin.labels import decision_label, decision_tone
from governance.identity.domain import ADMIN, OWNER
from telemetry.readings.board import read_board
from telemetry.readings.domain import (
    DEFAULT_WINDOW,
    ENDINGS,
    OUTCOMES,
    WINDOWS,
    Reading,
    build_window,
)
from telemetry.store import connection as store
from valdrix.kernel.admin import ConsolePage, seat_of
from valdrix.kernel.admin_display import NOTHING, build_bar, usd, words

_WHY: Final = {
    store.NOT_CONFIGURED: "Telemetry is not set up here.",
    store.UNREACHABLE: "The telemetry store does not answer.",
    store.TIMEOUT: "Reading took too long and was given up. A shorter window may do.",
    store.TABLE_MISSING: "There is no telemetry to read.",
    store.SCHEMA_MISMATCH: "The telemetry store is of another release.",
    store.NOT_PERMITTED: "The telemetry store may not be read.",
}
_OTHERWISE: Final = "The telemetry store cannot be read now."
_STEPS: Final = 48
_PLAIN: Final = "this"


def show_telemetry(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Answer the page of charts: no truth is read for it, and no page of truth shows it.

    :raises SuspiciousOperation: for a window that there is not.
    """
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD"])
    name = request.GET.get("window", DEFAULT_WINDOW)
    if name not in WINDOWS:
        raise SuspiciousOperation("no such window")
    window = build_window(name, now=timezone.now())
    shown = {
        **context,
        "board": build_board(read_board(seat_of(request).tenant_id, window)),
        "windows": [(one, one == name) for one in WINDOWS],
    }
    return TemplateResponse(request, "valdrix/telemetry.html", shown).render()


def build_board(readings: Mapping[str, Reading]) -> dict[str, Any]:
    """Return what the page shows of each reading: figures, or why there are none."""
    builders = {
        "decisions": _decisions,
        "latency": _latency,
        "spend-avoided": _spend,
        "approval-time": _approvals,
    }
    return {
        name.replace("-", "_"): {
            "why_not": None if reading.data else _WHY.get(reading.reason or "", _OTHERWISE),
            "skipped": reading.skipped_rows,
            "is_partial": reading.is_partial,
            **(builders[name](reading.data) if reading.data else {}),
        }
        for name, reading in readings.items()
    }


def _decisions(data: dict[str, Any]) -> dict[str, Any]:
    total = data["total"]
    peak = max((sum(step[one] for one in OUTCOMES) for step in data["series"]), default=0)
    return {
        "total": total,
        "outcomes": [
            _line(decision_label(one), data["by_outcome"][one], total, decision_tone(one))
            for one in OUTCOMES
        ],
        "projects": [
            _line("others" if name == "__other__" else name, count, total, _PLAIN)
            for name, count in data["by_project"].items()
        ],
        "steps": [
            {
                "at": step["at"][:16].replace("T", " "),
                "count": sum(step[one] for one in OUTCOMES),
                "bar": build_bar(
                    [(decision_tone(one), Decimal(step[one])) for one in OUTCOMES],
                    limit=Decimal(peak),
                    label=", ".join(f"{decision_label(one)} {step[one]}" for one in OUTCOMES),
                ),
            }
            for step in data["series"][-_STEPS:]
        ],
    }


def _latency(data: dict[str, Any]) -> dict[str, Any]:
    names = (("p50_ms", "Median"), ("p95_ms", "95 %"), ("p99_ms", "99 %"), ("max_ms", "Slowest"))
    return {
        "count": data["count"],
        "rows": [(title, _unit(data[name], "ms")) for name, title in names],
    }


def _spend(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "total": usd(data["total_monthly_usd"]),
        "rows": [
            (
                f"Refused by {who}",
                usd(data[f"refused_by_{who}_monthly_usd"]),
                data[f"refused_by_{who}"],
            )
            for who in ("gate", "people")
        ],
    }


def _approvals(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "total": data["total"],
        "rows": [
            (
                words(one),
                data["by_ending"][one]["count"],
                _length(data["by_ending"][one]["p50_seconds"]),
                _length(data["by_ending"][one]["p95_seconds"]),
            )
            for one in ENDINGS
        ],
    }


def _line(name: str, count: int, total: int, tone: str) -> dict[str, Any]:
    label = f"{count} of {total} decisions"
    bar = build_bar([(tone, Decimal(count))], limit=Decimal(total), label=label)
    return {"name": name, "count": count, "bar": bar}


def _unit(value: int | None, unit: str) -> str:
    return NOTHING if value is None else f"{value:,} {unit}"


def _length(seconds: int | None) -> str:
    if seconds is None:
        return NOTHING
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds} s"


TELEMETRY_PAGE: Final = ConsolePage(
    route="telemetry/",
    name="telemetry",
    title="Telemetry",
    roles=(ADMIN, OWNER),
    view=show_telemetry,
)
