"""Events of connections, each once until it is asked for again."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator

import pytest

from valdrix.gunicorn_poller import Poller


@pytest.fixture
def poller() -> Iterator[Poller]:
    """Give a queue."""
    made = Poller()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give a connection, ours and theirs."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def call(_: object) -> None:
    """Be called."""


def test_a_connection_has_one_event_until_it_is_armed_again(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    poller.add(ours, call)
    assert poller.select(0) == []

    theirs.send(b"x")
    ((key, _),) = poller.select(5)
    assert (key.fileobj, key.data) == (ours, call)
    theirs.send(b"y")
    theirs.close()
    assert poller.select(0) == []

    poller.arm(ours)
    assert len(poller.select(5)) == 1
    assert poller.select(0) == []


def test_another_file_has_its_event_until_it_is_read(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), selectors.EVENT_READ, call)
    theirs.send(b"x")

    assert len(poller.select(5)) == len(poller.select(5)) == 1
    ours.recv(1)
    assert poller.select(0) == []


def test_who_is_not_looked_for_any_more_has_no_event(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    poller.add(ours, call)
    theirs.send(b"x")

    assert poller.unregister(ours).data is call
    assert poller.select(0) == []
    with pytest.raises(KeyError):
        poller.unregister(ours)


def test_the_number_of_one_that_was_closed_is_free_for_another(poller: Poller) -> None:
    first, other = socket.socketpair()
    number = first.fileno()
    poller.add(first, call)
    first.close()
    other.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert number in (ours.fileno(), theirs.fileno())
        near, far = (ours, theirs) if ours.fileno() == number else (theirs, ours)
        poller.add(near, call)
        far.send(b"x")
        ((key, _),) = poller.select(5)
        assert key.fileobj is near
