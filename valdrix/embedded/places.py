"""Where things are kept: in the clone's `.valdrix/`, or outside it where the server can go."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from valdrix.embedded.account import Account
from valdrix.embedded.errors import EmbeddedError

CLUSTER_DIRECTORIES = (Path("/var/lib/valdrix"), Path("/var/tmp/valdrix-clusters"))  # noqa: S108


def project_directory() -> Path:
    """Return the directory of the clone."""
    return Path(__file__).resolve().parents[2]


def default_state_directory() -> Path:
    """Return the clone's directory for what must not be in version control."""
    return project_directory() / ".valdrix"


def prepare_state_directory(state: Path, account: Account) -> None:
    """Create the state directory so that the account can pass through it.

    Only passing through: the files in it are readable by their owner alone.
    """
    mode = 0o711 if account.drops else 0o700
    state.mkdir(parents=True, exist_ok=True)
    if stat.S_IMODE(state.stat().st_mode) != mode:
        state.chmod(mode)


def private_directory(directory: Path, account: Account) -> None:
    """Create a directory that only the account can use."""
    directory.mkdir(mode=0o700, exist_ok=True)
    account.own(directory)


def outside_place(state: Path, account: Account) -> Path:
    """Name the place of a cluster that cannot be inside the state directory.

    :raises EmbeddedError: when there is no such place.
    """
    key = hashlib.sha256(os.fsencode(state)).hexdigest()[:16]
    return shared_directory(CLUSTER_DIRECTORIES, account) / key


def shared_directory(candidates: Sequence[Path], account: Account) -> Path:
    """Return the first candidate that is ours and that the account can reach.

    :raises EmbeddedError: when there is none.
    """
    for candidate in candidates:
        try:
            candidate.mkdir(mode=0o755)
            candidate.chmod(0o755)  # The umask may have taken rights away.
        except FileExistsError:
            pass
        except OSError:
            continue
        details = candidate.lstat()
        # Programs run from here: nobody else may have been able to put them there.
        others_write = details.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        is_ours = stat.S_ISDIR(details.st_mode) and details.st_uid == os.geteuid()
        if is_ours and not others_write and account.can_reach(candidate):
            return candidate
    names = " nor ".join(str(candidate) for candidate in candidates)
    raise EmbeddedError(
        "The account that PostgreSQL runs as cannot enter the directory of this clone, and "
        f"neither {names} can be used instead; move the clone out of the private directory."
    )
