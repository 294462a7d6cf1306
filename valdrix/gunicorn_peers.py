"""What a peer of the web server sends, and how much of a request it is."""

from __future__ import annotations

import re
import socket
import time
from typing import Final

WHOLE_BYTES: Final = 64 * 1024
"""A body up to this is received before it is answered; a head beyond it is refused."""
_PIECE_BYTES: Final = 64 * 1024
_MOST_DIGITS: Final = 18
_END: Final = b"\r\n\r\n"
_MAY_BEGIN: Final = re.compile(rb"[A-Za-z\r\n]")


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
    """Return how many bytes of the body behind a head are received before it is answered."""
    head = head.lower()
    if b"\r\nexpect:" in head or b"\r\ntransfer-encoding:" in head:
        return 0
    _, is_declared, after = head.partition(b"\r\ncontent-length:")
    declared = after.partition(b"\r\n")[0].strip() if is_declared else b""
    if not declared.isdigit():
        return 0
    length = int(declared) if len(declared) < _MOST_DIGITS else WHOLE_BYTES
    return min(length, WHOLE_BYTES)


class Peer(socket.socket):
    """A connection that always waits, and looks without waiting where it is asked to.

    Whoever asks the system lets go of the interpreter: what changes nothing is not asked.
    """

    def settimeout(self, value: float | None) -> None:
        """Have a time-out, unless it is the one there is."""
        if value != self.gettimeout():
            super().settimeout(value)

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the standard library's own
        """Stay as it is."""

    def take(self) -> bytes | None:
        """Return what is there, nothing where the peer has ended, None where nothing is there yet.

        :raises OSError: when the connection is broken.
        """
        try:
            return self.recv(_PIECE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def is_quiet(self) -> bool:
        """Tell whether nothing came, the peer's end included."""
        try:
            self.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def look(peer: Peer) -> Received | None:
    """Return what is there of a request, or None where the peer is gone."""
    try:
        piece = peer.take()
    except OSError:
        return None
    return None if piece == b"" else Received(time.monotonic(), piece or b"")
