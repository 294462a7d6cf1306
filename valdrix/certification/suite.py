"""Running tests in a process of their own, which chooses its database and settings for itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Timer
from typing import Final

from django.conf import settings

_CHOOSES: Final = (
    "CELERY_", "COVERAGE_", "DATABASE_", "DJANGO_", "ENFORCEMENT_", "PROMETHEUS_", "PYTEST_",
    "RATE_LIMIT_", "REDIS_", "SECRET_", "TELEMETRY_", "TENANT_API_", "THROTTLE_", "VALDRIX_",
)  # fmt: skip
"""What would choose for the tests: a command of ``manage.py`` has the served system's settings."""
_KEPT: Final = frozenset({"VALDRIX_REQUIRE_SYSTEM_PROGRAMS"})
_LINES_KEPT: Final = 200


@dataclass(frozen=True, slots=True)
class Finished:
    """How a run ended, and the last lines of what it said."""

    exit_code: int
    tail: tuple[str, ...]


def build_test_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what would choose the tests' database or settings."""
    kept = {
        name: value
        for name, value in environment.items()
        if name in _KEPT or not name.startswith(_CHOOSES)
    }
    return {**kept, "DEBUG": "false"}


def run_pytest(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    within_seconds: int,
    tell: Callable[[str], None] = lambda _: None,
) -> Finished:
    """Run pytest from the top of the repository until it ends, or is ended for being late.

    :param environment: what it gets beside the process's own environment.
    :param tell: called with each line as it comes.
    """
    lines: deque[str] = deque(maxlen=_LINES_KEPT)
    with subprocess.Popen(  # noqa: S603 - arguments are constants and ids of tests
        [sys.executable, "-m", "pytest", *arguments],
        cwd=settings.BASE_DIR,
        env={**build_test_environment(os.environ), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        watch = Timer(within_seconds, process.terminate)
        watch.start()
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                tell(lines[-1])
        except BaseException:
            process.terminate()
            raise
        finally:
            watch.cancel()
    return Finished(process.returncode, tuple(line for line in lines if line))
