"""The users of ``capture_evidence stress``, at servers that are not Valdrix or answer badly."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from valdrix.certification import load
from valdrix.certification.load import Connection, NoAnswer, Question, Server
from valdrix.certification.stress import run_preflight

Answer = Callable[[socket.socket, threading.Event], None]


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    """Answer one question of each connection, then close it."""
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            taken, _ = listener.accept()
            with taken, suppress(OSError):
                taken.recv(65536)
                answer(taken, stopping)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        host, port = listener.getsockname()
        try:
            yield Server(host, port, "key")
        finally:
            stopping.set()
            socket.create_connection((host, port)).close()
            thread.join(10)


def state(body: bytes) -> Answer:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    return lambda taken, _: taken.sendall(head + body)


def send_byte_by_byte(taken: socket.socket, stopping: threading.Event) -> None:
    taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not stopping.wait(0.02):
        taken.sendall(b"x")


def test_an_answer_that_comes_byte_by_byte_is_not_waited_for_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "ANSWER_WITHIN_SECONDS", 0.2)
    with serving(send_byte_by_byte) as server, pytest.raises(NoAnswer, match="timed out"):
        Connection(server).ask(Question("slow", "/slow"), 1)


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"runtime": 7}', b'{"runtime": {}}'])
def test_a_server_that_does_not_say_what_it_runs_on_fails_the_preflight(body: bytes) -> None:
    with serving(state(body)) as server:
        assert run_preflight(server, []) == ({}, ["/health: does not say what it runs on"])


def test_what_a_server_says_of_itself_is_taken_over() -> None:
    with serving(state(b'{"runtime": {"database_engine": "x"}}')) as server:
        assert run_preflight(server, []) == ({"database_engine": "x"}, [])
