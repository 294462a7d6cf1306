"""`make run` from nothing: one command, a gated estimate, and everything stopped again.

The supervisor runs in a copy of the tree, so that the clone's own data is not touched.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from valdrix.embedded import run as supervisor
from valdrix.embedded.places import project_directory
from valdrix.embedded.postgres import EmbeddedPostgres
from valdrix.embedded.postmaster import free_port

NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".valdrix", ".*_cache", ".hypothesis", "__pycache__", "tests"
)
READY_WITHIN_SECONDS = 120.0
STOPPED_WITHIN_SECONDS = 20.0


@dataclass
class Supervised:
    """One `make run`, what it printed so far, and what it wrote for scripts."""

    clone: Path
    port: int
    process: subprocess.Popen[bytes]
    output: Path
    demo: dict[str, Any] = field(default_factory=dict)

    @property
    def demo_file(self) -> Path:
        return self.clone / ".valdrix" / "demo.json"

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while not self.demo_file.exists():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)
        self.demo = json.loads(self.demo_file.read_text())

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOPPED_WITHIN_SECONDS)


@pytest.fixture
def clone() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="valdrix-test-run-"))
    directory.chmod(0o755)
    try:
        shutil.copytree(project_directory(), directory / "clone", ignore=NOT_COPIED)
        yield directory / "clone"
        EmbeddedPostgres(directory / "clone" / ".valdrix").stop()
    finally:
        shutil.rmtree(directory)


def start(clone: Path, port: int) -> Supervised:
    """Do what the recipe of `make run` does, with the environment of a fresh shell."""
    output = clone.parent / f"run-{port}-{time.monotonic_ns()}.txt"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "valdrix.embedded.run", "--port", str(port)],
            cwd=clone,
            env=fresh_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    return Supervised(clone, port, process, output)


def fresh_environment() -> dict[str, str]:
    """Leave out what this test run, or the machine, has set for its own database and settings."""
    ours = ("DATABASE_", "REDIS_", "CELERY_", "DJANGO_", "VALDRIX_", "PYTEST_", "PYTHON", "MAKE")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@contextmanager
def running(clone: Path, port: int) -> Iterator[Supervised]:
    supervised = start(clone, port)
    try:
        supervised.wait_until_ready()
        yield supervised
    finally:
        if supervised.process.poll() is None:
            supervised.stop(signal.SIGTERM)


def call(run: Supervised, path: str, *, key: str = "", body: object = None) -> tuple[int, Any]:
    request = urllib.request.Request(f"{run.demo['base_url']}{path}")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    if body is not None:
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def gate(run: Supervised, **changes: object) -> Any:
    body = {
        "project_id": run.demo["projects"][0],
        "environment": "staging",
        "action": "terraform.apply",
        "resource_reference": "aws_instance.worker",
        "run_id": f"test-{time.monotonic_ns()}",
        "estimated_monthly_delta_usd": "1.00",
        **changes,
    }
    key = run.demo["api_keys"]["member"]
    status, answer = call(run, "/api/v1/enforcement/gate/terraform", key=key, body=body)
    assert status == 200, answer
    return answer


@pytest.mark.slow
def test_from_nothing_to_a_gated_decision_and_again_with_the_data_kept(clone: Path) -> None:
    with running(clone, free_port(0)) as run:
        check_demo_file(run)
        check_terminal(run)
        check_health(run)
        check_second_shell(run)
        check_second_run_is_refused(run)
        decision = gate(run)
        assert decision["decision"] in {"ALLOW", "ALLOW_WITH_CREDITS"}
        began = time.monotonic()
        assert run.stop(signal.SIGINT) == 0, run.said()
        assert time.monotonic() - began < STOPPED_WITHIN_SECONDS / 2
    check_nothing_is_left(run)
    with running(clone, run.port) as again:
        assert again.demo == run.demo
        key = again.demo["api_keys"]["member"]
        path = f"/api/v1/enforcement/decisions/{decision['decision_id']}"
        status, stored = call(again, path, key=key)
        assert (status, stored["decision_id"]) == (200, decision["decision_id"])
        assert again.stop(signal.SIGTERM) == 0, again.said()
    check_nothing_is_left(run)


@pytest.mark.slow
def test_what_dies_is_started_again_and_what_keeps_dying_ends_the_run(clone: Path) -> None:
    with running(clone, free_port(0)) as run:
        pid_file = run.clone / ".valdrix" / "pg" / "data" / "postmaster.pid"
        os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGKILL)
        wait_for(lambda: "PostgreSQL has ended; starting it again" in run.said(), run)
        wait_for(lambda: is_ready(run), run)
        kill_web_server(run)
        wait_for(lambda: is_ready(run), run)
        gate(run)
        while run.process.poll() is None:
            kill_web_server(run)
        assert run.process.returncode == 1
        assert "web server ended 3 times within 30 s" in run.said()
    check_nothing_is_left(run)


def test_a_busy_port_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(project_directory() / "valdrix" / "embedded", clone / "valdrix" / "embedded")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = start(clone, port)
        assert refused.process.wait(STOPPED_WITHIN_SECONDS) == 1
    assert f"Port {port} on 127.0.0.1 is in use" in refused.said()
    assert f"make run PORT={port + 1}" in refused.said()
    assert not (clone / ".valdrix").exists()


@pytest.mark.parametrize("port", ["0", "65536", "-1", "eight", "8_000", "٨٠٠٠", ""])
def test_what_is_not_a_port_is_refused(port: str) -> None:
    with pytest.raises(SystemExit) as refusal:
        supervisor.main(["--port", port])
    assert refusal.value.code == 2


def test_make_run_starts_the_supervisor_on_the_port() -> None:
    recipe = subprocess.run(
        ["make", "--dry-run", "run", "PORT=8123"],
        cwd=project_directory(),
        env=fresh_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert recipe[-1] == ".venv/bin/python -m valdrix.embedded.run --port 8123"


def check_demo_file(run: Supervised) -> None:
    assert stat.S_IMODE(run.demo_file.stat().st_mode) == 0o600
    assert run.demo["base_url"] == f"http://127.0.0.1:{run.port}"
    members = {"base_url", "tenant", "projects", "api_keys", "console", "other_tenant"}
    assert set(run.demo) == members
    assert set(run.demo["api_keys"]) == {"member", "admin", "owner"}
    assert set(run.demo["other_tenant"]) == {"tenant", "api_keys"}
    assert "shop" in run.demo["projects"]
    for user in run.demo["console"]["users"]:
        assert set(user) == {"username", "password", "role"}


def check_terminal(run: Supervised) -> None:
    said = run.said()
    assert "Infracost" in said
    assert f"http://127.0.0.1:{run.port}/admin/" in said
    assert "curl" in said
    assert run.demo["api_keys"]["member"] in said
    assert "Traceback" not in said


def check_health(run: Supervised) -> None:
    assert is_ready(run)
    status, health = call(run, "/health")
    assert status == 200
    assert "postgresql" in json.dumps(health).lower()


def check_second_shell(run: Supervised) -> None:
    shell = subprocess.run(
        [sys.executable, "manage.py", "verify_ledger", "--all"],
        cwd=run.clone,
        env=fresh_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    assert is_ready(run), "the command stopped the server that it had attached to"


def check_second_run_is_refused(run: Supervised) -> None:
    second = start(run.clone, free_port(0))
    assert second.process.wait(STOPPED_WITHIN_SECONDS) == 1
    assert "already running from this clone" in second.said()
    assert run.demo_file.exists()


def check_nothing_is_left(run: Supervised) -> None:
    assert not run.demo_file.exists()
    assert not EmbeddedPostgres(run.clone / ".valdrix").is_running()
    assert processes_of(run.clone) == []


def kill_web_server(run: Supervised) -> None:
    """Kill it and wait until the supervisor has noticed: a new one runs, or nothing does."""
    restarts = run.said().count("was started again")
    os.kill(web_server_of(run), signal.SIGKILL)
    deadline = time.monotonic() + STOPPED_WITHIN_SECONDS
    while run.process.poll() is None and run.said().count("was started again") == restarts:
        assert time.monotonic() < deadline, run.said()
        time.sleep(0.05)


def web_server_of(run: Supervised) -> int:
    """Return the process id of gunicorn's master, the supervisor's own child."""
    listing = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(run.process.pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return next(int(line.split()[0]) for line in listing.splitlines() if "gunicorn" in line)


def wait_for(
    condition: Callable[[], bool], run: Supervised, *, timeout_seconds: float = 40.0
) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert run.process.poll() is None, run.said()
        assert time.monotonic() < deadline, run.said()
        time.sleep(0.1)


def is_ready(run: Supervised) -> bool:
    try:
        return call(run, "/health/ready")[0] == 200
    except OSError:
        return False


def processes_of(clone: Path) -> list[str]:
    """Return the commands that still run on the clone's database or in its directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            inside = (process / "cwd").readlink().is_relative_to(clone)
        except OSError:
            continue
        if command and (inside or str(clone) in command):
            found.append(command)
    return found
