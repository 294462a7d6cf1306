"""The settlement storm: each reservation is confirmed, settled twice and released, all at once."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from billing.models import Reservation, SettlementRecord
from enforcement.models import LedgerEntry
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.storms.books import check_books, replay
from tests.storms.crowd import Crowd
from tests.storms.observer import Observer
from tests.storms.senders import Answer, Sender
from valdrix.kernel.db import reading, transaction

FIRST, SECOND, OVERDUE, CONFIRM = "first", "second", "overdue", "confirm"
ACTUAL = {FIRST: "3.00", SECOND: "9.50"}
RESERVED_USD = Decimal("7.00")
LOSES = "reservation_not_active"
RESERVATIONS_A_JOB = 8


@dataclass(frozen=True, slots=True)
class Scale:
    """How big the storm is.

    :ivar wave: how many reservations are hit by all their settlers in one go.
    """

    reservations: int
    wave: int
    threads: int
    seed: int


@dataclass(frozen=True, slots=True)
class Blow:
    """One try to settle one reservation, or, without a decision, whatever is overdue."""

    kind: str
    decision_id: str | None


def run(world: World, sender: Sender, scale: Scale) -> dict[str, Any]:
    """Let the storm loose on a fresh tenant, check everything, and return the figures."""
    shop = Shop(world)
    # The later ones are on credits, so that settlement has grants to give back to.
    shop.budget(str(scale.reservations))
    grant = shop.grant("reserved", str(scale.reservations * 10), project_id="shop")
    chance = random.Random(scale.seed)
    blows: list[Blow] = []
    answers: list[Answer] = []
    seconds = 0.0

    # An overrun is legal, and above a limit.
    with Observer(world.id, ceiling_usd=None) as observer:
        for start in range(0, scale.reservations, scale.wave):
            wave = range(start, min(start + scale.wave, scale.reservations))
            decisions = reserve(world, sender, scale, wave)
            struck = build_blows(chance, decisions)
            crowd: Crowd[Blow, Answer] = Crowd(scale.threads)
            make_due(world)
            answers += crowd.run(struck, lambda blow: strike(world, sender, blow))
            blows += struck
            seconds += crowd.seconds
            make_due(world)
            answers.append(strike(world, sender, Blow(OVERDUE, None)))
            blows.append(Blow(OVERDUE, None))

    figures = {
        "reservations": scale.reservations,
        "threads": scale.threads,
        "blows": len(blows),
        **check_answers(blows, answers),
        **check_winners(world, scale),
        "credits consumed (US dollars)": str(shop.grant_state(grant)["consumed_amount_usd"]),
        **observer.figures(),
        **check_books(world.id),
        "decisions replayed in ledger order, equal": replay(
            world.id, explaining=False
        ).decisions.total(),
        "seconds": round(seconds, 1),
        "seed": scale.seed,
        "served by": sender.name,
    }
    assert observer.violations == []
    check_it_was_a_storm(figures)
    return figures


def reserve(world: World, sender: Sender, scale: Scale, wave: range) -> list[str]:
    """Make the wave's reservations and return their decisions."""
    crowd: Crowd[int, Answer] = Crowd(scale.threads)

    def ask(number: int) -> Answer:
        body = {
            "project_id": "shop",
            "environment": "dev",
            "resource_reference": f"module.m{number}",
            "estimated_monthly_delta_usd": str(RESERVED_USD),
        }
        return sender.post("gate/terraform", body, key=world.member.key, attempt=f"r-{number}")

    answers = crowd.run(wave, ask)
    assert {answer.status for answer in answers} == {200}
    refused = [
        answer.body["reason_codes"] for answer in answers if answer.body["decision"] == "DENY"
    ]
    assert refused == []
    return [answer.body["decision_id"] for answer in answers]


def build_blows(chance: random.Random, decisions: list[str]) -> list[Blow]:
    """Return every blow of a wave: those at one reservation next to one another, in any order.

    The overdue job hits all reservations at once; where it comes in is left to chance.
    """
    groups = [[Blow(OVERDUE, None)] for _ in range(max(2, len(decisions) // RESERVATIONS_A_JOB))]
    for decision_id in decisions:
        kinds = [FIRST, SECOND, *([CONFIRM] if chance.random() < 0.5 else [])]
        chance.shuffle(kinds)
        groups.append([Blow(kind, decision_id) for kind in kinds])
    chance.shuffle(groups)
    return [blow for group in groups for blow in group]


def strike(world: World, sender: Sender, blow: Blow) -> Answer:
    """Send one blow."""
    if blow.kind == OVERDUE:
        return sender.post("reservations/reconcile-overdue", {}, key=world.admin.key)
    if blow.kind == CONFIRM:
        return sender.post(f"reservations/{blow.decision_id}/confirm", {}, key=world.member.key)
    body = {"actual_monthly_delta_usd": ACTUAL[blow.kind], "notes": blow.kind}
    return sender.post(f"reservations/{blow.decision_id}/reconcile", body, key=world.admin.key)


def make_due(world: World) -> None:
    """Move the time limit of what is still active into the past, as waiting for it would."""
    with transaction(world.id):
        for row in Reservation.objects.filter(tenant_id=world.id, state="active"):
            Reservation.objects.filter(pk=row.pk).update(
                due_at=row.reserved_at - timedelta(seconds=1)
            )


def check_answers(blows: list[Blow], answers: list[Answer]) -> dict[str, int]:
    """Check that each blow won or was told that it lost, and at most one of two settled."""
    won: Counter[str] = Counter()
    lost = 0
    winners: Counter[str | None] = Counter()
    released = posted = 0
    for blow, answer in zip(blows, answers, strict=True):
        if answer.status == 200:
            won[blow.kind] += 1
            if blow.kind in ACTUAL:
                winners[blow.decision_id] += 1
            elif blow.kind == OVERDUE:
                assert answer.body["inconsistent"] == 0
                released += answer.body["released"]
                posted += answer.body["posted"]
        else:
            assert (answer.status, answer.body["code"]) == (409, LOSES), answer
            lost += 1
    assert set(winners.values()) <= {1}
    return {
        "won by the first reconcile": won[FIRST],
        "won by the second reconcile": won[SECOND],
        "won by the overdue job, released": released,
        "won by the overdue job, posted": posted,
        "confirmed in time": won[CONFIRM],
        "blows that lost (409)": lost,
    }


def check_winners(world: World, scale: Scale) -> dict[str, int]:
    """Check that every reservation has one winner: one record and one entry on the ledger."""
    with reading(world.id):
        records = list(SettlementRecord.objects.filter(tenant_id=world.id))
        settled = Counter(
            LedgerEntry.objects.filter(
                tenant_id=world.id, event__in=("reconciled", "released")
            ).values_list("decision_id", flat=True)
        )
        active = Reservation.objects.filter(tenant_id=world.id, state="active").count()
    assert active == 0
    assert set(settled.values()) == {1}
    assert len(settled) == len(records) == scale.reservations
    assert {record.decision_id for record in records} == set(settled)
    triggers = Counter(record.trigger for record in records)
    return {
        "settlements": len(records),
        "of these by hand": triggers["manual"],
        "reservations with more than one winner": 0,
    }


def check_it_was_a_storm(figures: dict[str, Any]) -> None:
    """Fail a storm in which one contender never won or nobody lost."""
    assert Decimal(figures["credits consumed (US dollars)"]) > 0
    by_job = figures["won by the overdue job, released"] + figures["won by the overdue job, posted"]
    by_hand = figures["won by the first reconcile"] + figures["won by the second reconcile"]
    assert by_job + by_hand == figures["settlements"] == figures["reservations"]
    assert by_hand == figures["of these by hand"]
    for name in (
        "won by the first reconcile",
        "won by the second reconcile",
        "won by the overdue job, released",
        "blows that lost (409)",
        "observer polls",
        "polls that saw a session wait for a lock",
    ):
        assert figures[name] > 0, f"an empty storm: no {name}"
