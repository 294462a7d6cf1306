"""One run: the sections asked for, checked afterwards, and written into the report."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from tests.benchmarks import alone, report, sections
from tests.benchmarks.history import history
from tests.benchmarks.measuring import NotMeasured, Series
from tests.benchmarks.sections import Bench, Effort, Say
from tests.benchmarks.stack import Stack
from valdrix.embedded.places import project_directory

DECIDE_CALLS: Final = {True: 2_000, False: 20_000}

_MEASURED: Final[dict[str, Callable[[Bench, Say], dict[str, Series]]]] = {
    "throughput": sections.throughput,
    "half_load": sections.half_load,
    "endpoints": sections.endpoints,
}

_CHECK: Final = """
SELECT count(*) AS decisions, count(*) FILTER (WHERE is_fail_safe) AS fail_safe,
       count(*) FILTER (WHERE decision <> 'ALLOW') AS other,
       count(*) FILTER (WHERE r.decision_id IS NULL) AS unreserved,
       (SELECT count(*) FROM enforcement_ledger_entry WHERE event = 'reserved') AS reserved
  FROM enforcement_decision d LEFT JOIN billing_reservation r ON r.decision_id = d.id
"""


def run(stack: Stack, wanted: list[str], options: argparse.Namespace, say: Say) -> int:
    """Measure the sections, and write the report; 0 when every goal is reached, else 1."""
    effort = sections.QUICK if options.quick else sections.FULL
    if options.history is not None:
        effort = replace(effort, history=options.history)
    bench = sections.prepare(stack, effort, say)
    found: dict[str, Any] = {}
    for name in wanted:
        say(f"section {name}")
        found[name] = _run_section(name, bench, say)
    say(f"what was measured is true: {_check(stack)}")
    folder = options.out or project_directory() / "docs"
    document = report.merge(
        folder, found, machine=_machine(stack), quick=options.quick, step=options.step
    )
    report.write(folder, document)
    goals = report.goals(document["sections"])
    for goal in goals:
        say(f"{'reached' if goal.is_reached else 'MISSED ':<8}{goal.title}: {goal.text}")
    return 0 if all(goal.is_reached for goal in goals) else 1


def _run_section(name: str, bench: Bench, say: Say) -> dict[str, Any]:
    taken_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    effort: Effort = bench.effort
    if name == "decide":
        return {"taken_at": taken_at, **alone.time_decide(calls=DECIDE_CALLS[effort.quick])}
    more: dict[str, Any] = {}
    if name == "history":
        cases, more = history(bench, say)
    else:
        cases = _MEASURED[name](bench, say)
    return {
        "taken_at": taken_at,
        "rounds": effort.rounds,
        "seconds": effort.seconds,
        "tenants": effort.tenants,
        "cases": {case: series.to_document() for case, series in cases.items()},
        **more,
    }


def _check(stack: Stack) -> dict[str, int]:
    """Return what the gates left behind.

    :raises NotMeasured: when one of them was not a real, allowed, reserved and chained decision.
    """
    with psycopg.connect(stack.server.owner_url) as connection:
        row = connection.execute(_CHECK).fetchone()
    assert row is not None
    decisions, fail_safe, other, unreserved, reserved = row
    if fail_safe or other or unreserved or reserved != decisions:
        raise NotMeasured(
            f"{decisions} decisions: {fail_safe} failed safe, {other} not allowed,"
            f" {unreserved} not reserved, {reserved} on the ledger"
        )
    return {"decisions": decisions, "reserved": reserved}


def _machine(stack: Stack) -> dict[str, Any]:
    with psycopg.connect(stack.server.owner_url) as connection:
        version = connection.info.parameter_status("server_version")
        row = connection.execute("SHOW synchronous_commit").fetchone()
    assert row is not None
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "postgresql": version,
        "synchronous_commit": row[0],
        "workers": int(stack.environment["WEB_CONCURRENCY"]),
    }
