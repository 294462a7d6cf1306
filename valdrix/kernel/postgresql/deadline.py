"""Deadlines: a thread's connections are cut when its time is over and nothing has come.

A network that swallows packets breaks no connection: a read from it waits for ever, and neither
the server's time-outs nor keep-alives, which a proxy may answer, end that. One watchdog thread a
process shuts the socket down instead; the waiting statement then fails as on any lost connection.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final


class Guard:
    """A second handle on a connection's socket, which stays this socket's until it is released.

    The connection's own descriptor may be closed, and its number used again, while the watchdog
    is about to shut it down.
    """

    __slots__ = ("_guards", "_socket", "is_cut")

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._guards: set[Guard] = set()
        self.is_cut = False

    def cut(self) -> None:
        """Shut the connection down, both ways; whoever waits for it is told at once.

        Where the answer had just come, nobody is: the connection is then lost for what follows.
        """
        self.is_cut = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def leave(self) -> bool:
        """Be no more among the connections of a thread that needs it no more.

        :returns: False where it was cut before.
        """
        with _watchdog.changed:
            self._guards.discard(self)
            return not self.is_cut

    def adopt(self) -> None:
        """Be among the connections of the current thread, and let its limits cut this one.

        A limit that has just ended looks for nothing any more: it cuts this one here.
        """
        with _watchdog.changed:
            self._guards = _current.guards
            self._guards.add(self)
            if remaining_seconds() == 0:
                self.cut()

    def release(self) -> None:
        """Let go of a connection that is being closed."""
        with _watchdog.changed:
            self._guards.discard(self)
            self._socket.close()


class Limit:
    """When one block's time is over, by a clock that never jumps."""

    __slots__ = ("ends_at", "guards")

    def __init__(self, ends_at: float, guards: set[Guard]) -> None:
        self.ends_at = ends_at
        self.guards = guards


class _Thread(threading.local):
    """What belongs to the current thread: its connections, its innermost limit and its patience."""

    def __init__(self) -> None:
        self.guards: set[Guard] = set()
        self.limit: Limit | None = None
        self.patience: float | None = None


class _Watchdog:
    """Cuts the connections of those whose limit is over; sleeps until the next one could be."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._limits: set[Limit] = set()
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    def watch(self, limit: Limit) -> None:
        """Cut the limit's connections when its time is over, unless it is dropped before."""
        with self.changed:
            self._limits.add(limit)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            # Most limits end long before they are due: the thread is woken for an earlier one only.
            elif limit.ends_at < self._wakes_at:
                self.changed.notify()

    def drop(self, limit: Limit) -> None:
        """Stop watching; after this the limit cuts nothing."""
        with self.changed:
            self._limits.discard(limit)

    def _run(self) -> None:
        with self.changed:
            while True:
                now = time.monotonic()
                for limit in [one for one in self._limits if one.ends_at <= now]:
                    self._limits.discard(limit)
                    for guard in limit.guards:
                        guard.cut()
                self._wakes_at = min((one.ends_at for one in self._limits), default=math.inf)
                self.changed.wait(None if self._wakes_at == math.inf else self._wakes_at - now)


_watchdog = _Watchdog()
_current: Final = _Thread()


def _start_afresh() -> None:
    """Begin anew in a process that was forked.

    Threads stay behind in the parent, and so does what its connections are for: to shut one down
    here would shut it down there.
    """
    global _watchdog  # noqa: PLW0603 - the one place that may replace it
    _watchdog = _Watchdog()
    _current.guards, _current.limit = set(), None


os.register_at_fork(after_in_child=_start_afresh)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let this thread wait for its database no longer than this, whatever becomes of the network.

    When the time is over, its connections are cut: the statement that waits raises, and those
    that follow in the block find no connection. An outer limit stays in force.
    """
    outer = _current.limit
    ends_at = time.monotonic() + seconds
    if outer is not None:
        ends_at = min(ends_at, outer.ends_at)
    limit = Limit(ends_at, _current.guards)
    _current.limit = limit
    _watchdog.watch(limit)
    try:
        yield
    finally:
        _watchdog.drop(limit)
        _current.limit = outer


def be_patient(seconds: float | None) -> None:
    """Say how long this thread waits for each answer of its database; None waits for ever.

    The server's own time-outs come first: this is for their word that never arrives.
    """
    _current.patience = seconds


@contextmanager
def patience() -> Iterator[None]:
    """Wait no longer in this block than the thread is patient; a limit in force goes before that."""
    if _current.patience is None or _current.limit is not None:
        yield
        return
    with time_limit(_current.patience):
        yield


def remaining_seconds() -> float | None:
    """Return what is left of the innermost limit, never below zero; None without a limit."""
    limit = _current.limit
    return None if limit is None else max(0.0, limit.ends_at - time.monotonic())


def guard_socket(descriptor: int) -> Guard:
    """Let this thread's limits cut a connection of it, by its socket."""
    guard = Guard(descriptor)
    guard.adopt()
    return guard
