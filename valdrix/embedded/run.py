"""`make run`: PostgreSQL, migrations, demo tenant, web server and jobs, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from valdrix.embedded import postmaster
from valdrix.embedded.children import Child, end, stop_all
from valdrix.embedded.environment import embedded_environment, load_secrets
from valdrix.embedded.errors import AlreadyRunning, EmbeddedError, StepFailed
from valdrix.embedded.filelock import FileLock
from valdrix.embedded.logs import log_tail, open_log
from valdrix.embedded.places import default_state_directory, project_directory
from valdrix.embedded.postgres import EmbeddedPostgres

DEMO_FILE = "demo.json"
PENDING_DEMO_FILE = "demo.pending.json"
READY_TIMEOUT_SECONDS = 60.0
STEP_TIMEOUT_SECONDS = 600.0
DATABASE_CHECK_SECONDS = 1.0
POLL_SECONDS = 0.1
LAST_PORT = 65_535


class StopRequested(Exception):
    """Ctrl-C or a termination signal came while something else was being waited for."""


class Run:
    """One run of the whole set-up; `main` walks through its methods from top to bottom."""

    def __init__(self, state: Path, port: int) -> None:
        self._state = state
        self._port = port
        self._project = project_directory()
        self._children: list[Child] = []
        self._stopping = False
        # Whoever kills make wants all of it gone; a shell that ends may mean to leave it running.
        self._parent = os.getppid() if os.environ.get("MAKELEVEL") else None
        self._began = time.monotonic()
        self.is_ready = False

    @property
    def base_url(self) -> str:
        """The address of the web server."""
        return f"http://{postmaster.HOST}:{self._port}"

    def say(self, text: str) -> None:
        """Print a line of progress with the seconds since the start."""
        print(f"[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)

    def request_stop(self, _number: int, _frame: FrameType | None) -> None:
        """Make the run end soon; it is the handler of the signals.

        It only sets a flag: it may run in the middle of anything, and a lock taken here could be
        one that the interrupted code holds.
        """
        self._stopping = True

    def check_port(self) -> None:
        """Refuse a port that is taken, before anything is started.

        :raises EmbeddedError: with the way out.
        """
        if not postmaster.port_is_free(self._port):
            raise EmbeddedError(
                f"Port {self._port} on {postmaster.HOST} is in use (or may not be used by you). "
                f"Take another one: make run PORT={self._port + 1}"
            )

    def prepare(self, server: EmbeddedPostgres | None) -> None:
        """Bring the database and the static files up to date.

        :raises StepFailed: with the end of the step's log.
        """
        if server:
            self.say(f"PostgreSQL is running on {postmaster.HOST}:{server.port}")
        else:
            self.say("DATABASE_URL is set: its PostgreSQL is used, no embedded one")
        self._step("migrations", "migrate", "--noinput")
        self._step("static files", "collectstatic", "--noinput")
        self._step("demo tenant", "seed_demo", "--base-url", self.base_url)

    def start_children(self) -> None:
        """Start the web server, wait until it is ready, and start the jobs.

        :raises EmbeddedError: when the web server does not become ready.
        """
        web = self._child("web server", "web.log", "-m", "gunicorn", *self._gunicorn_options())
        web.start(os.environ)
        self._wait_until_ready(web)
        self.say(f"the web server is ready at {self.base_url}")
        for name, log, arguments in self._job_programs():
            self._child(name, log, *arguments).start(os.environ)
            self.say(f"{name}: started")

    def show_demo(self) -> None:
        """Gate the demo estimate and then publish the demo file.

        :raises StepFailed: when the demo gate fails or the demo tenant left no file.
        """
        self._step("demo gate", "demo_gate", "--base-url", self.base_url, shown=True)
        pending = self._state / PENDING_DEMO_FILE
        if not pending.exists():
            raise StepFailed(f"seed_demo did not write {pending}.")
        pending.chmod(0o600)
        pending.replace(self._state / DEMO_FILE)
        self.is_ready = True
        self.say("ready; Ctrl-C stops everything")

    def withdraw_demo(self) -> None:
        """Take the demo file back: it exists only while the run is ready."""
        if (self._state / DEMO_FILE).exists():
            (self._state / DEMO_FILE).replace(self._state / PENDING_DEMO_FILE)

    def watch(self, server: EmbeddedPostgres | None) -> None:
        """Keep everything going until a stop is requested.

        :raises EmbeddedError: when something cannot be kept going.
        """
        next_check = 0.0
        while not self._pause(POLL_SECONDS):
            if server and time.monotonic() >= next_check:
                next_check = time.monotonic() + DATABASE_CHECK_SECONDS
                self._keep_database(server)
            for child in self._children:
                message = child.restart_if_dead(os.environ)
                if message:
                    self.say(message)

    def stop_children(self) -> None:
        """End the web server and the jobs."""
        if self._children:
            self.say("stopping")
        stop_all(self._children)

    def _pause(self, seconds: float) -> bool:
        """Wait for a moment and return whether the run is to end."""
        if not self._stopping:
            time.sleep(seconds)
        is_orphan = self._parent is not None and os.getppid() != self._parent
        return self._stopping or is_orphan

    def _keep_database(self, server: EmbeddedPostgres) -> None:
        if server.is_running():
            return
        self.say("PostgreSQL has ended; starting it again")
        server.start()
        if os.environ["DATABASE_URL"] != server.app_url:
            # Another program took its port: the children must learn the new one.
            os.environ.update(server.environment())
            stop_all(self._children)
            for child in self._children:
                child.start(os.environ)
        self.say(f"PostgreSQL is running on {postmaster.HOST}:{server.port}")

    def _child(self, name: str, log: str, *arguments: str) -> Child:
        command = (sys.executable, "-u", *arguments)
        child = Child(name, command, self._state / "logs" / log, self._project)
        self._children.append(child)
        return child

    def _gunicorn_options(self) -> Sequence[str]:
        return (
            "valdrix.wsgi:application",
            f"--bind={postmaster.HOST}:{self._port}",
            f"--workers={os.environ.get('WEB_CONCURRENCY', '2')}",
            f"--threads={os.environ.get('WEB_THREADS', '82')}",
            "--timeout=60",
            "--graceful-timeout=5",
            "--config=python:valdrix.gunicorn_conf",
            # Its socket would be in the home directory, one for all clones.
            "--no-control-socket",
        )

    def _job_programs(self) -> Iterator[tuple[str, str, Sequence[str]]]:
        if not (os.environ.get("CELERY_BROKER_URL") or os.environ.get("REDIS_URL")):
            yield "scheduled jobs", "jobs.log", ("manage.py", "run_jobs")
            return
        celery = ("-m", "celery", "--app=valdrix.celery")
        schedule = f"--schedule={self._state / 'celerybeat-schedule'}"
        yield "job worker", "worker.log", (*celery, "worker", "--concurrency=2")
        yield "job schedule", "beat.log", (*celery, "beat", "--pidfile=", schedule)

    def _step(self, name: str, *arguments: str, shown: bool = False) -> None:
        """Run a management command to its end, or until a stop is requested."""
        log = self._state / "logs" / f"{arguments[0]}.log"
        with open_log(log) as output:
            offset = output.tell()
            process = subprocess.Popen(
                [sys.executable, "manage.py", *arguments],
                cwd=self._project,
                stdin=subprocess.DEVNULL,
                stdout=None if shown else output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + STEP_TIMEOUT_SECONDS
        while process.poll() is None:
            if self._pause(POLL_SECONDS / 5) or time.monotonic() > deadline:
                end(process)
        if self._pause(0):
            raise StopRequested
        if process.returncode != 0:
            said = "" if shown else f" The end of {log}:\n{log_tail(log, offset=offset)}"
            raise StepFailed(f"{name}: `manage.py {arguments[0]}` failed.{said}")
        if not shown:
            self.say(f"{name}: done")

    def _wait_until_ready(self, web: Child) -> None:
        url = f"{self.base_url}/health/ready"
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        answer = "no answer"
        while time.monotonic() < deadline:
            if self._pause(POLL_SECONDS):
                raise StopRequested
            message = web.restart_if_dead(os.environ)
            if message:
                self.say(message)
            answer = _get(url)
            if answer == "200":
                return
        raise EmbeddedError(
            f"{url} did not answer 200 within {READY_TIMEOUT_SECONDS:.0f} s (last: {answer}). "
            f"The end of {web.log}:\n{log_tail(web.log)}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything until it is told to stop and return the exit code."""
    parser = argparse.ArgumentParser(prog="make run", description="Run Valdrix on this machine.")
    parser.add_argument("--port", type=_port, default=8000, help="TCP port on 127.0.0.1")
    options = parser.parse_args(arguments)
    run = Run(default_state_directory(), options.port)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, run.request_stop)
    try:
        run.check_port()
        with _alone(default_state_directory()):
            _run_all(run)
    except StopRequested:
        run.say("stopped before it was ready")
        return 130
    except EmbeddedError as error:
        print(f"make run: {error}", file=sys.stderr, flush=True)
        return 1
    run.say("stopped")
    return 0


def _run_all(run: Run) -> None:
    state = default_state_directory()
    # This command is for one's own machine, so it generates the secrets even for a database that
    # is elsewhere; `manage.py` does so for its own database only.
    for name, value in load_secrets(state).items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PUBLIC_URL", run.base_url)
    run.withdraw_demo()
    with embedded_environment(state) as server:
        try:
            run.prepare(server)
            run.start_children()
            run.show_demo()
            run.watch(server)
        finally:
            run.withdraw_demo()
            run.stop_children()


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state / "run.lock")
    try:
        if not lock.try_exclusive():
            raise AlreadyRunning(
                "Valdrix is already running from this clone; stop it with Ctrl-C where it runs."
            )
        yield
    finally:
        lock.release()


def _get(url: str) -> str:
    """Ask for a page, past any proxy, and return the status or the failure."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            return str(response.status)
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read(500).decode(errors='replace')}"
    except OSError as error:
        return str(error)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a TCP port (1 to 65535)")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
