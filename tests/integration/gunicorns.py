"""Run the web server as it is shipped, on the test's database and a port of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from django.db import connection

PROJECT = Path(__file__).resolve().parents[2]


def server_environment() -> dict[str, str]:
    """Return the environment of a server process that uses the test's database."""
    url = urlsplit(os.environ["DATABASE_URL"])
    name = connection.settings_dict["NAME"]
    return {**os.environ, "DATABASE_URL": urlunsplit(url._replace(path=f"/{name}"))}


@contextmanager
def running_gunicorn(
    log: Path, *options: str, config: str = "python:valdrix.gunicorn_conf"
) -> Iterator[tuple[tuple[str, int], subprocess.Popen[bytes]]]:
    """Run it, and give its address, which takes connections at once, and the master's process."""
    with socket.create_server(("127.0.0.1", 0)) as listening, log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "valdrix.wsgi:application", *options),
                *(f"--bind=fd://{listening.fileno()}", f"--config={config}", "--no-control-socket"),
            ],
            cwd=PROJECT,
            env=server_environment(),
            stdout=output,
            stderr=output,
            pass_fds=[listening.fileno()],
        )
        try:
            yield listening.getsockname(), process
        finally:
            process.terminate()
            process.wait(20)
