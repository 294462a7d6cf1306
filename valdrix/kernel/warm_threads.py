"""Threads of which the one that was at work last takes what comes next.

A thread that was at work a moment ago has its stack and all that belongs to it in the processor's caches.
Given work in turn, as an ordinary pool does, ten callers would go round all threads that a rush of
requests ever started, and find every one of them cold.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from queue import Empty
from threading import Lock
from typing import Any


class WarmThreads(ThreadPoolExecutor):
    """A pool of threads that hands work to the thread that became idle last."""

    def __init__(self, max_workers: int) -> None:
        super().__init__(max_workers)
        self._work_queue = LastWaiterFirst()  # type: ignore[assignment] # what a pool asks of one


class LastWaiterFirst:
    """A queue: items leave it in the order they came, and go to whoever began to wait last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._items: deque[Any] = deque()
        self._waiters: list[_Waiter] = []

    def put(self, item: Any) -> None:
        """Hand an item to the last who waits, or keep it for whoever comes."""
        with self._lock:
            if not self._waiters:
                self._items.append(item)
                return
            waiter = self._waiters.pop()
        waiter.take(item)

    def get(self, *, block: bool = True) -> Any:
        """Return the first item, and wait for one where there is none.

        :raises queue.Empty: when there is none and it is not to be waited for.
        """
        with self._lock:
            if self._items:
                return self._items.popleft()
            if not block:
                raise Empty
            waiter = _Waiter()
            self._waiters.append(waiter)
        return waiter.wait()

    def get_nowait(self) -> Any:
        """Return the first item.

        :raises queue.Empty: when there is none.
        """
        return self.get(block=False)

    def qsize(self) -> int:
        """Return how many items nobody has taken."""
        return len(self._items)


class _Waiter:
    """Somebody who waits for one item: a lock that is held until it is there."""

    __slots__ = ("_is_there", "_item")

    def __init__(self) -> None:
        self._is_there = Lock()
        self._is_there.acquire()
        self._item: Any = None

    def take(self, item: Any) -> None:
        self._item = item
        self._is_there.release()

    def wait(self) -> Any:
        self._is_there.acquire()
        return self._item
