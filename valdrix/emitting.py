"""Emitting: the one place where the paths of truth and the telemetry plane are tied together."""

from __future__ import annotations

import atexit
from functools import partial

from django.conf import settings

from telemetry.events.writer import Writer, WriterLimits
from telemetry.store.connection import WRITING, open_store
from valdrix.kernel.emitter import bind


def bind_emitter() -> None:
    """Bind the telemetry writer, unless telemetry is off or has no store; at exit it is stopped."""
    if not settings.TELEMETRY_ENABLED or settings.TELEMETRY_STORE is None:
        return
    writer = Writer(
        connect=partial(open_store, WRITING),
        limits=WriterLimits(
            queue_events=settings.TELEMETRY_QUEUE_EVENTS,
            longest_pause_seconds=settings.TELEMETRY_LONGEST_PAUSE_SECONDS,
        ),
    )
    bind(writer)
    atexit.register(writer.stop)
