"""The connections of a web process: who is slow keeps no thread.

Gunicorn's threaded worker hands a connection to a thread before its request is there, and the thread
waits for the rest; and the one thread that looks after all connections waits up to two seconds for each
peer that does not close its own end. So a few strangers who send half a request, or never hang up, stop
the whole process.

Here that one thread receives requests, and parts from peers, without waiting for anyone. A thread gets a
request when it is there as a whole, of a long body the beginning; what it still reads or sends then has
to go on within a time.
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
import time
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from gunicorn.workers.gthread import TConn, ThreadWorker

from valdrix.kernel.warm_threads import WarmThreads

RECEIVE_SECONDS: Final = 10.0
"""Within so long after its first byte a request has to be there, and that one after the connection."""
STALL_SECONDS: Final = 10.0
"""So long a thread waits for the next piece of a long body, or for a peer to take some of an answer."""
PARTING_SECONDS: Final = 3.0
"""So long a peer that was answered may go on sending; hung up on earlier, it might lose the answer."""
STOPPING_SECONDS: Final = 2.0
WHOLE_BYTES: Final = 64 * 1024
"""A body up to this is received before a thread gets it; so much of a head is never read on."""
_PARTING_BYTES: Final = 64 * 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024
_LEFT_OVER_SECONDS: Final = 0.05
_MOST_DIGITS: Final = 18
_NOBODY_THERE: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED})
_STALL: Final = struct.pack("@ll", int(STALL_SECONDS), 0)


@dataclass(slots=True)
class _Received:
    """What is there of a request; moments are by the monotonic clock."""

    since: float
    data: bytes = b""


@dataclass(slots=True)
class _Parting:
    """How much a peer that was answered may still send."""

    since: float
    left: int = _PARTING_BYTES


class PatientWorker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """Receives requests and parts from peers in its main thread, which waits for none of them."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._receiving: dict[TConn, _Received] = {}
        self._parting: dict[TConn, _Parting] = {}
        # A connection is in it from the moment a thread is to have it, or found more than it wanted.
        self._begun: dict[TConn, bytes] = {}

    def get_thread_pool(self) -> WarmThreads:
        """Return the threads that answer."""
        return WarmThreads(self.cfg.threads)

    def too_late(self) -> bytes:
        """Return the answer to who began a request and did not send the rest."""
        raise NotImplementedError

    # What follows runs in the main thread, up to `handle`.

    def accept(self, listener: socket.socket) -> None:
        """Take a connection, and receive its first request."""
        if self.cfg.is_ssl:
            super().accept(listener)
            return
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in _NOBODY_THERE:
                raise
            return
        self.nr_conns += 1
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            client.setsockopt(socket.SOL_SOCKET, option, _STALL)
        self._receive_next(TConn(self.cfg, client, address, listener.getsockname()))

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """Receive what comes on a connection that waited for its next request."""
        if self.cfg.is_ssl:
            super().on_client_socket_readable(conn, client)
            return
        self.keepalived_conns.remove(conn)
        self._receiving[conn] = _Received(time.monotonic())
        self.poller.modify(client, selectors.EVENT_READ, partial(self._receive, conn))
        self._receive(conn, client)

    def _receive_next(self, conn: TConn, data: bytes = b"") -> None:
        """Begin to receive a request, and give up the oldest where too many are being received."""
        conn.sock.settimeout(0)
        self._receiving[conn] = _Received(time.monotonic(), data)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._receive, conn))
        if len(self._receiving) > self.cfg.worker_connections // 2:
            self._give_up(next(iter(self._receiving)))

    def _receive(self, conn: TConn, client: socket.socket) -> None:
        """Take what is there, and hand the request over when it is complete."""
        received = self._receiving[conn]
        try:
            piece = client.recv(_PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece, received.data = b"", b""
        if piece and not received.data:
            received.since = time.monotonic()
        received.data += piece
        if piece and not is_whole(received.data):
            # Whoever began last comes last again: they are in the order of their moments.
            if received.data == piece:
                self._receiving[conn] = self._receiving.pop(conn)
            return
        self.poller.unregister(client)
        del self._receiving[conn]
        if received.data:
            self._begun[conn] = received.data
            self.enqueue_req(conn)
        else:
            self._close(conn)

    def murder_pending(self) -> None:
        """Give up those who are too late: with their request, or with hanging up."""
        super().murder_pending()
        now = time.monotonic()
        may_take = RECEIVE_SECONDS if self.alive else STOPPING_SECONDS
        for conn, received in list(self._receiving.items()):
            if now - received.since < may_take and (received.data or self.alive):
                break
            self._give_up(conn)
        for conn, parting in list(self._parting.items()):
            if now - parting.since < PARTING_SECONDS:
                break
            self._part_for_good(conn)

    def _give_up(self, conn: TConn) -> None:
        self.poller.unregister(conn.sock)
        if self._receiving.pop(conn).data:
            try:
                conn.sock.send(self.too_late())
            except OSError:
                self._close(conn)
                return
        self._part_from(conn)

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        """Receive the next request of a connection whose last one was answered, or part from it."""
        if fs.cancelled() or fs.exception() is not None or not fs.result():
            self._begun.pop(conn, None)
            self._part_from(conn)
            return
        begun = self._begun.pop(conn, None)
        if begun is None:
            super().finish_request(conn, fs)
        else:
            self._receive_next(conn, begun)

    def _part_from(self, conn: TConn) -> None:
        """Say that nothing more is sent, and let the peer hang up; RFC 9112, 9.6."""
        try:
            conn.sock.settimeout(0)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        self._parting[conn] = _Parting(time.monotonic())
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._discard, conn))
        if len(self._parting) > self.cfg.worker_connections // 4:
            self._part_for_good(next(iter(self._parting)))

    def _discard(self, conn: TConn, client: socket.socket) -> None:
        parting = self._parting[conn]
        try:
            piece = client.recv(_PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        parting.left -= len(piece)
        if not piece or parting.left <= 0:
            self._part_for_good(conn)

    def _part_for_good(self, conn: TConn) -> None:
        del self._parting[conn]
        self.poller.unregister(conn.sock)
        self._close(conn)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    # What follows runs in a thread that answers.

    def handle(self, conn: TConn) -> Any:
        """Answer a request that is there, and those that came with it."""
        while True:
            received = self._begun.pop(conn, None)
            if received is not None:
                conn.data_ready = True
                conn.sock.settimeout(None)
                conn.init()
                conn.parser.unreader.unread(received)
            if not super().handle(conn):
                return False
            more = conn.parser.unreader.take_buffered()
            if not more:
                return True
            self._begun[conn] = more
            if not is_whole(more):
                return True

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:  # noqa: FBT001 - gunicorn's own
        """Tell whether a connection can have another request: what is left of the body is there."""
        until = time.monotonic() + _LEFT_OVER_SECONDS
        return bool(keepalive and conn.parser.finish_body(deadline=until))


def is_whole(data: bytes) -> bool:
    """Tell whether a request can be read, or refused, without waiting for its sender.

    Of a long body its beginning is enough, and so is the head where its sender waits for a word before
    it sends the rest, or does not say how much that is.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return len(data) > WHOLE_BYTES
    head = data[: end + 2].lower()
    if b"\r\nexpect:" in head or b"\r\ntransfer-encoding:" in head:
        return True
    _, is_declared, after = head.partition(b"\r\ncontent-length:")
    declared = after.partition(b"\r\n")[0].strip() if is_declared else b""
    if not declared.isdigit():
        return True
    length = int(declared) if len(declared) < _MOST_DIGITS else WHOLE_BYTES
    return len(data) - end - 4 >= min(length, WHOLE_BYTES)
