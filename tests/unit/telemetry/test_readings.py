"""Readings make figures of rows, skip what makes no sense, and say what was cut."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from telemetry.readings.domain import (
    MOST_GROUPS,
    SHOWN_PROJECTS,
    WINDOWS,
    build_approvals,
    build_decisions,
    build_latency,
    build_spend,
    build_window,
    unavailable,
)

NOW = datetime(2026, 11, 5, 12, tzinfo=UTC)
WINDOW = build_window("24h", now=NOW)


def group(outcome: str = "ALLOW", attributes: str = '{"mode":"hard","project":"shop"}') -> Any:
    return (outcome, "terraform", "prod", attributes, 3)


def test_groups_become_counts() -> None:
    reading = build_decisions(
        [group(), group("DENY"), ("DENY", None, None, "{}", 1)],
        [(NOW, "ALLOW", 3), (NOW, "DENY", 4), (NOW - timedelta(hours=1), "ALLOW", 2)],
    )
    assert reading.data == {
        "total": 7,
        "by_outcome": {"ALLOW": 3, "ALLOW_WITH_CREDITS": 0, "REQUIRE_APPROVAL": 0, "DENY": 4},
        "by_mode": {"hard": 6, "unknown": 1},
        "by_source": {"terraform": 6, "unknown": 1},
        "by_environment": {"prod": 6, "unknown": 1},
        "by_project": {"shop": 6, "unknown": 1},
        "series": [
            {"at": "2026-11-05T11:00:00Z", "ALLOW": 2, "ALLOW_WITH_CREDITS": 0,
             "REQUIRE_APPROVAL": 0, "DENY": 0},
            {"at": "2026-11-05T12:00:00Z", "ALLOW": 3, "ALLOW_WITH_CREDITS": 0,
             "REQUIRE_APPROVAL": 0, "DENY": 4},
        ],
    }  # fmt: skip
    assert (reading.skipped_rows, reading.is_partial) == (0, False)


@pytest.mark.parametrize(
    "corrupt",
    [
        group(attributes='{"mode": '),
        group(attributes=""),
        group(attributes='["hard"]'),
        group(attributes="null"),
        group(outcome="MAYBE"),
    ],
)
def test_a_corrupt_row_is_skipped_and_counted(corrupt: Any) -> None:
    reading = build_decisions([group(), corrupt], [(NOW, "MAYBE", 9)])
    assert reading.data is not None
    assert reading.data["total"] == 3
    assert reading.data["series"] == []
    assert reading.skipped_rows == 3


def test_what_is_cut_says_so() -> None:
    groups = [group(attributes=f'{{"project":"p{number}"}}') for number in range(MOST_GROUPS + 1)]
    reading = build_decisions(groups, [])
    assert reading.is_partial
    assert reading.data is not None
    assert len(reading.data["by_project"]) == SHOWN_PROJECTS + 1
    assert sum(reading.data["by_project"].values()) == reading.data["total"] == 3 * MOST_GROUPS


def test_latency_of_nothing_and_of_something() -> None:
    assert build_latency((0, None, None, 0)).data == {
        "count": 0, "p50_ms": None, "p95_ms": None, "p99_ms": None, "max_ms": None,
    }  # fmt: skip
    reading = build_latency((9, [1, 2, 3], 4, 2))
    assert reading.data == {"count": 9, "p50_ms": 1, "p95_ms": 2, "p99_ms": 3, "max_ms": 4}
    assert reading.skipped_rows == 2


def test_spend_is_exact() -> None:
    reading = build_spend(
        [
            ("gate", "prod", 2, Decimal("0.1000"), 0),
            ("gate", "nonprod", 1, Decimal("0.2000"), 1),
            ("people", "prod", 1, Decimal("99999999999.9999"), 0),
            ("people", None, 0, Decimal(0), 3),
        ]
    )
    assert reading.data == {
        "total_monthly_usd": "100000000000.2999",
        "refused_by_gate_monthly_usd": "0.3000",
        "refused_by_people_monthly_usd": "99999999999.9999",
        "refused_by_gate": 3,
        "refused_by_people": 1,
        "by_environment_monthly_usd": {"prod": "100000000000.0999", "nonprod": "0.2000"},
    }
    assert reading.skipped_rows == 4


def test_approvals_by_their_ending() -> None:
    reading = build_approvals(
        [("approved", 2, [1_499, 61_000], 0), ("denied", 0, None, 1), ("burnt", 5, [1, 1], 0)]
    )
    nothing = {"count": 0, "p50_seconds": None, "p95_seconds": None}
    assert reading.data == {
        "total": 2,
        "by_ending": {
            "approved": {"count": 2, "p50_seconds": 1, "p95_seconds": 61},
            "denied": nothing,
            "expired": nothing,
            "withdrawn": nothing,
        },
    }
    assert reading.skipped_rows == 6


def test_an_answer_says_whether_there_is_one() -> None:
    assert unavailable("timeout").to_document(WINDOW) == {
        "available": False,
        "reason": "timeout",
        "window_start": "2026-11-04T12:00:00Z",
        "window_end": "2026-11-05T12:00:00Z",
        "skipped_rows": 0,
        "partial": False,
        "data": None,
    }
    assert build_latency((0, None, None, 0)).to_document(WINDOW)["available"] is True


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_ends_now(name: str) -> None:
    window = build_window(name, now=NOW)
    assert (window.end_at, window.end_at - window.start_at) == (NOW, WINDOWS[name])
    assert window.step == ("hour" if name in {"1h", "24h"} else "day")
