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

from valdrix.kernel.throttling.windows import SLOTS, Bucket, Limit, Taken

_ENTRY: Final = struct.Struct(f"<16sqId{SLOTS}I")
"""Whose counts they are, and a bucket: its newest part, its refusals, when a token is due, its counts."""
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
        self._path = directory / "throttle.v2"
        self._clock = clock
        self._entries = entries
        self._lock = threading.Lock()
        self._opened: tuple[int, int, mmap.mmap] | None = None

    def take(self, limits: Sequence[Limit]) -> Taken:
        """Take one token of every limit, or of none.

        :raises OSError: when the file cannot be used.
        """
        return self._ask(limits, is_taking=True)

    def look(self, limits: Sequence[Limit]) -> Taken:
        """Tell what taking would meet; a refusal is noted, and nothing is taken.

        :raises OSError: when the file cannot be used.
        """
        return self._ask(limits, is_taking=False)

    def _ask(self, limits: Sequence[Limit], *, is_taking: bool) -> Taken:
        with self._lock:
            descriptor, table = self._open()
            fcntl.lockf(descriptor, fcntl.LOCK_EX, 1)
            try:
                return self._count(table, limits, self._clock(), is_taking=is_taking)
            finally:
                fcntl.lockf(descriptor, fcntl.LOCK_UN, 1)

    def _count(
        self, table: mmap.mmap, limits: Sequence[Limit], now: float, *, is_taking: bool
    ) -> Taken:
        found = [self._find(table, limit, now) for limit in limits]
        used = tuple(bucket.used for _, bucket in found)
        for position, (limit, (place, bucket)) in enumerate(zip(limits, found, strict=True)):
            wait = bucket.find_wait(limit, now)
            if wait is not None:
                bucket.note_refusal()
                _write(table, place, limit, bucket)
                return Taken(position, wait.whole_seconds, used, wait.certain_seconds)
        if not is_taking:
            return Taken(None, 0, used)
        for limit, (place, bucket) in zip(limits, found, strict=True):
            bucket.take(limit, now)
            _write(table, place, limit, bucket)
        return Taken(None, 0, tuple(count + 1 for count in used))

    def _find(self, table: mmap.mmap, limit: Limit, now: float) -> tuple[int, Bucket]:
        """Return a limit's place, and its bucket as it is now."""
        slot = limit.slot_of(now)
        first = int.from_bytes(limit.digest[:8], "little") % self._entries
        oldest: tuple[int, int] | None = None
        for probe in range(_PROBES):
            place = (first + probe) % self._entries * _ENTRY_BYTES
            digest, newest, refusing, next_at, *counts = _ENTRY.unpack_from(table, place)
            if digest == limit.digest:
                bucket = Bucket(newest, counts, refusing, next_at)
                bucket.move_to(slot)
                return place, bucket
            # Numbers of parts differ between windows; what counts here is which was used last.
            age = -1 if digest == _EMPTY else newest
            if oldest is None or age < oldest[0]:
                oldest = (age, place)
        assert oldest is not None
        return oldest[1], Bucket(slot)

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


def _write(table: mmap.mmap, place: int, limit: Limit, bucket: Bucket) -> None:
    _ENTRY.pack_into(
        table, place, limit.digest, bucket.newest, bucket.refusing, bucket.next_at, *bucket.counts
    )
