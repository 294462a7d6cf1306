"""Profile ``stress``: real load over HTTP, and every figure of it computed again (BSAFE-009).

The source of the rules is the stress evidence protocol's twelve contract points and SPEC 20. A
run's latencies are kept as a histogram, so that its percentiles can be computed and need not be
believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import Any, Final

from governance.evidence.domain import Examination

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
FLOOR_ENDPOINT: Final = "/health/live"
"""A view that does nothing, under the same server and middleware: what HTTP alone costs."""
REQUIRED_ENDPOINTS: Final = (
    "/api/v1/enforcement/policies",
    "/api/v1/enforcement/ledger?limit=50",
    "/api/v1/enforcement/exports/parity?limit=50",
)
LIMITING: Final = {
    429: "the server's limits were measured; raise TENANT_API_PER_MINUTE"
    " and ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP where it runs",
    503: "the server shed load; give it more WEB_REQUESTS_AT_ONCE, or ask with fewer users",
}
"""Answers that say what a server may be asked, not what it can do."""
_LONGEST_SECONDS: Final = 7 * 86400
_SKEW_SECONDS: Final = 1
"""How far a clock may have been set back between two runs."""
_NO_ANSWER: Final = 0
_SUCCESS: Final = 200
_STATUSES: Final = range(100, 600)
_PLACES: Final = Decimal("0.0001")
_MEMBERS: Final = frozenset(
    {
        "profile", "runner", "captured_at", "duration_seconds", "concurrent_users", "rounds",
        "endpoints", "preflight", "runtime", "runs", "results", "min_throughput_rps", "thresholds",
        "evaluation", "meets_targets", "floor",
    }
)  # fmt: skip
_FLOOR_MEMBERS: Final = frozenset(
    {
        "endpoint", "throughput_rps", "p95_response_time", "failed_requests",
        "reads_throughput_rps", "reads_p95_response_time", "reads_failed_requests", "reads_share_of_floor",
    }
)  # fmt: skip


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


@dataclass(frozen=True, slots=True)
class RunFigures:
    """One round's figures, as computed from its own counts; None for what cannot be."""

    total: int | None
    failed: int | None
    p95: Decimal | None
    p99: Decimal | None
    throughput: Decimal | None

    def meets(self, terms: StressTerms) -> bool | None:
        """Tell whether the round is within the thresholds."""
        if None in (self.total, self.failed, self.p95, self.throughput) or not self.total:
            return None
        assert self.failed is not None
        assert self.p95 is not None
        assert self.throughput is not None
        errors = Decimal(100 * self.failed) / Decimal(self.total)
        return (
            self.p95 <= terms.max_p95_seconds
            and errors <= terms.max_error_rate_percent
            and self.throughput >= terms.min_throughput_rps
        )


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
    if examination.has("/floor"):
        _verify_floor(examination)


def percentile(histogram: list[tuple[Decimal, int]], percent: int) -> Decimal | None:
    """Return the upper bound of the bucket that a percentile falls into; None of no requests.

    :param histogram: upper bounds in seconds, ascending, each with the requests up to it that no
        lower bucket holds.
    """
    total = sum(count for _, count in histogram)
    if not total:
        return None
    rank = -(-total * percent // 100)
    seen = 0
    for bound, count in histogram:
        seen += count
        if seen >= rank:
            return bound
    return None


def rounded(value: Decimal) -> Decimal:
    """Return a figure with the four places that evidence has, half up."""
    return value.quantize(_PLACES, ROUND_HALF_UP)


def average(values: list[Decimal]) -> Decimal:
    """Return the rounded mean of figures."""
    return rounded(sum(values, Decimal(0)) / len(values))


def _verify_preflight(examination: Examination) -> None:
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
    for endpoint in sorted({one for one in asked if asked.count(one) > 1}):
        examination.refuse("/endpoints", "duplicate", f"names {endpoint} more than once")


def _verify_runtime(examination: Examination, terms: StressTerms) -> None:
    engine = examination.text("/runtime/database_engine")
    examination.same(
        "/runtime/database_engine", engine, terms.required_database_engine,
        because="the release is proven on",
    )  # fmt: skip
    examination.text("/runtime/database_version")


def _verify_thresholds(examination: Examination, terms: StressTerms) -> None:
    for name, expected in (
        ("max_p95_seconds", terms.max_p95_seconds),
        ("max_error_rate_percent", terms.max_error_rate_percent),
        ("min_throughput_rps", terms.min_throughput_rps),
    ):
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
    examination.same(
        f"{pointer}/run_index", examination.count(f"{pointer}/run_index"), index + 1,
        because="runs are counted from 1; this one is",
    )  # fmt: skip
    total, failed = _read_counts(examination, f"{pointer}/results")
    histogram = _read_histogram(examination, f"{pointer}/results/latency_histogram")
    if histogram and total is not None:
        examination.same(
            f"{pointer}/results/latency_histogram", sum(count for _, count in histogram), total,
            because="the requests of this run are",
        )  # fmt: skip
    p95 = _verify_percentile(examination, pointer, histogram, 95)
    p99 = _verify_percentile(examination, pointer, histogram, 99)
    _verify_by_endpoint(examination, f"{pointer}/results/by_endpoint", endpoints, (total, failed))
    _verify_statuses(examination, f"{pointer}/results", failed)
    users = examination.document.get("concurrent_users")
    if total and isinstance(users, int) and total < users:
        examination.refuse(
            f"{pointer}/results/total_requests", "too_few", f"{users} users ask once each at least"
        )
    throughput = _verify_throughput(examination, pointer, total)
    return RunFigures(total, failed, p95, p99, throughput)


def _verify_moments(
    examination: Examination, terms: StressTerms, runs: int, *, now: datetime
) -> None:
    """Check that runs followed one another, each at its full length, and ended before the capture."""
    document = examination.document
    length = document.get("duration_seconds")
    seconds = length if isinstance(length, int) and 0 <= length <= _LONGEST_SECONDS else 0
    captured = Examination(document).moment("/captured_at")
    before: datetime | None = None
    for index in range(runs):
        pointer = f"/runs/{index}/captured_at"
        at = examination.fresh(pointer, now=now, at_most=terms.max_age)
        if at is None:
            continue
        if captured is not None and at > captured:
            examination.refuse(pointer, "out_of_order", "is later than the whole capture")
        if before is not None and (at - before).total_seconds() < seconds - _SKEW_SECONDS:
            examination.refuse(
                pointer, "out_of_order", "is sooner after the run before than a run takes"
            )
        before = at


def _read_counts(examination: Examination, pointer: str) -> tuple[int | None, int | None]:
    total = examination.count(f"{pointer}/total_requests")
    failed = examination.count(f"{pointer}/failed_requests")
    succeeded = examination.count(f"{pointer}/successful_requests")
    if total == 0:
        examination.refuse(f"{pointer}/total_requests", "empty", "no request was made")
    if total is not None and failed is not None:
        examination.same(
            f"{pointer}/successful_requests", succeeded, total - failed,
            because="total less failed requests are",
        )  # fmt: skip
    return total, failed


def _read_histogram(examination: Examination, pointer: str) -> list[tuple[Decimal, int]]:
    buckets: list[tuple[Decimal, int]] = []
    for index in range(len(examination.items(pointer))):
        bound = examination.number(f"{pointer}/{index}/0")
        count = examination.count(f"{pointer}/{index}/1")
        if bound is None or count is None:
            return []
        buckets.append((bound, count))
    if buckets and buckets[0][0] <= 0:
        examination.refuse(f"{pointer}/0/0", "not_positive", "no answer takes no time")
    if any(first[0] >= second[0] for first, second in pairwise(buckets)):
        examination.refuse(pointer, "out_of_order", "its bounds do not ascend")
        return []
    return buckets


def _verify_percentile(
    examination: Examination, pointer: str, histogram: list[tuple[Decimal, int]], percent: int
) -> Decimal | None:
    pointer = f"{pointer}/results/p{percent}_response_time"
    stated, computed = examination.number(pointer), percentile(histogram, percent)
    examination.same(pointer, stated, computed, because="the histogram gives")
    return computed


def _verify_by_endpoint(
    examination: Examination,
    pointer: str,
    endpoints: list[str],
    run: tuple[int | None, int | None],
) -> None:
    """Check that each endpoint was asked, and that together they make up the run."""
    rows = examination.items(pointer)
    asked: list[str | None] = []
    sums = [0, 0]
    for index in range(len(rows)):
        asked.append(examination.text(f"{pointer}/{index}/endpoint"))
        requests = examination.count(f"{pointer}/{index}/requests")
        if requests == 0:
            examination.refuse(f"{pointer}/{index}/requests", "empty", "it was never asked")
        sums[0] += requests or 0
        sums[1] += examination.count(f"{pointer}/{index}/failures") or 0
    if rows and sorted(one for one in asked if one) != sorted(endpoints):
        examination.refuse(pointer, "mismatch", "its endpoints are not those of the capture")
    for found, expected, what in zip(sums, run, ("requests", "failures"), strict=True):
        if rows and expected is not None and found != expected:
            examination.refuse(pointer, "mismatch", f"its {what} are {found}, the run's {expected}")


def _verify_statuses(examination: Examination, pointer: str, failed: int | None) -> None:
    """Check that each failure has its status, and that none is a limit's answer."""
    pointer = f"{pointer}/failures_by_status"
    if not failed and not examination.has(pointer):
        return
    total = 0
    for index in range(len(examination.items(pointer, may_be_empty=not failed))):
        status = examination.count(f"{pointer}/{index}/0")
        count = examination.count(f"{pointer}/{index}/1")
        total += count or 0
        if status == _SUCCESS or status not in {None, _NO_ANSWER, *_STATUSES}:
            examination.refuse(
                f"{pointer}/{index}/0", "unknown", f"{status} is no failure's status"
            )
        if status in LIMITING and count:
            examination.refuse(
                f"{pointer}/{index}",
                "limited",
                f"{count} answers were {status}: {LIMITING[status]}",
            )
    examination.same(pointer, total, failed, because="the failures of this run are")


def _verify_throughput(examination: Examination, pointer: str, total: int | None) -> Decimal | None:
    elapsed = examination.number(f"{pointer}/results/elapsed_seconds")
    declared = examination.count("/duration_seconds") if examination.has("/duration_seconds") else 0
    stated = examination.number(f"{pointer}/results/throughput_rps")
    if elapsed is None or total is None:
        return None
    if elapsed < (declared or 0) or elapsed <= 0:
        examination.refuse(
            f"{pointer}/results/elapsed_seconds", "below_floor",
            "the run was shorter than the capture says",
        )  # fmt: skip
        return None
    computed = rounded(total / elapsed)
    examination.same(
        f"{pointer}/results/throughput_rps", stated, computed, because="requests a second were"
    )
    if stated is not None and stated <= 0:
        examination.refuse(f"{pointer}/results/throughput_rps", "not_positive", "must be above 0")
    return computed


def _verify_aggregates(examination: Examination, runs: list[RunFigures]) -> None:
    _read_counts(examination, "/results")
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
    for name in ("p95_response_time", "reads_p95_response_time"):
        p95 = examination.number(f"/floor/{name}")
        if p95 is not None and p95 <= 0:
            examination.refuse(f"/floor/{name}", "not_positive", "must be above 0")
    floor = examination.number("/floor/throughput_rps")
    reads = examination.number("/floor/reads_throughput_rps")
    for name, value in (("throughput_rps", floor), ("reads_throughput_rps", reads)):
        if value is not None and value <= 0:
            examination.refuse(f"/floor/{name}", "not_positive", "must be above 0")
    if examination.has("/floor/failed_requests"):
        examination.same(
            "/floor/failed_requests", examination.count("/floor/failed_requests"), 0,
            because="a view that does nothing, and is quoted, has failures:",
        )  # fmt: skip
    examination.same(
        "/floor/reads_failed_requests", examination.count("/floor/reads_failed_requests"), 0,
        because="reads that are quoted have failures:",
    )  # fmt: skip
    share = examination.number("/floor/reads_share_of_floor")
    if floor and reads is not None and floor > 0:
        examination.same(
            "/floor/reads_share_of_floor", share, rounded(reads / floor),
            because="its two throughputs give",
        )  # fmt: skip


def _verify_evaluation(
    examination: Examination, terms: StressTerms, runs: list[RunFigures]
) -> None:
    rounds = examination.items("/evaluation/rounds")
    examination.same(
        "/evaluation/rounds", len(rounds) if rounds else None, examination.count("/rounds"),
        because="the rounds are",
    )  # fmt: skip
    met: list[bool | None] = []
    for index in range(len(rounds)):
        pointer = f"/evaluation/rounds/{index}/meets_targets"
        stated = examination.flag(pointer)
        computed = runs[index].meets(terms) if index < len(runs) else None
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
    if examination.has("/meets_targets"):
        examination.same(
            "/meets_targets",
            examination.flag("/meets_targets"),
            overall,
            because="the evaluation says",
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
