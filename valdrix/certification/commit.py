"""The commit that this clone is at: its id, whether anything differs from it, its source's digest."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

_COMMIT: Final = re.compile(r"[0-9a-f]{40}", re.ASCII)


class NoCommit(Exception):
    """This is no git clone, or git is not installed; the message says which."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit.

    :ivar tree: the id of what it holds.
    """

    id: str
    tree: str
    committed_at: datetime


def read_commit(root: Path) -> Commit:
    """Return the commit that a clone is at.

    :raises NoCommit: when there is none.
    """
    commit, tree, moment = _git(root, "show", "--no-patch", "--format=%H %T %cI").split()
    return Commit(commit, tree, datetime.fromisoformat(moment))


def is_clean(root: Path) -> bool:
    """Tell whether every file is as the commit has it, and none is there that it does not have.

    :raises NoCommit: when there is no commit.
    """
    return not _git(root, "status", "--porcelain", "--untracked-files=normal")


def find_source_digest(root: Path, commit: str) -> str | None:
    """Return the SHA-256 of a commit's source as ``git archive`` gives it, None for no commit here."""
    if not _COMMIT.fullmatch(commit):
        return None
    try:
        archive = _run(root, ("archive", "--format=tar", commit))
    except NoCommit:
        return None
    return hashlib.sha256(archive).hexdigest()


def _git(root: Path, *arguments: str) -> str:
    return _run(root, arguments).decode().strip()


def _run(root: Path, arguments: Sequence[str]) -> bytes:
    git = shutil.which("git")
    if git is None:
        raise NoCommit("git is not installed")
    done = subprocess.run(  # noqa: S603 - a list of constants and a commit's id
        [git, "-c", "core.quotepath=off", "-C", str(root), *arguments],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise NoCommit(done.stderr.decode(errors="replace").strip())
    return done.stdout
