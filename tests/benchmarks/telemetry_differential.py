"""The same seeded gates with telemetry off, on, and broken in every way: the same bytes of truth.

    .venv/bin/python -m tests.benchmarks.telemetry_differential --gates 2000 --json FILE

Each way has a copy of one prepared database, and the same ids and the same clock are given to each
gate, so that the ledgers must be equal to the byte. Chunks of gates take turns, so that what the
machine does meanwhile meets all of them alike. Run alone, it makes a throw-away server.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import os
import random
import secrets
import socket
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg

CHUNK = 50
SEED = 20260112
BEGIN = datetime(2026, 11, 15, 12, tzinfo=UTC)
OFF = "off"
MODES = (OFF, "on", "raising", "hanging", "queue full", "table locked", "table dropped")


@dataclass
class Mode:
    """One way for telemetry to be, with a database of its own."""

    name: str
    database: str
    emitter: Any = None
    times_ms: list[float] = field(default_factory=list)
    decisions: dict[str, int] = field(default_factory=dict)


def run(
    tenant_id: uuid.UUID,
    person_id: int,
    *,
    gates: int,
    own_dsn: str,
    names: Sequence[str] = MODES,
) -> dict[str, Any]:
    """Ask the same gates in every mode; return each one's digest of truth, times and losses.

    :param own_dsn: the owner's connection string to the prepared database.
    """
    from django.conf import settings
    from django.db import connections

    prepared = settings.DATABASES["default"]["NAME"]
    connections.close_all()
    with ExitStack() as stack:
        modes = [stack.enter_context(_mode(name, prepared, own_dsn)) for name in names]
        stack.callback(_use, prepared)
        asks = list(_build_asks(tenant_id, person_id, gates))
        for start in range(0, gates, CHUNK):
            # Another one begins each time: nobody always runs on a warm machine.
            turn = (start // CHUNK) % len(modes)
            for mode in modes[turn:] + modes[:turn]:
                _ask(mode, asks[start : start + CHUNK], start)
        results = {}
        for mode in modes:
            _use(mode.database)
            results[mode.name] = _conclude(mode, tenant_id)
        return results


def _ask(mode: Mode, asks: Sequence[Any], start: int) -> None:
    from django.db import connection

    from enforcement.gate import ask as gate_ask
    from enforcement.gate.ask import TimeBudget
    from enforcement.gate.evaluate import evaluate
    from valdrix.kernel import emitter

    _use(mode.database)
    connection.ensure_connection()
    emitter.bind(mode.emitter)
    budget = TimeBudget(total_ms=30_000, lock_ms=10_000)
    gc.collect()
    real = gate_ask.time
    # The response holds the time that it took, and so does the ledger's hash of it.
    gate_ask.time = SimpleNamespace(monotonic=lambda: 0.0, time=real.time)  # type: ignore[assignment]
    try:
        for number, build in enumerate(asks, start):
            question = build(number)
            began = time.perf_counter()
            response = evaluate(question, budget=budget)
            mode.times_ms.append((time.perf_counter() - began) * 1000)
            outcome = response["decision"]
            mode.decisions[outcome] = mode.decisions.get(outcome, 0) + 1
    finally:
        gate_ask.time = real  # type: ignore[assignment]
        emitter.bind(None)


def _build_asks(tenant_id: uuid.UUID, person_id: int, gates: int) -> Iterator[Callable[[int], Any]]:
    from enforcement.adapters import terraform
    from enforcement.gate.ask import Ask

    rng = random.Random(SEED)
    for _ in range(gates):
        body = {
            "project_id": rng.choice(("ample", "tight")),
            "environment": rng.choice(("dev", "prod")),
            "resource_reference": f"module.m{rng.randrange(10_000)}",
            "estimated_monthly_delta_usd": f"{Decimal(rng.randrange(100, 90_000)) / 100:.2f}",
        }

        def build(number: int, body: dict[str, Any] = body) -> Any:
            request = terraform.to_gate_request(body, actor="key:1", header_key=f"gate-{number}")
            at = BEGIN + timedelta(milliseconds=number)
            return Ask(
                tenant_id=tenant_id,
                person_id=person_id,
                request=request,
                decision_id=_id(number, 1),
                charge_id=_id(number, 2),
                approval_id=_id(number, 3),
                clock=lambda: at,
            )

        yield build


def _id(number: int, kind: int) -> uuid.UUID:
    """Return the same id for the same gate every time, growing as ids do."""
    return uuid.UUID(int=(0x019A << 112) | (0x7 << 76) | (0b10 << 62) | (number << 8) | kind)


def _conclude(mode: Mode, tenant_id: uuid.UUID) -> dict[str, Any]:
    from tests.factories.sums import check_chain, find_differences
    from valdrix.certification.telemetry.truth import replay

    if hasattr(mode.emitter, "stop"):
        mode.emitter.stop()
    entries = check_chain(tenant_id)
    replayed = replay(tenant_id)
    times = sorted(mode.times_ms)
    result = {
        "gates": len(times),
        "decisions": dict(sorted(mode.decisions.items())),
        "ledger_entries": entries,
        "ledger_sha256": _digest(
            "SELECT encode(entry_hash, 'hex') FROM enforcement_ledger_entry"
            " WHERE tenant_id = %s ORDER BY sequence",
            tenant_id,
        ),
        "decisions_sha256": _digest(
            "SELECT response_json || outcome_json || context_json FROM enforcement_decision"
            " WHERE tenant_id = %s ORDER BY id",
            tenant_id,
        ),
        "replayed": replayed.count,
        "replay_differing": replayed.differing,
        "kept_totals_differing": len(find_differences(tenant_id)) if entries < 3_500 else 0,
        "p50_ms": round(statistics.median(times), 3),
        "p99_ms": round(times[int(len(times) * 0.99) - 1], 3),
    }
    if hasattr(mode.emitter, "tally"):
        tally = mode.emitter.tally()
        result["telemetry"] = {
            "offered": tally.offered,
            "waiting": tally.waiting,
            **{fate.value: number for fate, number in tally.fates.items() if number},
        }
    return result


def _digest(statement: str, tenant_id: uuid.UUID) -> str:
    """Return the SHA-256 over the texts that a query gives, in its order."""
    from django.db import connection

    from valdrix.kernel.db import reading

    digest = hashlib.sha256()
    with reading(tenant_id), connection.cursor() as cursor:
        cursor.execute(statement, [tenant_id])
        for (text,) in cursor.fetchall():
            digest.update(text.encode() + b"\n")
    return digest.hexdigest()


@contextmanager
def _mode(name: str, prepared: str, own_dsn: str) -> Iterator[Mode]:
    database = f"diff_{os.getpid()}_{MODES.index(name)}"
    with psycopg.connect(own_dsn, dbname="postgres", autocommit=True) as owner:
        _when_free(owner, f"CREATE DATABASE {database} TEMPLATE {prepared}")
        with (
            psycopg.connect(own_dsn, dbname=database, autocommit=True) as own,
            ExitStack() as stack,
        ):
            yield Mode(name, database, stack.enter_context(_emitter(name, database, own)))
        _use(prepared)
        _when_free(owner, f"DROP DATABASE {database}")


def _when_free(owner: psycopg.Connection[Any], statement: str) -> None:
    """Execute what needs a database without sessions; those that are just leaving are waited for."""
    deadline = time.monotonic() + 20
    while True:
        try:
            owner.execute(statement)
            return
        except psycopg.errors.ObjectInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextmanager
def _emitter(name: str, database: str, own: psycopg.Connection[Any]) -> Iterator[Any]:
    from telemetry.events.writer import Writer, WriterLimits

    with contextlib.ExitStack() as stack:
        if name == OFF:
            yield None
            return
        if name == "raising":
            yield _raise
            return
        connect, limits = _connect_to(database), WriterLimits()
        if name == "hanging":
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(64)
            connect = _connect_to(database, port=listener.getsockname()[1])
        elif name == "queue full":
            limits = WriterLimits(queue_events=1, flush_seconds=3_600)
        elif name == "table locked":
            stack.enter_context(own.transaction())
            own.execute("LOCK TABLE telemetry_event IN ACCESS EXCLUSIVE MODE")
        elif name == "table dropped":
            own.execute("DROP TABLE telemetry_event")
        writer = Writer(connect=connect, limits=limits)
        stack.callback(writer.stop)
        yield writer


def _connect_to(database: str, *, port: int | None = None) -> Callable[[], Any]:
    """Return how telemetry's role gets into one mode's database, whatever is used meanwhile."""
    from django.conf import settings

    main = settings.DATABASES["default"]
    where = {
        "host": main["HOST"],
        "port": port or main["PORT"],
        **settings.TELEMETRY_STORE,
        "dbname": database,
    }
    return lambda: psycopg.connect(
        **where,
        autocommit=True,
        connect_timeout=2,
        options="-c statement_timeout=2000 -c lock_timeout=300 -c synchronous_commit=off",
    )


def _raise(seen: object) -> None:
    raise RuntimeError("telemetry is broken")


def _use(database: str) -> None:
    """Make the application's own connection one to this database."""
    from django.db import connections

    connection = connections["default"]
    if connection.settings_dict["NAME"] != database:
        connection.close()
        connection.settings_dict["NAME"] = database


def prepare(api_world: Any) -> None:
    """Open policy, budgets and credits of a tenant through the API, and ask its first gate."""
    from tests.factories.headroom import Shop

    shop = Shop(
        api_world,
        modes={"terraform": {"default": "hard", "prod": "soft"}},
        thresholds={
            "prod": {"require_approval_from_usd": "500.00"},
            "nonprod": {"require_approval_from_usd": "1000000.00"},
        },
    )
    shop.budget("10000000.00", project_id="ample")
    shop.budget("2000.00", project_id="tight")
    shop.grant("reserved", "1000.00", project_id="tight")
    # The exposure's account is made by the first gate, under an id that the database chooses.
    shop.ask("1.00", project_id="ample", key="first")


def summarise(results: dict[str, Any]) -> dict[str, Any]:
    """Return what the run shows: whether truth is the same, and each mode's p99 by that of off."""
    off = results[OFF]
    same = ("decisions", "ledger_sha256", "decisions_sha256", "replay_differing")
    return {
        "gates": off["gates"],
        "identical": all(one[name] == off[name] for one in results.values() for name in same),
        "p99_ratio": {
            name: round(one["p99_ms"] / off["p99_ms"], 3) for name, one in results.items()
        },
        "p50_ratio": {
            name: round(one["p50_ms"] / off["p50_ms"], 3) for name, one in results.items()
        },
        "modes": results,
    }


def main() -> int:
    """Run on a throw-away server and print what it shows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gates", type=int, default=2_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from valdrix.embedded.postgres import throwaway_postgres

    with throwaway_postgres() as server:
        os.environ.update(server.environment())
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "valdrix.settings",
            "DJANGO_SECRET_KEY": secrets.token_urlsafe(50),
            "TELEMETRY_ENABLED": "false",
            "ALLOWED_HOSTS": "testserver,127.0.0.1",
            "LOG_LEVEL": "CRITICAL",
        }
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0, interactive=False)
        from tests.factories.tenants import create_world

        world = create_world()
        prepare(world)
        results = run(world.id, world.member.user_id, gates=options.gates, own_dsn=server.owner_url)
    summary = summarise(results)
    text = json.dumps(summary, indent=2)
    sys.stdout.write(text + "\n")
    if options.json:
        options.json.write_text(text + "\n")
    return 0 if summary["identical"] else 1


if __name__ == "__main__":
    sys.exit(main())
