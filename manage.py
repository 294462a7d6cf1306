#!/usr/bin/env python3
"""Django's command line, with the clone's own PostgreSQL unless DATABASE_URL names another.

A command in a second shell attaches to the server that `make run` started; without one it starts
the server for its own time.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run the command and return the exit code of the process."""
    try:
        from valdrix.embedded.environment import embedded_environment
        from valdrix.embedded.errors import EmbeddedError
        from valdrix.embedded.places import default_state_directory
    except ImportError as error:  # Python older than 3.11, or started from elsewhere.
        print(f"manage.py: {error}", file=sys.stderr)
        return 1
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "valdrix.settings")
    # Without a handler these end the process at once, and the server would go on without a user.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _leave)
    try:
        with embedded_environment(default_state_directory()):
            from django.core.management import execute_from_command_line

            execute_from_command_line(sys.argv)
    except EmbeddedError as error:
        print(f"manage.py: {error}", file=sys.stderr)
        return 1
    return 0


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
