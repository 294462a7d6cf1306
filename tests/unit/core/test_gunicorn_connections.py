"""What a web process knows of its connections, whatever comes at one moment."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from gunicorn.config import Config

from valdrix.gunicorn_connections import WHOLE_BYTES, PatientWorker, Received

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("data", "is_whole"),
    [
        (b"", False),
        (HEAD, False),
        (HEAD + b"\r\n", True),
        (HEAD + b"Content-Length: 3\r\n\r\n", False),
        (HEAD + b"Content-Length: 3\r\n\r\nab", False),
        (HEAD + b"content-length:3\r\n\r\nabc", True),
        (HEAD + b"CONTENT-LENGTH:\t3 \r\n\r\nab", False),
        (HEAD + b"Content-Length: 0\r\n\r\n", True),
        (HEAD + b"Content-Length: x\r\n\r\n", True),
        (HEAD + b"Content-Length: -3\r\n\r\n", True),
        (HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n", True),
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (HEAD + b"X-Content-Length: 3\r\n\r\n", True),
        (HEAD + b"Content-Length: 999999\r\n\r\n", False),
        (HEAD + b"Content-Length: 999999\r\n\r\n" + b"x" * WHOLE_BYTES, True),
        (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", False),
        (b"x" * (WHOLE_BYTES + 1), False),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_what_a_thread_can_read_without_waiting(data: bytes, size: int, *, is_whole: bool) -> None:
    received = Received(0.0)
    for at in range(0, len(data), size):
        received.add(data[at : at + size])

    assert (received.is_whole, bytes(received.data)) == (is_whole, data)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", None),
        (b"G", None),
        (b"\r\nG", None),
        (HEAD + b"\r\n", None),
        (b"\x16\x03\x01", "malformed_request"),
        (b"x" * WHOLE_BYTES, None),
        (b"x" * (WHOLE_BYTES + 1), "uri_too_long"),
        (HEAD + b"A: b\r\n" * 20_000, "header_fields_too_large"),
        (HEAD + b"Content-Length: 999999\r\n\r\n" + b"x" * (WHOLE_BYTES + 1), None),
    ],
)
def test_what_is_wrong_before_a_request_is_there(data: bytes, fault: str | None) -> None:
    assert Received(0.0, data).fault == fault


class Worker(PatientWorker):
    """A worker without a master, whose threads are never given anything."""

    def __init__(self, connections: int) -> None:
        config = Config()
        config.set("worker_connections", connections)
        config.set("threads", 2)
        super().__init__(1, 0, [], None, 30, config, None)
        self.poller = selectors.DefaultSelector()
        self.method_queue.init()
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.sockets = [self.listener]
        self.set_accept_enabled(True)
        self.given: list[Any] = []
        self.peers: list[socket.socket] = []

    def enqueue_req(self, conn: Any) -> None:
        """Note who would be answered."""
        self.given.append(conn)

    def refuse(self, code: str) -> bytes:
        """Return the code."""
        return code.encode()

    def connect(self, sent: bytes = b"") -> socket.socket:
        """Connect a peer."""
        peer = socket.create_connection(self.listener.getsockname(), timeout=5)
        self.peers.append(peer)
        peer.sendall(sent)
        return peer

    def turn(self, times: int = 1) -> None:
        """Take what happens, once it has had time to."""
        for _ in range(times):
            time.sleep(0.02)
            self.wait_for_and_dispatch_events(0)
            self._looked_at = 0.0
            self.murder_pending()

    def close(self) -> None:
        """Close everything."""
        for conn in {*self._receiving, *self._parting, *self.given}:
            conn.close()
        for peer in self.peers:
            peer.close()
        self.listener.close()
        self.method_queue.close()
        self.tmp.close()
        self.poller.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Give a worker that takes eight connections."""
    made = Worker(8)
    yield made
    made.close()


def fail(worker: Worker, conn: Any) -> None:
    """Let a connection's request end without another one to come."""
    future: Future[bool] = Future()
    future.set_result(False)
    worker.method_queue.defer(worker.finish_request, conn, future)


def test_who_is_given_up_may_have_sent_something_at_the_same_moment(worker: Worker) -> None:
    for _ in range(4):
        worker.connect()
        worker.turn()
    worker.connect()
    time.sleep(0.02)
    worker.peers[0].send(b"G")

    worker.turn(3)

    assert (len(worker._receiving), worker.nr_conns) == (5 - 1, 4 + len(worker._parting))


def test_who_is_parted_from_may_hang_up_at_the_same_moment(worker: Worker) -> None:
    for _ in range(3):
        worker.connect()
        worker.turn()
    connections = list(worker._receiving)
    for conn in connections:
        worker._end_receiving(conn)
    for conn in connections[:2]:
        fail(worker, conn)
    worker.turn()
    fail(worker, connections[2])
    worker.peers[0].close()

    worker.turn(3)

    assert worker.nr_conns == len(worker._parting) == 2


def test_a_stop_answers_what_was_sent_before(worker: Worker) -> None:
    worker.connect(HEAD + b"\r\n")
    worker.alive = False

    worker.turn(3)

    assert len(worker.given) == 1


def test_a_stop_gives_the_rest_a_moment(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    half, silent = worker.connect(b"GET"), worker.connect()
    worker.turn(3)
    for received in worker._receiving.values():
        received.since -= 5.0
    worker.alive = False
    worker.turn()
    assert len(worker._receiving) == 2

    monkeypatch.setattr("valdrix.gunicorn_connections.STOPPING_SECONDS", 0.0)
    worker.turn()

    assert (half.recv(99), silent.recv(99)) == (b"request_timeout", b"")
    for peer in (half, silent):
        peer.close()
    worker.turn(2)
    assert worker.nr_conns == 0


def test_a_crowd_that_comes_at_once_is_read_before_any_is_given_up(worker: Worker) -> None:
    peers = [worker.connect() for _ in range(8)]
    time.sleep(0.02)
    for peer in peers:
        peer.sendall(HEAD + b"\r\n")

    worker.turn(12)

    assert len(worker.given) == 8


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (HEAD + b"A: b\r\n" * 20_000, b"header_fields_too_large"),
        (b"x" * (2 * WHOLE_BYTES), b"uri_too_long"),
        (b"\x16\x03\x01\x00\xf4", b"malformed_request"),
        (HEAD, b"malformed_request"),
        (HEAD + b"Content-Length: 2\r\n\r\na", b"malformed_request"),
        (b"", b""),
    ],
)
def test_no_thread_gets_what_is_no_request(worker: Worker, sent: bytes, answer: bytes) -> None:
    peer = worker.connect(sent)
    peer.shutdown(socket.SHUT_WR)

    worker.turn(8)

    assert worker.given == []
    assert peer.recv(99) == answer
    assert worker.nr_conns == 0
