"""A thread's limit cuts its own connections, in time, and nothing else."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from valdrix.kernel.http.measuring import MeasuringMiddleware
from valdrix.kernel.postgresql.deadline import (
    Guard,
    guard_socket,
    patience,
    remaining_seconds,
    time_limit,
)

SOON = 0.05
LATER = 30.0


@pytest.fixture(autouse=True)
def _no_other_connections() -> None:
    """Leave nothing of earlier tests that this thread's limits would cut as well."""
    connections.close_all()


@pytest.fixture
def guarded() -> Iterator[tuple[socket.socket, Guard]]:
    """Give one end of a connection whose other end never says anything."""
    ours, theirs = socket.socketpair()
    guard = guard_socket(ours.fileno())
    ours.settimeout(LATER)
    yield ours, guard
    guard.release()
    ours.close()
    theirs.close()


def test_whoever_waits_is_told_when_the_time_is_over(guarded: tuple[socket.socket, Guard]) -> None:
    ours, _ = guarded

    with time_limit(SOON):
        assert ours.recv(1) == b"", "cut: the end of the stream, not the socket's own time-out"


def test_a_limit_that_has_ended_cuts_nothing(guarded: tuple[socket.socket, Guard]) -> None:
    ours, _ = guarded

    with time_limit(SOON):
        pass
    ours.settimeout(3 * SOON)

    with pytest.raises(TimeoutError):
        ours.recv(1)


def test_an_inner_limit_does_not_lengthen_the_outer(guarded: tuple[socket.socket, Guard]) -> None:
    ours, _ = guarded

    with time_limit(SOON), time_limit(LATER):
        assert (remaining_seconds() or 0) <= SOON
        assert ours.recv(1) == b""


def test_an_inner_limit_ends_before_the_outer(guarded: tuple[socket.socket, Guard]) -> None:
    ours, _ = guarded

    with time_limit(LATER):
        with time_limit(SOON):
            assert ours.recv(1) == b""
        assert (remaining_seconds() or 0) > 1
    assert remaining_seconds() is None


def test_another_threads_connection_is_left_alone(guarded: tuple[socket.socket, Guard]) -> None:
    ours, _ = guarded
    ours.settimeout(4 * SOON)

    def limited() -> None:
        with time_limit(SOON):
            threading.Event().wait(2 * SOON)

    other = threading.Thread(target=limited)
    other.start()
    with pytest.raises(TimeoutError):
        ours.recv(1)
    other.join()


def test_a_released_connection_is_not_cut_though_its_number_is_used_again() -> None:
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    guard = guard_socket(number)
    with time_limit(SOON):
        guard.release()
        ours.close()
        again, other = socket.socketpair()
        assert number in {again.fileno(), other.fileno()}
        again.settimeout(3 * SOON)
        with pytest.raises(TimeoutError):
            again.recv(1)
    for end in (again, other, theirs):
        end.close()


def test_a_forked_process_keeps_its_limits_and_leaves_its_parents_connections(
    guarded: tuple[socket.socket, Guard],
) -> None:
    ours, _ = guarded
    fresh, silent = socket.socketpair()
    child = os.fork()
    if child == 0:
        guard_socket(fresh.fileno())
        fresh.settimeout(2.0)
        status = 1
        try:
            with time_limit(SOON):
                status = 0 if fresh.recv(1) == b"" else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ours.settimeout(SOON)
    with pytest.raises(TimeoutError):
        ours.recv(1)
    fresh.close()
    silent.close()


def test_a_thread_is_as_patient_after_a_request_as_before_however_that_ends() -> None:
    """The thread's next work may be no request: what a broken one left would cut it."""

    def seen() -> float | None:
        with patience():
            return remaining_seconds()

    def answer(request: HttpRequest) -> HttpResponse:
        assert (seen() or 0.0) > 0.0
        if request.path == "/breaks":
            raise SystemExit
        return HttpResponse()

    application = MeasuringMiddleware(answer)
    assert application(RequestFactory().get("/ends")).status_code == 200
    assert seen() is None
    with pytest.raises(SystemExit):
        application(RequestFactory().get("/breaks"))
    assert seen() is None
