"""The database's circuit: opens on failures, is probed with growing pauses, closes by a probe."""

from __future__ import annotations

import itertools
import socket
import threading
import uuid
from collections.abc import Iterator

import pytest
from django.db import OperationalError, connection

from tests.waiting import wait_until
from valdrix.kernel.postgresql import circuit as module
from valdrix.kernel.postgresql.circuit import Circuit, CircuitOpen, answers, find_circuit, pauses
from valdrix.kernel.postgresql.deadline import time_limit


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "KNOCK_SECONDS", 0.01)


class Server:
    """What a probe meets: it fails until it is told to answer."""

    def __init__(self) -> None:
        self.is_up = threading.Event()
        self.probed = threading.Semaphore(0)

    def probe(self) -> None:
        self.probed.release()
        if not self.is_up.is_set():
            raise OSError("nothing there")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.is_up.set()


@pytest.fixture
def circuit() -> Circuit:
    return Circuit(("127.0.0.1", "1", uuid.uuid4().hex))


def test_pauses_double_up_to_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 1.0)

    assert list(itertools.islice(pauses(), 7)) == [1, 2, 4, 8, 16, 30, 30]


def test_two_failures_do_not_open_it(circuit: Circuit, server: Server) -> None:
    for _ in range(2):
        circuit.failed(used_up_its_time=False, probe=server.probe)
        circuit.check()
    circuit.succeeded()
    for _ in range(2):
        circuit.failed(used_up_its_time=False, probe=server.probe)

    circuit.check()
    assert not server.probed.acquire(timeout=0.05)


def test_three_failures_in_a_row_open_it_until_a_probe_succeeds(
    circuit: Circuit, server: Server
) -> None:
    for _ in range(3):
        circuit.failed(used_up_its_time=False, probe=server.probe)

    with pytest.raises(CircuitOpen):
        circuit.check()
    for _ in range(3):
        assert server.probed.acquire(timeout=10), "it goes on probing"
    with pytest.raises(CircuitOpen):
        circuit.check()
    server.is_up.set()
    wait_until(lambda: not circuit.is_open)
    circuit.check()


def test_one_failure_that_used_up_its_time_opens_it(circuit: Circuit, server: Server) -> None:
    circuit.failed(used_up_its_time=True, probe=server.probe)

    wait_until(lambda: circuit.is_open)
    with pytest.raises(CircuitOpen):
        circuit.check()


def test_a_server_that_answers_is_only_slow(server: Server) -> None:
    """A burst of connections on a busy machine does not turn every gate to its fail-safe answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    circuit = Circuit(("127.0.0.1", str(listener.getsockname()[1]), "any"))
    for _ in range(5):
        circuit.failed(used_up_its_time=True, probe=server.probe)

    knocking, _ = listener.accept()
    assert knocking.recv(8) == bytes.fromhex("0000000804d2162f")
    knocking.sendall(b"N")

    wait_until(lambda: not circuit._is_judged)
    circuit.check()
    assert not server.probed.acquire(timeout=0.05)
    knocking.close()
    listener.close()


def test_a_caller_without_time_learns_nothing_about_the_server(database: None) -> None:
    circuit = find_circuit(connection.get_connection_params())
    for _ in range(3):
        connection.close()
        with pytest.raises(OperationalError), time_limit(0):
            connection.ensure_connection()
    circuit.check()
    connection.ensure_connection()


def test_failures_while_it_is_open_start_no_second_prober(
    circuit: Circuit, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(module, "KNOCK_SECONDS", 60.0)
    before = threading.active_count()

    for _ in range(5):
        circuit.failed(used_up_its_time=True, probe=server.probe)

    assert threading.active_count() == before + 1


def test_a_port_that_answers_ends_the_pause(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The back-off of a long outage does not delay its end."""
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 3600.0)
    listener = socket.create_server(("127.0.0.1", 0))
    circuit = Circuit(("127.0.0.1", str(listener.getsockname()[1]), "any"))
    server.is_up.set()
    for _ in range(3):
        circuit.failed(used_up_its_time=False, probe=server.probe)

    knocking, _ = listener.accept()
    assert knocking.recv(8) == bytes.fromhex("0000000804d2162f")
    knocking.sendall(b"N")

    wait_until(lambda: not circuit.is_open)
    knocking.close()
    listener.close()


def test_a_port_that_is_silent_or_shut_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        assert not answers(("127.0.0.1", port, "any"))
    assert not answers(("127.0.0.1", port, "any"))
    assert not answers(("/nowhere", "5432", "any"))
    assert not answers(("127.0.0.1", "not a port", "any"))


def test_each_server_has_a_circuit_of_its_own() -> None:
    here = {"host": "a", "port": 1, "dbname": uuid.uuid4().hex}

    assert find_circuit(here) is find_circuit({**here, "port": "1", "user": "other"})
    assert find_circuit(here) is not find_circuit({**here, "port": 2})
