"""What a benchmark runs on: a durable PostgreSQL of its own, tenants, and gunicorn as `make run`."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valdrix.embedded.children import Child, end
from valdrix.embedded.places import project_directory
from valdrix.embedded.postgres import EmbeddedPostgres, throwaway_postgres
from valdrix.embedded.postmaster import free_port
from valdrix.embedded.run import Run

READY_SECONDS = 30.0
SETTINGS = "tests.benchmarks.settings"
_NOT_PASSED_ON = ("DATABASE_", "REDIS_", "CELERY_", "DJANGO_", "VALDRIX_", "PYTEST_", "MAKE")


@dataclass(frozen=True)
class Stack:
    """The running programs."""

    server: EmbeddedPostgres
    port: int
    folder: Path
    environment: dict[str, str]

    @property
    def base_url(self) -> str:
        """Where the web server listens."""
        return f"http://127.0.0.1:{self.port}"

    def keys_file(self, name: str, keys: list[str]) -> Path:
        """Write API keys to where the load generator reads them."""
        path = self.folder / f"{name}.keys"
        path.write_text("".join(f"{key}\n" for key in keys))
        return path

    def body_file(self, name: str, body: str) -> Path:
        """Write a body to where the load generator reads it."""
        path = self.folder / f"{name}.json"
        path.write_text(body)
        return path


@contextmanager
def running_stack(settings: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Run an empty, migrated database and gunicorn for the time of the block.

    :param settings: further environment of the programs.

    It also sets this process up as a Django process on that database, for the arrangements.
    """
    with throwaway_postgres() as server:
        environment = _environment(server) | dict(settings or {})
        state = server.log.parent.parent
        folder = state / "bench"
        folder.mkdir()
        _manage(environment, "migrate", "--noinput")
        _set_up_django(environment)
        port = free_port(0)
        options = Run(state, port)._gunicorn_options()
        log = state / "logs" / "web.log"
        web = Child(
            "web server", (sys.executable, "-m", "gunicorn", *options), log, project_directory()
        )
        web.start(environment)
        try:
            _wait_until_ready(port, log)
            yield Stack(server, port, folder, environment)
        finally:
            assert web.process is not None
            end(web.process)


def _environment(server: EmbeddedPostgres) -> dict[str, str]:
    """Leave out what the machine has set for another database."""
    passed = {
        name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)
    }
    return {
        **passed,
        **server.environment(),
        "DJANGO_SETTINGS_MODULE": SETTINGS,
        "DJANGO_SECRET_KEY": secrets.token_urlsafe(50),
        "ENFORCEMENT_EXPORT_SIGNING_KEY": secrets.token_urlsafe(32),
        "ENFORCEMENT_EXPORT_SIGNING_KID": "benchmark",
        # A load is meant to reach the gate, not its limits.
        "ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP": "100000",
        "ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP": "10000000",
        "TENANT_API_PER_MINUTE": "6000000",
        "WEB_REQUESTS_AT_ONCE": "73",
        "WEB_OTHERS_AT_ONCE": "72",
        "WEB_CONCURRENCY": os.environ.get("WEB_CONCURRENCY", "2"),
    }


def _manage(environment: dict[str, str], *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=project_directory(),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{arguments} failed:\n{done.stdout}\n{done.stderr}")


def _set_up_django(environment: dict[str, str]) -> None:
    os.environ.update({name: environment[name] for name in environment if name not in os.environ})
    os.environ.update(
        {name: value for name, value in environment.items() if name.startswith(_NOT_PASSED_ON)}
    )
    import django

    django.setup()
    # The arrangements are made by the test client, whose host is of no address.
    django.conf.settings.ALLOWED_HOSTS = [*django.conf.settings.ALLOWED_HOSTS, "testserver"]


def _wait_until_ready(port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    opener: Any = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        try:
            with opener.open(f"http://127.0.0.1:{port}/health/ready", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"gunicorn is not ready:\n{log.read_text()}")
