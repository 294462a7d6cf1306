"""Sessions that the threads of a process share: each is a thread's own from BEGIN to COMMIT only.

A thread that has one to itself keeps it while it reads a request and renders the answer, and every
thread that ever worked has one: ten callers then go round as many sessions, each with plans and a
catalogue of its own that have to be fetched into the processor's caches again. Shared, there are as
many as transactions run at once, and the one that was given back last is taken next.

Nothing of a transaction is left in a session: tenant, time limits and locks end with it.
"""

from __future__ import annotations

import os
import select
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from valdrix.kernel.postgresql.deadline import Guard

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """An open connection that no transaction uses; moments are by the monotonic clock.

    :ivar guard: what cuts it when the time of the thread that has it is over.
    :ivar close_at: when it is too old; None for never.
    :ivar answered_at: when the server was last known to answer in it.
    """

    connection: Connection
    guard: Guard
    close_at: float | None
    answered_at: float

    def is_over(self, now: float) -> bool:
        """Tell whether it is too old."""
        return self.close_at is not None and self.close_at <= now

    def close(self) -> None:
        """Close it."""
        self.guard.release()
        self.connection.close()


class IdleSessions:
    """The sessions of one process that nobody has, by the alias of their database."""

    def __init__(self) -> None:
        # What is collected while it is held may give a session back itself.
        self._lock = threading.RLock()
        self._idle: dict[str, list[Session]] = {}
        self.are_shared = False
        """Whether threads give theirs back; where they do not, each keeps its own."""

    def take(self, alias: str, *, since: float | None) -> Session | None:
        """Return the session that was given back last and is still of use, or None where none is.

        Those that the server ended and those that are too old are closed on the way.

        :param since: when the caller lost the one before: what ended that may have ended all in which
            the server has not answered since, which look open until they are used.
        """
        while True:
            with self._lock:
                idle = self._idle.get(alias, [])
                places = range(len(idle) - 1, -1, -1)
                place = next(
                    (i for i in places if since is None or idle[i].answered_at > since), None
                )
                if place is None:
                    return None
                session = idle.pop(place)
            if is_quiet(session.connection) and not session.is_over(time.monotonic()):
                return session
            session.close()

    def give(self, alias: str, session: Session) -> None:
        """Keep a session for whoever needs one next.

        One that is too old is closed: a rush opens more than are taken again.
        """
        now = time.monotonic()
        with self._lock:
            idle = self._idle.setdefault(alias, [])
            idle.append(session)
            old = next((one for one in idle if one.is_over(now)), None)
            if old in idle:  # What is collected in between may have closed it.
                idle.remove(old)
        if old is not None:
            old.close()

    def share(self) -> None:
        """Let the threads of this process share their sessions from now on."""
        self.are_shared = True

    def stop_sharing(self) -> None:
        """Let each thread keep its own from now on, and close those that nobody has."""
        self.are_shared = False
        with self._lock:
            left = [session for idle in self._idle.values() for session in idle]
            self._idle.clear()
        for session in left:
            session.close()

    def start_afresh(self) -> None:
        """Begin anew in a process that was forked: what is open belongs to the parent."""
        self._lock = threading.RLock()
        self._idle = {}
        self.are_shared = False


IDLE: Final = IdleSessions()

os.register_at_fork(after_in_child=IDLE.start_afresh)


def is_idle(connection: Connection) -> bool:
    """Tell whether a connection is open, as far as is known here, and no transaction is."""
    pgconn = connection.pgconn
    return (
        pgconn.status == psycopg.pq.ConnStatus.OK
        and pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
    )


def is_quiet(connection: Connection) -> bool:
    """Tell whether a connection is open and idle, with nothing to read: no message and no end."""
    if not is_idle(connection):
        return False
    waiting = select.poll()
    waiting.register(connection.pgconn.socket, select.POLLIN | select.POLLHUP | select.POLLERR)
    return not waiting.poll(0)
