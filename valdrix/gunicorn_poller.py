"""The system's queue of what happens on the connections of a web process."""

from __future__ import annotations

import select
import selectors
import socket
from collections.abc import Callable
from typing import Any, Final

_ONCE: Final = select.EPOLLIN | select.EPOLLONESHOT


class Poller:
    """Tells whose file has something to read; of a connection once, until it is armed again.

    Threads arm connections themselves. One that is armed while something is there already has its event
    at once, so none is lost, whatever came before.
    """

    def __init__(self) -> None:
        self._queue = select.epoll()
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, file: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Look for what is to be read of a file, again and again while it is not read.

        :param events: ``selectors.EVENT_READ``; there is no other.
        :param data: what is called with the file.
        """
        return self._add(file, events, data, select.EPOLLIN)

    def add(self, connection: socket.socket, call: Callable[[socket.socket], None]) -> None:
        """Let a new connection have one event."""
        self._add(connection, selectors.EVENT_READ, call, _ONCE)

    def arm(self, connection: socket.socket) -> None:
        """Let a connection have one more event."""
        self._queue.modify(connection.fileno(), _ONCE)

    def unregister(self, file: Any) -> selectors.SelectorKey:
        """Look for nothing of a file any more.

        :raises KeyError: when it is not known.
        """
        number = file if isinstance(file, int) else file.fileno()
        key = self._keys.pop(number)
        self._queue.unregister(number)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events, of each file one, for so many seconds at most."""
        events = self._queue.poll(timeout)
        found = ((self._keys.get(number), selectors.EVENT_READ) for number, _ in events)
        return [(key, mask) for key, mask in found if key is not None]

    def close(self) -> None:
        """Be done with all of them."""
        self._queue.close()
        self._keys.clear()

    def _add(self, file: Any, events: int, data: Any, wanted: int) -> selectors.SelectorKey:
        number = file if isinstance(file, int) else file.fileno()
        key = selectors.SelectorKey(file, number, events, data)
        self._queue.register(number, wanted)
        self._keys[number] = key
        return key
