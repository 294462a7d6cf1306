"""The bench: a PostgreSQL of its own, migrated, and gunicorn with two workers before it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from valdrix.certification.telemetry.calling import Place, call
from valdrix.embedded import postmaster
from valdrix.embedded.children import Child, end
from valdrix.embedded.postgres import EmbeddedPostgres

_READY_SECONDS: Final = 60.0
_ENVIRONMENT: Final = {"WEB_CONCURRENCY": "2", "TELEMETRY_READ_TIMEOUT_MS": "400"}
_ROLE: Final = "valdrix_telemetry"
_SIGNATURE: Final = """
SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
    SELECT format('%s.%s %s %s', c.relname, a.attname, a.atttypid::regtype, a.attnotnull) AS line
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE c.relname IN ('telemetry_event', 'telemetry_switch') AND a.attnum > 0
       AND NOT a.attisdropped
    UNION ALL SELECT format('%s %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint
     WHERE conrelid::regclass::text LIKE 'telemetry%'
    UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'telemetry%'
    UNION ALL SELECT format('%s %s %s', tablename, qual, with_check) FROM pg_policies
     WHERE tablename LIKE 'telemetry%'
    UNION ALL SELECT format('%s %s', relname, relacl::text) FROM pg_class
     WHERE relname LIKE 'telemetry%' AND relkind = 'r'
    UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger
     WHERE tgrelid::regclass::text LIKE 'telemetry%' AND NOT tgisinternal
) AS lines
"""


@dataclass
class Bench:
    """What an injection breaks and what the subjects ask."""

    server: EmbeddedPostgres
    web: Child
    place: Place
    progress: Callable[[str], None]

    def admin(self) -> psycopg.Connection[Any]:
        """Connect as the superuser, who breaks and mends."""
        return psycopg.connect(self.server.admin_url, autocommit=True, connect_timeout=10)

    def execute(self, *statements: str) -> None:
        """Execute statements as the superuser."""
        with self.admin() as admin:
            for statement in statements:
                admin.execute(statement)

    def fetch(self, statement: str, *parameters: object) -> Any:
        """Return the first value that a query of the superuser gives."""
        with self.admin() as admin:
            row = admin.execute(statement, parameters or None).fetchone()
        return None if row is None else row[0]

    def signature(self) -> str:
        """Return how telemetry's tables are: columns, constraints, indexes, policies, grants."""
        return str(self.fetch(_SIGNATURE))

    def make_tables_anew(self) -> None:
        """Apply telemetry's migrations again after its tables were dropped."""
        self.execute(
            "DROP TABLE IF EXISTS telemetry_event", "DROP TABLE IF EXISTS telemetry_switch"
        )
        quiet = {"verbosity": 0, "interactive": False}
        call_command("migrate", "telemetry", "zero", fake=True, **quiet)
        call_command("migrate", "telemetry", **quiet)
        connections.close_all()

    def restart_database(self) -> None:
        """Stop the server, in the middle of whatever it does, and start it again."""
        running = postmaster.find_running(self.server.data)
        assert running is not None
        postmaster.stop(running)
        self.server.start()
        connections.close_all()

    def kill_workers(self) -> int:
        """Kill gunicorn's workers without warning; return how many there were."""
        assert self.web.process is not None
        killed = 0
        for pid in _children_of(self.web.process.pid):
            os.kill(pid, signal.SIGKILL)
            killed += 1
        return killed

    def end_writers(self) -> int:
        """End the sessions of telemetry's role; return how many there were."""
        return int(
            self.fetch(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = %s",
                _ROLE,
            )
        )

    def manage(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of ``manage.py`` on this database."""
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=settings.BASE_DIR,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_until_ready(self) -> None:
        """Wait until the web server answers that it is ready.

        :raises TimeoutError: with the end of its log.
        """
        wait_for(lambda: _is_ready(self.place), f"the web server is not ready; see {self.web.log}")


@contextmanager
def running_bench(state: Path, progress: Callable[[str], None]) -> Iterator[Bench]:
    """Run the bench on the server of a state directory, which this process was started for."""
    # Not as a throw-away: a restart in a thread would end with the thread. The starter removes it.
    server = EmbeddedPostgres(state)
    server.start()
    call_command("migrate", verbosity=0, interactive=False)
    connections.close_all()
    port = postmaster.free_port(0)
    command = (
        sys.executable, "-m", "gunicorn", "valdrix.wsgi:application",
        f"--bind={postmaster.HOST}:{port}", "--worker-class=sync", "--workers=2", "--timeout=60",
        "--graceful-timeout=5", "--config=python:valdrix.gunicorn_conf", "--no-control-socket",
    )  # fmt: skip
    web = Child("web server", command, state / "logs" / "web.log", settings.BASE_DIR)
    bench = Bench(server, web, Place(postmaster.HOST, port), progress)
    web.start({**os.environ, **_ENVIRONMENT, "TELEMETRY_ENABLED": "true"})
    try:
        bench.wait_until_ready()
        yield bench
    finally:
        assert web.process is not None
        end(web.process)
        connections.close_all()


def wait_for(condition: Callable[[], bool], what: str, *, seconds: float = _READY_SECONDS) -> None:
    """Wait for something.

    :raises TimeoutError: when it does not come.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


def _is_ready(place: Place) -> bool:
    try:
        return call(place, "GET", "/health/ready").status == 200
    except OSError:
        return False


def _children_of(pid: int) -> list[int]:
    listing = subprocess.run(
        ["/bin/ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split() for line in listing.splitlines())
    return [int(one) for one, parent, state in rows if int(parent) == pid and state[0] != "Z"]
