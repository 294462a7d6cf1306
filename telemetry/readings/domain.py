"""Readings as values: windows, answers, and what is made of the rows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson

OUTCOMES: Final = ("ALLOW", "ALLOW_WITH_CREDITS", "REQUIRE_APPROVAL", "DENY")
ENDINGS: Final = ("approved", "denied", "expired", "withdrawn")
WINDOWS: Final = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
DEFAULT_WINDOW: Final = "24h"
MOST_GROUPS: Final = 2_000
SHOWN_PROJECTS: Final = 20
OTHERS: Final = "__other__"
_HOURLY_UP_TO: Final = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Window:
    """What a reading covers: from its start to before its end, in steps of its series."""

    start_at: datetime
    end_at: datetime
    step: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading's answer.

    :ivar reason: why there is none; None when there is one.
    :ivar skipped_rows: rows that make no sense and are in no figure.
    :ivar is_partial: some of what is in the window is not in the figures.
    """

    data: dict[str, Any] | None
    reason: str | None = None
    skipped_rows: int = 0
    is_partial: bool = False

    def to_document(self, window: Window) -> dict[str, Any]:
        """Return what the API answers."""
        return {
            "available": self.data is not None,
            "reason": self.reason,
            "window_start": to_text(window.start_at),
            "window_end": to_text(window.end_at),
            "skipped_rows": self.skipped_rows,
            "partial": self.is_partial,
            "data": self.data,
        }


def build_window(name: str, *, now: datetime) -> Window:
    """Return the window of a name that ends now."""
    length = WINDOWS[name]
    return Window(now - length, now, "hour" if length <= _HOURLY_UP_TO else "day")


def unavailable(reason: str) -> Reading:
    """Return the answer of a reading that could not be made."""
    return Reading(None, reason)


def to_text(moment: datetime) -> str:
    """Return a moment as responses carry it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def build_decisions(
    groups: Sequence[tuple[Any, ...]], series: Iterable[tuple[Any, ...]]
) -> Reading:
    """Return how many decisions there were, by what is known of each.

    :param groups: outcome, source, environment, attributes and count; one more than the limit
        when there are more.
    :param series: start of a step, outcome and count.
    """
    by: dict[str, Counter[str]] = {
        name: Counter() for name in ("outcome", "mode", "source", "environment", "project")
    }
    skipped = 0
    for outcome, source, environment, attributes, count in groups[:MOST_GROUPS]:
        known = read_attributes(attributes)
        if known is None or outcome not in OUTCOMES:
            skipped += count
            continue
        by["outcome"][outcome] += count
        by["source"][_word(source)] += count
        by["environment"][_word(environment)] += count
        by["mode"][_word(known.get("mode"))] += count
        by["project"][_word(known.get("project"))] += count
    data = {
        "total": sum(by["outcome"].values()),
        **{f"by_{name}": dict(counts) for name, counts in by.items() if name != "project"},
        "by_outcome": {outcome: by["outcome"][outcome] for outcome in OUTCOMES},
        "by_project": _top(by["project"]),
        "series": _build_series(series),
    }
    return Reading(data, skipped_rows=skipped, is_partial=len(groups) > MOST_GROUPS)


def build_latency(row: tuple[Any, ...]) -> Reading:
    """Return how long gates took, in milliseconds.

    :param row: count, percentiles 50, 95 and 99, the largest, and how many make no sense.
    """
    count, percentiles, largest, skipped = row
    p50, p95, p99 = percentiles or (None, None, None)
    data = {"count": count, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": largest}
    return Reading(data, skipped_rows=skipped)


def build_spend(rows: Iterable[tuple[Any, ...]]) -> Reading:
    """Return the monthly spending that was asked for and refused.

    :param rows: who refused (``gate`` or ``people``), environment, count, sum, and how many of
        them make no sense.
    """
    amounts = {"gate": Decimal(0), "people": Decimal(0)}
    counts: Counter[str] = Counter()
    by_environment: dict[str, Decimal] = {}
    skipped = 0
    for refused_by, environment, count, total, unreadable in rows:
        amounts[refused_by] += total
        counts[refused_by] += count
        skipped += unreadable
        if count:
            place = _word(environment)
            by_environment[place] = by_environment.get(place, Decimal(0)) + total
    data = {
        "total_monthly_usd": _usd(amounts["gate"] + amounts["people"]),
        "refused_by_gate_monthly_usd": _usd(amounts["gate"]),
        "refused_by_people_monthly_usd": _usd(amounts["people"]),
        "refused_by_gate": counts["gate"],
        "refused_by_people": counts["people"],
        "by_environment_monthly_usd": {name: _usd(one) for name, one in by_environment.items()},
    }
    return Reading(data, skipped_rows=skipped)


def build_approvals(rows: Iterable[tuple[Any, ...]]) -> Reading:
    """Return how approvals ended and how long that took, in seconds.

    :param rows: ending, count, percentiles 50 and 95 in milliseconds, and how many make no sense.
    """
    endings: dict[str, dict[str, Any]] = {}
    skipped = 0
    for ending, count, percentiles, unreadable in rows:
        if ending not in ENDINGS:
            skipped += count + unreadable
            continue
        skipped += unreadable
        p50, p95 = (
            None if one is None else round(one / 1000) for one in percentiles or (None,) * 2
        )
        endings[ending] = {"count": count, "p50_seconds": p50, "p95_seconds": p95}
    nothing = {"count": 0, "p50_seconds": None, "p95_seconds": None}
    data = {
        "total": sum(one["count"] for one in endings.values()),
        "by_ending": {ending: endings.get(ending, nothing) for ending in ENDINGS},
    }
    return Reading(data, skipped_rows=skipped)


def read_attributes(text: str) -> dict[str, Any] | None:
    """Return an event's attributes, or None where the text is no JSON object."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _build_series(rows: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
    steps: dict[datetime, dict[str, int]] = {}
    for start_at, outcome, count in rows:
        if outcome in OUTCOMES:
            steps.setdefault(start_at, dict.fromkeys(OUTCOMES, 0))[outcome] += count
    return [{"at": to_text(at), **counts} for at, counts in sorted(steps.items())]


def _top(counts: Counter[str]) -> dict[str, int]:
    folded = counts.pop(OTHERS, 0)
    shown = counts.most_common(SHOWN_PROJECTS)
    folded += sum(counts.values()) - sum(count for _, count in shown)
    return {**dict(shown), **({OTHERS: folded} if folded else {})}


def _word(value: object) -> str:
    return value if isinstance(value, str) and value else "unknown"


def _usd(amount: Decimal) -> str:
    return format(amount.quantize(Decimal("0.0001")), "f")
