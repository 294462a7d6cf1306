"""How gunicorn serves Valdrix: an access log without query strings, and metrics of all workers."""

from __future__ import annotations

import gc
import mmap
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from valdrix.gunicorn_balance import Counts
from valdrix.gunicorn_connections import PatientWorker
from valdrix.gunicorn_log import FORMAT, AccessLogger
from valdrix.kernel.http.yielding import MACHINE
from valdrix.kernel.postgresql.sessions import IDLE as SESSIONS

_METRICS_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
_AT_ONCE: Final = "WEB_REQUESTS_AT_ONCE"

SWITCH_SECONDS: Final = 0.001
COLLECT_AFTER: Final = 20_000
"""So many more objects made than freed before the collector looks for cycles; a request makes few."""

_BUSY: Final = mmap.mmap(-1, 256)
"""A byte a worker, in memory that all of them share: how much it has in progress."""
_CONNECTIONS: Final = Counts()

# Threads of one process settle together what they ask for one tenant.
worker_class = "valdrix.gunicorn_worker.ProblemWorker"
limit_request_line = 8190
# With sessions and files below the 1,024 descriptors that a process may have where nobody says more.
worker_connections = 600
# Longer than a proxy or a client's pool keeps a connection that nobody uses, 60 seconds as a rule. Who closes
# first may close on a request that is on its way, and nobody may send a gate's call twice without being asked.
keepalive = 75
# The system would wait for a peer that takes nothing of a file, for ever.
sendfile = False

accesslog = "-"
access_log_format = FORMAT
logger_class = AccessLogger


def on_starting(server: Any) -> None:
    """Give the workers a directory in which their counts are kept, before the first is made.

    And say how many requests each takes: one thread in nine is left to refuse the others.
    """
    os.environ.setdefault(_AT_ONCE, str(max(2, server.cfg.threads * 8 // 9)))
    if not os.environ.get(_METRICS_DIRECTORY):
        server.valdrix_metrics = tempfile.mkdtemp(prefix="valdrix-metrics-")
        os.environ[_METRICS_DIRECTORY] = server.valdrix_metrics


def post_fork(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's own signature
    """Give the worker its cells among those of the others."""
    MACHINE.share(_BUSY, worker.age % len(_BUSY))
    if isinstance(worker, PatientWorker):
        worker.share(_CONNECTIONS)


def post_worker_init(worker: Any) -> None:  # noqa: ARG001 - gunicorn's own signature
    """Let threads share sessions, wait a millisecond for the interpreter, and seldom for the collector.

    Whoever leads a tenant's questions computes for all of them; a gate of another tenant wants the
    interpreter again after each of its round trips.
    """
    SESSIONS.share()
    sys.setswitchinterval(SWITCH_SECONDS)
    # What stands when a worker begins stands until its end: there is no use in looking through it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def child_exit(server: Any, worker: Any) -> None:
    """Drop a dead worker's gauges, and tell what it had in progress; what it counted stays counted."""
    _CONNECTIONS.remove(worker.age)
    place = worker.age % len(_BUSY)
    lost, _BUSY[place] = _BUSY[place], 0
    if lost:
        # Imported where the directory of counts is known: in the parent of all workers, which counts
        # nothing else.
        from valdrix.kernel.metrics import REQUESTS_LOST  # noqa: PLC0415

        REQUESTS_LOST.inc(lost)
        server.log.error(
            "web process %s died with %s requests in progress, which get no answer",
            worker.pid,
            lost,
        )
    for left in Path(os.environ[_METRICS_DIRECTORY]).glob(f"gauge_live*_{worker.pid}.db"):
        left.unlink(missing_ok=True)


def on_exit(server: Any) -> None:
    """Remove the directory that was made at the start."""
    made = getattr(server, "valdrix_metrics", None)
    if made is not None:
        shutil.rmtree(made, ignore_errors=True)
