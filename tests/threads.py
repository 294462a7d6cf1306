"""Threads for tests of concurrency: they start together and close their connections."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from django.db import connections

START_TIMEOUT_SECONDS = 30.0


def run_in_threads(
    count: int, function: Callable[[int], Any], *, timeout_seconds: float = 120.0
) -> list[Any]:
    """Call ``function(number)`` in ``count`` threads that all start at one moment.

    Return what each call returned, in the order of the numbers. An exception of a call is raised
    here, after all calls have ended.
    """
    barrier = Barrier(count)

    def call(number: int) -> Any:
        try:
            barrier.wait(START_TIMEOUT_SECONDS)
            return function(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=count) as pool:
        calls = [pool.submit(call, number) for number in range(count)]
    return [one.result(timeout_seconds) for one in calls]
