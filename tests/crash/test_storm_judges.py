"""The storm can fail: an empty one does, a late one does, and so does an answer that changed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from tests.crash.clients import Book, Question, compare
from tests.crash.faults import STOPPED, WORKER
from tests.crash.storm import FULL, SHORT, Report, _judge

QUESTION = Question("gate/terraform", "k1", {})
ANSWER = {"decision_id": "1", "decision": "ALLOW", "replayed": False}


def build_report(**changes: Any) -> Report:
    """Return what a good short storm reports, with members changed."""
    members = {
        "kills": {"worker kill -9": 6, "pg_terminate_backend": 2, "database stop": 1},
        "sessions_ended_in_a_transaction": 1,
        "service_again_seconds": {STOPPED: {"times": 1, "median": 1.0, "max": 4.9}},
        "counts": {
            "interrupted requests": 1,
            "fail-safe answers": 1,
            "decided ALLOW": 10,
            "settlements asked again afterwards": 1,
        },
        **changes,
    }
    return Report(plan=asdict(SHORT), machine={}, **members)


def test_enough_damage_and_quick_service_pass() -> None:
    report = build_report()
    _judge(report, SHORT)
    assert report.problems == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kills": {"pg_terminate_backend": 2, "database stop": 1}}, WORKER),
        ({"kills": {"worker kill -9": 6, "pg_terminate_backend": 2}}, STOPPED),
        ({"counts": {}}, "interrupted requests"),
        ({"sessions_ended_in_a_transaction": 0}, "sessions ended in a transaction"),
        ({"service_again_seconds": {WORKER: {"max": 60.1}}}, "service came back after 60.1 s"),
    ],
)
def test_a_storm_that_shows_nothing_fails(changes: dict[str, Any], problem: str) -> None:
    report = build_report(**changes)
    _judge(report, SHORT)
    assert any(problem in one for one in report.problems)


def test_the_full_form_is_as_big_as_promised() -> None:
    faults = FULL.faults()
    assert faults.count(WORKER) + 2 * FULL.double_kills >= 200
    assert FULL.terminated + FULL.backend_kills >= 20
    assert FULL.service_within_seconds == 5
    assert faults.count(STOPPED) >= 2


def test_the_same_answer_told_again_is_no_fault() -> None:
    book = Book()
    compare(book, QUESTION, ANSWER, {**ANSWER, "replayed": True})
    assert book.faults == []


@pytest.mark.parametrize(
    "again",
    [
        {**ANSWER, "replayed": True, "decision": "DENY"},
        {**ANSWER, "replayed": True, "decision_id": "2"},
        ANSWER,
    ],
)
def test_another_answer_or_a_second_decision_is_a_fault(again: dict[str, Any]) -> None:
    book = Book()
    compare(book, QUESTION, ANSWER, again)
    assert book.faults
