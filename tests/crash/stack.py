"""What a crash storm runs on: its own durable PostgreSQL, gunicorn, and a tenant made by the API."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.crash.sending import Reply, Target, send
from valdrix.embedded.children import Child, end
from valdrix.embedded.places import project_directory
from valdrix.embedded.postgres import EmbeddedPostgres, throwaway_postgres
from valdrix.embedded.postmaster import free_port
from valdrix.embedded.run import Run

SLUG = "storm"
READY_SECONDS = 30.0

_CEILING = "1000000000.00"
POLICY: Mapping[str, Any] = {
    "schema_version": "valdrix.enforcement.policy.v1",
    "modes": {"terraform": {"default": "hard", "prod": "soft"}},
    "thresholds": {
        "prod": {"require_approval_from_usd": "20.00"},
        "nonprod": {"require_approval_from_usd": "1000000.00"},
    },
    "limits": {"plan_monthly_ceiling_usd": _CEILING, "enterprise_monthly_ceiling_usd": _CEILING},
}
"""Hard in nonprod; in prod soft, and a person has to approve from 20 dollars on."""

BUDGETS: tuple[Mapping[str, Any], ...] = (
    {"project_id": "ample", "monthly_limit_usd": "10000000.00"},
    {"project_id": "ample", "environment": "nonprod", "monthly_limit_usd": "9000000.00"},
    {"project_id": "tight", "monthly_limit_usd": "3000.00"},
)
CREDITS: tuple[Mapping[str, Any], ...] = (
    {"project_id": "tight", "pool": "reserved", "total_amount_usd": "1000.00", "reason": "storm"},
    {"project_id": "tight", "pool": "emergency", "total_amount_usd": "500.00", "reason": "storm"},
)

_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".valdrix", ".*_cache", ".hypothesis", "__pycache__", "docs"
)
_NOT_PASSED_ON = ("DATABASE_", "REDIS_", "CELERY_", "DJANGO_", "VALDRIX_", "PYTEST_", "MAKE")


@dataclass(frozen=True)
class Stack:
    """The running programs and the tenant's keys."""

    server: EmbeddedPostgres
    web: Child
    code: Path
    environment: Mapping[str, str]
    port: int
    owner_key: str
    member_key: str

    def target(self, key: str) -> Target:
        """Return whom to send requests to, and as whom."""
        return Target(self.port, key)

    def worker_pids(self) -> list[int]:
        """Return gunicorn's workers, by the process table."""
        assert self.web.process is not None
        return children_of(self.web.process.pid)

    def admin(self) -> psycopg.Connection[Any]:
        """Connect as the superuser, who may look at and end every session."""
        return psycopg.connect(self.server.admin_url, autocommit=True, connect_timeout=5)

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `manage.py` on this database."""
        return self.run("manage.py", *arguments)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program on this database."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.code,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
        )


@contextmanager
def running_stack(settings: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Run an empty database, migrated, with gunicorn and a tenant, for the time of the block.

    :param settings: further environment of the programs.

    Call it from the main thread: the programs end with the thread that started them.
    """
    with throwaway_postgres() as server, _copied_code() as code:
        environment = _environment(server) | dict(settings or {})
        state = server.log.parent.parent
        port = free_port(0)
        options = Run(state, port)._gunicorn_options()
        web = Child(
            "web server",
            (sys.executable, "-m", "gunicorn", *options),
            state / "logs" / "web.log",
            code,
        )
        made = Stack(server, web, code, environment, port, owner_key="", member_key="")
        _succeed(made.manage("migrate", "--noinput"))
        web.start(environment)
        try:
            tenant = made.manage("create_tenant", SLUG, "--name=Storm", "--owner=storm@test")
            _wait_until_ready(port, web.log)
            owner_key = re.findall(r"api key: (\S+)", _succeed(tenant))[0]
            member_key = _open_shop(Target(port, owner_key))
            yield Stack(server, web, code, environment, port, owner_key, member_key)
        finally:
            assert web.process is not None
            end(web.process)


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split() for line in listing.splitlines())
    return [int(one) for one, parent, state in rows if int(parent) == pid and state[0] != "Z"]


@contextmanager
def _copied_code() -> Iterator[Path]:
    """Copy the code: a worker that replaces a killed one must not load what was edited since."""
    directory = Path(tempfile.mkdtemp(prefix="valdrix-crash-"))
    try:
        yield shutil.copytree(project_directory(), directory / "code", ignore=_NOT_COPIED)
    finally:
        shutil.rmtree(directory)


def _environment(server: EmbeddedPostgres) -> dict[str, str]:
    """Leave out what the machine or a test run has set for another database."""
    passed = {
        name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)
    }
    return {
        **passed,
        **server.environment(),
        "DJANGO_SETTINGS_MODULE": "valdrix.settings",
        "DJANGO_SECRET_KEY": secrets.token_urlsafe(50),
        # A load is meant to reach the gate, not its limits.
        "ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP": "100000",
        "ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP": "10000000",
        "TENANT_API_PER_MINUTE": "6000000",
        "WEB_CONCURRENCY": "2",
    }


def _open_shop(owner: Target) -> str:
    """Set up what may be spent, as an owner would; return a member's API key."""
    body = {"policy_document": POLICY, "comment": "storm", "base_version": 0}
    _made(send(owner, "PUT", "policies", body))
    for budget in BUDGETS:
        _made(send(owner, "POST", "budgets", dict(budget)))
    for credit in CREDITS:
        _made(send(owner, "POST", "credits", dict(credit)))
    issued = _made(send(owner, "POST", "api-keys", {"name": "pipeline", "role": "member"}))
    return str(issued["key"])


def _made(reply: Reply) -> dict[str, Any]:
    assert reply.status in {200, 201}, reply
    return reply.body


def _succeed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _wait_until_ready(port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if send(Target(port, ""), "GET", "/health/ready").status == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"gunicorn is not ready:\n{log.read_text()}")
