"""Labelled points of an evaluation, at which a test holds one caller while another one runs.

Every race below is arranged, not hoped for: the first caller stops at its point inside its open
transaction, the rival runs until it has ended or waits for the first one's locks, and the database
itself says which.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pytest
from django.db import connection, connections

from enforcement.gate import evaluate

BEFORE, AFTER = "before", "after"

POINTS: Final[dict[str, tuple[str, str]]] = {
    "after claim": ("claim_key", AFTER),
    "after lock_sharers": ("lock_sharers", AFTER),
    "after lock_accounts": ("lock_accounts", AFTER),
    "after read_snapshot": ("read_snapshot", AFTER),
    "after decide": ("decide", AFTER),
    "after hold": ("hold", AFTER),
    "before append": ("record_decision", BEFORE),
    "before commit": ("record_decision", AFTER),
}
"""Points of ``enforcement.gate.evaluate``, in the order in which an evaluation passes them."""

LABELS: Final = tuple(POINTS)
WAIT_SECONDS: Final = 20.0


def from_point(label: str) -> tuple[str, ...]:
    """Return a point and all that follow it."""
    return LABELS[LABELS.index(label) :]


def before_point(label: str) -> tuple[str, ...]:
    """Return all points that come before one."""
    return LABELS[: LABELS.index(label)]


@dataclass(frozen=True, slots=True)
class Raced:
    """What came of a race.

    :ivar first: what the caller that was held returned.
    :ivar rival: what the other one returned.
    :ivar rival_waited: whether the rival had to wait for a lock of the first.
    """

    first: Any
    rival: Any
    rival_waited: bool


class Race:
    """Holds the first caller at a point, once, until its rival has ended or waits for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, label: str) -> None:
        name, side = POINTS[label]
        self._reached = threading.Event()
        self._may_go_on = threading.Event()
        self._first_thread = 0
        self._first_pid = self._rival_pid = 0
        original = getattr(evaluate, name)

        @functools.wraps(original)
        def stopping(*arguments: Any, **options: Any) -> Any:
            if side == BEFORE:
                self._stop()
            result = original(*arguments, **options)
            if side == AFTER:
                self._stop()
            return result

        monkeypatch.setattr(evaluate, name, stopping)
        # Step by step, as a process does that has not seen the tenant yet: sent together, the
        # steps would all have been taken before the first of them could be stopped.
        monkeypatch.setattr(evaluate, "question_ahead", lambda ask: None)

    def run(self, first: Callable[[], Any], rival: Callable[[], Any]) -> Raced:
        """Run both against one another and return what they did."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            try:
                one = pool.submit(self._as_first, first)
                self._wait_until_reached(one)
                two = pool.submit(self._as_rival, rival)
                waited = self._has_to_wait(two)
            finally:
                self._may_go_on.set()
            return Raced(one.result(WAIT_SECONDS), two.result(WAIT_SECONDS), waited)

    def _stop(self) -> None:
        if threading.get_ident() != self._first_thread or self._reached.is_set():
            return
        self._reached.set()
        assert self._may_go_on.wait(WAIT_SECONDS), "the first caller was never let go"

    def _as_first(self, call: Callable[[], Any]) -> Any:
        self._first_thread = threading.get_ident()
        self._first_pid = backend_pid()
        return _closing(call)

    def _as_rival(self, call: Callable[[], Any]) -> Any:
        self._rival_pid = backend_pid()
        return _closing(call)

    def _wait_until_reached(self, first: Future[Any]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._reached.wait(0.01):
            assert not first.done(), f"the first caller never came to the point: {first.result()}"
            assert time.monotonic() < deadline, "the first caller never came to the point"

    def _has_to_wait(self, rival: Future[Any]) -> bool:
        """Tell whether the rival waits for the first caller; False once it has ended."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            if rival.done():
                return False
            if self._rival_pid and self._first_pid in blockers_of(self._rival_pid):
                return True
            time.sleep(0.01)
        raise AssertionError("the rival neither ended nor waited for the first caller")


def backend_pid() -> int:
    """Return the process id of this thread's database session."""
    connection.ensure_connection()
    pid: int = connection.connection.info.backend_pid
    return pid


def blockers_of(pid: int) -> list[int]:
    """Return the sessions whose locks a session waits for."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_blocking_pids(%s)", [pid])
        found: list[int] = cursor.fetchone()[0]
    return found


def _closing(call: Callable[[], Any]) -> Any:
    try:
        return call()
    finally:
        connections.close_all()
