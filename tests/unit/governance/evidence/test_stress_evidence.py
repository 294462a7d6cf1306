"""Stress evidence: consistent figures verify, and no single edit of them does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from governance.evidence.registry import PROFILES, default_terms, verify_evidence
from tests.unit.governance.evidence.documents import build_world, edited, stress

STRESS = PROFILES["stress"]
AGED = {**default_terms(STRESS), "max_artifact_age_hours": Decimal(24)}

# Each is one edit of the document, and where its own complaint points to.
EDITS: tuple[tuple[str, Any, str], ...] = (
    ("/profile", "performance", "/profile"),
    ("/profile", ..., "/profile"),
    ("/runner", "scripts/load_test_api.py", "/runner"),
    ("/runner", "manage.py capture_evidence stress ", "/runner"),
    ("/captured_at", "2026-11-26T11:00:00", "/captured_at"),
    ("/captured_at", "2026-11-26T13:00:00+00:00", "/captured_at"),
    ("/captured_at", "2026-11-24T11:00:00+00:00", "/captured_at"),
    ("/duration_seconds", 29, "/duration_seconds"),
    ("/duration_seconds", "30", "/duration_seconds"),
    ("/duration_seconds", 31, "/runs/0/results/elapsed_seconds"),
    ("/concurrent_users", 9, "/concurrent_users"),
    ("/rounds", 4, "/runs"),
    ("/rounds", 2, "/evaluation/rounds"),
    ("/endpoints/4", "/api/v1/enforcement/ledger", "/endpoints"),
    ("/endpoints/1", "/api/v1/enforcement/policies", "/endpoints"),
    ("/endpoints/3", ..., "/runs/0/results/by_endpoint"),
    ("/preflight/enabled", False, "/preflight/enabled"),
    ("/preflight/passed", False, "/preflight/passed"),
    ("/preflight/failures", ["ledger: 403"], "/preflight/failures"),
    ("/preflight", ..., "/preflight/enabled"),
    ("/runtime/database_engine", "sqlite", "/runtime/database_engine"),
    ("/runtime/database_engine", " ", "/runtime/database_engine"),
    ("/runtime", ..., "/runtime/database_engine"),
    ("/floor", ..., "/floor/endpoint"),
    ("/floor/results", ..., "/floor/results/total_requests"),
    ("/floor/results/throughput_rps", Decimal("100.0000"), "/floor/results/throughput_rps"),
    ("/floor/results/throughput_rps", 0, "/floor/results/throughput_rps"),
    ("/floor/results/elapsed_seconds", Decimal("9.9"), "/floor/results/elapsed_seconds"),
    (
        "/floor/reads_results/throughput_rps",
        Decimal("90.0000"),
        "/floor/reads_results/throughput_rps",
    ),
    ("/floor/reads_results/throughput_rps", ..., "/floor/reads_results/throughput_rps"),
    ("/floor/reads_results/by_endpoint/2", ..., "/floor/reads_results/by_endpoint"),
    ("/floor/reads_share_of_floor", Decimal("0.9000"), "/floor/reads_share_of_floor"),
    ("/floor/reads_share_of_floor", ..., "/floor/reads_share_of_floor"),
    ("/floor/reads_results/failed_requests", 1, "/floor/reads_results/failed_requests"),
    ("/floor/reads_results/p95_response_time", "fast", "/floor/reads_results/p95_response_time"),
    ("/floor/results/failed_requests", 2, "/floor/results/failed_requests"),
    ("/floor/results/p95_response_time", 0, "/floor/results/p95_response_time"),
    ("/floor/comment", "good", "/floor/comment"),
    ("/runs", [], "/runs"),
    ("/runs/2", ..., "/runs"),
    ("/runs/1/run_index", 1, "/runs/1/run_index"),
    ("/runs/0/captured_at", "2026-11-26T10:51:00", "/runs/0/captured_at"),
    ("/runs/0/captured_at", "2026-11-26T11:30:00+00:00", "/runs/0/captured_at"),
    ("/runs/0/results", ..., "/runs/0/results/total_requests"),
    ("/runs/0/results/total_requests", 316, "/runs/0/results/successful_requests"),
    ("/runs/0/results/successful_requests", 315, "/runs/0/results/successful_requests"),
    ("/runs/0/results/failed_requests", 0, "/runs/0/results/successful_requests"),
    ("/runs/0/results/failed_requests", -1, "/runs/0/results/failed_requests"),
    ("/runs/1/results/elapsed_seconds", Decimal("29.9"), "/runs/1/results/elapsed_seconds"),
    ("/runs/1/results/elapsed_seconds", Decimal("31.0"), "/runs/1/results/throughput_rps"),
    ("/runs/1/results/throughput_rps", Decimal("12.0000"), "/runs/1/results/throughput_rps"),
    ("/runs/1/results/throughput_rps", Decimal(0), "/runs/1/results/throughput_rps"),
    ("/runs/2/results/p95_response_time", Decimal("0.01"), "/runs/2/results/p95_response_time"),
    ("/runs/2/results/p99_response_time", Decimal("0.02"), "/runs/2/results/p99_response_time"),
    ("/runs/0/results/latency_histogram/2/1", 0, "/runs/0/results/latency_histogram/2/1"),
    (
        "/runs/0/results/latency_histogram/1",
        [Decimal("1.3095"), 152, 6],
        "/runs/0/results/latency_histogram/1",
    ),
    (
        "/runs/0/results/latency_histogram/0/0",
        Decimal("0.47615"),
        "/runs/0/results/latency_histogram/0",
    ),
    (
        "/runs/0/results/failures_by_status",
        [[500, 1], [404, 0]],
        "/runs/0/results/failures_by_status/1",
    ),
    ("/runs/0/results/failures_by_status/0", [500, 1, 9], "/runs/0/results/failures_by_status/0"),
    ("/runs/0/results/by_endpoint/0/skipped", 9, "/runs/0/results/by_endpoint/0/skipped"),
    ("/preflight/skipped", True, "/preflight/skipped"),
    ("/results/note", "quick", "/results/note"),
    ("/thresholds/note", "strict", "/thresholds/note"),
    ("/evaluation/note", "well", "/evaluation/note"),
    ("/evaluation/rounds/0/note", "well", "/evaluation/rounds/0/note"),
    (
        "/runs/0/results/latency_histogram/2/0",
        Decimal("0.015"),
        "/runs/0/results/latency_histogram",
    ),
    ("/runs/0/results/latency_histogram", [], "/runs/0/results/latency_histogram"),
    ("/runs/0/results/by_endpoint/0/requests", 44, "/runs/0/results/by_endpoint"),
    ("/runs/0/results/by_endpoint/1/failures", 1, "/runs/0/results/by_endpoint"),
    ("/runs/0/results/by_endpoint/0/requests", 0, "/runs/0/results/by_endpoint/0/requests"),
    ("/runs/0/results/by_endpoint/5", ..., "/runs/0/results/by_endpoint"),
    (
        "/runs/0/results/failures_by_status/0/0",
        429,
        "/runs/0/results/failures_by_status/0",
    ),
    (
        "/runs/1/results/failures_by_status/0/0",
        503,
        "/runs/1/results/failures_by_status/0",
    ),
    ("/runs/0/results/failures_by_status/0/1", 2, "/runs/0/results/failures_by_status"),
    ("/runs/0/results/failures_by_status", ..., "/runs/0/results/failures_by_status"),
    ("/runs/0/results/failures_by_status", [], "/runs/0/results/failures_by_status"),
    ("/results/total_requests", 1051, "/results/total_requests"),
    ("/results/failed_requests", 2, "/results/failed_requests"),
    ("/results/successful_requests", 1050, "/results/successful_requests"),
    ("/results/p95_response_time", Decimal("0.01"), "/results/p95_response_time"),
    ("/results/p99_response_time", Decimal("0.04"), "/results/p99_response_time"),
    ("/results/throughput_rps", Decimal("11.7"), "/results/throughput_rps"),
    ("/min_throughput_rps", Decimal("11.0000"), "/min_throughput_rps"),
    ("/thresholds/max_p95_seconds", Decimal("3.0"), "/thresholds/max_p95_seconds"),
    ("/thresholds/max_error_rate_percent", Decimal(5), "/thresholds/max_error_rate_percent"),
    ("/thresholds/min_throughput_rps", Decimal("0.1"), "/thresholds/min_throughput_rps"),
    ("/evaluation/rounds/0/meets_targets", False, "/evaluation/rounds/0/meets_targets"),
    ("/evaluation/rounds/1", ..., "/evaluation/rounds"),
    ("/evaluation/overall_meets_targets", False, "/evaluation/overall_meets_targets"),
    ("/evaluation/worst_p95_seconds", Decimal("0.01"), "/evaluation/worst_p95_seconds"),
    ("/evaluation/min_throughput_rps", Decimal(12), "/evaluation/min_throughput_rps"),
    ("/meets_targets", False, "/meets_targets"),
    ("/runtime/host", "db.example.com", "/runtime/host"),
    ("/note", "all good", "/note"),
    ("/concurrent_users", 316, "/runs/0/results/response_time_sum"),
    ("/concurrent_users", 10**15, "/concurrent_users"),
    ("/runtime/database_version", ..., "/runtime/database_version"),
    ("/floor/endpoint", "/health", "/floor/endpoint"),
    (
        "/floor/reads_results/p95_response_time",
        Decimal(-1),
        "/floor/reads_results/p95_response_time",
    ),
    ("/floor/results/throughput_rps", Decimal("1e999999"), "/floor/results/throughput_rps"),
    ("/runs/0/results/note", "quick", "/runs/0/results/note"),
    ("/runs/0/note", "quick", "/runs/0/note"),
    ("/concurrent_users", 11, "/runs/0/results/response_time_sum"),
    ("/runs/0/results/response_time_sum", Decimal(290), "/runs/0/results/response_time_sum"),
    ("/runs/0/results/latency_histogram/2/0", Decimal(6), "/runs/0/results/response_time_sum"),
    ("/floor/results/latency_histogram/0/0", Decimal("0.03"), "/floor/results/response_time_sum"),
    ("/runs/0/captured_at", "2026-11-26T10:57:20+00:00", "/runs/0/captured_at"),
    ("/runs/2/captured_at", "2026-11-26T11:00:00+00:00", "/runs/2/captured_at"),
    ("/captured_at", "2026-11-26T11:02:00+00:00", "/captured_at"),
    ("/runs/0/captured_at", "2026-11-25T11:00:00+00:00", "/runs/0/captured_at"),
    ("/runs/1/captured_at", "2026-11-26T10:58:50+00:00", "/runs/1/captured_at"),
    ("/runs/1/results/elapsed_seconds", Decimal("1e-999999"), "/runs/1/results/elapsed_seconds"),
    (
        "/runs/0/results/latency_histogram/0/0",
        Decimal(0),
        "/runs/0/results/latency_histogram/0/0",
    ),
    (
        "/runs/0/results/failures_by_status/0/0",
        200,
        "/runs/0/results/failures_by_status/0/0",
    ),
    (
        "/runs/0/results/failures_by_status/0/0",
        999,
        "/runs/0/results/failures_by_status/0/0",
    ),
)


def verify(document: Any, **terms: Any) -> list[Any]:
    return verify_evidence(STRESS, document, {**AGED, **terms}, build_world())


def test_consistent_figures_verify() -> None:
    assert verify(stress()) == []


@pytest.mark.parametrize(
    ("pointer", "value", "complaint"), EDITS, ids=[f"{one[0]}={one[1]}" for one in EDITS]
)
def test_no_single_edit_verifies(pointer: str, value: Any, complaint: str) -> None:
    problems = verify(edited(stress(), pointer, value))
    assert complaint in {problem.pointer for problem in problems}, problems


def test_a_figure_that_is_read_often_is_complained_of_once() -> None:
    problems = verify(edited(stress(), "/duration_seconds", "30"))
    assert [problem.code for problem in problems] == ["not_count"]


def test_each_edit_has_a_message_of_its_own() -> None:
    said = [
        tuple(sorted(str(problem) for problem in verify(edited(stress(), pointer, value))))
        for pointer, value, _ in EDITS
    ]
    assert len(set(said)) == len(EDITS) > 60


def test_a_round_beyond_a_threshold_did_not_meet_its_targets() -> None:
    strict = {"max_p95_seconds": Decimal("0.01")}
    document = edited(stress(), "/thresholds/max_p95_seconds", Decimal("0.01"))
    pointers = {problem.pointer for problem in verify(document, **strict)}
    assert "/evaluation/rounds/0/meets_targets" in pointers
    assert "/evaluation/overall_meets_targets" in pointers


def test_an_honest_failure_is_no_release_evidence() -> None:
    document = edited(stress(), "/thresholds/max_p95_seconds", Decimal("0.01"))
    for index in range(3):
        document = edited(document, f"/evaluation/rounds/{index}/meets_targets", False)
    document = edited(document, "/evaluation/overall_meets_targets", False)
    document = edited(document, "/meets_targets", False)
    (problem,) = verify(document, max_p95_seconds=Decimal("0.01"))
    assert (problem.pointer, problem.code) == ("/evaluation/overall_meets_targets", "not_true")


def test_without_an_age_any_age_is_taken() -> None:
    world = replace(build_world(), now=build_world().now + timedelta(days=400))
    assert verify_evidence(STRESS, stress(), {**AGED, "max_artifact_age_hours": None}, world) == []
    assert verify_evidence(STRESS, stress(), AGED, world) != []


def test_what_is_no_object_is_refused() -> None:
    assert [problem.code for problem in verify([])] == ["not_object"]
