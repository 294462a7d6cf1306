"""A command of ``manage.py`` once more, in a process that has a throw-away PostgreSQL to itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from django.conf import settings

from valdrix.embedded.postgres import throwaway_postgres

_STATE: Final = "VALDRIX_CERTIFICATION_STATE"
"""Names the throw-away server's directory to the process that works on it."""
_NOT_PASSED_ON: Final = ("DATABASE_", "TELEMETRY_", "REDIS_", "CELERY_", "ENFORCEMENT_")


def find_own_state() -> Path | None:
    """Return the directory of the server that this process was started for, if it was."""
    state = os.environ.get(_STATE)
    return None if state is None else Path(state)


def run_on_own_database(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command with the environment of a new server; return its exit code.

    :param environment: what it gets beside that.
    :raises EmbeddedError: when the server cannot be started.
    """
    passed_on = {
        name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)
    }
    with throwaway_postgres() as server:
        own = {
            **server.environment(),
            _STATE: str(server.log.parent.parent),
            "DJANGO_SECRET_KEY": settings.SECRET_KEY,
            # Its own process binds no writer; a web server that it starts may.
            "TELEMETRY_ENABLED": "false",
        }
        done = subprocess.run(  # noqa: S603 - a command of this very project
            [sys.executable, "manage.py", *arguments],
            cwd=settings.BASE_DIR,
            env={**passed_on, **own, **environment},
            check=False,
        )
    return done.returncode
