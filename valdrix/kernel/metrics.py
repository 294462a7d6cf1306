"""Metrics: the names operators rely on (SPEC 20), counted in the process and read at /metrics.

No label has a tenant's or a caller's text. With several worker processes their counts are added
up through ``PROMETHEUS_MULTIPROC_DIR``.
"""

from __future__ import annotations

import os
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_LATENCY_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip

REQUEST_COUNT: Final = Counter("request_count", "Requests answered.", ("method", "route", "status"))
REQUEST_DURATION: Final = Histogram(
    "request_duration_seconds", "Time to answer a request.", ("method", "route"),
    buckets=_LATENCY_BUCKETS,
)  # fmt: skip
DB_ERRORS: Final = Counter("db_errors", "Database errors by their SQLSTATE class.", ("class",))
DATABASE_CIRCUIT_OPEN: Final = Gauge(
    "valdrix_ops_database_circuit_open",
    "Processes that get no answer from the database and probe it.",
    multiprocess_mode="livesum",
)
DATABASE_CIRCUIT_EVENTS: Final = Counter(
    "valdrix_ops_database_circuit_events",
    "What the database's circuit breaker did: opened, closed, probe_failed, refused.",
    ("event",),
)
DB_QUERY_DURATION: Final = Histogram(
    "db_query_duration_seconds", "Time of one statement of a request.", ("operation",),
    buckets=_LATENCY_BUCKETS,
)  # fmt: skip
AUTH_ATTEMPTS: Final = Counter("auth_attempts", "Authentications by API key.", ("outcome",))

GATE_DECISIONS: Final = Counter(
    "valdrix_ops_enforcement_gate_decisions",
    "Gate decisions, fail-safe ones included.",
    ("source", "decision", "mode"),
)
GATE_FAILURES: Final = Counter(
    "valdrix_ops_enforcement_gate_failures",
    "Evaluations that failed safe, by their reason.",
    ("reason",),
)
GATE_LATENCY: Final = Histogram(
    "valdrix_ops_enforcement_gate_latency_seconds",
    "Time of one evaluation.",
    buckets=_LATENCY_BUCKETS,
)
GATE_BATCH_SIZE: Final = Histogram(
    "valdrix_ops_enforcement_gate_batch_size",
    "Questions that were settled together, by one lock and one commit.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
GATE_LOCK_EVENTS: Final = Counter(
    "valdrix_ops_enforcement_gate_lock_events",
    "What became of waiting for a gate's locks.",
    ("event",),
)
ENTITLEMENT_DENIALS: Final = Counter(
    "valdrix_ops_enforcement_entitlement_denials",
    "Changes that did not go ahead, by the first limit that they exceeded.",
    ("reason",),
)
RECONCILIATIONS: Final = Counter(
    "valdrix_ops_enforcement_reservation_reconciliations",
    "Families of reservations settled.",
    ("trigger", "status"),
)
RATE_LIMIT_REJECTIONS: Final = Counter(
    "rate_limit_rejections", "Requests refused because a limit was used up.", ("limit",)
)
REQUESTS_SHED: Final = Counter(
    "valdrix_ops_requests_shed",
    "Requests refused because too many were in progress: gates, and others before them.",
    ("kind",),
)
REQUESTS_LOST: Final = Counter(
    "valdrix_ops_requests_lost",
    "Requests that were in progress in a web process when it died, and got no answer.",
)
REQUESTS_UNREAD: Final = Counter(
    "valdrix_ops_requests_unread",
    "Requests that were refused before the application saw them: unreadable, too long, or half sent.",
    ("code",),
)
THROTTLE_FAILURES: Final = Counter(
    "valdrix_ops_throttle_failures", "Times that counting failed and let pass.", ("store",)
)
GATE_SATURATION: Final = Gauge(
    "valdrix_ops_enforcement_gate_saturation_ratio",
    "How much of the gate's cap over all tenants is used, from 0 to 1.",
    multiprocess_mode="mostrecent",
)
OUTBOUND_CALLS: Final = Counter(
    "valdrix_ops_outbound_calls", "Tries of calls to other systems.", ("outcome",)
)
TELEMETRY_EVENTS: Final = Counter(
    "valdrix_ops_telemetry_events",
    "Telemetry events by what became of them: written, known already, or lost and why.",
    ("fate",),
)
BUDGET_ALERTS: Final = Counter(
    "valdrix_ops_enforcement_budget_alerts",
    "Budgets that reached a level of their limit in a month, once each.",
    ("level_percent",),
)


def render_metrics() -> bytes:
    """Return every metric in the Prometheus text format, of all worker processes together."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # ships no types
        return generate_latest(registry)
    return generate_latest(REGISTRY)
