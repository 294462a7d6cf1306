"""What users saw who asked without a pause, computed again from their answers' times.

Latencies are kept as a histogram, so that percentiles can be computed and need not be believed. Who
asks, waits and asks again has waited as long as the whole took: the times of all answers together
say how many users there were.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import Any, Final

from governance.evidence.domain import Examination

TICK: Final = Decimal("0.0001")
"""What latencies are rounded up to, in seconds."""
LIMITING: Final = {
    429: "the server's limits were measured; raise TENANT_API_PER_MINUTE"
    " and ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP where it runs",
    503: "the server shed load; give it more WEB_REQUESTS_AT_ONCE, or ask with fewer users",
}
"""Answers that say what a server may be asked, not what it can do."""
_BUSY_SHARE: Final = Decimal("0.95")
"""Users ask without a pause: so much of a run's time they wait for answers, each of them."""
_LONGEST_SECONDS: Final = 86400
_MOST_ANSWERS: Final = 10**12
"""Beyond what any bucket has: no user waits longer for one answer, and no run has more."""
_NUMBERS: Final = (Decimal, int)
_PAIR: Final = 2
"""What a bucket is, and a row of failures: what is counted, and how often it was."""
_NO_ANSWER: Final = 0
_SUCCESS: Final = 200
_STATUSES: Final = range(100, 600)
_PLACES: Final = Decimal("0.0001")
_RESULTS_MEMBERS: Final = frozenset(
    {
        "total_requests", "successful_requests", "failed_requests", "elapsed_seconds", "throughput_rps",
        "p95_response_time", "p99_response_time", "response_time_sum", "latency_histogram",
        "by_endpoint", "failures_by_status",
    }
)  # fmt: skip
_ENDPOINT_MEMBERS: Final = frozenset({"endpoint", "requests", "failures"})


@dataclass(frozen=True, slots=True)
class RunFigures:
    """One round's figures, as computed from its own counts; None for what cannot be."""

    total: int | None
    failed: int | None
    p95: Decimal | None
    p99: Decimal | None
    throughput: Decimal | None


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


def read_results(
    examination: Examination, pointer: str, endpoints: list[str], seconds: int
) -> RunFigures:
    """Return what users saw who asked endpoints in turn for some seconds, computed again."""
    examination.unknown_members(pointer, _RESULTS_MEMBERS)
    total, failed = read_counts(examination, pointer)
    histogram = _read_histogram(examination, f"{pointer}/latency_histogram")
    if histogram and total is not None:
        examination.same(
            f"{pointer}/latency_histogram", sum(count for _, count in histogram), total,
            because="the requests of this run are",
        )  # fmt: skip
    p95 = _verify_percentile(examination, pointer, histogram, 95)
    p99 = _verify_percentile(examination, pointer, histogram, 99)
    _verify_by_endpoint(examination, f"{pointer}/by_endpoint", endpoints, (total, failed))
    _verify_statuses(examination, pointer, failed)
    elapsed = _read_elapsed(examination, pointer, seconds)
    waited = _read_waited(examination, pointer, histogram)
    _verify_users(examination, pointer, waited, (seconds, elapsed))
    throughput = _verify_throughput(examination, pointer, total, elapsed)
    return RunFigures(total, failed, p95, p99, throughput)


def _read_waited(
    examination: Examination, pointer: str, histogram: list[tuple[Decimal, int]]
) -> tuple[Decimal, Decimal] | None:
    """Return how long all users waited for answers together: at least, and at most, in seconds."""
    pointer = f"{pointer}/response_time_sum"
    stated = examination.number(pointer)
    if not histogram:
        return None
    most = sum((bound * count for bound, count in histogram), Decimal(0))
    examination.same(pointer, stated, most, because="the histogram's times together are")
    return most - TICK * sum(count for _, count in histogram), most


def _verify_users(
    examination: Examination,
    pointer: str,
    waited: tuple[Decimal, Decimal] | None,
    run: tuple[int, Decimal | None],
) -> None:
    """Check that the answers' times fill the time of as many users as there are said to be.

    Each user asks, waits, and asks again: what one waited is what the run took, and no more.

    :param run: for how many seconds users were to ask, and for how many the last of them did.
    """
    pointer = f"{pointer}/response_time_sum"
    users = examination.document.get("concurrent_users")
    seconds, elapsed = run
    if waited is None or elapsed is None or not isinstance(users, int):
        return
    least, most = waited
    if most < users * seconds * _BUSY_SHARE:
        examination.refuse(
            pointer, "too_few", f"{users} users who ask for {seconds} s wait longer together"
        )
    if least > users * (elapsed + TICK):
        examination.refuse(pointer, "too_many", f"{users} users cannot wait so long in {elapsed} s")


def read_counts(examination: Examination, pointer: str) -> tuple[int | None, int | None]:
    """Return how many requests there were, and how many failed; the others succeeded."""
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
    """Return its buckets, none where one is no bucket.

    There may be many thousands: each is looked at once, and only a bad one is looked into.
    """
    buckets: list[tuple[Decimal, int]] = []
    for index, row in enumerate(examination.items(pointer)):
        if not _is_bucket(row):
            _refuse_bucket(examination, f"{pointer}/{index}")
            return []
        buckets.append((row[0], row[1]))
    if any(first[0] >= second[0] for first, second in pairwise(buckets)):
        examination.refuse(pointer, "out_of_order", "its bounds do not ascend")
        return []
    return buckets


def _is_bucket(row: Any) -> bool:
    """Tell whether a row is a time in whole ticks, and how many answers took it."""
    if not isinstance(row, list) or len(row) != _PAIR:
        return False
    bound, count = row
    return (
        type(bound) in _NUMBERS
        and type(count) is int
        and TICK <= bound <= _LONGEST_SECONDS
        and not bound % TICK
        and 0 < count <= _MOST_ANSWERS
    )


def _refuse_bucket(examination: Examination, pointer: str) -> None:
    """Say what is wrong with a row that is no bucket."""
    before = len(examination.problems)
    bound, count = examination.number(f"{pointer}/0"), examination.count(f"{pointer}/1")
    if bound is not None and bound <= 0:
        examination.refuse(f"{pointer}/0", "not_positive", "no answer takes no time")
    if count == 0:
        examination.refuse(f"{pointer}/1", "empty", "a bucket holds an answer")
    if len(examination.problems) == before:
        examination.refuse(
            pointer,
            "no_bucket",
            f"must be a time in steps of {TICK} s, and how many answers took it",
        )


def _verify_percentile(
    examination: Examination, pointer: str, histogram: list[tuple[Decimal, int]], percent: int
) -> Decimal | None:
    pointer = f"{pointer}/p{percent}_response_time"
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
        examination.unknown_members(f"{pointer}/{index}", _ENDPOINT_MEMBERS)
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
    total = 0
    statuses: list[int | None] = []
    for index, row in enumerate(examination.items(pointer, may_be_empty=not failed)):
        status = examination.count(f"{pointer}/{index}/0")
        count = examination.count(f"{pointer}/{index}/1")
        statuses.append(status)
        total += count or 0
        if count == 0 or (isinstance(row, list) and len(row) > _PAIR):
            examination.refuse(
                f"{pointer}/{index}", "no_pair", "must be a status, and how many answers had it"
            )
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
    examination.once(pointer, statuses)
    examination.same(pointer, total, failed, because="the failures of this run are")


def _read_elapsed(examination: Examination, pointer: str, seconds: int) -> Decimal | None:
    elapsed = examination.number(f"{pointer}/elapsed_seconds")
    if elapsed is not None and (elapsed < seconds or elapsed <= 0):
        examination.refuse(
            f"{pointer}/elapsed_seconds", "below_floor", "the run was shorter than the capture says"
        )
        return None
    return elapsed


def _verify_throughput(
    examination: Examination, pointer: str, total: int | None, elapsed: Decimal | None
) -> Decimal | None:
    stated = examination.number(f"{pointer}/throughput_rps")
    if elapsed is None or total is None:
        return None
    computed = rounded(total / elapsed)
    examination.same(
        f"{pointer}/throughput_rps", stated, computed, because="requests a second were"
    )
    if stated is not None and stated <= 0:
        examination.refuse(f"{pointer}/throughput_rps", "not_positive", "must be above 0")
    return computed
