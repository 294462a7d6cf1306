"""``/metrics``: what Prometheus scrapes: what processes counted, and the state of the whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from django.db import DatabaseError, InterfaceError, connection
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from governance.approvals.queries import count_pending_of_all_tenants
from governance.incidents.queries import count_open_of_all_tenants
from valdrix.health import NotReady, find_pending_migrations
from valdrix.jobs.history import read_ages
from valdrix.kernel.db import platform_transaction, time_limit
from valdrix.kernel.metrics import CONTENT_TYPE, render_metrics
from valdrix.schedule import JOBS

_ANSWER_WITHIN_MS: Final = "1000"
_WITHIN_SECONDS: Final = 2.5
_UP: Final = "1 when the database answers."
_KEPT_SECONDS: Final = 5.0
"""Anybody may scrape: asking more often than this asks the database no more often."""


class _State:
    """The gauges that are read from the database at a scrape, kept for a few seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._text = b""
        self._read_at = float("-inf")

    def render(self) -> bytes:
        """Return the gauges in the Prometheus text format.

        While somebody asks a database that is slow to answer, others get what was read before.
        """
        if not self._lock.acquire(blocking=not self._text):
            return self._text
        try:
            if time.monotonic() - self._read_at > _KEPT_SECONDS:
                self._text = _read_state()
                self._read_at = time.monotonic()
            return self._text
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Let the next scrape ask the database."""
        with self._lock:
            self._read_at = float("-inf")


state: Final = _State()


@require_safe
def metrics_view(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """Return the counts of all worker processes, and the state that the database knows."""
    return HttpResponse(render_metrics() + state.render(), content_type=CONTENT_TYPE)


class _Readings:
    """What was read now, and only that.

    A gauge object would be kept by its process beyond the scrape, and be added to what the others
    read at theirs: an incident that is resolved would stay open in every process asked before.
    """

    def __init__(self) -> None:
        self._families: list[Metric] = []

    def add(self, name: str, documentation: str, value: int) -> None:
        """Note one figure."""
        self._families.append(GaugeMetricFamily(name, documentation, value=value))

    def add_by_job(self, name: str, documentation: str, values: Mapping[str, float]) -> None:
        """Note a figure of each job.

        The label is not ``job``: that is the name of what is scraped, and a scrape renames ours.
        """
        family = GaugeMetricFamily(name, documentation, labels=["job_name"])
        for job, value in values.items():
            family.add_metric([job], value)
        self._families.append(family)

    def collect(self) -> Iterator[Metric]:
        """Yield what was noted."""
        return iter(self._families)

    def render(self) -> bytes:
        """Return what was noted in the Prometheus text format."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)


def _read_state() -> bytes:
    """Ask the database; where it does not answer, that is the one thing known."""
    readings = _Readings()
    try:
        pending_migrations = len(find_pending_migrations())
        if pending_migrations == 0:
            counts = _read_counts()
    except (NotReady, DatabaseError, InterfaceError):
        readings.add("valdrix_ops_database_up", _UP, 0)
        return readings.render()
    readings.add("valdrix_ops_database_up", _UP, 1)
    readings.add(
        "valdrix_ops_pending_migrations",
        "Migrations of this release that the database lacks.",
        pending_migrations,
    )
    # A schema that is not this release's may lack what the counts are read from.
    if pending_migrations == 0:
        readings.add(
            "valdrix_ops_enforcement_approval_queue_backlog",
            "Approvals that wait for a reviewer, of all tenants.",
            counts.backlog,
        )
        readings.add(
            "valdrix_ops_open_incidents",
            "Incidents that are open, of all tenants.",
            counts.incidents,
        )
        readings.add_by_job(
            "valdrix_ops_job_age_seconds",
            "Since a job last ran to its end, or for one that never did since the newest migration.",
            counts.job_ages,
        )
        readings.add_by_job(
            "valdrix_ops_job_interval_seconds",
            "From the start of one run of a job to the start of the next.",
            {job.name: job.interval_seconds for job in JOBS},
        )
    return readings.render()


@dataclass(frozen=True, slots=True)
class _Counts:
    """What is read from the tables of a schema that is this release's."""

    backlog: int
    incidents: int
    job_ages: Mapping[str, float]


def _read_counts() -> _Counts:
    with time_limit(_WITHIN_SECONDS), platform_transaction():
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [_ANSWER_WITHIN_MS])
        return _Counts(
            backlog=count_pending_of_all_tenants(),
            incidents=count_open_of_all_tenants(),
            job_ages=read_ages(JOBS),
        )
