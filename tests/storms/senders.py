"""Two ways to send a request: through the WSGI stack in this process, or to real gunicorn."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import orjson
from django.db import connection

from tests.client import BASE, Api

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
START_SECONDS = 60.0
REQUEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status, and the body as the caller reads it."""

    status: int
    body: dict[str, Any]


class Sender(Protocol):
    """Sends a POST below ``/api/v1/enforcement/``; safe to share between threads."""

    name: str

    def post(self, path: str, body: Any, *, key: str, attempt: str | None = None) -> Answer:
        """Send one request.

        :param key: an API key's text.
        :param attempt: the ``Idempotency-Key`` header.
        """


class InProcess:
    """Through the whole WSGI stack, in the calling thread and over its own connection."""

    name = "the WSGI stack in one process"

    def post(self, path: str, body: Any, *, key: str, attempt: str | None = None) -> Answer:
        """Send one request; an unhandled exception is raised here."""
        headers = {} if attempt is None else {"Idempotency-Key": attempt}
        response = Api().send("POST", path, body, key=key, headers=headers)
        return Answer(response.status_code, orjson.loads(response.content))


class OverHttp:
    """Over TCP, one connection a request."""

    def __init__(self, port: int, *, name: str) -> None:
        self.name = name
        self._port = port

    def post(self, path: str, body: Any, *, key: str, attempt: str | None = None) -> Answer:
        """Send one request."""
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        if attempt is not None:
            headers["Idempotency-Key"] = attempt
        link = http.client.HTTPConnection(HOST, self._port, timeout=REQUEST_SECONDS)
        try:
            link.request("POST", BASE + path, orjson.dumps(body), headers)
            response = link.getresponse()
            return Answer(response.status, orjson.loads(response.read()))
        finally:
            link.close()


THREADS = 32
"""Enough that all senders are served at once; those that ask for one tenant are settled together."""


@contextmanager
def gunicorn(*, workers: int) -> Iterator[OverHttp]:
    """Serve the application on loopback with the test's database, for the time of the block."""
    port = _free_port()
    with tempfile.NamedTemporaryFile(prefix="valdrix-storm-", suffix=".log") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "gunicorn", "valdrix.wsgi:application",
                f"--bind={HOST}:{port}", "--worker-class=gthread", f"--workers={workers}",
                f"--threads={THREADS}",
                "--timeout=120", "--backlog=512", "--no-control-socket",
            ],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": _test_url(), "LOG_LEVEL": "ERROR"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            _wait_until_ready(port, process, Path(log.name))
            yield OverHttp(port, name=f"gunicorn, {workers} workers of {THREADS} threads")
        finally:
            process.terminate()
            process.wait(30)


def _test_url() -> str:
    """Return the application's URL with the test database in the place of the real one."""
    return urlunsplit(
        urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        link = http.client.HTTPConnection(HOST, port, timeout=5)
        try:
            link.request("GET", "/health/ready")
            if link.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            link.close()
        time.sleep(0.2)
    raise AssertionError(f"gunicorn did not start:\n{log.read_text()[-3000:]}")
