"""The sections of the report: what is measured, each against the floors of its own section."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
import psycopg

from tests.benchmarks import world
from tests.benchmarks.floors import Floors, build_floors
from tests.benchmarks.measuring import EMPTY, GATE, Case, Load, Series, measure
from tests.benchmarks.stack import Stack
from tests.benchmarks.world import Tenants, create_tenants
from tests.factories.tenants import World
from valdrix.embedded.places import project_directory

PREFLIGHT: Final = f"{GATE}/preflight"
ADMISSION: Final = "/api/v1/enforcement/gate/k8s/admission/review"
BATCH: Final = "/api/v1/enforcement/gate/batch"
READS: Final = {
    "policies": "policies",
    "budgets": "budgets",
    "credits": "credits",
    "approvals": "approvals/queue",
    "decisions": "decisions",
    "ledger": "ledger?limit=50",
    "parity": "exports/parity?limit=50",
}
"""Endpoints that people and pages read."""

HALF_LOAD_CLIENTS: Final = 32
_PREFIX: Final = "/api/v1/enforcement/"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How long is measured."""

    rounds: int
    seconds: float
    tenants: int
    history: int
    quick: bool


FULL: Final = Effort(rounds=5, seconds=2, tenants=50, history=1_000_000, quick=False)
QUICK: Final = Effort(rounds=1, seconds=1, tenants=5, history=2_000, quick=True)


@dataclass(frozen=True)
class Bench:
    """Everything that a case needs to be run."""

    stack: Stack
    tenants: Tenants
    floors: Floors
    effort: Effort

    def load(self, path: str, *, many: bool = False, clients: int, body: str | None) -> Load:
        """Return a load on a route, by the hot tenant's key or by those of many tenants."""
        names = self.tenants.spread if many else (self.tenants.hot,)
        keys = self.stack.keys_file("many" if many else "hot", [one.key for one in names])
        file = None
        if body is not None:
            file = self.stack.body_file(f"body-{hash(body) & 0xFFFFFF:x}", body)
        return Load(self.stack.base_url, path, keys, file, clients=clients)

    def gate(self, *, many: bool, clients: int) -> Load:
        """Return a load of gates, each about a change of its own."""
        return self.load(GATE, many=many, clients=clients, body=world.gate_body())


def prepare(stack: Stack, effort: Effort, say: Say) -> Bench:
    """Make the tenants and the floors, and a database that has been in use for a minute."""
    say(f"making {effort.tenants + 1} tenants")
    tenants = create_tenants(effort.tenants)
    decision_id = world.ask_once(tenants.hot)
    floors = build_floors(
        stack.server.owner_url, stack.folder, decision_id=decision_id, tenants=effort.tenants
    )
    bench = Bench(stack, tenants, floors, effort)
    say("a first load, and what autovacuum does after a minute of it")
    for many in (False, True):
        bench.gate(many=many, clients=10).run(effort.seconds)
    with psycopg.connect(stack.server.owner_url, autocommit=True) as connection:
        connection.execute("ANALYZE")
    return bench


def throughput(bench: Bench, say: Say) -> dict[str, Series]:
    """Measure floors, naive round trips and the real gate, by clients and tenants."""
    cases = [
        *(_web(bench, clients) for clients in (1, 10, 64)),
        *(_floor(bench, "floor_hot", "one round trip, hot tenant", n) for n in (1, 10, 64)),
        *(_floor(bench, "floor_spread", "one round trip, many tenants", n) for n in (1, 10, 64)),
        _floor(bench, "naive_hot", "seven round trips, hot tenant", 10),
        _floor(bench, "naive_spread", "seven round trips, many tenants", 10),
        *(_gate(bench, clients, many=False) for clients in (1, 10, 64)),
        *(_gate(bench, clients, many=True) for clients in (1, 10, 64)),
    ]
    return measure(cases, rounds=bench.effort.rounds, seconds=bench.effort.seconds, say=say)


def endpoints(bench: Bench, say: Say) -> dict[str, Series]:
    """Measure the other calls at ten clients, beside the web floor of the same section."""
    demo = project_directory() / "valdrix" / "demo"
    estimate = orjson.loads((demo / "estimate.json").read_bytes())
    preflight = bench.load(PREFLIGHT, clients=10, body=world.preflight_body(estimate))
    review = bench.load(ADMISSION, clients=10, body=world.review_body())
    batch = bench.load(BATCH, clients=10, body=world.batch_body())
    cases = [
        _web(bench, 10),
        Case("preflight", "preflight with an Infracost document", preflight.run),
        Case("admission", "admission review of a Deployment", review.run),
        Case("batch", f"gate/batch of {world.BATCH}", replace(batch, is_keyed=False).run),
    ]
    keys = bench.stack.keys_file("owner", [bench.tenants.hot.owner.key])
    for name, path in READS.items():
        load = Load(bench.stack.base_url, _PREFIX + path, keys, method="GET", clients=10)
        cases.append(Case(f"read_{name}", f"GET {path}", load.run))
    return measure(cases, rounds=bench.effort.rounds, seconds=bench.effort.seconds, say=say)


def half_load(bench: Bench, say: Say) -> dict[str, Series]:
    """Measure latency at half of what ten clients reach, beside that of one client."""
    ten = measure(
        [_gate(bench, 10, many=False)],
        rounds=bench.effort.rounds,
        seconds=bench.effort.seconds,
        say=say,
    )
    turn_ms = HALF_LOAD_CLIENTS / (ten["gate_hot_10"].rate / 2) * 1000
    slow = replace(bench.gate(many=False, clients=HALF_LOAD_CLIENTS), delay_ms=turn_ms)
    # A turn is a pause and an answer: how long that takes is seen first.
    answer_ms = slow.run(bench.effort.seconds).p50_ms
    slow = replace(slow, delay_ms=max(0.0, turn_ms - answer_ms))
    cases = [
        _gate(bench, 1, many=False),
        Case("gate_hot_half", "gate, hot tenant, at half of saturation", slow.run),
        _gate(bench, 10, many=False),
    ]
    return measure(cases, rounds=bench.effort.rounds, seconds=bench.effort.seconds, say=say)


def _web(bench: Bench, clients: int) -> Case:
    load = bench.load(EMPTY, clients=clients, body=world.gate_body())
    return Case(f"web_{clients}", f"web floor, {_clients(clients)}", load.run)


def _floor(bench: Bench, name: str, title: str, clients: int) -> Case:
    def run(seconds: float) -> Any:
        return bench.floors.run(name, clients=clients, seconds=seconds)

    return Case(f"{name}_{clients}", f"database, {title}, {_clients(clients)}", run)


def _gate(bench: Bench, clients: int, *, many: bool) -> Case:
    tenants = f"{bench.effort.tenants} tenants" if many else "hot tenant"
    load = bench.gate(many=many, clients=clients)
    name = f"gate_{'spread' if many else 'hot'}_{clients}"
    return Case(name, f"gate, {tenants}, {_clients(clients)}", load.run)


def gate_case(bench: Bench, tenant: World, name: str, title: str) -> Case:
    """Return ten clients at one tenant's gate."""
    keys = bench.stack.keys_file(name, [tenant.key])
    body = bench.stack.body_file(name, world.gate_body())
    load = Load(bench.stack.base_url, GATE, keys, body, clients=10)
    return Case(name, f"{title}, {_clients(10)}", load.run)


def _clients(clients: int) -> str:
    return f"{clients} client{'s' if clients > 1 else ''}"
