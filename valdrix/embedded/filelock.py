"""Advisory file locks, which the kernel releases when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FileLock:
    """One open lock file.

    A lock belongs to this object: two objects exclude each other even in one process, and a child
    made by fork shares it with its parent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire_shared(self) -> None:
        """Wait until nobody holds the lock exclusively, then share it."""
        fcntl.flock(self._open(), fcntl.LOCK_SH)

    def acquire_exclusive(self, *, timeout_seconds: float) -> None:
        """Wait for the lock and hold it alone.

        :raises TimeoutError: when another process keeps it longer than that.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self.try_exclusive():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._path} is held by another process")
            time.sleep(0.02)

    def try_exclusive(self) -> bool:
        """Take the lock alone if that is possible now, and say if it did."""
        try:
            fcntl.flock(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Give the lock up; without a lock it does nothing."""
        if self._descriptor is not None:
            # Closed, not unlocked: a forked child that is still alive goes on holding its copy.
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._descriptor


@contextmanager
def exclusive(path: Path, *, timeout_seconds: float = 120.0) -> Iterator[None]:
    """Hold the lock file alone for the time of the block.

    :raises TimeoutError: when another process keeps it longer than `timeout_seconds`.
    """
    lock = FileLock(path)
    try:
        lock.acquire_exclusive(timeout_seconds=timeout_seconds)
        yield
    finally:
        lock.release()
