"""The token storm over HTTP: many tokens, each presented by many at once, accepted once.

Every presenter sends every token; neighbours begin at the same one, so that each is presented by
several at one moment. What is a lock not had in time is sent again, as a pipeline would.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from enforcement.models import LedgerEntry
from governance.models import Approval, ApprovalToken
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.reviews import approve, check_books
from tests.storms.senders import Answer, Sender
from valdrix.kernel.db import reading

_AGAIN = frozenset({"gate_lock_timeout", "gate_lock_contended"})
_MOST_TRIES = 50

RunInThreads = Callable[..., list[Any]]


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a storm is."""

    tokens: int
    presenters: int


def run(shop: Shop, sender: Sender, scale: Scale, run_in_threads: RunInThreads) -> dict[str, Any]:
    """Present every token by everybody; return the figures, or fail on a false acceptance."""
    world = shop.world
    bodies = [_make_token(shop, number) for number in range(scale.tokens)]

    def present_all(number: int) -> list[tuple[str, int]]:
        places = range(number // 2, number // 2 + scale.tokens)
        return [_present(world, sender, bodies[place % scale.tokens]) for place in places]

    began = time.monotonic()
    each = run_in_threads(scale.presenters, present_all, timeout_seconds=900)
    seconds = time.monotonic() - began
    answers = [answer for of_one in each for answer in of_one]
    outcomes = Counter(outcome for outcome, _ in answers)
    calls = scale.tokens * scale.presenters
    assert outcomes == {"consumed": scale.tokens, "approval_token_replayed": calls - scale.tokens}
    _check(world, scale)
    return {
        "tokens": scale.tokens,
        "presenters of each at once": scale.presenters,
        "presentations": calls,
        "accepted": outcomes["consumed"],
        "refused as replayed": outcomes["approval_token_replayed"],
        "sent again after a lock was not had": sum(tries - 1 for _, tries in answers),
        "tokens spent": scale.tokens,
        "seconds": f"{seconds:.1f}",
        "presentations a second": f"{calls / seconds:.1f}",
        "served by": sender.name,
    }


def _make_token(shop: Shop, number: int) -> dict[str, str]:
    """Return the body that spends one token."""
    asked = shop.ask("150.00", key=f"token-{number}", resource_reference=f"r{number}")
    approve(shop.world.owner, asked["approval_request_id"])
    path = f"approvals/{asked['approval_request_id']}/token"
    claimed = Api().post(path, {}, key=shop.world.key)
    assert claimed.status_code == 200, claimed.content
    return {
        "approval_token": claimed.json()["approval_token"],
        "monthly_delta_usd": "150.00",
        "expected_request_fingerprint": asked["request_fingerprint"],
    }


def _present(world: World, sender: Sender, body: dict[str, str]) -> tuple[str, int]:
    """Return what became of one presentation, and how often it was sent."""
    for tries in range(1, _MOST_TRIES + 1):
        answer: Answer = sender.post("approvals/consume", body, key=world.key)
        outcome = str(answer.body.get("code") or answer.body["status"])
        if outcome not in _AGAIN:
            assert (answer.status == 200) == (outcome == "consumed"), answer
            return outcome, tries
    raise AssertionError(f"no lock was had in {_MOST_TRIES} tries")


def _check(world: World, scale: Scale) -> None:
    """Check the rows: each token and its approval spent once, and the books right."""
    with reading(world.id):
        tokens = ApprovalToken.objects.filter(status="consumed")
        assert tokens.count() == scale.tokens
        assert Approval.objects.filter(status="consumed").count() == scale.tokens
        told: set[uuid.UUID] = set()
        for subject in LedgerEntry.objects.filter(event="token_consumed").values_list(
            "subject_id", flat=True
        ):
            told.add(uuid.UUID(subject))
        assert told == set(tokens.values_list("jti", flat=True))
        assert LedgerEntry.objects.filter(event="token_consumed").count() == scale.tokens
    check_books(world)
