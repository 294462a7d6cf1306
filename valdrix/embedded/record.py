"""What is remembered of a cluster between runs: `.valdrix/postgres.json`, mode 0600."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from valdrix.embedded.errors import EmbeddedError

FILE_NAME = "postgres.json"


def _password() -> str:
    # URL-safe characters only, so that the password needs no quoting in a URL or in SQL.
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Passwords:
    """One password for each role; `admin` is the superuser, which only the set-up uses."""

    admin: str = field(default_factory=_password, repr=False)
    owner: str = field(default_factory=_password, repr=False)
    app: str = field(default_factory=_password, repr=False)
    telemetry: str = field(default_factory=_password, repr=False)


@dataclass(frozen=True)
class ClusterRecord:
    """Which cluster belongs to this clone, and how to get into it."""

    origin: str
    """The state directory this record was written for; another one after the clone was moved."""
    place: str
    """The directory that holds the cluster."""
    passwords: Passwords = field(default_factory=Passwords, repr=False)
    port: int = 0
    """The port it last ran on; 0 before its first start."""
    roles_ready: bool = False
    roles_sha256: str = ""
    """Of the file that the roles were made by: another release's file is run again."""


def find_record(state: Path) -> ClusterRecord | None:
    """Read the record of a state directory, if there is one.

    :raises EmbeddedError: when the file is not what `write_record` wrote.
    """
    path = state / FILE_NAME
    try:
        content = json.loads(path.read_text())
        return ClusterRecord(**content | {"passwords": Passwords(**content["passwords"])})
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise EmbeddedError(f"{path} belongs to another user; run this as that user.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise EmbeddedError(f"{path} is damaged; restore it, or delete {state}.") from error


def write_record(state: Path, record: ClusterRecord) -> None:
    """Replace the record at once and durably."""
    write_private_file(state / FILE_NAME, json.dumps(asdict(record), indent=2) + "\n")


def write_private_file(path: Path, text: str) -> None:
    """Replace a file, readable by its owner alone, so that no half is seen.

    The owner is the directory's: what root does in a user's clone stays usable for the user.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        if os.geteuid() == 0:
            directory = path.parent.stat()
            os.fchown(descriptor, directory.st_uid, directory.st_gid)
        stream.write(text)
        stream.flush()
        os.fsync(descriptor)
    partial.replace(path)
