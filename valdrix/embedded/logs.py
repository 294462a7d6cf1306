"""Log files of the server and of the supervised programs."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

LIMIT_BYTES = 10_000_000
TAIL_BYTES = 4_000


def open_log(path: Path) -> BinaryIO:
    """Open a log for appending, putting one that is too long aside first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LIMIT_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


def log_tail(path: Path, *, offset: int = 0) -> str:
    """Return the end of what was written to a log after `offset` bytes."""
    with path.open("rb") as stream:
        stream.seek(offset)
        text = stream.read()[-TAIL_BYTES:].decode(errors="replace").strip()
    return text or "(it printed nothing)"
