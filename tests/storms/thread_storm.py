"""The thread storm: three times as much is asked for as there is, by everybody at once."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from enforcement.gate.failsafe import REASONS
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.storms.books import check_books, check_held, replay
from tests.storms.crowd import Crowd
from tests.storms.observer import Observer
from tests.storms.senders import Answer, Sender

CENT = Decimal("0.01")
DEMAND_OVER_LIMIT = 3

# Shares of the ceiling; together they are a little more than the ceiling.
BUDGETS: tuple[tuple[str, dict[str, str]], ...] = (
    ("0.30", {"project_id": "alpha"}),
    ("0.18", {"project_id": "alpha", "environment": "prod"}),
    ("0.18", {"project_id": "alpha", "environment": "nonprod"}),
    ("0.08", {"project_id": "alpha", "team": "web"}),
    ("0.34", {"project_id": "beta"}),
    ("0.16", {"project_id": "beta", "environment": "nonprod"}),
    ("0.40", {"project_id": "gamma"}),
    ("0.12", {"project_id": "gamma", "team": "data"}),
)
GRANTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("reserved", "0.03", {"project_id": "alpha"}),
    ("reserved", "0.04", {}),
    ("reserved", "0.01", {"priority": 5}),
    ("emergency", "0.03", {}),
)


@dataclass(frozen=True, slots=True)
class Scale:
    """How big the storm is."""

    calls: int
    threads: int
    seed: int


def build_bodies(scale: Scale) -> list[dict[str, Any]]:
    """Return the questions, in random order of scopes and amounts; the seed says which."""
    chance = random.Random(scale.seed)
    return [
        {
            # The first runs dry early, on budget and credits; the others go on to the ceiling.
            "project_id": chance.choices(("alpha", "beta", "gamma"), (5, 3, 2))[0],
            "environment": chance.choice(("prod", "dev")),
            "resource_reference": f"module.m{number}",
            "estimated_monthly_delta_usd": _amount(chance),
        }
        | ({"team": chance.choice(("web", "data"))} if chance.random() < 0.5 else {})
        for number in range(scale.calls)
    ]


def demand_of(bodies: list[dict[str, Any]]) -> Decimal:
    """Return what all questions ask for together; a saving asks for nothing."""
    amounts = (Decimal(body["estimated_monthly_delta_usd"]) for body in bodies)
    return sum((amount for amount in amounts if amount > 0), Decimal(0))


def run(world: World, sender: Sender, scale: Scale) -> dict[str, Any]:
    """Let the storm loose on a fresh tenant, check everything, and return the figures."""
    bodies = build_bodies(scale)
    demand = demand_of(bodies)
    ceiling = (demand / DEMAND_OVER_LIMIT).quantize(CENT)
    set_up(world, ceiling)
    crowd: Crowd[int, Answer] = Crowd(scale.threads, title="thread storm")

    with Observer(world.id, ceiling_usd=ceiling) as observer:
        answers = crowd.run(
            range(scale.calls),
            lambda n: sender.post(
                "gate/terraform", bodies[n], key=world.member.key, attempt=f"storm-{n}"
            ),
        )

    assert not observer.violations, f"over a limit when looked at: {observer.violations[:3]}"
    tally = check_answers(answers)
    found = replay(world.id, explaining=True)
    assert found.decisions + Counter({"DENY": found.fail_safe.total()}) == Counter(
        answer.body["decision"] for answer in answers
    )
    check_held(world.id, found.totals)
    figures = {
        "calls": scale.calls,
        "threads": scale.threads,
        "budgets": len(BUDGETS),
        "grants": len(GRANTS),
        "demand (US dollars)": str(demand),
        "ceiling (US dollars)": str(ceiling),
        **tally,
        **observer.figures(),
        "decisions replayed in ledger order, equal": found.decisions.total(),
        **check_books(world.id),
        "seconds": round(crowd.seconds, 1),
        "calls a second": round(scale.calls / crowd.seconds, 1),
        "seed": scale.seed,
        "served by": sender.name,
    }
    check_it_was_a_storm(figures)
    return figures


def set_up(world: World, ceiling: Decimal) -> None:
    """Publish the policy and open the budgets and grants, all as shares of the ceiling."""
    shop = Shop(
        world,
        limits={
            "plan_monthly_ceiling_usd": str(ceiling),
            "enterprise_monthly_ceiling_usd": str(ceiling),
        },
        credits={"emergency": {"prod": "automatic", "nonprod": "automatic"}},
    )
    for share, scope in BUDGETS:
        shop.budget(_share(ceiling, share), **scope)
    for pool, share, terms in GRANTS:
        shop.grant(pool, _share(ceiling, share), **terms)


def check_answers(answers: list[Answer]) -> dict[str, int]:
    """Check that every call was decided, and count how."""
    assert Counter(answer.status for answer in answers) == {200: len(answers)}
    bodies = [answer.body for answer in answers]
    assert not any(body["replayed"] for body in bodies)
    assert len({body["decision_id"] for body in bodies}) == len(bodies)
    decided = Counter(body["decision"] for body in bodies)
    failed = sum(bool(set(body["reason_codes"]) & set(REASONS)) for body in bodies)
    refused = [body for body in bodies if body["decision"] == "DENY"]
    limiting = Counter(body["entitlement_reason_code"] for body in refused)
    accepted = decided["ALLOW"] + decided["ALLOW_WITH_CREDITS"]
    assert accepted + decided["DENY"] == len(answers)
    return {
        "accepted": accepted,
        "of these with credits": decided["ALLOW_WITH_CREDITS"],
        "refused": decided["DENY"],
        "of these by fail-safe": failed,
        "refused by a ceiling": limiting["plan_limit_exceeded"],
        "refused by budget and credits": limiting["project_budget_exceeded"],
    }


def check_it_was_a_storm(figures: dict[str, Any]) -> None:
    """Fail a storm in which the hard things did not happen (an empty one proves nothing)."""
    for name in (
        "refused",
        "accepted",
        "of these with credits",
        "refused by a ceiling",
        "refused by budget and credits",
        "observer polls",
        "observer polls that added up every line",
        "polls that saw a session wait for a lock",
    ):
        assert figures[name] > 0, f"an empty storm: no {name}"
    assert figures["of these by fail-safe"] < figures["refused"]


def _amount(chance: random.Random) -> str:
    low, high = chance.choice(((1, 100), (100, 3000), (3000, 12000), (-5000, 0), (100, 3000)))
    return str(Decimal(chance.randint(low, high)) / 100)


def _share(ceiling: Decimal, share: str) -> str:
    return str((ceiling * Decimal(share)).quantize(CENT))
