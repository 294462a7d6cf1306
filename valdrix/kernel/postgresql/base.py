"""What Django loads: its own PostgreSQL wrapper, whose connections are had in time or not at all."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Final

import psycopg
from django.db import Error, InternalError, OperationalError
from django.db.backends.postgresql import base
from django.db.utils import DatabaseErrorWrapper
from psycopg.abc import Buffer
from psycopg.types.datetime import TimestamptzLoader

from valdrix.kernel.postgresql.circuit import CircuitOpen, find_circuit
from valdrix.kernel.postgresql.deadline import (
    Guard,
    guard_socket,
    patience,
    remaining_seconds,
    time_limit,
)
from valdrix.kernel.postgresql.sessions import IDLE, Connection, Session, is_idle, is_quiet

CONNECT_SECONDS: Final = 1.0
"""What one connection may take to open for a caller that has a limit."""
SILENT_SECONDS: Final = 0.25
"""An attempt that was given this long and got no word met a server that does not answer."""
_USABLE_SECONDS: Final = 1.0
_LONGER: Final = itertools.cycle((0.0, 0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875))
"""By how much of its age a session outlives the age that the settings give it, one after the other."""
_PROBE_SECONDS: Final = 2.0


class _Attempt:
    """One connection being opened by a thread of its own, which may be left to itself.

    The driver's own time-out is in whole seconds and does not cover the look-up of the name.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._is_left = False
        self._had: Connection | None = None
        self._error: Exception | None = None
        threading.Thread(target=self._run, name="database-connect", daemon=True).start()

    def _run(self) -> None:
        had, error = None, None
        try:
            had = self._connect()
        except Exception as raised:  # noqa: BLE001 - raised again where it is waited for
            error = raised
        with self._lock:
            self._had, self._error = had, error
            self._ended.set()
            is_left = self._is_left
        if is_left and had is not None:
            had.close()

    def wait(self, seconds: float) -> Connection:
        """Return the connection.

        :raises psycopg.errors.ConnectionTimeout: when it did not come in time; when it comes
            later, it is closed.
        """
        self._ended.wait(seconds)
        with self._lock:
            if not self._ended.is_set():
                self._is_left = True
                raise psycopg.errors.ConnectionTimeout("no connection within the caller's limit")
        if self._error is not None:
            raise self._error
        assert self._had is not None
        return self._had


class MomentLoader(TimestamptzLoader):
    """Reads moments in UTC as Python itself reads ISO 8601, a tenth of the time of Django's way.

    A page of fifty rows has a few hundred of them. What is spelled in another way (another zone,
    before Christ, infinite) is left to the driver.
    """

    timezone = UTC  # Django asks for it, and puts its own loader in where it is another one.

    def load(self, data: Buffer) -> datetime:
        """Return a moment as an aware datetime in UTC."""
        text = bytes(data)
        if text.endswith(b"+00"):
            try:
                return datetime.fromisoformat(text.decode("ascii"))
            except ValueError:
                pass
        return super().load(data).astimezone(UTC)


class _LettingGo(DatabaseErrorWrapper):
    """Raises the driver's errors as Django's, which hold no frame that holds them.

    The frame in which Django makes one holds it, and it holds the frame: all that called the database
    would be left for the garbage collector, a whole request with each lock that was not had.
    """

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)
        except Error as raised:
            raise raised.with_traceback(traceback) from raised.__cause__


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's connection to PostgreSQL, behind a circuit breaker and under its thread's limits."""

    sends_begin = False
    """BEGIN and COMMIT are among the statements sent, and the driver begins nothing by itself."""

    _guard: Guard | None = None
    _is_kept = False
    """The session is this thread's until its request ends, whatever transactions end before."""
    _lost_at: float | None = None
    """When the session before was lost: those that have not answered since may be lost, too."""
    _answered_at = 0.0
    """When the server was last known to answer in this session."""

    @cached_property
    def wrap_database_errors(self) -> DatabaseErrorWrapper:
        """What raises the driver's errors as Django's."""
        return _LettingGo(self)

    def _set_autocommit(self, autocommit: bool) -> None:  # noqa: FBT001 - Django's own
        # The driver takes a lock and a generator for it, even where it is so already.
        wanted = autocommit or self.sends_begin
        with self.wrap_database_errors:
            if self.connection.autocommit != wanted:
                self.connection.autocommit = wanted

    def connect(self) -> None:
        """Take a session that nobody has, or open one.

        A session plans the statements of each page when it is first asked for one. Sessions that were
        opened by one rush of requests would all be opened anew, and plan, in the midst of another: so
        they do not end at the same moment as those opened with them.
        """
        # Whose time is over finds no connection, not even one that is open.
        if IDLE.are_shared and remaining_seconds() != 0:
            session = IDLE.take(self.alias, since=self._lost_at)
            if session is not None:
                self._resume(session)
                return
        # To open one ends as a transaction does, and it is not to be given back before it was used.
        self._is_kept = True
        try:
            super().connect()
        except psycopg.Error as error:
            session = self._find_instead(error)
            if session is None:
                raise
            self._resume(session)
            return
        except BaseException:
            self.close()  # One that is not prepared is nobody's.
            raise
        finally:
            self._is_kept = False
        if self.close_at is not None:
            self.close_at += self.settings_dict["CONN_MAX_AGE"] * next(_LONGER)

    def _find_instead(self, error: psycopg.Error) -> Session | None:
        """Return a session where opening one was refused, though it may be lost as the one before was.

        A server that refuses may have no room for another one, and those that wait may be good.
        """
        is_silent = isinstance(error, psycopg.errors.ConnectionTimeout) or (
            isinstance(error, CircuitOpen) and error.is_silent
        )
        if is_silent or self._lost_at is None or not IDLE.are_shared:
            return None
        return IDLE.take(self.alias, since=None)

    def _resume(self, session: Session) -> None:
        """Be as after :meth:`connect`, with a session that was opened before."""
        self.connection, self._guard = session.connection, session.guard
        self.close_at, self._answered_at = session.close_at, session.answered_at
        self._lost_at = None
        self.autocommit = True
        self.in_atomic_block = self.closed_in_transaction = False
        self.needs_rollback = self.errors_occurred = False
        self.savepoint_ids, self.atomic_blocks, self.run_on_commit = [], [], []
        self.health_check_enabled = self.settings_dict["CONN_HEALTH_CHECKS"]
        self.health_check_done = True
        session.guard.adopt()

    def give_back(self) -> None:
        """Give the session to whoever needs one next, where nothing is open in it or wrong with it."""
        guard = self._guard
        if not IDLE.are_shared or self._is_kept or guard is None or self.connection is None:
            return
        if self.in_atomic_block or self.errors_occurred or not is_idle(self.connection):
            return
        if not guard.leave():
            return
        session = Session(self.connection, guard, self.close_at, self._answered_at)
        self.connection, self._guard = None, None
        IDLE.give(self.alias, session)

    def set_autocommit(
        self,
        autocommit: bool,  # noqa: FBT001 - Django's own
        force_begin_transaction_with_broken_autocommit: bool = False,  # noqa: FBT001, FBT002 - Django's own
    ) -> None:
        """Begin a transaction, or be done with one; its session is then anybody's."""
        if autocommit and self.connection is None:
            return  # Lost with its transaction: whoever needs another one fetches it.
        super().set_autocommit(autocommit, force_begin_transaction_with_broken_autocommit)
        if autocommit:
            self.give_back()

    def chunked_cursor(self) -> Any:
        """Open a cursor that the server keeps, perhaps beyond a transaction, and the session with it."""
        self.ensure_connection()
        self._is_kept = True
        return super().chunked_cursor()

    def close_if_unusable_or_obsolete(self) -> None:
        """Be done with a request: close what is of no use to the next one, and give back the rest.

        A cursor that the server keeps may be held beyond the request by whoever did not read it to its
        end, and its session is closed with it.
        """
        if not self.in_atomic_block and (self._is_cut or (self._is_kept and IDLE.are_shared)):
            self.close()
        super().close_if_unusable_or_obsolete()
        self.give_back()

    def drop_if_lost(self) -> None:
        """Close a session that is lost, within a request and outside a transaction; fetch no other."""
        if self.connection is None or self.in_atomic_block:
            return
        if self._is_cut or not self.is_usable():
            self.close()
        else:
            self.errors_occurred = False

    @property
    def _is_cut(self) -> bool:
        return self._guard is not None and self._guard.is_cut

    def ensure_connection(self) -> None:
        """Have a connection, and another one in the place of one that a limit cut which is over."""
        if self._is_cut and not self.in_atomic_block:
            self.close()
        super().ensure_connection()

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        """Open a connection within the thread's limit.

        :raises CircuitOpen: at once, while the server is known not to answer.

        Errors come without the driver's frames, which hold them, and by way of which everybody who
        called would be left for the garbage collector.
        """
        circuit = find_circuit(conn_params)
        circuit.check()
        connect: Callable[[], Connection] = partial(super().get_new_connection, conn_params)
        began = time.monotonic()
        try:
            connection = _connect_in_time(connect)
        except psycopg.errors.ConnectionTimeout as error:
            # A caller with hardly any time left learnt nothing about the server.
            if time.monotonic() - began >= SILENT_SECONDS:
                circuit.failed(used_up_its_time=True, probe=partial(_probe, conn_params))
            raise error.with_traceback(None) from error.__cause__
        except psycopg.Error as error:
            circuit.failed(used_up_its_time=False, probe=partial(_probe, conn_params))
            raise error.with_traceback(None) from error.__cause__
        circuit.succeeded()
        self._lost_at = None
        self.note_answer()
        connection.adapters.register_loader("timestamptz", MomentLoader)
        self._release_guard()
        self._guard = guard_socket(connection.pgconn.socket)
        return connection

    def note_answer(self) -> None:
        """Remember that the server has answered in this session."""
        self._answered_at = time.monotonic()

    def _commit(self) -> None:
        with patience():
            self._end(super()._commit)  # type: ignore[misc]  # the stubs leave it out

    def _rollback(self) -> None:
        self._end(super()._rollback)  # type: ignore[misc]  # the stubs leave it out

    def _end(self, end: Callable[[], None]) -> None:
        """End a transaction.

        :raises OperationalError: when the session was lost meanwhile, whatever the driver says of the
            messages of a proxy in between.
        """
        has_begun = self.connection is not None and not is_idle(self.connection)
        try:
            end()
        except InternalError as error:
            if self.connection.pgconn.status == psycopg.pq.ConnStatus.OK:
                raise
            raise OperationalError(str(error)) from error.__cause__
        if has_begun:
            self.note_answer()

    def _close(self) -> None:
        if self.connection is not None:
            is_lost = self._is_cut or self.connection.pgconn.status != psycopg.pq.ConnStatus.OK
            self._lost_at = time.monotonic() if is_lost else None
        self._is_kept = False
        self._release_guard()
        super()._close()  # type: ignore[misc]  # the stubs leave it out

    def _release_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.release()

    def is_usable(self) -> bool:
        """Tell whether the connection answers, and soon.

        A server that ended a session has closed its socket, which is seen without asking; one that
        has gone silent is found by the first statement, under its caller's own limit.
        """
        if self.connection is not None and is_quiet(self.connection):
            return True
        with time_limit(_USABLE_SECONDS):
            return super().is_usable()


def _connect_in_time(connect: Callable[[], Connection]) -> Connection:
    remaining = remaining_seconds()
    if remaining is None:
        return connect()
    if remaining == 0:
        raise psycopg.errors.ConnectionTimeout("the caller's limit is used up")
    return _Attempt(connect).wait(min(remaining, CONNECT_SECONDS))


def _probe(parameters: dict[str, Any]) -> None:
    """Sign in and ask for one row.

    :raises psycopg.Error: when that does not work, or not within two seconds.
    """
    _Attempt(partial(_ask_once, parameters)).wait(_PROBE_SECONDS)


def _ask_once(parameters: dict[str, Any]) -> Connection:
    with psycopg.connect(**parameters) as connection:
        connection.execute("SELECT 1")
    return connection
