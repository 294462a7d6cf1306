"""Which process takes the next connection."""

from __future__ import annotations

import os

import pytest

from valdrix.gunicorn_balance import YIELD_SECONDS, Balance, Counts

SOON = YIELD_SECONDS / 2


@pytest.mark.parametrize(
    ("others", "own", "is_ahead"),
    [
        ([], 0, False),
        ([], 600, False),
        ([0], 1, False),
        ([0], 2, True),
        ([5, 0, 9], 2, True),
        ([5, 4, 9], 5, False),
        ([100], 113, False),
        ([100], 114, True),
        ([70_000], 80_000, False),
    ],
)
def test_who_is_ahead_of_the_others(others: list[int], own: int, *, is_ahead: bool) -> None:
    counts = Counts()
    for age, number in enumerate([*others, own], start=300):
        counts.put(age, number)

    assert counts.is_ahead(300 + len(others)) is is_ahead


def uneven(counts: Counts) -> tuple[Balance, Balance]:
    """Return a process without connections, and one with five."""
    first, second = Balance(counts, 1), Balance(counts, 2)
    first.has(0)
    second.has(5)
    return first, second


def test_one_that_serves_no_more_is_left_nothing() -> None:
    counts = Counts()
    first, second = uneven(counts)
    assert not second.may_take(0.0)

    first.leave()
    assert second.may_take(0.0)

    first.has(0)
    assert not second.may_take(0.0)
    counts.remove(1)
    assert second.may_take(0.0)


def test_what_nobody_takes_is_ones_own_after_a_moment_and_for_a_moment() -> None:
    _, second = uneven(Counts())

    assert not second.may_take(100.0)
    assert not second.may_take(100.0 + SOON)
    assert second.seconds_left(100.0 + SOON) == pytest.approx(SOON)
    assert second.may_take(100.0 + 3 * SOON)
    assert second.seconds_left(100.0 + 3 * SOON) == 0.0
    assert second.may_take(200.0), "however late it looks"
    second.has_looked()
    assert not second.may_take(200.0)


def test_who_was_ahead_and_is_not_any_more_waits_anew_the_next_time() -> None:
    counts = Counts()
    first, second = uneven(counts)
    assert not second.may_take(100.0)
    first.has(5)
    assert second.may_take(100.0)
    assert second.seconds_left(100.0) == 0.0

    first.has(0)

    assert not second.may_take(100.0 + 3 * SOON)


def test_processes_share_their_counts() -> None:
    counts = Counts()
    counts.put(1, 5)
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        counts.put(2, 0)
        os._exit(0)
    os.waitpid(child, 0)

    assert counts.is_ahead(1)
