"""What counts as applied once one decision of a change was: no more than was approved and is held."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from billing.models import Charge, Reservation
from governance.models import ApprovalToken
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.preflight import build_estimate, build_preflight
from tests.reviews import act, approve, check_books, events_of, open_shop, refusal, show
from valdrix.kernel.db import reading


@pytest.fixture
def shop(tenant: World) -> Iterator[Shop]:
    made = open_shop(tenant)
    made.budget_id = made.budget("5000.00")  # type: ignore[attr-defined]
    yield made
    check_books(tenant)


def ask(shop: Shop, amount_usd: str, key: str, **members: Any) -> dict[str, Any]:
    """Ask about one change of one run; with its name, the same charge."""
    return shop.ask(amount_usd, key=key, **{"run_id": "r", **members})


def token_of(shop: Shop, asked: dict[str, Any]) -> str:
    path = f"approvals/{asked['approval_request_id']}/token"
    return str(Api().post(path, {}, key=shop.world.key).json()["approval_token"])


def spend(shop: Shop, token: str, asked: dict[str, Any], amount_usd: str) -> Any:
    body = {
        "approval_token": token,
        "monthly_delta_usd": amount_usd,
        "expected_request_fingerprint": asked["request_fingerprint"],
    }
    return Api().post("approvals/consume", body, key=shop.world.key)


def confirm(shop: Shop, asked: dict[str, Any]) -> Any:
    return Api().post(f"reservations/{asked['decision_id']}/confirm", {}, key=shop.world.key)


def status_of(shop: Shop, asked: dict[str, Any]) -> str:
    return str(show(shop.world.owner, asked["approval_request_id"])["status"])


def pending_usd(shop: Shop) -> Decimal:
    return shop.budget_state(shop.budget_id)["pending_usd"]  # type: ignore[attr-defined]


def confirmed_at(shop: Shop, asked: dict[str, Any]) -> datetime | None:
    """Return when the charge that a decision belongs to was marked as applied."""
    with reading(shop.world.id):
        row = Reservation.objects.select_related("charge").get(decision_id=asked["decision_id"])
        assert isinstance(row.charge, Charge)
        return row.charge.confirmed_at


def given(shop: Shop, amount_usd: str = "300.00", key: str = "a") -> tuple[dict[str, Any], str]:
    asked = ask(shop, amount_usd, key)
    approve(shop.world.owner, asked["approval_request_id"])
    return asked, token_of(shop, asked)


@pytest.mark.parametrize("ending", ["deny", "withdraw"])
def test_a_further_question_keeps_no_token_from_being_spent(shop: Shop, ending: str) -> None:
    """Whoever may ask about the same change cannot stop a pipeline that has its approval."""
    asked, token = given(shop)
    more = ask(shop, "500.00", "b")
    assert (more["decision"], more["reservation_shared"]) == ("REQUIRE_APPROVAL", True)
    assert pending_usd(shop) == Decimal(500)

    assert spend(shop, token, asked, "300.00").status_code == 200

    assert status_of(shop, asked) == "consumed"
    assert status_of(shop, more) == "pending"
    assert refusal(spend(shop, token, asked, "300.00")) == (409, "approval_token_replayed")
    ended = act(shop.world.owner, more["approval_request_id"], ending, reason="no")
    assert ended.status_code == 200
    assert pending_usd(shop) == Decimal(300), "what waited went back, what was approved stays"


def test_what_waited_meanwhile_is_approved_and_spent_by_itself(shop: Shop) -> None:
    asked, token = given(shop)
    more = ask(shop, "500.00", "b")
    assert refusal(spend(shop, token, more, "300.00")) == (409, "request_fingerprint_mismatch")
    assert spend(shop, token, asked, "300.00").status_code == 200
    approve(shop.world.owner, more["approval_request_id"])
    assert spend(shop, token_of(shop, more), more, "500.00").status_code == 200
    assert pending_usd(shop) == Decimal(500)
    assert events_of(shop, more["decision_id"]).count("approval_consumed") == 1


def test_a_child_that_waits_is_not_marked_as_applied_with_its_parent(shop: Shop) -> None:
    asked, token = given(shop)
    child = ask(
        shop, "400.00", "c",
        run_id="other", resource_reference="x", parent_decision_id=asked["decision_id"],
    )  # fmt: skip
    assert child["decision"] == "REQUIRE_APPROVAL"

    assert spend(shop, token, asked, "300.00").status_code == 200

    assert confirmed_at(shop, asked) is not None
    assert confirmed_at(shop, child) is None
    approve(shop.world.owner, child["approval_request_id"])
    assert spend(shop, token_of(shop, child), child, "400.00").status_code == 200
    assert confirmed_at(shop, child) is not None


def test_what_leans_on_a_hold_that_waits_is_spent_only_with_it(shop: Shop) -> None:
    """What waits may be given back: whoever leans on it would have spent what nothing holds."""
    first = ask(shop, "300.00", "a")
    again, token = given(shop, key="b")
    assert pending_usd(shop) == Decimal(300)

    assert refusal(spend(shop, token, again, "300.00")) == (409, "approval_pending")
    assert refusal(confirm(shop, again)) == (409, "approval_pending")

    with reading(shop.world.id):
        assert ApprovalToken.objects.get().status == "live"
    assert confirmed_at(shop, again) is None
    approve(shop.world.owner, first["approval_request_id"])
    assert spend(shop, token, again, "300.00").status_code == 200
    assert status_of(shop, first) == "consumed", "the same change cannot be applied again"


def test_an_approved_decision_is_confirmed_only_while_it_is_held(shop: Shop) -> None:
    first = ask(shop, "300.00", "a")
    again, _ = given(shop, key="b")
    assert act(shop.world.member, first["approval_request_id"], "withdraw").status_code == 200
    assert pending_usd(shop) == 0

    assert refusal(confirm(shop, again)) == (409, "reservation_not_active")

    assert status_of(shop, again) == "approved"
    assert confirmed_at(shop, again) is None
    assert "confirmed" not in events_of(shop, again["decision_id"])


def test_confirming_leaves_what_waits_and_what_is_not_held_alone(shop: Shop) -> None:
    small = ask(shop, "60.00", "s")
    assert small["decision"] == "ALLOW"
    first = ask(shop, "300.00", "a")
    again, token = given(shop, key="b")
    assert confirm(shop, small).json()["decision_ids"] == sorted(
        one["decision_id"] for one in (small, again)
    )
    assert (status_of(shop, first), status_of(shop, again)) == ("pending", "approved")
    assert act(shop.world.member, first["approval_request_id"], "withdraw").status_code == 200
    assert confirm(shop, small).status_code == 200
    assert status_of(shop, again) == "approved", "nothing holds it: it was not applied"
    assert refusal(spend(shop, token, again, "300.00")) == (409, "reservation_not_active")
    assert pending_usd(shop) == Decimal(60)


def test_an_allowed_decision_that_leans_on_what_waits_is_not_confirmed(shop: Shop) -> None:
    first = ask(shop, "300.00", "a")
    small = ask(shop, "60.00", "s", parent_decision_id=first["decision_id"])
    assert refusal(confirm(shop, small)) == (409, "approval_pending")
    assert confirmed_at(shop, first) is None


def plan(shop: Shop, amount_usd: str, run_id: str, **members: Any) -> dict[str, Any]:
    """Ask about one plan, whose digest is computed: the same change in every run."""
    document = build_estimate(amount_usd, f"{Decimal(amount_usd) / 730:.18f}")
    body = build_preflight(
        run_id=run_id, cost_estimate={"format": "infracost", "document": document}, **members
    )
    response = Api().post("gate/terraform/preflight", body, key=shop.world.key)
    assert response.status_code == 200, response.content
    answer: dict[str, Any] = response.json()
    return answer


def test_one_approval_of_two_runs_is_applied_by_one_of_them(shop: Shop) -> None:
    opener = plan(shop, "150.00", "r1")
    assert plan(shop, "1.00", "r2", stage="pre_plan", plan=None)["decision"] == "ALLOW"
    joiner = plan(shop, "4000.00", "r2")
    assert joiner["approval_request_id"] == opener["approval_request_id"]
    approve(shop.world.owner, opener["approval_request_id"])
    assert pending_usd(shop) == Decimal(4150)

    assert confirm(shop, opener).status_code == 200
    assert status_of(shop, opener) == "consumed"

    assert refusal(confirm(shop, joiner)) == (409, "reservation_not_active")
    assert confirmed_at(shop, joiner) is None
    assert confirm(shop, opener).status_code == 200, "once more changes nothing"
    assert events_of(shop, opener["decision_id"]).count("confirmed") == 1
