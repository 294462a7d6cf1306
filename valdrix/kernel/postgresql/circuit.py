"""The circuit breaker of the database: a server that is not there is not asked by every caller.

::

    closed ──3 failures in a row, or one that used up its time at a silent port──> open
       ^                                                                            │
       └─────────────────── a probe of the process's own succeeds ──────────────────┘

An attempt that used up its time proves nothing where the machine is busy: the port is knocked at
before the circuit opens, and a server that answers is only slow. While it is open, whoever wants a connection is told at once that there is none. No caller pays for
finding out that the server is back: a thread probes it, after 1, 2, 4, 8 and so on up to 30
seconds, and besides knocks at its port four times a second. A port that answers is probed at once, so
that the back-off of a long outage does not delay its end.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg

from valdrix.kernel.metrics import DATABASE_CIRCUIT_EVENTS, DATABASE_CIRCUIT_OPEN

log = logging.getLogger("valdrix.database")

FAILURES_ALLOWED: Final = 3
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
KNOCK_SECONDS: Final = 0.25
_ANSWER_SECONDS: Final = 0.5
_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
"""The one message that any PostgreSQL answers before it knows who asks: with one byte."""

Target = tuple[str, str, str]
"""Host, port and database, as text: each server that is talked to has a circuit of its own."""


class CircuitOpen(psycopg.OperationalError):
    """The database did not answer a short while ago; it is not asked now.

    :ivar is_silent: it said nothing; a server that refuses may have no room for another session only.
    """

    is_silent = True


def pauses() -> Iterator[float]:
    """Return the seconds between probes: each twice the one before, up to the longest."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


class Circuit:
    """The circuit of one server, in one process.

    :ivar target: where the server is.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._failures = 0
        self._is_open = False
        self._is_silent = False
        self._is_judged = False

    @property
    def is_open(self) -> bool:
        """Tell whether connections are refused at once."""
        return self._is_open

    def check(self) -> None:
        """Check that the server may be asked.

        :raises CircuitOpen: while it is not to be.
        """
        if self._is_open:
            DATABASE_CIRCUIT_EVENTS.labels("refused").inc()
            error = CircuitOpen("The database does not answer; it is being probed.")
            error.is_silent = self._is_silent
            raise error

    def succeeded(self) -> None:
        """Record that a connection was had."""
        if self._failures:
            with self._lock:
                self._failures = 0

    def failed(self, *, used_up_its_time: bool, probe: Callable[[], None]) -> None:
        """Record that no connection was had.

        :param used_up_its_time: the server did not even refuse; the next caller is not to wait.
        :param probe: tries a connection, and raises when there is none.
        """
        with self._lock:
            if not used_up_its_time:
                self._failures += 1
            is_over = self._failures >= FAILURES_ALLOWED
            if self._is_open or self._is_judged or not (is_over or used_up_its_time):
                return
            self._is_judged = True
        prober = threading.Thread(
            target=self._look_after, args=(probe, is_over), name="database-probe", daemon=True
        )
        try:
            prober.start()
        except RuntimeError:
            # Without a prober it would stay open for ever.
            log.exception("no thread is to be had to probe the database")
            with self._lock:
                self._is_judged = False
            return
        if is_over:
            self._open(is_silent=False)

    def _open(self, *, is_silent: bool) -> None:
        with self._lock:
            if self._is_open:
                return
            self._is_open, self._is_silent = True, is_silent
        DATABASE_CIRCUIT_OPEN.inc()
        DATABASE_CIRCUIT_EVENTS.labels("opened").inc()
        log.error("the database does not answer; it is probed until it does")

    def _look_after(self, probe: Callable[[], None], is_over: bool) -> None:  # noqa: FBT001
        """Open the circuit unless the server answers, and close it once it is back."""
        if is_over or not answers(self.target):
            self._open(is_silent=not is_over)
            self._probe_until_back(probe)
        with self._lock:
            self._is_judged = False

    def _probe_until_back(self, probe: Callable[[], None]) -> None:
        began = time.monotonic()
        for pause in pauses():
            self._rest(pause)
            try:
                probe()
            except Exception as error:  # noqa: BLE001 - whatever it is, there is no connection
                DATABASE_CIRCUIT_EVENTS.labels("probe_failed").inc()
                log.warning("no database yet: %s", type(error).__name__)
            else:
                break
        with self._lock:
            self._is_open, self._failures = False, 0
        DATABASE_CIRCUIT_OPEN.dec()
        DATABASE_CIRCUIT_EVENTS.labels("closed").inc()
        log.warning("the database is back after %.1f s", time.monotonic() - began)

    def _rest(self, pause: float) -> None:
        """Wait for the next probe, or for the port to answer."""
        ends_at = time.monotonic() + pause
        while (left := ends_at - time.monotonic()) > 0:
            time.sleep(min(KNOCK_SECONDS, left))
            if answers(self.target):
                return


def answers(target: Target) -> bool:
    """Tell whether something that speaks PostgreSQL answers there, without signing in."""
    host, port, _ = target
    try:
        with _connect(host, port) as knocking:
            knocking.settimeout(_ANSWER_SECONDS)
            knocking.sendall(_SSL_REQUEST)
            return knocking.recv(1) in {b"S", b"N"}
    except (OSError, ValueError):
        return False


def _connect(host: str, port: str) -> socket.socket:
    if not host.startswith("/"):
        return socket.create_connection((host or "127.0.0.1", int(port)), _ANSWER_SECONDS)
    local = socket.socket(socket.AF_UNIX)
    local.settimeout(_ANSWER_SECONDS)
    try:
        local.connect(f"{host}/.s.PGSQL.{port}")
    except OSError:
        local.close()
        raise
    return local


_circuits: dict[Target, Circuit] = {}


def find_circuit(parameters: dict[str, Any]) -> Circuit:
    """Return the circuit of the server that connection parameters name."""
    target = (
        str(parameters.get("host") or ""),
        str(parameters.get("port") or 5432),
        str(parameters.get("dbname") or ""),
    )
    return _circuits.setdefault(target, Circuit(target))


# A child has none of its parent's threads: an open circuit would stay open in it for ever.
os.register_at_fork(after_in_child=_circuits.clear)
