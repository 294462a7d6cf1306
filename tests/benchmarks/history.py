"""A tenant with a long history beside one with a short one, and the verification of its ledger."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson
import psycopg

from tests.benchmarks import world
from tests.benchmarks.measuring import NotMeasured, Series, measure
from tests.benchmarks.sections import Bench, Say, gate_case
from tests.factories.history import clone_decisions
from tests.factories.tenants import World
from valdrix.embedded.places import project_directory

YOUNG = 1_000
_KEYS = """
INSERT INTO enforcement_idempotency_key
    (tenant_id, source, stored_key, request_fingerprint, sent_sha256, decision_id, claimed_at)
SELECT tenant_id, source, '6:caller36:' || id, request_fingerprint, request_fingerprint, id,
       created_at
  FROM enforcement_decision WHERE tenant_id = %s ON CONFLICT DO NOTHING
"""
_MEASURED = """
import resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
taken = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
sys.stdout.buffer.write(b"%d %f %f\\n" % (done.returncode, taken, peak) + done.stdout)
"""


def history(bench: Bench, say: Say) -> tuple[dict[str, Series], dict[str, Any]]:
    """Measure gates of both tenants in turn; half of the long history is verified on the way."""
    old, young = world.create_tenant(), world.create_tenant()
    half = bench.effort.history // 2
    _grow(bench, young, YOUNG, say)
    _grow(bench, old, half, say)
    verified = _verify(bench, old)
    say(f"verified {verified['entries']:,} entries in {verified['seconds']:.1f} s")
    _grow(bench, old, bench.effort.history - half, say)
    cases = [
        gate_case(bench, young, "gate_young_10", f"gate after {YOUNG:,} decisions"),
        gate_case(bench, old, "gate_old_10", f"gate after {bench.effort.history:,} decisions"),
    ]
    taken = measure(cases, rounds=bench.effort.rounds, seconds=bench.effort.seconds, say=say)
    return taken, {"decisions": bench.effort.history, "verified": verified}


def _grow(bench: Bench, tenant: World, number: int, say: Say) -> None:
    """Give a tenant that many decisions more, with reservations, entries and keys."""
    template = world.ask_once(tenant)
    with psycopg.connect(bench.stack.server.owner_url, autocommit=True) as connection:
        cursor = connection.cursor()
        clone_decisions(cursor, tenant.id, [template], number=number)
        cursor.execute(_KEYS, [tenant.id])
        cursor.execute("VACUUM ANALYZE")
    say(f"{number:,} decisions more")


def _verify(bench: Bench, tenant: World) -> dict[str, Any]:
    done = subprocess.run(
        [
            *(sys.executable, "-c", _MEASURED, sys.executable, "manage.py", "verify_ledger"),
            *("--tenant", tenant.slug, "--json"),
        ],
        cwd=project_directory(),
        env=bench.stack.environment,
        capture_output=True,
        check=True,
    )
    first, _, document = done.stdout.partition(b"\n")
    code, seconds, peak = first.split()
    found = orjson.loads(document)
    if code != b"0" or not found["intact"]:
        raise NotMeasured(f"the ledger does not hold: {document[:500]!r}")
    return {
        "entries": found["entries"],
        "seconds": round(float(seconds), 2),
        "peak_mib": round(float(peak), 1),
    }
