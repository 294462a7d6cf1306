"""A million events into a dead store: memory, the account of the losses, and the end on SIGTERM.

.venv/bin/python -m tests.benchmarks.telemetry_dead_store --events 1000000 --json FILE
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
KINDS = ("refuses", "is silent")


def measure(kind: str, events: int) -> dict[str, Any]:
    """Return what one process did that emitted into a store of this kind and was then ended."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "is silent":
            listener.listen(64)
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.telemetry_dead_store", "--emit", str(events)],
            cwd=ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "valdrix.settings",
                "DJANGO_SECRET_KEY": secrets.token_urlsafe(50),
                "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{port}/nothing",
                "TELEMETRY_DATABASE_URL": f"postgresql://nobody:x@127.0.0.1:{port}/nothing",
                "TELEMETRY_ENABLED": "true",
                "LOG_LEVEL": "CRITICAL",
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        emitted = json.loads(process.stdout.readline())
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        ended = json.loads(process.communicate(timeout=60)[0])
        took = time.monotonic() - began
    return {
        "store": kind,
        **emitted,
        **ended,
        "ended_within_seconds": round(took, 3),
        "exit_code": process.returncode,
    }


def emit(events: int) -> None:
    """Emit as a gate does, through the port that is bound at start; then wait to be ended."""
    import django

    django.setup()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from tests.factories.telemetry import build_observation
    from valdrix.kernel import emitter
    from valdrix.kernel.ids import new_id

    tenant_id = new_id()
    template = build_observation(tenant_id)
    for _ in range(1_000):
        emitter.emit(lambda: template)
    before = _memory_mb()
    began = time.perf_counter()
    for _ in range(events - 1_000):
        emitter.emit(lambda: template)
    took = time.perf_counter() - began
    writer = emitter._Port.emitter
    assert writer is not None

    def tell() -> None:
        tally = writer.tally()  # type: ignore[attr-defined]
        say(
            {
                "offered": tally.offered,
                "lost": tally.lost,
                "unaccounted": tally.waiting,
                "fates": {fate.value: number for fate, number in tally.fates.items() if number},
            }
        )

    try:
        say(
            {
                "events": events,
                "microseconds_an_event": round(took / (events - 1_000) * 1e6, 2),
                "memory_before_mb": before,
                "memory_after_mb": _memory_mb(),
                "waiting_at_most": writer._limits.queue_events,  # type: ignore[attr-defined]
            }
        )
        time.sleep(120)
    finally:
        writer.stop()  # type: ignore[attr-defined]
        tell()


def say(document: dict[str, Any]) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _memory_mb() -> float:
    """Return the most memory that the process has held so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main() -> int:
    """Measure both kinds of dead store."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--emit", type=int)
    options = parser.parse_args()
    if options.emit:
        emit(options.emit)
        return 0
    results = [measure(kind, options.events) for kind in KINDS]
    text = json.dumps(results, indent=2)
    sys.stdout.write(text + "\n")
    if options.json:
        options.json.write_text(text + "\n")
    holds = all(
        one["offered"] == one["lost"] == one["events"]
        and one["unaccounted"] == 0
        and one["ended_within_seconds"] <= 3
        and one["exit_code"] == 0
        for one in results
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
