"""The crash storm: kill everything that can be killed, and find every acknowledged decision again.

``python -m tests.crash.storm [--json FILE]`` runs the full form, ``make storm-crash`` too; the
short form is in the test suite. It fails when something was lost or changed, and also when too
little was damaged to have shown anything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.clients import Book, Client, ask_everything_again
from tests.crash.faults import (
    BACKEND,
    BOTH_WORKERS,
    STOPPED,
    TERMINATED,
    WORKER,
    Chaos,
)
from tests.crash.rendering import render_page
from tests.crash.stack import Stack, running_stack

SERVICE_LIMIT_SECONDS = 5.0
IDLE_WITHIN_SECONDS = 5.0
TIMES_MORE = 3
"""How many times the planned kills are made at most until some have hit a request."""

_OPEN = """
SELECT pid, state, xact_start::text, left(query, 200) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
   AND (xact_start IS NOT NULL OR state NOT IN ('idle', 'disabled'))
"""
_LOCKS = """
SELECT l.pid, l.locktype, l.mode, l.relation::regclass::text FROM pg_locks l
  JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE a.backend_type = 'client backend' AND l.pid <> pg_backend_pid()
"""
_PREPARED = "SELECT gid FROM pg_prepared_xacts"
_DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


@dataclass(frozen=True)
class Plan:
    """How much is to be damaged.

    :ivar double_kills: how many times both workers are killed at once, beside ``worker_kills``.
    :ivar pause_seconds: how long there is peace between two faults, at most.
    :ivar answers_lost: how many made decisions must have lost their answer, at least.
    :ivar service_within_seconds: how soon there is service again; the short form, which shares its
        machine with other tests, only says when there was none.
    """

    worker_kills: int
    double_kills: int
    terminated: int
    backend_kills: int
    stops: int
    clients: int
    seed: int
    pause_seconds: float
    answers_lost: int = 0
    service_within_seconds: float = 60.0

    def faults(self) -> list[str]:
        """Return the faults in the order in which they happen."""
        shuffled = (
            [WORKER] * self.worker_kills
            + [BOTH_WORKERS] * self.double_kills
            + [TERMINATED] * self.terminated
            + [BACKEND] * self.backend_kills
            + [STOPPED] * self.stops
        )
        random.Random(self.seed).shuffle(shuffled)
        return shuffled


FULL = Plan(
    worker_kills=150,
    double_kills=25,
    terminated=10,
    backend_kills=10,
    stops=2,
    clients=6,
    seed=20261120,
    pause_seconds=0.6,
    answers_lost=1,
    service_within_seconds=SERVICE_LIMIT_SECONDS,
)
SHORT = Plan(
    worker_kills=6,
    double_kills=0,
    terminated=2,
    backend_kills=0,
    stops=1,
    clients=4,
    seed=1,
    pause_seconds=0.2,
)


@dataclass
class Report:
    """What a storm did and found; ``problems`` is empty when it passed."""

    plan: dict[str, Any]
    machine: dict[str, Any]
    kills: dict[str, int] = field(default_factory=dict)
    sessions_ended_in_a_transaction: int = 0
    service_again_seconds: dict[str, dict[str, Any]] = field(default_factory=dict)
    slowest_answer_seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    checked: dict[str, Any] = field(default_factory=dict)
    storm_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def run_storm(plan: Plan, *, say: Callable[[str], None] = lambda text: None) -> Report:
    """Run a storm from nothing to its report."""
    with running_stack() as stack:
        report = Report(plan=asdict(plan), machine=_describe(stack))
        book = Book()
        say(f"database and gunicorn are up, {plan.clients} clients start")
        began = time.monotonic()
        chaos = _damage(stack, book, plan, say)
        report.storm_seconds = round(time.monotonic() - began, 1)
        say(f"the storm is over after {report.storm_seconds} s; looking for what was promised")
        report.problems += _find_open(stack)
        ask_everything_again(book, stack.target(stack.member_key), stack.target(stack.owner_key))
        report.problems += _find_open(stack)
        _check_rows(stack, book, report)
        _fill(report, chaos, book)
        _judge(report, plan)
        return report


def _damage(stack: Stack, book: Book, plan: Plan, say: Callable[[str], None]) -> Chaos:
    """Strike while clients ask; all clients have their answers when this returns."""
    stop = threading.Event()
    targets = (stack.target(stack.member_key), stack.target(stack.owner_key))
    clients = [Client(number, book, targets, stop) for number in range(plan.clients)]
    chaos = Chaos(stack, book)
    pauses = random.Random(plan.seed)
    for client in clients:
        client.start()
    try:
        time.sleep(plan.pause_seconds)
        faults = plan.faults()
        for number, kind in enumerate(faults, start=1):
            took = chaos.strike(kind)
            say(f"{number}/{len(faults)} {kind}: service again after {took:.2f} s")
            time.sleep(pauses.uniform(0, plan.pause_seconds))
            if kind != STOPPED:
                chaos.wait_for_workers(2)
        for _ in range(plan.worker_kills * TIMES_MORE):
            if book.counts["interrupted requests"]:
                break
            chaos.strike(WORKER)
    finally:
        stop.set()
        for client in clients:
            client.join(timeout=90)
    book.faults += [f"{client.name} is stuck" for client in clients if client.is_alive()]
    return chaos


def _find_open(stack: Stack) -> list[str]:
    """Return transactions and locks that nobody will end; what is about to end is waited for."""
    deadline = time.monotonic() + IDLE_WITHIN_SECONDS
    while True:
        with stack.admin() as admin:
            found = [
                f"{name}: {row}"
                for name, sql in (("open", _OPEN), ("lock", _LOCKS), ("prepared", _PREPARED))
                for row in admin.execute(sql).fetchall()
            ]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def _check_rows(stack: Stack, book: Book, report: Report) -> None:
    told = {
        "decisions": [answer for _, answer in book.decisions.values()],
        "fail_safe": book.fail_safe,
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(told, file)
        file.flush()
        done = stack.run("-m", "tests.crash.checks", file.name)
    if done.returncode != 0:
        report.problems.append(f"the check of the rows failed: {done.stderr}")
        return
    found = json.loads(done.stdout)
    report.checked |= found["figures"]
    report.problems += found["problems"]


def _fill(report: Report, chaos: Chaos, book: Book) -> None:
    report.kills = dict(sorted(chaos.damage.kills.items()))
    report.sessions_ended_in_a_transaction = chaos.damage.in_transaction
    report.counts = dict(sorted(book.counts.items()))
    report.slowest_answer_seconds = round(book.slowest_seconds, 2)
    report.problems += book.faults
    for kind, seconds in sorted(chaos.damage.service_seconds.items()):
        ordered = sorted(seconds)
        report.service_again_seconds[kind] = {
            "times": len(ordered),
            "median": round(ordered[len(ordered) // 2], 3),
            "max": round(ordered[-1], 3),
        }


def _judge(report: Report, plan: Plan) -> None:
    """Add what makes a storm worthless: too little damage, or service that came back too late."""
    planned = {
        WORKER: plan.worker_kills,
        BOTH_WORKERS: plan.double_kills,
        TERMINATED: plan.terminated,
        BACKEND: plan.backend_kills,
        STOPPED: plan.stops,
    }
    counts = report.counts
    wanted = [(f"times: {kind}", report.kills.get(kind, 0), n) for kind, n in planned.items()]
    wanted += [
        ("interrupted requests", counts.get("interrupted requests", 0), 1),
        ("fail-safe answers", counts.get("fail-safe answers", 0), 1),
        ("sessions ended in a transaction", report.sessions_ended_in_a_transaction, 1),
        ("answers lost", counts.get("found again after a lost answer", 0), plan.answers_lost),
        ("decided ALLOW", counts.get("decided ALLOW", 0), 10),
        ("settlements", counts.get("settlements asked again afterwards", 0), 1),
    ]
    report.problems += [
        f"the storm was too weak: {name}: {found}, wanted at least {least}"
        for name, found, least in wanted
        if found < least
    ]
    report.problems += [
        f"service came back after {figures['max']} s: {kind}"
        for kind, figures in report.service_again_seconds.items()
        if figures["max"] > plan.service_within_seconds
    ]


def _describe(stack: Stack) -> dict[str, Any]:
    with stack.admin() as admin:
        shown = {name: admin.execute(f"SHOW {name}").fetchone()[0] for name in _DURABLE}
        version = admin.info.parameter_status("server_version")
    assert set(shown.values()) == {"on"}, shown
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "postgresql": version,
        "gunicorn_workers": len(stack.worker_pids()),
        **shown,
    }


def main() -> int:
    """Run the full form and return the exit code: 0 passed, 1 failed."""
    parser = argparse.ArgumentParser(prog="make storm-crash", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here, and a page beside them")
    parser.add_argument("--short", action="store_true", help="run the suite's short form")
    options = parser.parse_args()

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    report = run_storm(SHORT if options.short else FULL, say=say)
    document = json.dumps(asdict(report), indent=2)
    say(document)
    if options.json:
        options.json.write_text(document + "\n")
        options.json.with_suffix(".md").write_text(render_page(asdict(report)))
    say("FAILED" if report.problems else "passed: nothing that was acknowledged is lost or changed")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
