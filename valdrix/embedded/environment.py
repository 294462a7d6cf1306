"""The environment that the embedded set-up gives to Django: the database and generated secrets."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from valdrix.embedded.errors import EmbeddedError
from valdrix.embedded.filelock import exclusive
from valdrix.embedded.postgres import EmbeddedPostgres, attach
from valdrix.embedded.record import write_private_file

SECRETS_FILE = "secrets.env"
# What is generated once for a clone. A name that is added here is generated at the next start.
GENERATED: Mapping[str, Callable[[], str]] = {
    "DJANGO_SECRET_KEY": lambda: secrets.token_urlsafe(50),
    "ENFORCEMENT_EXPORT_SIGNING_KEY": lambda: secrets.token_urlsafe(32),
    "SECRET_SEALING_KEYS": lambda: secrets.token_urlsafe(32),
    "ENFORCEMENT_EXPORT_SIGNING_KID": lambda: f"local-{secrets.token_hex(4)}",
}


def load_secrets(state: Path) -> dict[str, str]:
    """Return the clone's secrets, generating those that it does not have yet.

    :raises EmbeddedError: when the file cannot be read.
    """
    state.mkdir(parents=True, exist_ok=True)
    path = state / SECRETS_FILE
    try:
        with exclusive(state / "secrets.lock"):
            known = _parse(path.read_text()) if path.exists() else {}
            missing = {name: make() for name, make in GENERATED.items() if name not in known}
            known |= missing
            if missing:
                lines = [f"{name}={value}\n" for name, value in sorted(known.items())]
                write_private_file(path, "".join(lines))
    except PermissionError as error:
        raise EmbeddedError(f"{error.filename} belongs to another user.") from error
    return known


@contextmanager
def embedded_environment(
    state: Path, environment: MutableMapping[str, str] = os.environ
) -> Iterator[EmbeddedPostgres | None]:
    """Complete the environment of a command for the time of the block.

    It yields the server that it attached to. With DATABASE_URL set an external server is used and
    nothing is started; secrets then come from the clone's file only where there is one. What is set
    already always wins.

    :raises EmbeddedError: when the server cannot be started.
    """
    if environment.get("DATABASE_URL"):
        if (state / SECRETS_FILE).exists():
            _set_defaults(environment, load_secrets(state))
        yield None
        return
    _set_defaults(environment, load_secrets(state))
    with attach(state) as server:
        environment.update(server.environment())
        yield server


def _set_defaults(environment: MutableMapping[str, str], values: Mapping[str, str]) -> None:
    for name, value in values.items():
        environment.setdefault(name, value)


def _parse(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
