"""The threads of a web process share their sessions of the database, and nothing else of each other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import psycopg
import pytest
from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connection,
    connections,
)
from django.db import transaction as django_transaction

from governance.models import ApiKey
from tests.factories.tenants import World
from valdrix.kernel.db import (
    answer_to,
    drop_lost_connection,
    is_database_down,
    read_at_once,
    reading,
    snapshot_reading,
    time_limit,
    transaction,
)
from valdrix.kernel.postgresql.base import DatabaseWrapper
from valdrix.kernel.postgresql.circuit import Circuit
from valdrix.kernel.postgresql.sessions import IDLE, Session

Result = TypeVar("Result")

PID = "SELECT to_json(pg_backend_pid())"


@pytest.fixture(autouse=True)
def _shared() -> Iterator[None]:
    """Share for one test, as a web process does, and leave no session behind."""
    connection.close()
    IDLE.share()
    yield
    connection.close()
    IDLE.stop_sharing()


def elsewhere(act: Callable[[], Result]) -> Result:
    """Return what an act returns in a thread of its own, or raise what it raises there."""
    got: list[Any] = []

    def run() -> None:
        try:
            got.append((act(), None))
        except BaseException as error:  # noqa: BLE001 - raised again below
            got.append((None, error))
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=30)
    (result, error) = got[0]
    if error is not None:
        raise error
    return result


def own_pid() -> int:
    """Return the server's process behind this thread's session, which it gives back at once."""
    return int(answer_to(PID))


def end_session(pid: int) -> None:
    """Let the server end a session, as an operator or a crash does, and wait until it is gone."""

    def end() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            assert cursor.fetchone() == (True,)

    IDLE.are_shared = False
    try:
        elsewhere(end)
    finally:
        IDLE.are_shared = True


def grow_old(pid: int) -> None:
    """Let the time of a session that nobody has be over."""
    idle = IDLE._idle["default"]
    (place,) = (i for i, one in enumerate(idle) if one.connection.info.backend_pid == pid)
    idle[place] = replace(idle[place], close_at=time.monotonic())


def _alive(*pids: int) -> set[int]:
    """Return which of some sessions the server has."""
    found = answer_to("SELECT to_json(array(SELECT pid FROM pg_stat_activity))")
    return set(pids) & set(found)


def _wait_until_gone(pid: int) -> None:
    until = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < until, "the session was not closed"
        time.sleep(0.05)


def test_a_session_that_is_given_back_is_taken_by_the_next_thread(tenant: World) -> None:
    with transaction(tenant.id):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (mine,) = cursor.fetchone()
        other = elsewhere(own_pid)
        assert other != mine, "two transactions at once had one session"

    assert elsewhere(own_pid) == mine, "the last one that was given back comes first"
    assert own_pid() == mine
    assert connection.connection is None


def test_reads_and_transactions_of_each_kind_give_back(tenant: World) -> None:
    with reading(tenant.id):
        ApiKey.objects.count()
    assert connection.connection is None

    assert read_at_once(tenant.id, "SELECT to_json(1)") == b"1"
    assert connection.connection is None

    with django_transaction.atomic(), django_transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert connection.connection is None


def test_nothing_of_a_transaction_is_left_to_the_next_thread(tenant: World) -> None:
    with transaction(tenant.id):
        assert ApiKey.objects.count() == 3
        mine = connection.connection

    def look() -> tuple[bool, list[Any]]:
        with django_transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('valdrix.tenant', true),"
                " (SELECT count(*) FROM pg_settings"
                "   WHERE name LIKE '%_timeout' AND setting <> reset_val),"
                " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"
            )
            return connection.connection is mine, list(cursor.fetchone())

    is_same, left = elsewhere(look)
    assert is_same
    assert left[0] in (None, "")
    assert left[1:] == [0, 0]
    with pytest.raises(DatabaseError, match="no tenant is set"):
        elsewhere(ApiKey.objects.count)


def test_a_transaction_that_failed_leaves_a_session_as_good_as_before(tenant: World) -> None:
    pid = own_pid()

    def fail() -> None:
        with transaction(tenant.id), connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")

    with pytest.raises(DatabaseError):
        fail()
    close_old_connections()

    def count() -> int:
        with reading(tenant.id):
            return ApiKey.objects.count()

    assert elsewhere(own_pid) == pid
    assert elsewhere(count) == 3


def test_a_session_that_the_server_ended_is_not_taken(tenant: World) -> None:
    pid = own_pid()
    end_session(pid)

    with reading(tenant.id):
        assert ApiKey.objects.count() == 3
    assert own_pid() != pid


def test_a_session_that_ended_in_a_transaction_is_not_given_back(tenant: World) -> None:
    pid = own_pid()

    def lose_it() -> None:
        with transaction(tenant.id):
            end_session(pid)
            ApiKey.objects.count()

    with pytest.raises((DatabaseError, InterfaceError)):
        lose_it()

    assert elsewhere(own_pid) != pid


def test_a_limit_does_not_cut_what_was_given_back(tenant: World) -> None:
    with time_limit(0.2):
        with reading(tenant.id):
            assert ApiKey.objects.count() == 3
        pid = elsewhere(own_pid)
        time.sleep(0.4)

    assert elsewhere(own_pid) == pid


def test_a_limit_cuts_the_session_that_was_taken_under_it(tenant: World) -> None:
    pid = own_pid()

    def wait() -> None:
        with time_limit(0.3), reading(tenant.id), connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            assert cursor.fetchone() == (pid,)
            cursor.execute("SELECT pg_sleep(5)")

    began = time.monotonic()
    with pytest.raises((DatabaseError, InterfaceError)):
        elsewhere(wait)
    assert time.monotonic() - began < 4
    assert own_pid() != pid


def be_cut() -> None:
    """Have a session, and lose it by a limit whose time is over."""
    with time_limit(0.5), django_transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(5)")


def lose_one_of_two() -> int:
    """Lose this thread's session, and return the other one, in which nothing was asked since."""
    with django_transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        other = elsewhere(own_pid)
    with pytest.raises((DatabaseError, InterfaceError)):
        be_cut()
    return other


def open_nothing(monkeypatch: pytest.MonkeyPatch, error: psycopg.Error) -> None:
    """Let no session be opened from now on."""

    def refuse(connect: object) -> None:
        raise error

    monkeypatch.setattr("valdrix.kernel.postgresql.base._connect_in_time", refuse)
    monkeypatch.setattr(Circuit, "failed", lambda self, **how: None)


def test_who_lost_one_takes_another_that_has_answered_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = lose_one_of_two()
    open_nothing(monkeypatch, psycopg.errors.ConnectionTimeout("silent"))
    with pytest.raises(DatabaseError, match="silent"):
        own_pid()

    assert elsewhere(own_pid) == other
    assert own_pid() == other, "it was good a moment ago"


def test_nor_is_one_good_in_which_a_thread_only_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    waits, goes_on = threading.Event(), threading.Event()

    def read_a_page() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        waits.set()
        assert goes_on.wait(20)
        close_old_connections()
        assert connection.connection is None

    with ThreadPoolExecutor(1) as pool:
        page = pool.submit(read_a_page)
        assert waits.wait(20)
        with pytest.raises((DatabaseError, InterfaceError)):
            be_cut()
        goes_on.set()
        page.result(20)
    open_nothing(monkeypatch, psycopg.errors.ConnectionTimeout("silent"))

    with pytest.raises(DatabaseError, match="silent"):
        own_pid()


def test_a_server_that_refuses_has_no_room_and_what_waits_may_be_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = lose_one_of_two()
    open_nothing(monkeypatch, psycopg.OperationalError("too many clients"))

    assert [own_pid() for _ in range(3)] == [other] * 3


@pytest.mark.parametrize("is_silent", [False, True])
def test_so_it_is_where_refusals_opened_the_circuit(
    monkeypatch: pytest.MonkeyPatch, *, is_silent: bool
) -> None:
    other = lose_one_of_two()
    circuit = Circuit(("nowhere", "1", "any"))
    circuit._is_open, circuit._is_silent = True, is_silent
    monkeypatch.setattr("valdrix.kernel.postgresql.base.find_circuit", lambda parameters: circuit)

    if is_silent:
        with pytest.raises(DatabaseError, match="does not answer"):
            own_pid()
    else:
        assert own_pid() == other


def test_who_lost_nothing_takes_what_waits_without_opening_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pid = own_pid()
    open_nothing(monkeypatch, psycopg.OperationalError("too many clients"))

    assert own_pid() == pid


def test_a_session_that_was_not_prepared_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: DatabaseWrapper) -> None:
        raise DatabaseError("canceled")

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseWrapper, "init_connection_state", fail)
        with pytest.raises(DatabaseError, match="canceled"):
            own_pid()

    assert connection.connection is None
    assert IDLE.take("default", since=None) is None
    assert own_pid()


def test_a_transaction_whose_rollback_failed_fetches_no_other_session(
    tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = own_pid()
    fetched = []
    connect = DatabaseWrapper.connect

    def lose_it() -> None:
        with transaction(tenant.id):
            end_session(pid)
            monkeypatch.setattr(
                DatabaseWrapper, "connect", lambda self: (fetched.append(1), connect(self))
            )
            ApiKey.objects.count()

    with pytest.raises((DatabaseError, InterfaceError)):
        lose_it()

    assert (connection.connection, fetched) == (None, [])
    with reading(tenant.id):
        assert ApiKey.objects.count() == 3


def test_a_session_lost_in_its_commit_is_lost_whatever_a_proxy_adds(
    tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_it(driver: psycopg.Connection) -> None:
        driver.close()
        raise psycopg.InternalError("received 2 results from command 'COMMIT'")

    def write() -> None:
        with transaction(tenant.id):
            monkeypatch.setattr(psycopg.Connection, "commit", lose_it)
            ApiKey.objects.count()

    with pytest.raises(OperationalError, match="received 2 results") as raised:
        write()
    monkeypatch.undo()

    assert is_database_down(raised.value)
    assert own_pid()


def test_who_lost_one_leaves_what_waits_to_others() -> None:
    with django_transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        other = elsewhere(own_pid)
    with pytest.raises((DatabaseError, InterfaceError)):
        be_cut()

    mine = own_pid()

    assert mine != other
    assert _alive(mine, other) == {mine, other}
    assert own_pid() == mine


def test_whose_time_is_over_takes_none() -> None:
    own_pid()

    with time_limit(0.05):
        time.sleep(0.2)
        with pytest.raises(DatabaseError):
            own_pid()


def test_a_limit_that_ends_while_a_session_is_taken_cuts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own_pid()
    take = IDLE.take

    def take_slowly(alias: str, *, since: float | None) -> Session | None:
        session = take(alias, since=since)
        time.sleep(0.3)
        return session

    monkeypatch.setattr(IDLE, "take", take_slowly)

    def wait() -> None:
        with time_limit(0.2), connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(5)")

    began = time.monotonic()
    with pytest.raises((DatabaseError, InterfaceError)):
        elsewhere(wait)
    assert time.monotonic() - began < 4


def test_a_session_that_is_too_old_is_closed_and_not_taken() -> None:
    pid = own_pid()
    grow_old(pid)

    assert own_pid() != pid
    _wait_until_gone(pid)


def test_what_a_rush_opened_and_nobody_takes_is_closed_when_it_is_too_old() -> None:
    with django_transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (young,) = cursor.fetchone()
        old = elsewhere(own_pid)
    assert _alive(young, old) == {young, old}
    grow_old(old)

    assert own_pid() == young
    _wait_until_gone(old)
    assert _alive(young) == {young}


def test_one_that_is_too_old_is_closed_though_others_wait_longer() -> None:
    with django_transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (young,) = cursor.fetchone()
        lowest = elsewhere(own_pid)
        with_it = threading.Barrier(2)

        def keep() -> int:
            with django_transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                with_it.wait(timeout=20)
                with_it.wait(timeout=20)
                return int(cursor.fetchone()[0])

        # The lowest is taken, so that this one is opened, and given back above it.
        with ThreadPoolExecutor(2) as pool:
            keeps = pool.submit(keep)
            with_it.wait(timeout=20)
            old = elsewhere(own_pid)
            with_it.wait(timeout=20)
            assert keeps.result(timeout=20) == lowest
            pool.submit(connections.close_all).result(timeout=20)
    grow_old(old)

    assert own_pid() == young
    _wait_until_gone(old)
    assert _alive(young, lowest) == {young, lowest}


def test_a_cursor_that_the_server_keeps_keeps_its_session_until_the_request_ends() -> None:
    with connection.chunked_cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 5000)")
        assert cursor.fetchone() == (1,)
        with django_transaction.atomic(), connection.cursor() as other:
            other.execute("SELECT pg_backend_pid()")
            (pid,) = other.fetchone()
        assert elsewhere(own_pid) != pid
        drop_lost_connection()
        assert cursor.fetchone() == (2,)

    close_old_connections()
    _wait_until_gone(pid)


def test_a_session_whose_cursor_nobody_read_to_its_end_is_nobody_elses(tenant: World) -> None:
    held = []

    def begin_to_read() -> int:
        with snapshot_reading(tenant.id):
            rows = ApiKey.objects.iterator(chunk_size=1)
            next(rows)
            held.append(rows)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (pid,) = cursor.fetchone()
        close_old_connections()
        return int(pid)

    pid = elsewhere(begin_to_read)

    assert elsewhere(own_pid) != pid
    _wait_until_gone(pid)
    with pytest.raises((DatabaseError, InterfaceError)):
        list(held.pop())


def test_a_process_that_is_forked_takes_none_of_its_parents_sessions() -> None:
    pid = own_pid()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        os.write(writer, b"none" if IDLE.take("default", since=None) is None else b"one")
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(reader, 10)
    os.close(reader)
    os.close(writer)

    assert said == b"none"
    assert own_pid() == pid
