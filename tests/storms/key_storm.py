"""The key storm: every key is sent many times, at first by everybody at once."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from enforcement.models import Decision, IdempotencyKey, LedgerEntry
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.storms.books import check_books, replay
from tests.storms.crowd import Crowd
from tests.storms.observer import Observer
from tests.storms.senders import Answer, Sender
from valdrix.kernel.db import reading

DOLLAR = Decimal(1)


@dataclass(frozen=True, slots=True)
class Scale:
    """How big the storm is.

    :ivar burst: how many sends of a new key follow one another directly.
    """

    sends: int
    keys: int
    threads: int
    burst: int
    seed: int


def build_order(scale: Scale) -> list[int]:
    """Return which key each send has: a burst of every new one, amid repeats of older ones."""
    chance = random.Random(scale.seed)
    repeats = scale.sends // scale.keys - scale.burst
    older: list[int] = []
    order: list[int] = []
    for key in range(scale.keys):
        order += [key] * scale.burst
        older += [key] * repeats
        chance.shuffle(older)
        due = repeats if key < scale.keys - 1 else len(older)
        order += older[:due]
        del older[:due]
    assert len(order) == scale.sends
    return order


def run(world: World, sender: Sender, scale: Scale) -> dict[str, Any]:
    """Let the storm loose on a fresh tenant, check everything, and return the figures."""
    shop = Shop(world)
    # Half of the keys are refused: a refusal is as final as a permission.
    shop.budget(f"{scale.keys * 5}.00")
    order = build_order(scale)
    crowd: Crowd[int, Answer] = Crowd(scale.threads, title="key storm")

    with Observer(world.id, ceiling_usd=scale.keys * 5 * DOLLAR) as observer:
        answers = crowd.run(order, lambda key: send(world, sender, key))

    assert Counter(answer.status for answer in answers) == {200: scale.sends}
    by_key = group(order, answers)
    firsts = [check_key(bodies) for bodies in by_key.values()]
    decided = Counter(first["decision"] for first in firsts)
    assert set(decided) == {"ALLOW", "DENY"}, decided
    check_rows(world, scale)
    assert observer.violations == []
    figures = {
        "sends": scale.sends,
        "keys": scale.keys,
        "threads": scale.threads,
        "decisions": len({first["decision_id"] for first in firsts}),
        "keys allowed": decided["ALLOW"],
        "keys refused": decided["DENY"],
        "replays": sum(answer.body["replayed"] for answer in answers),
        "keys whose answers differ": 0,
        **observer.figures(),
        "decisions replayed in ledger order, equal": replay(
            world.id, explaining=True
        ).decisions.total(),
        **check_books(world.id),
        "seconds": round(crowd.seconds, 1),
        "sends a second": round(scale.sends / crowd.seconds, 1),
        "seed": scale.seed,
        "served by": sender.name,
    }
    assert figures["replays"] == scale.sends - scale.keys > 0
    assert figures["observer polls"] > 0
    assert figures["polls that saw a session wait for a lock"] > 0, "nobody waited for a key"
    return figures


def send(world: World, sender: Sender, key: int) -> Answer:
    """Send the request that a key stands for."""
    body = {
        "project_id": "shop",
        "environment": "dev",
        "resource_reference": f"module.m{key}",
        "estimated_monthly_delta_usd": "10.00",
    }
    return sender.post("gate/terraform", body, key=world.member.key, attempt=f"key-{key}")


def group(order: list[int], answers: list[Answer]) -> dict[int, list[dict[str, Any]]]:
    """Return the answers of each key."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for key, answer in zip(order, answers, strict=True):
        found[key].append(answer.body)
    return found


def check_key(bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """Check that one answer was the first and all others are it again; return it."""
    firsts = [body for body in bodies if not body["replayed"]]
    assert len(firsts) == 1, [body["reason_codes"] for body in firsts]
    assert all({**body, "replayed": False} == firsts[0] for body in bodies)
    return firsts[0]


def check_rows(world: World, scale: Scale) -> None:
    """Check that there are as many decisions, keys and entries as keys were sent."""
    with reading(world.id):
        counts = {
            Decision.objects.filter(tenant_id=world.id).count(),
            IdempotencyKey.objects.filter(tenant_id=world.id).count(),
            LedgerEntry.objects.filter(tenant_id=world.id, event="decision_made").count(),
        }
    assert counts == {scale.keys}
