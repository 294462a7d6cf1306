"""Turns: a job's work in one tenant, and a crew for turns that wait for systems of others."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from django.db import connections

log = logging.getLogger("valdrix.jobs")

WAITED_SECONDS: Final = 20.0
"""So long a run waits for its turns; a new call of another tenant must not wait for a slow one."""
_AT_ONCE: Final = 4
_MOST_IN_PROGRESS: Final = 8
"""Of a job in a process; each turn in progress has a connection of the database."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One tenant's turn of a job."""

    job: str
    work: Callable[[uuid.UUID], dict[str, int]]
    tenant_id: uuid.UUID

    def take(self) -> dict[str, int] | None:
        """Do the work and return its counts; None when it raised, which is logged."""
        try:
            return self.work(self.tenant_id)
        except Exception:
            log.exception("job=%s tenant=%s outcome=failed", self.job, self.tenant_id)
            return None


class Crew:
    """Takes the turns of one job, a few at once and one a tenant, and does not wait for the slow.

    A turn that lasts goes on beside the job's next runs in this process: it holds back its own
    tenant and nobody else.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_progress: set[uuid.UUID] = set()
        self._left_first: uuid.UUID | None = None

    def take(self, turns: Sequence[Turn]) -> list[dict[str, int] | None]:
        """Take the turns that can be taken now, and return the counts of those that ended in time.

        What was not begun by then is left to the next run, which begins with it.
        """
        turns = self._in_order(turns)
        at_once = min(_AT_ONCE, _MOST_IN_PROGRESS - len(self._in_progress), len(turns))
        waiting, done = deque(turns), deque[dict[str, int] | None]()
        # What is under way is brought to its end when the program ends: no daemon, whoever starts it.
        hands = [
            threading.Thread(target=self._work, args=(waiting, done), name="turn", daemon=False)
            for _ in range(at_once)
        ]
        until = time.monotonic() + WAITED_SECONDS
        try:
            for hand in hands:
                hand.start()
            for hand in hands:
                hand.join(max(0.0, until - time.monotonic()))
        finally:
            left = list(waiting)
            waiting.clear()
        ended = list(done)
        self._left_first = left[0].tenant_id if left else None
        return [*ended, {"unfinished": len(turns) - len(ended)}]

    def _in_order(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Return the turns from the one on that the run before had to leave."""
        for number, turn in enumerate(turns):
            if turn.tenant_id == self._left_first:
                return [*turns[number:], *turns[:number]]
        return turns

    def _work(self, waiting: deque[Turn], done: deque[dict[str, int] | None]) -> None:
        """Take one turn after the other, on connections that end with the last.

        None is begun once the program ends.
        """
        try:
            while waiting and threading.main_thread().is_alive():
                try:
                    turn = waiting.popleft()
                except IndexError:  # another hand has it
                    return
                done.append(self._take(turn))
        finally:
            connections.close_all()

    def _take(self, turn: Turn) -> dict[str, int] | None:
        """Take one turn, unless the tenant has one."""
        with self._only_turn_of(turn.tenant_id) as is_only:
            return turn.take() if is_only else {"unfinished": 1}

    @contextmanager
    def _only_turn_of(self, tenant_id: uuid.UUID) -> Iterator[bool]:
        with self._lock:
            is_only = tenant_id not in self._in_progress
            self._in_progress.add(tenant_id)
        try:
            yield is_only
        finally:
            if is_only:
                with self._lock:
                    self._in_progress.discard(tenant_id)
