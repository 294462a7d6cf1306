"""Counts of this machine's processes, in a file that they all map into memory.

Taking a token costs microseconds and no statement of the database. The lock is the kernel's: a
process that dies while it holds it leaves at worst one count half written.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from valdrix.kernel.throttling.windows import SLOTS, Limit, Taken, forget_past, wait_seconds

_ENTRY: Final = struct.Struct(f"<16sq{SLOTS}I")
_ENTRY_BYTES: Final = 128
_ENTRIES: Final = 8192
_PROBES: Final = 8
_EMPTY: Final = bytes(16)


class SharedFile:
    """A table of counts by digest; the least recently used of eight places gives way."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        entries: int = _ENTRIES,
    ) -> None:
        self._path = directory / "throttle.v1"
        self._clock = clock
        self._entries = entries
        self._lock = threading.Lock()
        self._opened: tuple[int, int, mmap.mmap] | None = None

    def take(self, limits: Sequence[Limit]) -> Taken:
        """Take one token of every limit, or of none.

        :raises OSError: when the file cannot be used.
        """
        with self._lock:
            descriptor, table = self._open()
            fcntl.lockf(descriptor, fcntl.LOCK_EX, 1)
            try:
                return self._take(table, limits, self._clock())
            finally:
                fcntl.lockf(descriptor, fcntl.LOCK_UN, 1)

    def _take(self, table: mmap.mmap, limits: Sequence[Limit], now: float) -> Taken:
        found = [self._find(table, limit, now) for limit in limits]
        used = tuple(sum(counts) for _, _, counts in found)
        for position, limit in enumerate(limits):
            if used[position] >= limit.amount:
                _, slot, counts = found[position]
                wait = wait_seconds(counts, limit, slot=slot, now=now)
                certain = (slot + 1) * limit.part_seconds - now
                return Taken(position, wait, used, certain)
        for limit, (place, slot, counts) in zip(limits, found, strict=True):
            counts[slot % SLOTS] += 1
            _ENTRY.pack_into(table, place, limit.digest, slot, *counts)
        return Taken(None, 0, tuple(count + 1 for count in used))

    def _find(self, table: mmap.mmap, limit: Limit, now: float) -> tuple[int, int, list[int]]:
        """Return a limit's place, the part that it is in, and its counts up to that part."""
        slot = limit.slot_of(now)
        first = int.from_bytes(limit.digest[:8], "little") % self._entries
        oldest: tuple[int, int] | None = None
        for probe in range(_PROBES):
            place = (first + probe) % self._entries * _ENTRY_BYTES
            digest, newest, *counts = _ENTRY.unpack_from(table, place)
            if digest == limit.digest:
                forget_past(counts, newest=newest, slot=slot)
                return place, slot, counts
            # Numbers of parts differ between windows; what counts here is which was used last.
            age = -1 if digest == _EMPTY else newest
            if oldest is None or age < oldest[0]:
                oldest = (age, place)
        assert oldest is not None
        return oldest[1], slot, [0] * SLOTS

    def _open(self) -> tuple[int, mmap.mmap]:
        """Return the file and its memory, opened by this process: a fork has its own."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, 0o600)
            size = self._entries * _ENTRY_BYTES
            if os.fstat(descriptor).st_uid != os.geteuid():
                os.close(descriptor)
                raise PermissionError(f"{self._path} belongs to another user")
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, size)
            self._opened = (os.getpid(), descriptor, mmap.mmap(descriptor, size))
        return self._opened[1], self._opened[2]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._opened is not None:
                self._opened[2].close()
                os.close(self._opened[1])
                self._opened = None
