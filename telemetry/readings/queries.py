"""Reads of events: one statement a figure, each within the store's own time-outs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

from telemetry.events.domain import LARGEST_USD, LONGEST_MS
from telemetry.readings.domain import (
    MOST_GROUPS,
    Reading,
    Window,
    build_approvals,
    build_decisions,
    build_latency,
    build_spend,
)
from telemetry.store.connection import Connection
from valdrix.kernel.emitter import APPROVAL_ENDED, GATE_DECIDED

_BIND: Final = "SELECT set_config('valdrix.tenant', %s, true)"
_IN_WINDOW: Final = (
    "tenant_id = %(tenant)s AND kind = %(kind)s AND at >= %(start)s AND at < %(end)s"
)
# Constants below are put into statements; everything from a caller is a parameter.
_IS_DURATION: Final = f"(duration_ms BETWEEN 0 AND {LONGEST_MS})"
_IS_AMOUNT: Final = f"(amount_usd <> 'NaN' AND abs(amount_usd) <= {LARGEST_USD})"

_GROUPS: Final = f"""
SELECT outcome, source, environment, attributes, count(*) FROM telemetry_event
 WHERE {_IN_WINDOW} GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC LIMIT {MOST_GROUPS + 1}
"""  # noqa: S608
_SERIES: Final = f"""
SELECT date_trunc(%(step)s, at, 'UTC'), outcome, count(*) FROM telemetry_event
 WHERE {_IN_WINDOW} GROUP BY 1, 2 ORDER BY 1
"""  # noqa: S608
_LATENCY: Final = f"""
SELECT count(*) FILTER (WHERE {_IS_DURATION}),
       percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY duration_ms)
           FILTER (WHERE {_IS_DURATION}),
       max(duration_ms) FILTER (WHERE {_IS_DURATION}),
       count(*) FILTER (WHERE NOT coalesce({_IS_DURATION}, false))
  FROM telemetry_event WHERE {_IN_WINDOW}
"""  # noqa: S608
_SPEND: Final = f"""
SELECT CASE kind WHEN '{GATE_DECIDED}' THEN 'gate' ELSE 'people' END, environment,
       count(*) FILTER (WHERE {_IS_AMOUNT} AND amount_usd > 0),
       coalesce(sum(amount_usd) FILTER (WHERE {_IS_AMOUNT} AND amount_usd > 0), 0),
       count(*) FILTER (WHERE NOT {_IS_AMOUNT})
  FROM telemetry_event
 WHERE tenant_id = %(tenant)s AND at >= %(start)s AND at < %(end)s
   AND (kind = '{GATE_DECIDED}' AND outcome = 'DENY'
     OR kind = '{APPROVAL_ENDED}' AND outcome IN ('denied', 'expired', 'withdrawn'))
 GROUP BY 1, 2
"""  # noqa: S608
_APPROVALS: Final = f"""
SELECT outcome, count(*) FILTER (WHERE {_IS_DURATION}),
       percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY duration_ms)
           FILTER (WHERE {_IS_DURATION}),
       count(*) FILTER (WHERE NOT coalesce({_IS_DURATION}, false))
  FROM telemetry_event WHERE {_IN_WINDOW} GROUP BY 1
"""  # noqa: S608

Query = Callable[[Connection, uuid.UUID, Window], Reading]


def read_decisions(store: Connection, tenant_id: uuid.UUID, window: Window) -> Reading:
    """Return how many decisions a tenant's gates made, by outcome and more."""
    with store.transaction():
        groups = _fetch(store, _GROUPS, tenant_id, window)
        return build_decisions(groups, _fetch(store, _SERIES, tenant_id, window))


def read_latency(store: Connection, tenant_id: uuid.UUID, window: Window) -> Reading:
    """Return how long a tenant's gates took."""
    with store.transaction():
        (row,) = _fetch(store, _LATENCY, tenant_id, window)
    return build_latency(row)


def read_spend_avoided(store: Connection, tenant_id: uuid.UUID, window: Window) -> Reading:
    """Return the monthly spending that gates and people refused a tenant."""
    with store.transaction():
        return build_spend(_fetch(store, _SPEND, tenant_id, window))


def read_approval_time(store: Connection, tenant_id: uuid.UUID, window: Window) -> Reading:
    """Return how a tenant's approvals ended, and how long that took."""
    with store.transaction():
        return build_approvals(_fetch(store, _APPROVALS, tenant_id, window, kind=APPROVAL_ENDED))


READINGS: Final[dict[str, Query]] = {
    "decisions": read_decisions,
    "latency": read_latency,
    "spend-avoided": read_spend_avoided,
    "approval-time": read_approval_time,
}


def _fetch(
    store: Connection,
    statement: str,
    tenant_id: uuid.UUID,
    window: Window,
    *,
    kind: str = GATE_DECIDED,
) -> list[tuple[Any, ...]]:
    store.execute(_BIND, [str(tenant_id)])
    parameters = {
        "tenant": tenant_id,
        "kind": kind,
        "start": window.start_at,
        "end": window.end_at,
        "step": window.step,
    }
    return store.execute(statement, parameters).fetchall()
