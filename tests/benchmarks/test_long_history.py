"""Exports, verification, replay and simulation of a long history: ``make bench-proof``.

In the suite it is short and only shows that everything holds together. With ``VALDRIX_BENCH_ROWS``
the history has that many rows in its four files, and the figures are written to
docs/ops/proof-benchmarks.json.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.db import connection

from enforcement.exports.columns import SOURCES
from enforcement.exports.domain import build_scope
from enforcement.exports.queries import read_segment, segment_query
from enforcement.exports.single_file import TARGET
from enforcement.exports.verifier.layout import FILES
from enforcement.ledger.verification import verify_ledger
from enforcement.replay.queries import Span
from enforcement.replay.replaying import replay
from enforcement.replay.simulation import simulate
from governance.policies.document import parse_policy
from tests.factories.headroom import Shop, build_policy
from tests.factories.history import clone_decisions
from tests.factories.tenants import World
from tests.integration.exports.history import KEY, PUBLIC
from valdrix.kernel.db import read_within, snapshot_reading

ROWS = int(os.environ.get("VALDRIX_BENCH_ROWS", "4000"))
ROOT = Path(__file__).parents[2]
REPORT = ROOT / "docs" / "ops" / "proof-benchmarks.json"
ROWS_A_DECISION = 3.5
"""One decision, one or two ledger entries, a reservation for three of four."""


@pytest.fixture
def world(tenant: World, owner_cursor: Any) -> World:
    shop = Shop(tenant)
    shop.budget("100.00")
    shop.grant("reserved", "50.00")
    made = [shop.ask(amount, resource_reference=amount) for amount in ("10.00", "100.00", "-4.00")]
    made.append(shop.ask("9000.00", resource_reference="denied"))
    templates = [one["decision_id"] for one in made]
    clone_decisions(owner_cursor, tenant.id, templates, number=int(ROWS / ROWS_A_DECISION))
    return tenant


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def copy_alone(world: World) -> int:
    """Read the same cells of the same rows by COPY alone, and throw them away."""
    scope = build_scope(tenant_id=world.id, window=(None, None), limit=None, now=datetime.now(UTC))
    size = 0
    with snapshot_reading(world.id):
        text, values = segment_query(scope)
        segment = read_segment(scope, read_within(text, *values))
        parameters = {
            "tenant": world.id,
            "start": scope.start_at,
            "end": scope.end_at,
            "after": segment.after.sequence,
            "last": segment.last.sequence,
        }
        for name in FILES:
            source = SOURCES[name]
            statement = f"SELECT {', '.join(source.cells.values())}{source.tables}{source.order}"
            with (
                connection.cursor() as cursor,
                cursor.copy(f"COPY ({statement}) TO STDOUT (FORMAT csv)", parameters) as rows,
            ):
                size += sum(len(row) for row in rows)
    return size


def measured(arguments: list[str], tmp_path: Path) -> dict[str, float]:
    """Run a program and return its time, its own processor time, and the largest memory it had."""
    url = urlsplit(os.environ["DATABASE_URL"])
    name = connection.settings_dict["NAME"]
    program = (
        "import resource, subprocess, sys, time\n"
        "began = time.perf_counter()\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(done.returncode, time.perf_counter() - began, used.ru_utime + used.ru_stime,\n"
        "      used.ru_maxrss / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        check=True,
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": urlunsplit(url._replace(path=f"/{name}")),
            "ENFORCEMENT_EXPORT_SIGNING_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
            "ENFORCEMENT_EXPORT_SIGNING_KID": KEY.key_id,
        },
        text=True,
        timeout=900,
    )
    code, seconds, cpu, megabytes = done.stdout.split()
    assert code == "0", done.stderr
    return {"seconds": float(seconds), "cpu_seconds": float(cpu), "peak_mib": float(megabytes)}


def test_a_long_history_is_exported_verified_replayed_and_simulated(
    world: World, tmp_path: Path
) -> None:
    chain_seconds, chain = timed(lambda: verify_ledger(world.id))
    assert chain.fault is None
    path = tmp_path / "archive.zip"
    slug = ["--tenant", world.slug]
    timed(lambda: copy_alone(world))
    copy_seconds, size = timed(lambda: copy_alone(world))
    exported = measured(
        [sys.executable, "manage.py", "export_parity", *slug, "--output", str(path)], tmp_path
    )
    verified = measured([sys.executable, str(TARGET), str(path), "--public-key", PUBLIC], tmp_path)
    now = datetime.now(UTC)
    span = Span(
        tenant_id=world.id,
        start_at=now.replace(year=now.year - 1),
        end_at=now.replace(year=now.year + 1),
    )
    replay_seconds, replayed = timed(lambda: replay(span))
    policy = parse_policy(build_policy(thresholds={"nonprod": {"deny_from_usd": "50.00"}}))
    simulate_seconds, simulated = timed(lambda: simulate(span, policy))

    assert set(replayed.results) == {"same"}
    assert simulated["decisions"] == replayed.total
    quarter = (replayed.total - 4) // 4
    assert simulated["would_deny"] >= 2 * quarter
    figures = {
        "measured_at": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "rows": int(chain.entries + replayed.total * 1.75),
        "decisions": replayed.total,
        "ledger_entries": chain.entries,
        "csv_mb": round(size / 1e6, 1),
        "copy_to_seconds": round(copy_seconds, 2),
        "export": {key: round(value, 2) for key, value in exported.items()},
        "export_speed_of_copy_to": round(copy_seconds / exported["seconds"], 3),
        "verify": {key: round(value, 2) for key, value in verified.items()},
        "verify_ledger_in_database_seconds": round(chain_seconds, 2),
        "replay_seconds": round(replay_seconds, 2),
        "simulate_seconds": round(simulate_seconds, 2),
        "this_process_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    if "VALDRIX_BENCH_ROWS" in os.environ:
        REPORT.write_text(json.dumps(figures, indent=1) + "\n")
