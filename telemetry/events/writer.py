"""The writer: a bounded queue, and one thread a process that empties it into the store.

``Writer`` is the emitter that ``valdrix`` binds. Offering costs its caller a few microseconds and
nothing else; the thread is started by the first offer, so that a server's parent process that
forks has none.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from telemetry.events.cardinality import Folding
from telemetry.events.domain import LOSSES, Fate, Row, Unacceptable, build_row, check
from telemetry.events.operations import read_switch, write_batch
from telemetry.store.connection import Connection, reason_of
from valdrix.kernel.emitter import Observation
from valdrix.kernel.metrics import TELEMETRY_EVENTS

log = logging.getLogger("valdrix.telemetry")

_BATCH: Final = 500
_FIRST_PAUSE_SECONDS: Final = 0.5
_IDLE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """How much may wait, and how often the thread looks.

    :ivar queue_events: the most events that wait at one time.
    :ivar flush_seconds: from one emptying of the queue to the next.
    :ivar switch_seconds: from one look at the switch to the next.
    :ivar longest_pause_seconds: how long a store that fails is left alone at most.
    :ivar stop_seconds: how long the end of the process may wait for the thread.
    """

    queue_events: int = 5_000
    flush_seconds: float = 0.25
    switch_seconds: float = 5.0
    longest_pause_seconds: float = 30.0
    stop_seconds: float = 1.5


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of everything that was offered; ``offered`` is the sum of all the rest."""

    offered: int
    waiting: int
    fates: dict[Fate, int]

    @property
    def lost(self) -> int:
        """Return how many events are lost, for whatever reason."""
        return sum(self.fates[fate] for fate in LOSSES)


class Writer:
    """Takes observations from any thread and writes them from one of its own."""

    def __init__(
        self, *, connect: Callable[[], Connection], limits: WriterLimits | None = None
    ) -> None:
        self._connect = connect
        self._limits = limits or WriterLimits()
        self._begin()

    def _begin(self) -> None:
        """Begin as a new process does: nothing waits, nothing is counted, no thread runs."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._queue: deque[Row] = deque()
        self._offered = 0
        self._at_the_door: Counter[Fate] = Counter()  # Counted under the lock.
        self._behind: Counter[Fate] = Counter()  # Counted by the thread alone.
        self._published: Counter[Fate] = Counter()
        self._folding = Folding()
        self._is_on = True
        self._is_given_up = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, seen: Observation) -> None:
        """Queue one observation, or count why not."""
        if self._pid != os.getpid():
            # Of a fork only the calling thread is left: the lock may be held for ever, and what
            # the queue holds is the parent's to write.
            self._begin()
        with self._lock:
            self._offered += 1
            fate = self._offer(seen)
            if fate is not None:
                self._at_the_door[fate] += 1
        if self._thread is None:
            self._start()

    def tally(self) -> Tally:
        """Return what became of everything that was offered in this process."""
        with self._lock:
            fates = {fate: self._at_the_door[fate] + self._behind[fate] for fate in Fate}
            offered = self._offered
        return Tally(offered, offered - sum(fates.values()), fates)

    def stop(self) -> None:
        """Write what waits if the store takes it at once, and end the thread; at most 1.5 s."""
        thread = self._thread
        if thread is None or self._pid != os.getpid():
            return
        self._stop.set()
        thread.join(self._limits.stop_seconds)
        self._give_up_waiting()
        self._publish()
        tally = self.tally()
        if tally.lost:
            lost = ", ".join(f"{fate}={tally.fates[fate]}" for fate in LOSSES if tally.fates[fate])
            log.warning("telemetry lost %d of %d events: %s", tally.lost, tally.offered, lost)

    def _offer(self, seen: Observation) -> Fate | None:
        if self._stop.is_set():
            return Fate.SHUT_DOWN
        if not self._is_on:
            return Fate.SWITCHED_OFF
        if len(self._queue) >= self._limits.queue_events:
            return Fate.QUEUE_FULL
        try:
            check(seen)
            attributes = self._folding.fold(seen.tenant_id, dict(seen.attributes))
            self._queue.append(build_row(seen, attributes))
        except Unacceptable as refusal:
            return refusal.fate
        except Exception:  # noqa: BLE001 - an observation of any other shape is counted, not raised
            return Fate.INVALID
        return None

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="telemetry-writer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # No thread can be had now; the next offer tries again.
            self._thread = None

    def _run(self) -> None:
        """Empty the queue until told to stop. Nothing that goes wrong here ends the thread."""
        session = _Session(self._connect, self._limits)
        while True:
            is_stopping = self._stop.wait(self._limits.flush_seconds)
            if self._queue or not self._is_on:
                self._serve(session, is_stopping=is_stopping)
            else:
                session.close_if_idle()
            self._publish()
            if is_stopping:
                session.close()
                return

    def _serve(self, session: _Session, *, is_stopping: bool) -> None:
        if session.is_pausing or (is_stopping and session.has_failed):
            return
        try:
            store, is_on = session.open()
            if is_on is not None:
                self._is_on = is_on
            if not self._is_on:
                self._discard_waiting()
                return
            self._empty(store)
        except Exception as error:  # noqa: BLE001 - psycopg's, the system's, anything's
            session.fail(error)
        else:
            session.succeed()

    def _empty(self, store: Connection) -> None:
        """Write what waits, up to a batch that is not full: what came meanwhile waits its turn.

        To write a few rows as soon as the last few are written would cost whoever offers them more
        of the store, and of the interpreter, than the rows.
        """
        while rows := self._take():
            self._write(store, rows)
            if len(rows) < _BATCH and not self._stop.is_set():
                return

    def _take(self) -> list[Row]:
        rows: list[Row] = []
        while len(rows) < _BATCH:
            try:
                rows.append(self._queue.popleft())
            except IndexError:
                break
        return rows

    def _write(self, store: Connection, rows: list[Row]) -> None:
        try:
            done = write_batch(store=store, rows=rows)
        except BaseException:
            # Where the connection broke at COMMIT some may be there: counted lost all the same.
            self._count(Fate.STORE_FAILED, len(rows))
            raise
        self._count(Fate.WRITTEN, done.written)
        self._count(Fate.KNOWN, done.known)
        self._count(Fate.REJECTED, done.rejected)

    def _discard_waiting(self) -> None:
        while rows := self._take():
            self._count(Fate.SWITCHED_OFF, len(rows))

    def _give_up_waiting(self) -> None:
        """Count as lost what the thread did not get to, or hangs with; it counts no more itself."""
        with self._lock:
            self._is_given_up = True
            self._queue.clear()
            counted = sum(self._at_the_door.values()) + sum(self._behind.values())
            self._at_the_door[Fate.SHUT_DOWN] += self._offered - counted

    def _count(self, fate: Fate, number: int) -> None:
        with self._lock:
            if not self._is_given_up:
                self._behind[fate] += number

    def _publish(self) -> None:
        """Add what was counted since the last time to the metrics of the process."""
        fates = self.tally().fates
        for fate, number in fates.items():
            new = number - self._published[fate]
            if new:
                TELEMETRY_EVENTS.labels(fate.value).inc(new)
                self._published[fate] = number


class _Session:
    """The thread's connection: opened when needed, closed when idle, paused after a failure."""

    def __init__(self, connect: Callable[[], Connection], limits: WriterLimits) -> None:
        self._connect = connect
        self._limits = limits
        self._store: Connection | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._used_at = 0.0
        self._looked_at = 0.0

    @property
    def is_pausing(self) -> bool:
        """Tell whether the last failure is too recent to try again."""
        return time.monotonic() < self._retry_at

    @property
    def has_failed(self) -> bool:
        """Tell whether the last try failed."""
        return self._failures > 0

    def open(self) -> tuple[Connection, bool | None]:
        """Return the connection, and what the switch says if it was looked at."""
        is_new = self._store is None
        if self._store is None:
            self._store = self._connect()
        now = time.monotonic()
        is_on = None
        if is_new or now - self._looked_at >= self._limits.switch_seconds:
            is_on = read_switch(store=self._store)
            self._looked_at = now
        return self._store, is_on

    def succeed(self) -> None:
        """Note that the store works."""
        if self._failures:
            log.info("telemetry is written again after %d failures", self._failures)
        self._failures = 0
        self._used_at = time.monotonic()

    def fail(self, error: BaseException) -> None:
        """Note that the store failed: close, and leave it alone for a while that doubles."""
        self._failures += 1
        if self._failures == 1:
            log.warning("telemetry cannot be written: %s", reason_of(error), exc_info=error)
        pause = _FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 10)
        self._retry_at = time.monotonic() + min(pause, self._limits.longest_pause_seconds)
        self.close()

    def close_if_idle(self) -> None:
        """Give the connection back when nothing was written for half a minute."""
        if self._store is not None and time.monotonic() - self._used_at > _IDLE_SECONDS:
            self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        store, self._store = self._store, None
        if store is not None:
            store.close()
