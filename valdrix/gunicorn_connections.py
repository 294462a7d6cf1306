"""The connections of a web process: who is slow keeps no thread.

Gunicorn's threaded worker hands a connection to a thread before its request is there, and the thread
waits for the rest; and the one thread that looks after all connections waits up to two seconds for each
peer that does not close its own end. So a few strangers who send half a request, or never hang up, stop
the whole process.

Here nobody waits for a peer. A thread takes the first look at what comes on a connection, and answers it
where it is a whole request, of a long body the beginning; what it still reads or sends then has to go on
within a time. The one thread goes on with what came in part, and parts from peers.

Whoever asks the system for something lets go of the interpreter, and the one thread, which has to get it
back from all the others, is what every connection waits for: it asks for next to nothing while requests
come whole.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from gunicorn.workers.gthread import TConn, ThreadWorker

from valdrix.gunicorn_balance import Balance, Counts
from valdrix.gunicorn_peers import Peer, Received, look
from valdrix.gunicorn_poller import Poller
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
_PARTING_BYTES: Final = 64 * 1024 * 1024
_LOOK_SECONDS: Final = 0.25
_AT_ONCE: Final = 8
"""So many connections are taken before anything else is looked at."""
_NO_ROOM_SECONDS: Final = 0.5
_NOBODY_THERE: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED})
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE})
_STALL: Final = struct.pack("@ll", int(STALL_SECONDS), 0)
_GONE: Final = object()
"""What is left of a connection whose peer hung up: nothing to send, nobody to wait for."""


@dataclass(slots=True)
class _Parting:
    """What a peer that was answered still sends; moments are by the monotonic clock."""

    since: float
    last: float
    left: int = _PARTING_BYTES


class PatientWorker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """Gives threads what is there, and waits for nobody; connections with TLS are gunicorn's own matter.

    A connection is in one of three tables, or a thread's: it waits for a request (``keepalived_conns``, or
    ``_receiving`` before the first), for the rest of one (``_receiving``), or for the peer to hang up.
    """

    poller: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._receiving: dict[TConn, Received] = {}
        self._parting: dict[TConn, _Parting] = {}
        # What came of a request that a thread is to answer, or could not answer yet.
        self._begun: dict[TConn, Received] = {}
        self._balance = Balance(Counts(), self.age)
        self._looked_at = 0.0
        self._notified_at = 0.0
        self._no_room_until = 0.0
        self._stops_since: float | None = None

    def get_thread_pool(self) -> WarmThreads:
        """Return the threads that answer."""
        return WarmThreads(self.cfg.threads)

    def refuse(self, code: str) -> bytes:
        """Return the answer to a request that the application does not see."""
        raise NotImplementedError

    def share(self, counts: Counts) -> None:
        """Share new connections with the other processes of the server; before the first."""
        self._balance = Balance(counts, self.age)

    # What follows runs in the main thread, up to `enqueue_req`.

    def run(self) -> None:
        """Serve until the end."""
        self.poller.close()
        self.poller = Poller()
        super().run()

    def notify(self) -> None:
        """Tell the master that this process lives, a few times a second."""
        now = time.monotonic()
        if now - self._notified_at >= _LOOK_SECONDS:
            self._notified_at = now
            super().notify()

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - gunicorn's own
        """Look for new connections, unless they are left to processes with fewer."""
        now = time.monotonic()
        if not self.alive and self._stops_since is None:
            self._stops_since = now
            self._take_the_last()
        may_look = self._stops_since is None and now >= self._no_room_until
        super().set_accept_enabled(enabled and may_look and self._balance.may_take(now))

    def _take_the_last(self) -> None:
        """Take who waits for a process that stops; whoever comes later is refused or somebody else's."""
        self._balance.leave()
        super().set_accept_enabled(False)
        for listener in self.sockets:
            while not self.cfg.is_ssl and self.nr_conns < self.worker_connections:
                if not self._take(listener):
                    break
            listener.close()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Take what happens; look again when what was left to others is one's own."""
        looks = self._accepting
        if self.alive and not looks:
            timeout = min(timeout, self._balance.seconds_left(time.monotonic()) or timeout)
        super().wait_for_and_dispatch_events(timeout)
        if looks and self._accepting:
            self._balance.has_looked()
        if self.alive:
            self._balance.has(self.nr_conns)

    def accept(self, listener: socket.socket) -> None:
        """Take the connections that wait, but for those that are left to others."""
        if self.cfg.is_ssl:
            super().accept(listener)
            return
        for _ in range(_AT_ONCE):
            if self._stops_since is not None:
                return
            if not self._balance.may_take(time.monotonic()):
                self.set_accept_enabled(False)
                return
            if self.nr_conns >= self.worker_connections or not self._take(listener):
                return
            self._balance.has(self.nr_conns)

    def _take(self, listener: socket.socket) -> bool:
        """Take a connection, and give up the oldest where there are too many; tell whether there was one."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self.log.warning("no room for another connection: %s", error.strerror)
                self._no_room_until = time.monotonic() + _NO_ROOM_SECONDS
                self.set_accept_enabled(False)
            elif error.errno not in _NOBODY_THERE:
                raise
            return False
        self.nr_conns += 1
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            client.setsockopt(socket.SOL_SOCKET, option, _STALL)
        peer = Peer(client.family, client.type, client.proto, fileno=client.detach())
        conn = TConn(self.cfg, peer, address, listener.getsockname())
        self._receiving[conn] = Received(time.monotonic())
        self.poller.add(peer, partial(self._go_on, conn))
        self._displace()
        if self.nr_conns > self.max_keepalived and self.keepalived_conns:
            self._end_idle(self.keepalived_conns.popleft())
        return True

    def _go_on(self, conn: TConn, _: socket.socket) -> None:
        """Take an event of a connection, which has no other one until it is armed again.

        It may belong to what the connection was doing before another event of the same moment: a
        connection that is in no table is a thread's, or closed.
        """
        received = self._receiving.get(conn)
        if received is not None and received.data:
            self._receive(conn, received)
        elif received is not None:
            del self._receiving[conn]
            self.enqueue_req(conn)
        elif conn in self._parting:
            self._discard(conn)
        else:
            try:
                self.keepalived_conns.remove(conn)
            except ValueError:
                return
            self.enqueue_req(conn)

    def _receive_rest(self, conn: TConn, received: Received) -> None:
        """Wait for the rest of a request."""
        self._receiving[conn] = received
        if received.fault is not None:
            self._turn_away(conn, received.fault)
            return
        self.poller.arm(conn.sock)
        self._displace()

    def _displace(self) -> None:
        """Give up the oldest where too many requests are waited for."""
        if len(self._receiving) > self.cfg.worker_connections // 2:
            oldest = next(iter(self._receiving))
            self._give_up(oldest, self._receiving[oldest])

    def _receive(self, conn: TConn, received: Received) -> None:
        """Take what is there, and hand the request over when it is complete."""
        try:
            piece = conn.sock.take()
        except OSError:
            del self._receiving[conn]
            self._close(conn)
            return
        if piece is None:
            self.poller.arm(conn.sock)
            return
        received.add(piece)
        if received.fault is not None or (received.data and not piece):
            self._turn_away(conn, received.fault or "malformed_request")
        elif received.is_whole:
            del self._receiving[conn]
            self._begun[conn] = received
            self.enqueue_req(conn)
        elif piece:
            self.poller.arm(conn.sock)
        else:
            del self._receiving[conn]
            self._close(conn)

    def _end_idle(self, conn: TConn) -> None:
        """Close a connection that waits for its next request, unless one has come meanwhile."""
        if conn.sock.is_quiet():
            self._close(conn)
        else:
            self.enqueue_req(conn)

    def murder_keepalived(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - gunicorn's own
        """Close connections that have waited for their next request long enough, or all of them."""
        if force or self.cfg.is_ssl:
            super().murder_keepalived(force)
            return
        now = time.monotonic()
        while self.keepalived_conns and self.keepalived_conns[0].timeout <= now:
            self._end_idle(self.keepalived_conns.popleft())

    def murder_pending(self) -> None:
        """Give up those who are too late: with their request, or with hanging up."""
        super().murder_pending()
        now = time.monotonic()
        if now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        stops = self._stops_since is not None and now - self._stops_since >= STOPPING_SECONDS
        for conn, received in list(self._receiving.items()):
            if stops or now - received.since >= RECEIVE_SECONDS:
                self._give_up(conn, received)
        for conn, parting in list(self._parting.items()):
            if now - parting.last >= PARTING_SECONDS or now - parting.since >= MOST_PARTING_SECONDS:
                self._part_for_good(conn)

    def _give_up(self, conn: TConn, received: Received) -> None:
        """Part from who is too late, unless the rest has come meanwhile."""
        self._receive(conn, received)
        if conn not in self._receiving:
            return
        if received.data:
            self._turn_away(conn, "request_timeout")
        else:
            del self._receiving[conn]
            self._part_from(conn)

    def _turn_away(self, conn: TConn, code: str) -> None:
        del self._receiving[conn]
        try:
            conn.sock.send(self.refuse(code), socket.MSG_DONTWAIT)
        except OSError:
            self._close(conn)
        else:
            self._part_from(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        """Close connections that wait for a request by a moment at the latest; others begin meanwhile."""
        for conn in list(self.keepalived_conns):
            conn.timeout = min(conn.timeout, deadline)

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        """Go on with a connection that a thread is done with."""
        if self.cfg.is_ssl:
            super().finish_request(conn, fs)
            return
        begun = self._begun.pop(conn, None)
        error = None if fs.cancelled() else fs.exception()
        if error is not None:
            self.log.error("a connection failed outside the application", exc_info=error)
        if error is not None or fs.cancelled() or not fs.result():
            self._part_from(conn)
        elif fs.result() is _GONE:
            self._close(conn)
        elif begun is not None:
            self._receive_rest(conn, begun)
        else:
            self._rest(conn)

    def _part_from(self, conn: TConn) -> None:
        """Say that nothing more is sent, and let the peer hang up; RFC 9112, 9.6."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        now = time.monotonic()
        self._parting[conn] = _Parting(now, now)
        self.poller.arm(conn.sock)
        if len(self._parting) > self.cfg.worker_connections // 4:
            self._part_for_good(next(iter(self._parting)))

    def _discard(self, conn: TConn) -> None:
        parting = self._parting[conn]
        try:
            piece = conn.sock.take()
        except OSError:
            piece = b""
        if piece is not None:
            parting.left -= len(piece)
            parting.last = time.monotonic()
        if piece == b"" or parting.left <= 0:
            self._part_for_good(conn)
        else:
            self.poller.arm(conn.sock)

    def _part_for_good(self, conn: TConn) -> None:
        del self._parting[conn]
        self._close(conn)

    def _close(self, conn: TConn) -> None:
        # An answer that broke off has closed it.
        if conn.sock.fileno() >= 0:
            self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def enqueue_req(self, conn: TConn) -> None:
        """Give a connection to a thread."""
        if self.cfg.is_ssl:
            super().enqueue_req(conn)
        else:
            self.tpool.submit(self.handle, conn).add_done_callback(partial(self._answered, conn))

    # What follows runs in a thread that answers.

    def _answered(self, conn: TConn, fs: Future[Any]) -> None:
        """Let a connection wait for its next request; anything else is for the main thread to see to."""
        is_kept = not fs.cancelled() and fs.exception() is None and fs.result() is True
        if is_kept and self.alive and conn not in self._begun:
            self._rest(conn)
        else:
            self.method_queue.defer(self.finish_request, conn, fs)

    def _rest(self, conn: TConn) -> None:
        """Let a connection wait for its next request; of a process that stops, for a moment only."""
        conn.set_timeout()
        self.keepalived_conns.append(conn)
        if not self.alive:
            conn.timeout = min(conn.timeout, time.monotonic() + STOPPING_SECONDS)
        self.poller.arm(conn.sock)

    def handle(self, conn: TConn) -> Any:
        """Answer a request that is there, and those that came with it."""
        if self.cfg.is_ssl:
            return super().handle(conn)
        received = self._begun.pop(conn, None) or look(conn.sock)
        if received is None:
            return _GONE
        while received.fault is None and received.is_whole:
            conn.data_ready = True
            conn.init()
            conn.parser.unreader.unread(received.data)
            if not self.answer(conn):
                return False
            more = conn.parser.unreader.take_buffered()
            if not more:
                return True
            received = Received(time.monotonic(), more)
        self._begun[conn] = received
        return True

    def answer(self, conn: TConn) -> bool:
        """Answer one request, and tell whether the connection can have another one."""
        return bool(super().handle(conn))

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
