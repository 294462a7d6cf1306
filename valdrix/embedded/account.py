"""The operating system account that the server runs as.

PostgreSQL refuses to run as root, so root hands the server to an unprivileged account. Such an
account may be unable to reach the clone (below /root, or below a temporary directory of mode 0700);
`can_reach` finds that out by trying, because mode bits alone do not tell (ACLs, mounts).
"""

from __future__ import annotations

import ctypes
import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from valdrix.embedded.errors import EmbeddedError

UNPRIVILEGED_ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """Who runs the server's programs; `drops` says that this is not the account we run as."""

    uid: int
    gid: int
    drops: bool

    def run(
        self, arguments: Sequence[str | Path], *, timeout_seconds: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this account and return what it printed.

        :raises OSError: when the account may not execute the program.
        """
        return subprocess.run(
            [os.fspath(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
            **self.process_options(),
        )

    def spawn(
        self, arguments: Sequence[str | Path], *, output: IO[bytes], dies_with_parent: bool
    ) -> subprocess.Popen[bytes]:
        """Start a program as this account, in a session of its own.

        A session of its own keeps Ctrl-C at the terminal away from it. `dies_with_parent` asks the
        kernel to shut it down when the process that started it is killed (Linux only).
        """
        return subprocess.Popen(
            [os.fspath(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=parent_death_signal() if dies_with_parent else None,  # noqa: PLW1509
            **self.process_options(),
        )

    def process_options(self) -> dict[str, Any]:
        """Give the subprocess options that run a program as this account."""
        options: dict[str, Any] = {"cwd": "/", "env": clean_environment(), "umask": 0o077}
        if self.drops:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def can_reach(self, directory: Path) -> bool:
        """Say whether this account can enter the directory."""
        if not self.drops:
            return os.access(directory, os.X_OK)
        try:
            return self.run(["/bin/sh", "-c", 'cd -- "$1"', "sh", directory]).returncode == 0
        except OSError:
            return False

    def own(self, path: Path) -> None:
        """Make the account the owner of a path that this package created."""
        if self.drops:
            os.chown(path, self.uid, self.gid)


def server_account(data: Path | None) -> Account:
    """Choose the account for a cluster: the owner of its data, if it has any.

    :raises EmbeddedError: when the cluster belongs to another person, or root finds no account.
    """
    own_uid = os.geteuid()
    owner_uid = data.stat().st_uid if data and data.exists() else None
    if own_uid != 0:
        if owner_uid not in (None, own_uid):
            raise EmbeddedError(
                f"The database in {data} belongs to user id {owner_uid}; "
                "run this command as that user or as root."
            )
        return Account(own_uid, os.getegid(), drops=False)
    if data and owner_uid:
        return Account(owner_uid, data.stat().st_gid, drops=True)
    for name in UNPRIVILEGED_ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, drops=True)
    raise EmbeddedError(
        "PostgreSQL refuses to run as root, and this machine has neither a 'postgres' nor a "
        "'nobody' account to run it as; run this command as an ordinary user."
    )


def clean_environment() -> Mapping[str, str]:
    """Give the environment of the server's programs.

    The caller's own is not passed on: PGDATA, PGSERVICE, PGOPTIONS and the like would change what
    these programs do, and the application's secrets are no business of theirs.
    """
    return {"PATH": "/usr/bin:/bin", "LANG": "C", "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}


def parent_death_signal(signal_number: int = 2) -> Any:
    """Give a function that asks for a signal when the parent process dies.

    It is called between fork and exec, where taking a lock could hang: everything that it needs is
    looked up here, before the fork. Where the kernel has no such request (not Linux) it is None.
    """
    try:
        prctl = ctypes.CDLL(None).prctl
    except (AttributeError, OSError):
        return None
    set_parent_death_signal = 1

    def ask() -> None:
        prctl(set_parent_death_signal, signal_number)

    return ask
