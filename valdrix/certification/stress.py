"""Capturing ``stress`` evidence: rounds of real load against a running server (BSAFE-009)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from governance.evidence.load_results import (
    LIMITING,
    TICK,
    RunFigures,
    average,
    percentile,
    rounded,
)
from governance.evidence.stress import (
    ENDPOINTS,
    FLOOR_ENDPOINT,
    FLOOR_SECONDS,
    FLOOR_TIMES,
    GATE,
    PROFILE,
    RUNNER,
    StressTerms,
    meets,
)
from valdrix.certification.load import (
    Connection,
    NoAnswer,
    Question,
    Server,
    Tally,
    gate_body,
    run_users,
)
from valdrix.kernel.strict_json import StrictJsonError, loads


@dataclass(frozen=True, slots=True)
class StressOrder:
    """What to run."""

    server: Server
    project_id: str
    rounds: int
    duration_seconds: int
    concurrent_users: int
    terms: StressTerms


def capture_stress(
    order: StressOrder, *, clock: Callable[[], datetime], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Run the load and return the evidence, good or bad.

    :param tell: called with a line of progress.
    """
    questions = _questions(order.project_id)
    runtime, failures = run_preflight(order.server, questions)
    floor = _Floor(order, questions)
    floor.measure()
    runs: list[dict[str, Any]] = []
    for index in range(1, order.rounds + 1):
        tell(f"round {index} of {order.rounds}: {order.duration_seconds} s ...")
        tally = run_users(
            order.server,
            questions,
            users=order.concurrent_users,
            seconds=order.duration_seconds,
        )
        captured_at = clock().isoformat()
        runs.append({"run_index": index, "captured_at": captured_at, "results": _results(tally)})
        tell(_line(runs[-1]["results"]))
    # Before and after the rounds: what the machine and the database do meanwhile falls on both.
    for _ in range(FLOOR_TIMES - 1):
        floor.measure()
    captured = _Captured(runs=runs, runtime=runtime, failures=failures, floor=floor.to_document())
    return _document(order, captured, clock())


@dataclass(frozen=True, slots=True)
class _Captured:
    runs: list[dict[str, Any]]
    runtime: dict[str, Any]
    failures: list[str]
    floor: dict[str, Any]


def _questions(project_id: str) -> list[Question]:
    return [
        Question(endpoint, endpoint, gate_body(project_id) if endpoint == GATE else None)
        for endpoint in ENDPOINTS
    ]


def run_preflight(server: Server, questions: list[Question]) -> tuple[dict[str, Any], list[str]]:
    """Ask everything once; return what /health says of the runtime, and what failed."""
    failures = []
    connection = Connection(server)
    runtime: dict[str, Any] = {}
    for question in [Question("/health", "/health"), *questions]:
        try:
            status, body = connection.ask(question, 0)
            document = loads(body)
        except (NoAnswer, StrictJsonError) as error:
            failures.append(f"{question.name}: {error}")
            continue
        if status != 200:
            failures.append(f"{question.name}: {status}")
        elif question.name == "/health":
            runtime = _find_runtime(document)
            if not runtime:
                failures.append("/health: does not say what it runs on")
    connection.close()
    return runtime, failures


def _find_runtime(health: Any) -> dict[str, Any]:
    """Return what /health says of the runtime, nothing where it is somebody else's."""
    runtime = health.get("runtime") if isinstance(health, dict) else None
    return runtime if isinstance(runtime, dict) else {}


class _Floor:
    """A view that does nothing, and the reads alone: what the rounds' figures are a share of."""

    def __init__(self, order: StressOrder, questions: list[Question]) -> None:
        self._order = order
        empty = Question(FLOOR_ENDPOINT, FLOOR_ENDPOINT)
        reads = [question for question in questions if question.body is None]
        self._asked = ([empty], Tally()), (reads, Tally())

    def measure(self) -> None:
        """Ask both for a while, one after the other."""
        seconds = min(FLOOR_SECONDS, self._order.duration_seconds)
        users = self._order.concurrent_users
        for questions, total in self._asked:
            tally = run_users(self._order.server, questions, users=users, seconds=seconds)
            tally.elapsed_seconds += total.elapsed_seconds
            total.add(tally)

    def to_document(self) -> dict[str, Any]:
        """Return what was measured."""
        empty, reads = (_results(total) for _, total in self._asked)
        return {
            "endpoint": FLOOR_ENDPOINT,
            "results": empty,
            "reads_results": reads,
            "reads_share_of_floor": rounded(reads["throughput_rps"] / empty["throughput_rps"]),
        }


def _results(tally: Tally) -> dict[str, Any]:
    histogram = [(ticks * TICK, count) for ticks, count in sorted(tally.latencies.items())]
    total, failed = sum(tally.requests.values()), sum(tally.failures.values())
    elapsed = rounded(Decimal(str(tally.elapsed_seconds)))
    return {
        "total_requests": total,
        "successful_requests": total - failed,
        "failed_requests": failed,
        "elapsed_seconds": elapsed,
        "throughput_rps": rounded(total / elapsed),
        "p95_response_time": percentile(histogram, 95),
        "p99_response_time": percentile(histogram, 99),
        "response_time_sum": sum(bound * count for bound, count in histogram),
        "latency_histogram": [list(bucket) for bucket in histogram],
        "by_endpoint": [
            {
                "endpoint": name,
                "requests": tally.requests[name],
                "failures": tally.failures[name],
            }
            for name in sorted(tally.requests)
        ],
        "failures_by_status": [list(one) for one in sorted(tally.statuses.items())],
    }


def _document(order: StressOrder, captured: _Captured, captured_at: datetime) -> dict[str, Any]:
    runs = captured.runs
    terms = order.terms
    results = [run["results"] for run in runs]
    met = [bool(meets(_figures(one), terms)) for one in results]
    overall, least = all(met), min(one["throughput_rps"] for one in results)
    worst = max(one["p95_response_time"] for one in results)
    return {
        "profile": PROFILE,
        "runner": RUNNER,
        "captured_at": captured_at.isoformat(),
        "duration_seconds": order.duration_seconds,
        "concurrent_users": order.concurrent_users,
        "rounds": order.rounds,
        "endpoints": list(ENDPOINTS),
        "preflight": {
            "enabled": True,
            "passed": not captured.failures,
            "failures": captured.failures,
        },
        "runtime": captured.runtime,
        "floor": captured.floor,
        "runs": runs,
        "results": dict(_aggregate(results)),
        "min_throughput_rps": least,
        "thresholds": {
            "max_p95_seconds": terms.max_p95_seconds,
            "max_error_rate_percent": terms.max_error_rate_percent,
            "min_throughput_rps": terms.min_throughput_rps,
        },
        "evaluation": {
            "rounds": [{"meets_targets": one} for one in met],
            "overall_meets_targets": overall,
            "worst_p95_seconds": worst,
            "min_throughput_rps": least,
        },
        "meets_targets": overall,
    }


def find_distortions(document: dict[str, Any]) -> list[str]:
    """Return what kept a capture from measuring the server itself, in words."""
    found: Counter[int] = Counter()
    for run in document["runs"]:
        for status, count in run["results"]["failures_by_status"]:
            found[status] += count
    told = [
        f"{found[status]} answers were {status}: {LIMITING[status]}"
        for status in sorted(LIMITING)
        if found[status]
    ]
    for name, what in (
        ("results", "the view that does nothing"),
        ("reads_results", "the reads that it is compared with"),
    ):
        if failed := document["floor"][name]["failed_requests"]:
            told.append(f"{failed} requests of {what} failed")
    return told


def _figures(results: dict[str, Any]) -> RunFigures:
    return RunFigures(
        total=results["total_requests"],
        failed=results["failed_requests"],
        p95=results["p95_response_time"],
        p99=results["p99_response_time"],
        throughput=results["throughput_rps"],
    )


def _aggregate(results: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    for name in ("total_requests", "successful_requests", "failed_requests"):
        yield name, sum(one[name] for one in results)
    for name in ("p95_response_time", "p99_response_time"):
        yield name, max(one[name] for one in results)
    yield "throughput_rps", average([one["throughput_rps"] for one in results])


def _line(results: dict[str, Any]) -> str:
    return (
        f"  {results['total_requests']} requests, {results['failed_requests']} failed,"
        f" {results['throughput_rps']}/s, p95 {results['p95_response_time']} s"
    )
