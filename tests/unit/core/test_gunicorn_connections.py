"""What a web process knows of its connections, whatever comes at one moment."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from gunicorn.config import Config

from valdrix.gunicorn_connections import STOPPING_SECONDS, PatientWorker
from valdrix.gunicorn_peers import WHOLE_BYTES, Peer, Received
from valdrix.gunicorn_poller import Poller

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
    """A worker without a master and threads, which notes what it would answer."""

    def __init__(self, connections: int) -> None:
        config = Config()
        config.set("worker_connections", connections)
        config.set("threads", 2)
        super().__init__(1, 0, [], None, 30, config, None)
        self.poller = Poller()
        self.method_queue.init()
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.sockets = [self.listener]
        self.set_accept_enabled(True)
        self.asked: list[bytes] = []
        self.peers: list[socket.socket] = []

    def enqueue_req(self, conn: Any) -> None:
        """Do at once what a thread would."""
        done: Future[Any] = Future()
        done.set_result(self.handle(conn))
        self._answered(conn, done)

    def answer(self, conn: Any) -> bool:
        """Note what is asked, and go on with the connection."""
        self.asked.append(conn.parser.unreader.take_buffered())
        return True

    def refuse(self, code: str) -> bytes:
        """Return the code."""
        return code.encode()

    def connect(self, sent: bytes = b"") -> socket.socket:
        """Connect a peer."""
        peer = socket.create_connection(self.address, timeout=5)
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
        for conn in {*self._receiving, *self._parting, *self.keepalived_conns}:
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
        del worker._receiving[conn]
    for conn in connections[:2]:
        fail(worker, conn)
    worker.turn()
    fail(worker, connections[2])
    worker.peers[0].close()

    worker.turn(3)

    assert worker.nr_conns == len(worker._parting) == 2


def test_a_stop_answers_what_was_sent_before(worker: Worker) -> None:
    for _ in range(7):
        worker.connect(HEAD + b"\r\n")
    worker.alive = False
    worker.set_accept_enabled(False)

    worker.turn(3)

    assert worker.asked == [HEAD + b"\r\n"] * 7
    with pytest.raises(ConnectionRefusedError):
        worker.connect()


def test_a_stop_in_the_middle_of_a_round_looks_for_nobody_any_more(worker: Worker) -> None:
    worker.connect()
    worker.alive = False
    worker.set_accept_enabled(True)
    assert (worker.nr_conns, worker._accepting) == (1, False)

    worker.accept(worker.listener)

    assert worker.nr_conns == 1


def test_a_stop_gives_the_rest_a_moment(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    half, silent = worker.connect(b"GET"), worker.connect()
    worker.turn(3)
    for received in worker._receiving.values():
        received.since -= 5.0
    worker.alive = False
    worker.set_accept_enabled(False)
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

    assert worker.asked == [HEAD + b"\r\n"] * 8


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

    assert worker.asked == []
    assert peer.recv(99) == answer
    assert worker.nr_conns == 0


def test_a_connection_waits_for_its_next_request_without_the_main_thread(worker: Worker) -> None:
    peer = worker.connect(HEAD + b"\r\n")
    worker.turn(2)
    assert len(worker.keepalived_conns) == 1

    peer.sendall(HEAD + b"A: b\r\n\r\n")
    worker.turn()

    assert worker.asked == [HEAD + b"\r\n", HEAD + b"A: b\r\n\r\n"]
    assert worker.nr_conns == len(worker.keepalived_conns) == 1


def test_an_event_of_a_connection_that_a_thread_has_is_none(worker: Worker) -> None:
    peer = worker.connect(HEAD + b"\r\n")
    worker.turn(2)
    conn = worker.keepalived_conns.popleft()
    peer.sendall(HEAD + b"\r\n")
    worker.turn()
    assert len(worker.asked) == 1

    worker._rest(conn)
    worker.turn()

    assert len(worker.asked) == 2


def test_a_request_whose_rest_came_while_it_was_looked_at_is_whole(worker: Worker) -> None:
    peer = worker.connect(HEAD)
    worker.turn(3)
    (conn,) = worker._receiving
    received = worker._receiving.pop(conn)
    peer.sendall(b"\r\n")
    worker.turn()
    assert worker.asked == []

    worker._receive_rest(conn, received)
    worker.turn()

    assert worker.asked == [HEAD + b"\r\n"]


def test_a_look_that_finds_nothing_waits_on(worker: Worker) -> None:
    peer = worker.connect()
    worker.turn()
    (conn,) = worker._receiving
    del worker._receiving[conn]
    worker.enqueue_req(conn)
    worker.turn()
    assert worker.asked == []
    assert list(worker._receiving) == [conn]

    peer.sendall(HEAD + b"\r\n")
    worker.turn()

    assert worker.asked == [HEAD + b"\r\n"]


def test_who_hangs_up_between_two_requests_is_let_go_of_at_once(worker: Worker) -> None:
    peer = worker.connect(HEAD + b"\r\n")
    worker.turn(2)
    peer.close()

    worker.turn(2)

    assert (worker.nr_conns, worker._parting) == (0, {})


def test_a_connection_that_an_answer_closed_is_counted_no_more(worker: Worker) -> None:
    worker.connect(HEAD + b"\r\n")
    worker.turn(2)
    conn = worker.keepalived_conns.popleft()
    conn.sock.close()
    fail(worker, conn)

    worker.turn()
    worker.connect(HEAD + b"\r\n")
    worker.turn(2)

    assert (worker.nr_conns, len(worker.asked)) == (1, 2)


def test_one_that_begins_to_wait_while_the_process_stops_waits_a_moment(worker: Worker) -> None:
    peer = worker.connect(HEAD + b"\r\n")
    worker.alive = False

    worker.turn(3)

    (conn,) = worker.keepalived_conns
    assert conn.timeout <= time.monotonic() + STOPPING_SECONDS
    peer.sendall(HEAD + b"\r\n")
    worker.turn(2)
    assert (len(worker.asked), len(worker.keepalived_conns)) == (2, 1)


def test_a_fault_in_a_thread_is_logged_and_ends_the_connection(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.log = logging.getLogger("gunicorn.error")
    peer = worker.connect(HEAD + b"\r\n")
    worker.turn(2)
    failed: Future[bool] = Future()
    failed.set_exception(SystemExit(3))
    with caplog.at_level("ERROR", logger="gunicorn.error"):
        worker._answered(worker.keepalived_conns.popleft(), failed)
        worker.turn()

    assert caplog.messages == ["a connection failed outside the application"]
    assert peer.recv(1) == b""


def test_a_peer_stays_as_it_is_and_asks_the_system_for_what_is_new_only() -> None:
    ours, theirs = socket.socketpair()
    with Peer(fileno=ours.detach()) as peer, theirs:
        assert peer.is_quiet()
        assert peer.take() is None
        peer.setblocking(False)
        assert peer.gettimeout() is None
        os.set_blocking(peer.fileno(), False)
        peer.settimeout(None)
        assert not os.get_blocking(peer.fileno())
        peer.settimeout(3.0)
        assert peer.gettimeout() == 3.0
        theirs.send(b"x")
        assert not peer.is_quiet()
        assert peer.take() == b"x"
        theirs.close()
        assert not peer.is_quiet()
        assert peer.take() == b""
    assert not peer.is_quiet(), "a closed one has nothing to wait for"
