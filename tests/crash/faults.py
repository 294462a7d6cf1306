"""What a crash storm does to the programs: one fault at a time, and how soon there is service."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from tests.crash.clients import Book
from tests.crash.stack import Stack, children_of
from valdrix.embedded import postmaster
from valdrix.embedded.logs import log_tail

WORKER, BOTH_WORKERS = "worker kill -9", "both workers kill -9"
TERMINATED, BACKEND = "pg_terminate_backend", "backend kill -9"
STOPPED = "database stop"
SERVICE_WITHIN_SECONDS = 30.0
DOWN_SECONDS = 1.0
BUSY_TRIES = 300

_PICK = """
SELECT pid, xact_start IS NOT NULL FROM pg_stat_activity
 WHERE usename = 'valdrix_app' AND pid <> pg_backend_pid()
 ORDER BY xact_start IS NULL, random() LIMIT 1
"""


@dataclass
class Damage:
    """What was done, and how long it took until questions were evaluated again."""

    kills: dict[str, int] = field(default_factory=dict)
    service_seconds: dict[str, list[float]] = field(default_factory=dict)
    in_transaction: int = 0
    """How many sessions were ended in the middle of a transaction."""

    def did(self, kind: str, count: int = 1) -> None:
        """Count one fault."""
        self.kills[kind] = self.kills.get(kind, 0) + count

    @property
    def worker_kills(self) -> int:
        """How many workers were killed."""
        return self.kills.get(WORKER, 0) + self.kills.get(BOTH_WORKERS, 0)


class Chaos:
    """Damages a stack while clients use it."""

    def __init__(self, stack: Stack, book: Book) -> None:
        self._stack = stack
        self._book = book
        self._known_workers: list[int] = []
        self.damage = Damage()
        self._by_kind: dict[str, Callable[[], float]] = {
            WORKER: self._kill_worker,
            BOTH_WORKERS: self._kill_both_workers,
            TERMINATED: self._terminate_backend,
            BACKEND: self._kill_backend,
            STOPPED: self._stop_database,
        }

    def strike(self, kind: str) -> float:
        """Do one fault and wait for service; return how long that took, in seconds."""
        since = self._by_kind[kind]()
        deadline = since + SERVICE_WITHIN_SECONDS
        while (came := self._book.first_answer_after(since)) is None:
            if time.monotonic() > deadline:
                seen = f"{dict(self._book.counts)}, {self._book.faults[:5]}"
                said = log_tail(self._stack.web.log)
                raise AssertionError(f"no service after: {kind}; clients saw {seen}\n{said}")
            time.sleep(0.005)
        self.damage.service_seconds.setdefault(kind, []).append(came - since)
        return came - since

    def wait_for_workers(self, count: int) -> None:
        """Wait until gunicorn has its workers again."""
        deadline = time.monotonic() + SERVICE_WITHIN_SECONDS
        while len(self._stack.worker_pids()) < count:
            assert time.monotonic() < deadline, "gunicorn does not replace its workers"
            time.sleep(0.02)

    def _kill_worker(self) -> float:
        return self._kill_workers(WORKER, [self._oldest_worker()])

    def _kill_both_workers(self) -> float:
        return self._kill_workers(BOTH_WORKERS, self._stack.worker_pids())

    def _kill_workers(self, kind: str, pids: list[int]) -> float:
        since = time.monotonic()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.damage.did(kind, len(pids))
        return since

    def _oldest_worker(self) -> int:
        """Return the worker that has been there longest: a younger one may not serve yet."""
        pids = self._stack.worker_pids()
        kept = [pid for pid in self._known_workers if pid in pids]
        self._known_workers = kept + [pid for pid in pids if pid not in kept]
        return self._known_workers[0]

    def _terminate_backend(self) -> float:
        with self._stack.admin() as admin:
            pid = self._pick_backend(admin)
            since = time.monotonic()
            row = admin.execute("SELECT pg_terminate_backend(%s)", [pid]).fetchone()
        assert row == (True,), f"session {pid} was gone before it could be ended"
        self.damage.did(TERMINATED)
        return since

    def _kill_backend(self) -> float:
        """Kill one session's process; the server then ends all sessions and recovers."""
        running = postmaster.find_running(self._stack.server.data)
        assert running is not None
        with self._stack.admin() as admin:
            pid = self._pick_backend(admin)
            assert pid in children_of(running.pid), f"{pid} is no process of this server"
            since = time.monotonic()
            os.kill(pid, signal.SIGKILL)
        self.damage.did(BACKEND)
        return since

    def _stop_database(self) -> float:
        """Stop the server as a power cut would, leave it down, and start it again.

        The time until there is service counts from the moment the start begins.
        """
        running = postmaster.find_running(self._stack.server.data)
        assert running is not None
        os.kill(running.pid, signal.SIGQUIT)
        while postmaster.is_alive(running.pid):
            time.sleep(0.01)
        time.sleep(DOWN_SECONDS)
        port, since = self._stack.server.port, time.monotonic()
        self._stack.server.start()
        assert self._stack.server.port == port, "another program took the database's port"
        self.damage.did(STOPPED)
        return since

    def _pick_backend(self, admin: psycopg.Connection) -> int:
        """Return a session of the application, one inside a transaction if there is any soon."""
        for _ in range(BUSY_TRIES):
            row = admin.execute(_PICK).fetchone()
            if row is not None and row[1]:
                self.damage.in_transaction += 1
                break
            time.sleep(0.002)
        assert row is not None, "the application has no session"
        return int(row[0])
