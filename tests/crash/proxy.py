"""A TCP proxy that fails where it is told to: at a statement, after some bytes, by going silent."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

BEFORE, LATE, UNANSWERED, DELAYED, SWALLOWED = (
    "before",
    "late",
    "unanswered",
    "delayed",
    "swallowed",
)
"""What becomes of the bytes that match: never sent on; sent on when the client is gone; sent on,
and the connection is cut when the server answers; sent on after a while; lost, as everything
after them, with nothing cut."""


@dataclass
class Cut:
    """One failure, which happens once: at the first chunk from the client that matches.

    :ivar pattern: the bytes to look for; with ``after_bytes`` they do not matter.
    :ivar after_bytes: how many of the client's bytes pass before the cut, instead of a pattern.
    :ivar happened: set when the connection was cut or the delay began.
    """

    pattern: bytes = b""
    kind: str = BEFORE
    after_bytes: int | None = None
    delay_seconds: float = 0.3
    happened: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Forwards 127.0.0.1:``port`` to a server; ``arm`` prepares the next failure."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._cut: Cut | None = None
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.port = self._listener.getsockname()[1]
        self.passed_bytes = 0
        self._is_stalled = threading.Event()
        self._spoiled: dict[socket.socket, str] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, cut: Cut) -> Cut:
        """Let the next chunk that matches fail."""
        self.passed_bytes, self._cut = 0, cut
        return cut

    def stall(self) -> None:
        """Swallow everything from now on, of new connections too, and break none of them."""
        self._is_stalled.set()

    def flow(self) -> None:
        """Let new connections through again; what was swallowed is lost, and so are its ends."""
        self._is_stalled.clear()
        for pair in self._pairs:
            _cut_off(*pair)

    def spoil(self, kind: str) -> None:
        """Let what is open now fail when it is used next, as behind a fail-over; new ones pass.

        :param kind: ``BEFORE`` to be cut, ``SWALLOWED`` to be silent.
        """
        self._spoiled = {client: kind for client, _ in self._pairs}

    def close(self) -> None:
        """Stop listening and cut every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            _cut_off(*pair)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._pairs.append((client, server))
                lost = threading.Event()
                for pump in (self._to_server, self._to_client):
                    threading.Thread(target=pump, args=(client, server, lost), daemon=True).start()

    def _to_server(
        self, client: socket.socket, server: socket.socket, lost: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                spoiled = self._spoiled.get(client)
                if spoiled == BEFORE:
                    break
                if self._is_stalled.is_set() or spoiled == SWALLOWED:
                    continue
                cut, start = self._cut, self.passed_bytes
                self.passed_bytes += len(data)
                if cut is None or not _is_met(cut, data, self.passed_bytes):
                    server.sendall(data)
                    continue
                self._cut = None
                if cut.after_bytes is not None:
                    server.sendall(data[: cut.after_bytes - start])
                self._fail(cut, data, client, server, lost)
        _cut_off(client, server)

    def _fail(
        self,
        cut: Cut,
        data: bytes,
        client: socket.socket,
        server: socket.socket,
        lost: threading.Event,
    ) -> None:
        cut.happened.set()
        if cut.kind == SWALLOWED:
            self.stall()
        elif cut.kind == DELAYED:
            time.sleep(cut.delay_seconds)
            server.sendall(data)
        elif cut.kind == UNANSWERED:
            lost.set()  # Before the server can answer.
            server.sendall(data)
        elif cut.kind == LATE:
            lost.set()
            _cut_off(client)
            time.sleep(cut.delay_seconds)
            server.sendall(data)
        else:
            _cut_off(client, server)

    def _to_client(
        self, client: socket.socket, server: socket.socket, lost: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if self._is_stalled.is_set():
                    continue
                if lost.is_set():
                    break
                client.sendall(data)
        _cut_off(client, server)


def _is_met(cut: Cut, data: bytes, passed_bytes: int) -> bool:
    return cut.pattern in data if cut.after_bytes is None else passed_bytes >= cut.after_bytes


def _cut_off(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextlib.contextmanager
def proxied(connection: Any) -> Iterator[Proxy]:
    """Let a Django connection of this process reach its database through a proxy."""
    connection.close()
    real = dict(connection.settings_dict)
    made = Proxy(real["HOST"], int(real["PORT"]))
    connection.settings_dict.update(HOST="127.0.0.1", PORT=str(made.port))
    try:
        yield made
    finally:
        connection.close()
        connection.settings_dict.update(real)
        made.close()
