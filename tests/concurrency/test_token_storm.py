"""Single use under a storm, and keys rotated beneath it; ``make storm-tokens`` runs it in full."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import OperationalError

from enforcement.reconciliation.expiry import expire_approvals
from enforcement.review.claim import claim_token
from enforcement.review.consume import Binding, consume
from governance.audit.operations import Actor
from governance.models import ApprovalToken, TokenKey
from governance.tokens.keys import retire_key, rotate_keys
from tests.factories.tenants import World
from tests.reviews import act, approve, check_books, open_shop
from tests.storms import report, token_storm
from tests.storms.senders import InProcess, Sender, gunicorn
from valdrix.kernel.db import reading, sqlstate_of
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import Refused

FULL = bool(os.environ.get("VALDRIX_STORM"))
TOKENS, PRESENTERS = (200, 50) if FULL else (4, 8)
ROUNDS = 20 if FULL else 3
ISSUER = "valdrix"


def now() -> datetime:
    return datetime.now(UTC)


def make_token(world: World, shop: Any, number: int) -> tuple[str, Binding]:
    asked = shop.ask("150.00", key=f"token-{number}", resource_reference=f"r{number}")
    approve(world.owner, asked["approval_request_id"])
    claimed = claim_token(
        principal=world.member.principal,
        approval_id=uuid.UUID(asked["approval_request_id"]),
        rotate=False,
        issuer=ISSUER,
        clock=now,
    )
    binding = Binding(
        monthly_delta_usd=Decimal("150.0000"),
        expected_request_fingerprint=asked["request_fingerprint"],
    )
    return claimed.text, binding


def present(world: World, text: str, binding: Binding) -> str:
    """Spend a token; return ``accepted`` or the code of the refusal.

    A lock that was not had in time is what HTTP answers 409 to: the presenter comes again.
    """
    try:
        consume(
            principal=world.member.principal,
            text=text,
            binding=binding,
            issuer=ISSUER,
            clock=now,
        )
    except Refused as refusal:
        return refusal.problem_code
    except OperationalError as error:
        if sqlstate_of(error) not in {"55P03", "40P01"}:
            raise
        return present(world, text, binding)
    return "accepted"


def test_each_token_is_accepted_once(tenant: World, run_in_threads: Any) -> None:
    shop = open_shop(tenant)
    shop.budget("1000000.00")
    made = [make_token(tenant, shop, number) for number in range(TOKENS)]

    def present_all(number: int) -> list[str]:
        # Each presenter begins elsewhere, and two neighbours at the same token.
        places = range(number // 2, number // 2 + TOKENS)
        return [present(tenant, *made[place % TOKENS]) for place in places]

    outcomes = run_in_threads(PRESENTERS, present_all, timeout_seconds=600)

    counts = Counter(outcome for each in outcomes for outcome in each)
    print(f"tokens={TOKENS} presenters={PRESENTERS} {dict(counts)}")  # noqa: T201 - the figure
    assert counts == {"accepted": TOKENS, "approval_token_replayed": TOKENS * (PRESENTERS - 1)}
    check_books(tenant)


@pytest.fixture
def sender(database: None) -> Iterator[Sender]:
    """Give gunicorn to a full storm, and the whole stack in this process to a short one."""
    if FULL:
        with gunicorn(workers=2) as served:
            yield served
    else:
        yield InProcess()


def test_each_token_is_accepted_once_over_http(
    tenant: World, sender: Sender, run_in_threads: Any
) -> None:
    shop = open_shop(tenant)
    shop.budget("1000000.00")
    scale = token_storm.Scale(tokens=200 if FULL else 3, presenters=50 if FULL else 6)
    figures = token_storm.run(shop, sender, scale, run_in_threads)
    if FULL:
        report.record(
            "tokens", "Tokens presented by everybody, over HTTP (`make storm-tokens`)", figures
        )


def test_rotation_refuses_no_valid_token_and_accepts_no_retired_key(
    tenant: World, run_in_threads: Any
) -> None:
    shop = open_shop(tenant)
    shop.budget("1000000.00")
    # Keys belong to no tenant: the one that signs may be about to end by another test's rotation.
    at = now()
    rotate_keys(kid=f"storm-{new_id().hex[-16:]}", now=at, active_from=at, old_retire_at=None)
    made = [make_token(tenant, shop, number) for number in range(ROUNDS * 2)]
    spare = make_token(tenant, shop, 999)

    def work(number: int) -> list[str]:
        if number == 0:
            for _ in range(ROUNDS):
                at = now()
                rotate_keys(
                    kid=f"storm-{new_id().hex[-16:]}", now=at, active_from=at, old_retire_at=None
                )
            return []
        mine = made[number - 1 :: 2]
        fresh = [make_token(tenant, shop, 1000 + number * 100 + place) for place in range(2)]
        return [present(tenant, *one) for one in (*mine, *fresh)]

    outcomes = [one for each in run_in_threads(3, work, timeout_seconds=600) for one in each]

    assert outcomes == ["accepted"] * (ROUNDS * 2 + 4), "no valid token was refused"
    with reading(tenant.id):
        kid = ApprovalToken.objects.get(tenant_id=tenant.id, status="live").kid
    assert TokenKey.objects.filter(pk=kid, retired_at__isnull=True).exists()
    retire_key(kid=kid, now=now())
    assert present(tenant, *spare) == "approval_token_invalid"
    check_books(tenant)


@pytest.mark.parametrize("other", ["deny", "withdraw", "expire", "approve"])
def test_one_verdict_of_two_at_once_stands(tenant: World, run_in_threads: Any, other: str) -> None:
    shop = open_shop(tenant)
    budget = shop.budget("1000000.00")
    for number in range(8 if FULL else 3):
        asked = shop.ask("150.00", key=f"race-{number}", resource_reference=f"r{number}")
        approval_id = asked["approval_request_id"]

        def decide(place: int, approval_id: str = approval_id) -> int | dict[str, int]:
            if place == 0:
                return int(act(tenant.owner, approval_id, "approve").status_code)
            if other == "expire":
                actor = Actor(
                    tenant_id=tenant.id,
                    principal_id="system:tests",
                    address=None,
                    at=now() + timedelta(days=2),
                )
                return expire_approvals(actor=actor)
            person = tenant.member if other == "withdraw" else tenant.admin
            return int(act(person, approval_id, other, reason="race").status_code)

        results = run_in_threads(2, decide)
        if other in {"deny", "approve"}:
            assert sorted(map(str, results)) == ["200", "409"], results
    expire_approvals(
        actor=Actor(
            tenant_id=tenant.id,
            principal_id="system:tests",
            address=None,
            at=now() + timedelta(days=5),
        )
    )
    assert shop.budget_state(budget)["pending_usd"] == 0, "everything that ended gave back"
    check_books(tenant)
