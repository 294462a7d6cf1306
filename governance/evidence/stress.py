"""Profile ``stress``: real load over HTTP, and every figure of it computed again (BSAFE-009).

The source of the rules is the stress evidence protocol's twelve contract points and SPEC 20.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from governance.evidence.domain import Examination
from governance.evidence.load_results import (
    RunFigures,
    average,
    read_counts,
    read_results,
    rounded,
)

PROFILE: Final = "enforcement"
RUNNER: Final = "manage.py capture_evidence stress"
ENDPOINTS: Final = (
    "/api/v1/enforcement/policies",
    "/api/v1/enforcement/budgets?limit=50",
    "/api/v1/enforcement/credits?limit=50",
    "/api/v1/enforcement/approvals/queue?limit=50",
    "/api/v1/enforcement/ledger?limit=50",
    "/api/v1/enforcement/exports/parity?limit=50",
    "/api/v1/enforcement/gate/terraform",
)
"""What a capture asks, in turn: six reads of fifty rows, and the gate itself (POST)."""
GATE: Final = ENDPOINTS[-1]
READS: Final = ENDPOINTS[:-1]
FLOOR_ENDPOINT: Final = "/health/live"
"""A view that does nothing, under the same server and middleware: what HTTP alone costs."""
FLOOR_SECONDS: Final = 5
FLOOR_TIMES: Final = 2
"""That view, and the reads alone, are asked for so long before the rounds, and again after them."""
REQUIRED_ENDPOINTS: Final = (
    "/api/v1/enforcement/policies",
    "/api/v1/enforcement/ledger?limit=50",
    "/api/v1/enforcement/exports/parity?limit=50",
)
_LONGEST_SECONDS: Final = 7 * 86400
_SKEW_SECONDS: Final = 1
"""How far a clock may have been set back between two runs."""
_BETWEEN_SECONDS: Final = 30
"""How long users take at most to begin and to end, besides the time that they ask."""
_MEMBERS: Final = frozenset(
    {
        "profile", "runner", "captured_at", "duration_seconds", "concurrent_users", "rounds",
        "endpoints", "preflight", "runtime", "runs", "results", "min_throughput_rps", "thresholds",
        "evaluation", "meets_targets", "floor",
    }
)  # fmt: skip
_FLOOR_MEMBERS: Final = frozenset(
    {
        "endpoint", "results", "reads_results", "reads_share_of_floor",
    }
)  # fmt: skip
_VERSIONS: Final = ("database_version", "python", "django")
_TOTAL_MEMBERS: Final = frozenset(
    {
        "total_requests", "successful_requests", "failed_requests", "p95_response_time",
        "p99_response_time", "throughput_rps",
    }
)  # fmt: skip
_EVALUATION_MEMBERS: Final = frozenset(
    {
        "rounds", "overall_meets_targets", "worst_p95_seconds", "min_throughput_rps",
    }
)  # fmt: skip
_RUN_MEMBERS: Final = frozenset({"run_index", "captured_at", "results"})


@dataclass(frozen=True, slots=True)
class StressTerms:
    """What a release asks of stress evidence.

    :ivar max_age: how old it may be; None for any age.
    """

    min_duration_seconds: int = 30
    min_concurrent_users: int = 10
    required_database_engine: str = "postgresql"
    max_p95_seconds: Decimal = Decimal("2.0")
    max_error_rate_percent: Decimal = Decimal("1.0")
    min_throughput_rps: Decimal = Decimal("0.5")
    max_age: timedelta | None = None


def verify_stress(examination: Examination, terms: StressTerms, *, now: datetime) -> None:
    """Note everything that is wrong with stress evidence."""
    examination.unknown_members("", _MEMBERS)
    examination.same(
        "/profile", examination.text("/profile"), PROFILE, because="this profile's name is"
    )
    examination.same(
        "/runner", examination.text("/runner"), RUNNER, because="the only accepted runner is"
    )
    examination.fresh("/captured_at", now=now, at_most=terms.max_age)
    _verify_preflight(examination)
    _verify_workload(examination, terms)
    _verify_runtime(examination, terms)
    _verify_thresholds(examination, terms)
    runs = _read_runs(examination)
    _verify_moments(examination, terms, len(runs), now=now)
    _verify_aggregates(examination, runs)
    _verify_evaluation(examination, terms, runs)
    _verify_floor(examination)


def meets(figures: RunFigures, terms: StressTerms) -> bool | None:
    """Tell whether a round is within the thresholds; None where its figures do not say."""
    if figures.failed is None or figures.p95 is None or figures.throughput is None:
        return None
    if not figures.total:
        return None
    errors = Decimal(100 * figures.failed) / Decimal(figures.total)
    return (
        figures.p95 <= terms.max_p95_seconds
        and errors <= terms.max_error_rate_percent
        and figures.throughput >= terms.min_throughput_rps
    )


def _verify_preflight(examination: Examination) -> None:
    examination.unknown_members("/preflight", {"enabled", "passed", "failures"})
    examination.is_true("/preflight/enabled", because="load without a preflight is no evidence")
    examination.is_true("/preflight/passed", because="the preflight did not pass")
    if examination.items("/preflight/failures", may_be_empty=True):
        examination.refuse("/preflight/failures", "not_empty", "the preflight had failures")


def _verify_workload(examination: Examination, terms: StressTerms) -> None:
    for name, least in (
        ("duration_seconds", terms.min_duration_seconds),
        ("concurrent_users", terms.min_concurrent_users),
        ("rounds", 1),
    ):
        value = examination.count(f"/{name}")
        if value is not None and value < least:
            examination.refuse(f"/{name}", "below_floor", f"is {value}, and the floor is {least}")
    asked = examination.texts("/endpoints")
    for endpoint in REQUIRED_ENDPOINTS:
        if endpoint not in asked:
            examination.refuse("/endpoints", "endpoint_missing", f"lacks {endpoint}")
    examination.once("/endpoints", asked)


def _verify_runtime(examination: Examination, terms: StressTerms) -> None:
    engine = examination.text("/runtime/database_engine")
    examination.same(
        "/runtime/database_engine", engine, terms.required_database_engine,
        because="the release is proven on",
    )  # fmt: skip
    examination.unknown_members("/runtime", {"database_engine", *_VERSIONS})
    for name in _VERSIONS:
        examination.text(f"/runtime/{name}")


def _verify_thresholds(examination: Examination, terms: StressTerms) -> None:
    asked = {
        "max_p95_seconds": terms.max_p95_seconds,
        "max_error_rate_percent": terms.max_error_rate_percent,
        "min_throughput_rps": terms.min_throughput_rps,
    }
    examination.unknown_members("/thresholds", asked)
    for name, expected in asked.items():
        pointer = f"/thresholds/{name}"
        examination.same(
            pointer, examination.number(pointer), expected, because="the release asks for"
        )


def _read_runs(examination: Examination) -> list[RunFigures]:
    runs = examination.items("/runs")
    examination.same(
        "/runs", len(runs) if runs else None, examination.count("/rounds"),
        because="as many runs are needed as there are rounds:",
    )  # fmt: skip
    endpoints = examination.texts("/endpoints") if examination.has("/endpoints") else []
    return [
        _read_run(examination, f"/runs/{index}", index, endpoints) for index in range(len(runs))
    ]


def _read_run(
    examination: Examination, pointer: str, index: int, endpoints: list[str]
) -> RunFigures:
    examination.unknown_members(pointer, _RUN_MEMBERS)
    examination.same(
        f"{pointer}/run_index", examination.count(f"{pointer}/run_index"), index + 1,
        because="runs are counted from 1; this one is",
    )  # fmt: skip
    return read_results(examination, f"{pointer}/results", endpoints, _declared(examination))


def _declared(examination: Examination) -> int:
    """Return how many seconds a run took, as the capture says; 0 where it does not say it well."""
    length = examination.document.get("duration_seconds")
    return length if isinstance(length, int) and 0 <= length <= _LONGEST_SECONDS else 0


def _verify_moments(
    examination: Examination, terms: StressTerms, runs: int, *, now: datetime
) -> None:
    """Check that runs followed one another, each at its full length, and then the capture."""
    seconds = _declared(examination)
    # After the last run the view that does nothing is asked again, and then the reads.
    closing = 2 * (FLOOR_TIMES - 1) * min(FLOOR_SECONDS, seconds)
    moments: list[tuple[str, datetime | None, Decimal]] = []
    for index in range(runs):
        pointer = f"/runs/{index}"
        at = examination.fresh(f"{pointer}/captured_at", now=now, at_most=terms.max_age)
        took = Examination(examination.document).number(f"{pointer}/results/elapsed_seconds")
        moments.append((f"{pointer}/captured_at", at, took or Decimal(seconds)))
    captured = Examination(examination.document).moment("/captured_at")
    moments.append(("/captured_at", captured, Decimal(closing)))
    for (earlier, before, _), (pointer, at, took) in pairwise(moments):
        if before is None or at is None:
            continue
        passed = Decimal((at - before) // timedelta(milliseconds=1)) / 1000
        if not took - _SKEW_SECONDS <= passed <= took + _BETWEEN_SECONDS:
            for one in (earlier, pointer):
                examination.refuse(
                    one,
                    "out_of_order",
                    f"from {earlier} to {pointer} are {passed} s, and it took {took}",
                )


def _verify_aggregates(examination: Examination, runs: list[RunFigures]) -> None:
    examination.unknown_members("/results", _TOTAL_MEMBERS)
    read_counts(examination, "/results")
    checks: tuple[tuple[str, Any, str], ...] = (
        ("/results/total_requests", _sum([run.total for run in runs]), "all runs together have"),
        ("/results/failed_requests", _sum([run.failed for run in runs]), "all runs together have"),
        ("/results/p95_response_time", _most([run.p95 for run in runs]), "the slowest run has"),
        ("/results/p99_response_time", _most([run.p99 for run in runs]), "the slowest run has"),
        ("/min_throughput_rps", _least([run.throughput for run in runs]), "the slowest run has"),
        ("/results/throughput_rps", _mean([run.throughput for run in runs]), "the runs' mean is"),
    )
    for pointer, computed, because in checks:
        stated = examination.number(pointer)
        examination.same(pointer, stated, computed, because=because)
        if pointer.endswith("throughput_rps") and stated is not None and stated <= 0:
            examination.refuse(pointer, "not_positive", "must be above 0")


def _verify_floor(examination: Examination) -> None:
    """Check what the reads are said to reach of a view that does nothing."""
    examination.unknown_members("/floor", _FLOOR_MEMBERS)
    examination.same(
        "/floor/endpoint", examination.text("/floor/endpoint"), FLOOR_ENDPOINT,
        because="the view that does nothing is",
    )  # fmt: skip
    seconds = FLOOR_TIMES * min(FLOOR_SECONDS, _declared(examination))
    asked = examination.document.get("endpoints")
    reads = [one for one in READS if isinstance(asked, list) and one in asked]
    empty = read_results(examination, "/floor/results", [FLOOR_ENDPOINT], seconds)
    read = read_results(examination, "/floor/reads_results", reads, seconds)
    for name, figures in (("results", empty), ("reads_results", read)):
        if figures.failed:
            examination.refuse(
                f"/floor/{name}/failed_requests", "failed",
                f"{figures.failed} failed, and what is quoted must not",
            )  # fmt: skip
    share = examination.number("/floor/reads_share_of_floor")
    if empty.throughput and read.throughput:
        examination.same(
            "/floor/reads_share_of_floor", share, rounded(read.throughput / empty.throughput),
            because="its two throughputs give",
        )  # fmt: skip


def _verify_evaluation(
    examination: Examination, terms: StressTerms, runs: list[RunFigures]
) -> None:
    examination.unknown_members("/evaluation", _EVALUATION_MEMBERS)
    rounds = examination.items("/evaluation/rounds")
    examination.same(
        "/evaluation/rounds", len(rounds) if rounds else None, examination.count("/rounds"),
        because="the rounds are",
    )  # fmt: skip
    met: list[bool | None] = []
    for index in range(len(rounds)):
        examination.unknown_members(f"/evaluation/rounds/{index}", {"meets_targets"})
        pointer = f"/evaluation/rounds/{index}/meets_targets"
        stated = examination.flag(pointer)
        computed = meets(runs[index], terms) if index < len(runs) else None
        examination.same(pointer, stated, computed, because="its figures and thresholds say")
        met.append(computed if computed is not None else stated)
    overall = examination.flag("/evaluation/overall_meets_targets")
    examination.same(
        "/evaluation/overall_meets_targets", overall, all(one is True for one in met),
        because="its rounds together say",
    )  # fmt: skip
    if overall is False:
        examination.refuse(
            "/evaluation/overall_meets_targets", "not_true", "the targets were not met"
        )
    examination.same(
        "/meets_targets", examination.flag("/meets_targets"), overall, because="the evaluation says"
    )
    for name, source in (
        ("worst_p95_seconds", "/results/p95_response_time"),
        ("min_throughput_rps", "/min_throughput_rps"),
    ):
        pointer = f"/evaluation/{name}"
        expected = examination.number(source) if examination.has(source) else None
        examination.same(pointer, examination.number(pointer), expected, because=f"{source} is")


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if values and len(known) == len(values) else None


def _most(values: list[Decimal | None]) -> Decimal | None:
    known = [value for value in values if value is not None]
    return max(known) if values and len(known) == len(values) else None


def _least(values: list[Decimal | None]) -> Decimal | None:
    known = [value for value in values if value is not None]
    return min(known) if values and len(known) == len(values) else None


def _mean(values: list[Decimal | None]) -> Decimal | None:
    known = [value for value in values if value is not None]
    return average(known) if values and len(known) == len(values) else None
