"""The emitter port: how what was observed leaves the paths of truth, best effort (SPEC 14).

Whoever observes calls :func:`emit` after its commit. The port does nothing until ``valdrix`` binds
an emitter at start; whatever the emitter does, the caller neither sees an exception nor an answer:
nothing that is true may depend on what becomes of an observation.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

log = logging.getLogger("valdrix.emitter")

GATE_DECIDED: Final = "gate_decided"
APPROVAL_ENDED: Final = "approval_ended"


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was observed.

    :ivar id: of what was observed (a decision, an approval): seen twice, it is kept once.
    :ivar kind: one of the constants above.
    :ivar outcome: how it ended, one of a few words.
    :ivar duration_ms: how long it took.
    :ivar attributes: a few scalars more.
    """

    id: uuid.UUID
    tenant_id: uuid.UUID
    kind: str
    at: datetime
    outcome: str
    source: str | None = None
    environment: str | None = None
    duration_ms: int | None = None
    amount_usd: Decimal | None = None
    attributes: Mapping[str, str | int | None] = {}


Emitter = Callable[[Observation], None]


class _Port:
    """What is bound in this process, and how often it failed."""

    emitter: Emitter | None = None
    failures = 0


def bind(emitter: Emitter | None) -> None:
    """Make an emitter the one that observations go to; None makes the port do nothing again."""
    _Port.emitter = emitter
    _Port.failures = 0


def emit(build: Callable[[], Observation]) -> None:
    """Hand one observation to the emitter, without waiting for anything and without ever raising.

    :param build: makes the observation; not called while nothing is bound.
    """
    emitter = _Port.emitter
    if emitter is None:
        return
    try:
        emitter(build())
    except Exception as error:  # Telemetry may fail in any way, its caller may not.
        _Port.failures += 1
        if _Port.failures == 1:  # One line says it; one a gate would be an outage of its own.
            log.warning("the emitter fails; what it is given is lost", exc_info=error)


def failures() -> int:
    """Return how many observations were lost in this process because building or emitting raised."""
    return _Port.failures
