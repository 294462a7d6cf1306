"""Files of evidence, as somebody else made them: read within bounds, and only what is a file."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import Final

EVIDENCE_BYTES: Final = 16 * 1024 * 1024
"""What one piece of evidence may have; the longest that is captured has a hundredth of it."""
EVIDENCE_VALUES: Final = 10**6
"""How many values it may hold; the longest that is captured has a fiftieth of them."""
ARTIFACT_BYTES: Final = 128 * 1024 * 1024
"""What a file beside it may have: a log, a report, a bill of materials."""
_NOT_THE_PROJECT: Final = frozenset({".git", ".valdrix", ".venv"})


class Unreadable(Exception):
    """A file is not there, is none, or is too long; the message says which."""


def read_bounded(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file.

    A pipe would be waited for, and a device has no end.

    :raises Unreadable: in every other case.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unreadable(f"{path} is no file")
            body = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Unreadable(f"{path} cannot be read: {reason}") from error
    if len(body) > most:
        raise Unreadable(f"{path} has more than {most} bytes")
    return body


def find_in(root: Path, name: str) -> Path | None:
    """Return what a repository has under a plain relative name, a folder too, None for nothing.

    Another spelling, a way out of the repository, and what only this machine has are nothing.
    """
    plain = PurePosixPath(name)
    if str(plain) != name or plain.is_absolute() or {".", ".."} & {name, *plain.parts}:
        return None
    if plain.parts[0] in _NOT_THE_PROJECT:
        return None
    try:
        path = (root / name).resolve()
        return path if path.is_relative_to(root.resolve()) and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # A name that no file can have; a circle of links.
        return None


def read_text_in(root: Path, name: str) -> str | None:
    """Return the text of a file of a repository, None when it has none of that name."""
    path = find_in(root, name)
    try:
        return None if path is None else read_bounded(path, ARTIFACT_BYTES).decode()
    except (Unreadable, UnicodeDecodeError):
        return None


def read_beside(folder: Path, name: str) -> bytes | None:
    """Return a file of the folder itself: evidence names no other place."""
    if Path(name).name != name:
        return None
    try:
        return read_bounded(folder / name, ARTIFACT_BYTES)
    except Unreadable:
        return None
