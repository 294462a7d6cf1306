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
import re
import selectors
import socket
import struct
import time
from collections.abc import Callable
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
"""So long after its last byte a peer that was answered may go on; hung up on, it might lose the answer."""
MOST_PARTING_SECONDS: Final = 30.0
STOPPING_SECONDS: Final = 2.0
"""So long a process that is to stop waits for requests that have not come."""
WHOLE_BYTES: Final = 64 * 1024
"""A body up to this is received before a thread gets it; a head beyond it is refused."""
_PARTING_BYTES: Final = 64 * 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024
_LOOK_SECONDS: Final = 0.25
_MOST_DIGITS: Final = 18
_END: Final = b"\r\n\r\n"
_MAY_BEGIN: Final = re.compile(rb"[A-Za-z\r\n]")
_NOBODY_THERE: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED})
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE})
_STALL: Final = struct.pack("@ll", int(STALL_SECONDS), 0)


class Received:
    """What is there of a request.

    :ivar since: when it began, or the connection before it did; by the monotonic clock.
    :ivar data: its bytes so far.
    """

    __slots__ = ("_wanted", "data", "since")

    def __init__(self, since: float, data: bytes = b"") -> None:
        self.since = since
        self.data = bytearray()
        self._wanted: int | None = None
        self.add(data)

    def add(self, piece: bytes) -> None:
        """Add what came; no byte is looked at twice, however small the pieces are."""
        at = max(0, len(self.data) - len(_END) + 1)
        self.data += piece
        if self._wanted is None:
            end = self.data.find(_END, at)
            if end >= 0:
                body = _body_to_receive(bytes(self.data[: end + 2]))
                self._wanted = end + len(_END) + body

    @property
    def is_whole(self) -> bool:
        """Tell whether it can be read, or refused, without waiting for its sender.

        Of a long body its beginning is enough, and so is the head where its sender waits for a word before
        it sends the rest, or does not say how much that is.
        """
        return self._wanted is not None and len(self.data) >= self._wanted

    @property
    def fault(self) -> str | None:
        """The code of what is wrong with it already; None for nothing."""
        if self._wanted is None and len(self.data) > WHOLE_BYTES:
            return "header_fields_too_large" if b"\r\n" in self.data else "uri_too_long"
        if self.data and not _MAY_BEGIN.match(self.data):
            return "malformed_request"
        return None


def _body_to_receive(head: bytes) -> int:
    """Return how many bytes of the body behind a head are received before a thread gets it."""
    head = head.lower()
    if b"\r\nexpect:" in head or b"\r\ntransfer-encoding:" in head:
        return 0
    _, is_declared, after = head.partition(b"\r\ncontent-length:")
    declared = after.partition(b"\r\n")[0].strip() if is_declared else b""
    if not declared.isdigit():
        return 0
    length = int(declared) if len(declared) < _MOST_DIGITS else WHOLE_BYTES
    return min(length, WHOLE_BYTES)


@dataclass(slots=True)
class _Parting:
    """What a peer that was answered still sends; moments are by the monotonic clock."""

    since: float
    last: float
    left: int = _PARTING_BYTES


class PatientWorker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """Receives requests and parts from peers in its main thread, which waits for none of them."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._receiving: dict[TConn, Received] = {}
        self._parting: dict[TConn, _Parting] = {}
        # A connection is in it from the moment a thread is to have it, or found more than it wanted.
        self._begun: dict[TConn, bytes] = {}
        self._looked_at = 0.0
        self._stops_since: float | None = None

    def get_thread_pool(self) -> WarmThreads:
        """Return the threads that answer."""
        return WarmThreads(self.cfg.threads)

    def refuse(self, code: str) -> bytes:
        """Return the answer to a request that no thread gets."""
        raise NotImplementedError

    # What follows runs in the main thread, up to `handle`. An event may come that belongs to what a
    # connection was doing before another event of the same moment: then nothing is to be done.

    def accept(self, listener: socket.socket) -> None:
        """Take a connection, and receive its first request."""
        if self.cfg.is_ssl:
            super().accept(listener)
            return
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self.log.warning("no room for another connection: %s", error.strerror)
            elif error.errno not in _NOBODY_THERE:
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
        self._receiving[conn] = Received(time.monotonic())
        self.poller.modify(client, selectors.EVENT_READ, partial(self._receive, conn))
        self._receive(conn, client)

    def _receive_next(self, conn: TConn, data: bytes = b"") -> None:
        """Begin to receive a request, and give up the oldest where too many are being received."""
        conn.sock.settimeout(0)
        self._receiving[conn] = Received(time.monotonic(), data)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._receive, conn))
        fault = self._receiving[conn].fault
        if fault is not None:
            self._turn_away(conn, fault)
        elif len(self._receiving) > self.cfg.worker_connections // 2:
            self._give_up(next(iter(self._receiving)))

    def _receive(self, conn: TConn, client: socket.socket) -> None:
        """Take what is there, and hand the request over when it is complete."""
        received = self._receiving.get(conn)
        if received is None:
            return
        try:
            piece = client.recv(_PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._end_receiving(conn)
            self._close(conn)
            return
        if piece and not received.data:
            received.since = time.monotonic()
        received.add(piece)
        fault = received.fault
        if fault is None and received.is_whole:
            self._end_receiving(conn)
            self._begun[conn] = bytes(received.data)
            self.enqueue_req(conn)
        elif fault is not None or (received.data and not piece):
            self._turn_away(conn, fault or "malformed_request")
        elif not piece:
            self._end_receiving(conn)
            self._close(conn)

    def _end_receiving(self, conn: TConn) -> None:
        del self._receiving[conn]
        self.poller.unregister(conn.sock)

    def murder_pending(self) -> None:
        """Give up those who are too late: with their request, or with hanging up."""
        super().murder_pending()
        now = time.monotonic()
        if not self.alive and self._stops_since is None:
            self._stops_since = now
        if now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        stops = self._stops_since is not None and now - self._stops_since >= STOPPING_SECONDS
        for conn, received in list(self._receiving.items()):
            if stops or now - received.since >= RECEIVE_SECONDS:
                self._give_up(conn)
        for conn, parting in list(self._parting.items()):
            if now - parting.last >= PARTING_SECONDS or now - parting.since >= MOST_PARTING_SECONDS:
                self._part_for_good(conn)

    def _give_up(self, conn: TConn) -> None:
        """Part from who is too late, unless the rest has come meanwhile."""
        self._receive(conn, conn.sock)
        received = self._receiving.get(conn)
        if received is not None and received.data:
            self._turn_away(conn, "request_timeout")
        elif received is not None:
            self._end_receiving(conn)
            self._part_from(conn)

    def _turn_away(self, conn: TConn, code: str) -> None:
        self._end_receiving(conn)
        try:
            conn.sock.send(self.refuse(code))
        except OSError:
            self._close(conn)
        else:
            self._part_from(conn)

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        """Receive the next request of a connection whose last one was answered, or part from it."""
        begun = self._begun.pop(conn, None)
        if fs.cancelled() or fs.exception() is not None or not fs.result():
            self._part_from(conn)
        elif begun is None:
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
        now = time.monotonic()
        self._parting[conn] = _Parting(now, now)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._discard, conn))
        if len(self._parting) > self.cfg.worker_connections // 4:
            self._part_for_good(next(iter(self._parting)))

    def _discard(self, conn: TConn, client: socket.socket) -> None:
        parting = self._parting.get(conn)
        if parting is None:
            return
        try:
            piece = client.recv(_PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        parting.left -= len(piece)
        parting.last = time.monotonic()
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
            if not Received(0.0, more).is_whole:
                return True

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Answer a request; with one whose body is not all there the connection ends.

        Whoever reads such a body reads all of it or fails: one that the peer broke off is not a shorter one.
        """
        unreader = conn.parser.unreader
        length = getattr(req.body.reader, "length", None)
        if length is None or length > unreader.buf.getbuffer().nbytes:
            req.force_close()
            unreader.chunk = partial(_read_on, unreader.chunk)
        return super().handle_request(req, conn)

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:  # noqa: FBT001 - gunicorn's own
        """Tell whether a connection can have another request: what nobody read of this one is there."""
        return bool(keepalive and conn.parser.finish_body())


def _read_on(chunk: Callable[..., bytes], size_hint: int | None = None) -> bytes:
    piece = chunk(size_hint)
    if not piece:
        raise ConnectionAbortedError(errno.ECONNABORTED, "the peer ended within a body")
    return piece
