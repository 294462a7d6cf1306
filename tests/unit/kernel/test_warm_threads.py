"""Work goes to the thread that became idle last, in the order it came, and none is lost."""

from __future__ import annotations

import threading
import time
from queue import Empty
from types import SimpleNamespace

import pytest

from valdrix.gunicorn_worker import ProblemWorker
from valdrix.kernel.warm_threads import LastWaiterFirst, WarmThreads

WAIT_SECONDS = 20


def who() -> int:
    return threading.get_ident()


def meet(barrier: threading.Barrier) -> int:
    barrier.wait(WAIT_SECONDS)
    return who()


def settle(pool: WarmThreads, idle: int) -> None:
    """Wait until so many threads wait for work: a future is done a moment before its thread is idle."""
    deadline = time.monotonic() + WAIT_SECONDS
    while len(pool._work_queue._waiters) < idle:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_after_a_rush_one_caller_meets_one_thread() -> None:
    with WarmThreads(8) as pool:
        barrier = threading.Barrier(8)
        rush = {one.result(WAIT_SECONDS) for one in [pool.submit(meet, barrier) for _ in range(8)]}
        assert len(rush) == 8
        met = set()
        for _ in range(50):
            settle(pool, 8)
            met.add(pool.submit(who).result(WAIT_SECONDS))
        assert len(met) == 1


def test_two_callers_meet_two_threads() -> None:
    with WarmThreads(8) as pool:
        barrier = threading.Barrier(8)
        for one in [pool.submit(meet, barrier) for _ in range(8)]:
            one.result(WAIT_SECONDS)
        met = set()
        for _ in range(20):
            settle(pool, 8)
            pair = threading.Barrier(2)
            met |= {one.result(WAIT_SECONDS) for one in [pool.submit(meet, pair) for _ in range(2)]}
        assert len(met) == 2


def test_what_waits_is_taken_in_the_order_it_came() -> None:
    with WarmThreads(1) as pool:
        held, seen = threading.Event(), []
        pool.submit(held.wait, WAIT_SECONDS)
        later = [pool.submit(seen.append, number) for number in range(20)]
        held.set()
        for one in later:
            one.result(WAIT_SECONDS)
    assert seen == list(range(20))


def test_each_of_many_is_done_once() -> None:
    done: list[int] = []
    with WarmThreads(6) as pool:

        def give(start: int) -> None:
            for number in range(start, start + 500):
                pool.submit(done.append, number)

        givers = [threading.Thread(target=give, args=(500 * index,)) for index in range(4)]
        for giver in givers:
            giver.start()
        for giver in givers:
            giver.join()
    assert sorted(done) == list(range(2000))


def test_the_end_ends_every_thread() -> None:
    before = threading.active_count()
    pool = WarmThreads(5)
    barrier = threading.Barrier(5)
    for one in [pool.submit(meet, barrier) for _ in range(5)]:
        one.result(WAIT_SECONDS)
    assert threading.active_count() == before + 5
    pool.shutdown(wait=True)
    assert threading.active_count() == before
    with pytest.raises(RuntimeError):
        pool.submit(who)


def test_an_empty_queue_says_so() -> None:
    queue = LastWaiterFirst()
    with pytest.raises(Empty):
        queue.get_nowait()
    queue.put("kept")
    assert queue.qsize() == 1
    assert queue.get() == "kept"


def test_the_web_server_answers_with_such_threads() -> None:
    worker = ProblemWorker.__new__(ProblemWorker)
    worker.cfg = SimpleNamespace(threads=3)
    with worker.get_thread_pool() as pool:
        assert isinstance(pool, WarmThreads)
        barrier = threading.Barrier(3)
        met = [pool.submit(meet, barrier) for _ in range(3)]
        assert len({one.result(WAIT_SECONDS) for one in met}) == 3
