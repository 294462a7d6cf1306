"""A crowd: many threads that take jobs from one list, bounded in number and in time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from django.db import connections

Job = TypeVar("Job")
Result = TypeVar("Result")

LIMIT_SECONDS = 1800.0
PROGRESS_SECONDS = 5.0


class Crowd(Generic[Job, Result]):
    """Threads that start together and take the jobs in their order, each as soon as it can.

    :ivar seconds: how long the whole list took.
    """

    def __init__(self, threads: int, *, title: str = "") -> None:
        self._threads = threads
        self._title = title
        self._lock = threading.Lock()
        self._taken = 0
        self._told_at = time.monotonic()
        self.seconds = 0.0

    def run(self, jobs: Sequence[Job], work: Callable[[Job], Result]) -> list[Result]:
        """Do every job once and return the results in the jobs' order.

        The first exception of a job is raised here, after all threads have ended.
        """
        results: dict[int, Result] = {}
        deadline = time.monotonic() + LIMIT_SECONDS
        barrier = threading.Barrier(self._threads)

        def take() -> None:
            try:
                barrier.wait(60)
                while (number := self._next(len(jobs), deadline)) is not None:
                    results[number] = work(jobs[number])
            finally:
                connections.close_all()

        started = time.monotonic()
        with ThreadPoolExecutor(max_workers=self._threads) as pool:
            calls = [pool.submit(take) for _ in range(self._threads)]
        self.seconds = time.monotonic() - started
        for call in calls:
            call.result()
        assert len(results) == len(jobs), f"{len(results)} of {len(jobs)} within the time limit"
        return [results[number] for number in range(len(jobs))]

    def _next(self, count: int, deadline: float) -> int | None:
        with self._lock:
            now = time.monotonic()
            if self._taken == count or now > deadline:
                return None
            self._taken += 1
            if self._title and now - self._told_at > PROGRESS_SECONDS:
                self._told_at = now
                sys.stderr.write(f"  {self._title}: {self._taken}/{count}\n")
            return self._taken - 1
