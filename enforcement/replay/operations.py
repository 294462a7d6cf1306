"""Simulations that are asked for, claimed by one runner, and kept with their result."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from django.db.models import Q

from enforcement.replay.models import DONE, FAILED, QUEUED, RUNNING, Simulation
from enforcement.replay.queries import Span, count_decisions
from enforcement.replay.simulation import simulate
from governance.policies.document import canonical_policy, parse_policy
from valdrix.kernel import strict_json
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.problems import NotFound

JOB: Final = "run-simulations"
"""The job that runs what waits; whoever orders a long one prompts it after the commit."""

log = logging.getLogger("valdrix.simulation")

SILENT: Final = timedelta(minutes=2)
"""After this without a word a runner is gone, and another takes its simulation."""
AT_ONCE: Final = 500
"""Up to this many decisions are simulated while the caller waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationOrder:
    """A policy document that is to be run on a span; the id is made by the door."""

    simulation_id: uuid.UUID
    document: object
    span: Span
    requested_by: str
    requested_at: datetime


def order_simulation(*, order: SimulationOrder, clock: Callable[[], datetime]) -> Simulation:
    """Keep an order; a short history is simulated at once, a long one by the job.

    :raises InvalidPolicy: with everything that is wrong with the document.
    """
    parse_policy(order.document)
    canonical = canonical_policy(order.document)
    span = order.span
    total = count_decisions(span)
    with transaction(span.tenant_id):
        simulation = Simulation.objects.create(
            id=order.simulation_id,
            tenant_id=span.tenant_id,
            document_json=canonical.canonical_json,
            policy_sha256=canonical.sha256,
            start_at=span.start_at,
            end_at=span.end_at,
            requested_by=order.requested_by,
            requested_at=order.requested_at,
            total=total,
        )
    if total <= AT_ONCE:
        run_simulation(tenant_id=span.tenant_id, simulation_id=simulation.pk, clock=clock)
        return get_simulation(tenant_id=span.tenant_id, simulation_id=simulation.pk)
    return simulation


def get_simulation(*, tenant_id: uuid.UUID, simulation_id: uuid.UUID) -> Simulation:
    """Return one simulation.

    :raises NotFound: when the tenant has no such simulation.
    """
    with reading(tenant_id):
        found = Simulation.objects.filter(tenant_id=tenant_id, id=simulation_id).first()
    if found is None:
        raise NotFound("No such simulation.")
    return found


def find_open(tenant_id: uuid.UUID, *, now: datetime) -> list[uuid.UUID]:
    """Return the simulations that wait for a runner, or whose runner is gone; oldest first."""
    with reading(tenant_id):
        rows = Simulation.objects.filter(_is_open(now), tenant_id=tenant_id)
        return list(rows.order_by("id").values_list("id", flat=True))


def run_simulation(
    *, tenant_id: uuid.UUID, simulation_id: uuid.UUID, clock: Callable[[], datetime]
) -> bool:
    """Run one simulation to its end; return False where another runner has it."""
    now = clock()
    with transaction(tenant_id):
        rows = Simulation.objects.filter(_is_open(now), tenant_id=tenant_id, id=simulation_id)
        if rows.update(status=RUNNING, seen_at=now) != 1:
            return False
        simulation = Simulation.objects.get(tenant_id=tenant_id, id=simulation_id)

    def tell(done: int, total: int) -> None:
        _update(tenant_id, simulation_id, done=done, total=total, seen_at=clock())

    span = Span(tenant_id=tenant_id, start_at=simulation.start_at, end_at=simulation.end_at)
    try:
        policy = parse_policy(strict_json.loads(simulation.document_json.encode()))
        result = simulate(span, policy, progress=tell)
    except Exception as error:
        log.exception("simulation=%s failed", simulation_id)
        _update(
            tenant_id,
            simulation_id,
            status=FAILED,
            finished_at=clock(),
            error=f"The simulation failed ({type(error).__name__}); the log says more.",
        )
        return True
    _update(
        tenant_id,
        simulation_id,
        status=DONE,
        finished_at=clock(),
        done=result["decisions"] + result["fail_safe_left_out"],
        total=result["decisions"] + result["fail_safe_left_out"],
        result_json=orjson.dumps(result).decode(),
    )
    return True


def _is_open(now: datetime) -> Q:
    return Q(status=QUEUED) | Q(status=RUNNING, seen_at__lt=now - SILENT)


def _update(tenant_id: uuid.UUID, simulation_id: uuid.UUID, **values: Any) -> None:
    with transaction(tenant_id):
        rows = Simulation.objects.filter(tenant_id=tenant_id, id=simulation_id, status=RUNNING)
        rows.update(**values)
