"""Where a capture writes: held by it from its beginning, and written whole or not at all."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_TRIES: Final = 20


class OutputRefused(Exception):
    """Nothing can be written there, or another capture is about to; the message says which."""


class OutputFailed(Exception):
    """The file could not be written; what was there before is there still."""


class Output:
    """A file that will be written once; until then there is what was there before."""

    def __init__(self, path: Path, part: Path, descriptor: int) -> None:
        self._path = path
        self._part = part
        self._descriptor = descriptor

    def write(self, content: str | bytes) -> None:
        """Write the whole file, put it where it belongs, and see it to the disk.

        :raises OutputFailed: when the disk does not take it.
        """
        try:
            os.ftruncate(self._descriptor, 0)
            with os.fdopen(os.dup(self._descriptor), "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(self._descriptor)
            self._part.replace(self._path)
            _sync_folder(self._path.parent)
        except OSError as error:
            raise OutputFailed(f"{self._path} could not be written: {error.strerror}") from error


@contextmanager
def claim_output(path: Path) -> Iterator[Output]:
    """Hold a place for one capture: it can be written, and nobody else writes there meanwhile.

    A capture that was killed leaves a part behind, which the next one takes over.

    :raises OutputRefused: otherwise, before anything was run.
    """
    try:
        path = path.resolve()
        if path.is_symlink():  # What newer Pythons make of a circle; Python 3.11 raises.
            raise OutputRefused(f"{path} is a circle of links")
        if path.exists() and not path.is_file():
            raise OutputRefused(f"{path} is there and is no file")
        part = path.with_name(f".{path.name}.part")
        descriptor = _lock(part, path)
    except OSError as error:
        raise OutputRefused(f"{path} cannot be written: {error.strerror}") from error
    except (RuntimeError, ValueError) as error:  # A circle of links; a name that no file can have.
        raise OutputRefused(f"{path} cannot be written: {error}") from error
    try:
        yield Output(path, part, descriptor)
    finally:
        # Still under the lock: what is removed here is nobody else's.
        if _is_same(descriptor, part):
            with suppress(OSError):
                part.unlink()
        os.close(descriptor)


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Let a request to end the process end the block as Ctrl-C does, so that it ends what it started."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    asked = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, end) for number in asked]
    try:
        yield
    finally:
        for number, handler in zip(asked, before, strict=True):
            signal.signal(number, handler)


def _lock(part: Path, path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in range(_TRIES):
        descriptor = os.open(part, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise OutputRefused(f"another capture is about to write {path}") from error
        # Whoever held it may have put it in its place or removed it meanwhile.
        if _is_same(descriptor, part):
            return descriptor
        os.close(descriptor)
    raise OutputRefused(f"others keep writing {path}")


def _is_same(descriptor: int, part: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), part.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
