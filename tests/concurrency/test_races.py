"""Races at every labelled point of an evaluation: who waits, what each decides, and the money."""

from __future__ import annotations

import threading
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections
from django.http import HttpResponse

from billing.models import Account
from enforcement.gate import evaluate
from tests.client import Api
from tests.concurrency.points import LABELS, Race, before_point, from_point
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.preflight import build_plan
from tests.storms.books import check_books, replay
from valdrix.kernel.db import reading

BEFORE_ACCOUNTS = before_point("after lock_accounts")
WITH_ACCOUNTS = from_point("after lock_accounts")
BEFORE_SHARERS = before_point("after lock_sharers")
WITH_SHARERS = from_point("after lock_sharers")
BEFORE_SNAPSHOT = before_point("after read_snapshot")
WITH_SNAPSHOT = from_point("after read_snapshot")


@pytest.fixture
def shop(tenant: World, settings: Any) -> Shop:
    """Give a shop whose gates have the time to be held up."""
    settings.GATE_TIME_BUDGET_MS = 20_000
    settings.GATE_LOCK_TIMEOUT_MS = 15_000
    return Shop(tenant)


def check(shop: Shop) -> None:
    """Check sums, chain and invariants, and that every decision is made the same way again."""
    check_books(shop.world.id)
    replay(shop.world.id, explaining=False)


def confirm(shop: Shop, decision: dict[str, Any]) -> HttpResponse:
    path = f"reservations/{decision['decision_id']}/confirm"
    return Api().post(path, {}, key=shop.world.member.key)


def reconcile(shop: Shop, decision: dict[str, Any], actual: str) -> HttpResponse:
    path = f"reservations/{decision['decision_id']}/reconcile"
    body = {"actual_monthly_delta_usd": actual}
    return Api().post(path, body, key=shop.world.admin.key)


def pending_exposure(shop: Shop) -> Decimal:
    """Return what the tenant's exposure account holds, US dollars."""
    with reading(shop.world.id):
        return Account.objects.get(tenant_id=shop.world.id, kind="exposure").pending_usd


@pytest.mark.parametrize("label", LABELS)
def test_another_question_for_the_last_money(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    budget = shop.budget("100.00")

    raced = Race(monkeypatch, label).run(
        lambda: shop.ask("100.00", key="first"), lambda: shop.ask("60.00", key="rival")
    )

    assert raced.rival_waited is (label in WITH_ACCOUNTS)
    decisions = (raced.first["decision"], raced.rival["decision"])
    assert decisions == (("ALLOW", "DENY") if raced.rival_waited else ("DENY", "ALLOW"))
    held = Decimal(100) if raced.rival_waited else Decimal(60)
    assert shop.budget_state(budget)["pending_usd"] == pending_exposure(shop) == held
    check(shop)


@pytest.mark.parametrize("label", LABELS)
def test_the_same_key(shop: Shop, monkeypatch: pytest.MonkeyPatch, label: str) -> None:
    budget = shop.budget("100.00")

    raced = Race(monkeypatch, label).run(
        lambda: shop.ask("60.00", key="one"), lambda: shop.ask("60.00", key="one")
    )

    assert raced.rival_waited
    assert (raced.first["replayed"], raced.rival["replayed"]) == (False, True)
    assert {**raced.rival, "replayed": False} == raced.first
    assert shop.budget_state(budget)["pending_usd"] == Decimal(60)
    check(shop)


@pytest.mark.parametrize("label", LABELS)
def test_the_same_key_for_another_request(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    budget = shop.budget("100.00")

    raced = Race(monkeypatch, label).run(
        lambda: shop.ask("60.00", key="one"), lambda: shop.send("61.00", key="one")
    )

    assert raced.rival_waited
    assert raced.first["decision"] == "ALLOW"
    refusal = (raced.rival.status_code, raced.rival.json()["code"])
    assert refusal == (409, "idempotency_key_reused")
    assert shop.budget_state(budget)["pending_usd"] == Decimal(60)
    check(shop)


@pytest.mark.parametrize("label", LABELS)
def test_the_same_computed_change_of_another_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    budget = shop.budget("100.00")
    plan = build_plan()

    def ask(run_id: str) -> dict[str, Any]:
        return shop.ask(
            "60.00", path="gate/terraform/preflight", run_id=run_id, stage="post_plan", plan=plan
        )

    raced = Race(monkeypatch, label).run(lambda: ask("run-1"), lambda: ask("run-2"))

    assert raced.rival_waited is (label in WITH_SHARERS)
    assert {raced.first["decision"], raced.rival["decision"]} == {"ALLOW"}
    assert raced.rival["reservation_shared"] is raced.rival_waited
    assert raced.first["reservation_shared"] is not raced.rival_waited
    assert shop.budget_state(budget)["pending_usd"] == Decimal(60)
    check(shop)


@pytest.mark.parametrize("label", LABELS)
def test_a_policy_is_published_in_between(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    budget = shop.budget("100.00")
    limit = {"require_approval_from_usd": "10.00", "deny_from_usd": "50.00"}

    raced = Race(monkeypatch, label).run(
        lambda: shop.ask("60.00", key="first"), lambda: shop.publish(thresholds={"nonprod": limit})
    )

    # Nobody who publishes waits for a gate, unless it already writes on the ledger.
    assert raced.rival_waited is (label == "before commit")
    is_retried = label in BEFORE_SNAPSHOT
    assert raced.first["policy_version"] == raced.rival - (0 if is_retried else 1)
    assert raced.first["decision"] == ("DENY" if is_retried else "ALLOW")
    held = Decimal(0) if is_retried else Decimal(60)
    assert shop.budget_state(budget)["pending_usd"] == held
    check(shop)


def test_a_policy_that_never_rests_ends_in_fail_safe(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = shop.budget("100.00")
    original, published = evaluate.lock_accounts, []

    def publish() -> None:
        try:
            published.append(shop.publish())
        finally:
            connections.close_all()

    def lock_and_publish(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        thread = threading.Thread(target=publish)
        thread.start()
        thread.join(20)
        return result

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "question_ahead", lambda ask: None)
        patched.setattr(evaluate, "lock_accounts", lock_and_publish)
        answer = shop.ask("60.00", key="first")

    assert len(published) == 3
    assert (answer["decision"], answer["reason_codes"]) == ("DENY", ["gate_lock_contended"])
    assert shop.budget_state(budget)["pending_usd"] == 0
    again = shop.ask("60.00", key="first")
    assert (again["decision"], again["replayed"]) == ("ALLOW", False)
    check(shop)


@pytest.mark.parametrize("label", LABELS)
def test_the_budget_is_deactivated_in_between(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    budget = shop.budget("100.00")

    raced = Race(monkeypatch, label).run(
        lambda: shop.ask("60.00", key="first"),
        lambda: Api().patch(f"budgets/{budget}", {"active": False}, key=shop.world.admin.key),
    )

    assert raced.rival.status_code == 200
    assert raced.rival_waited is (label in WITH_ACCOUNTS)
    assert raced.first["decision"] == "ALLOW"
    is_without = "no_budget_configured" in raced.first["reason_codes"]
    assert is_without is not raced.rival_waited
    held = Decimal(60) if raced.rival_waited else Decimal(0)
    assert shop.budget_state(budget)["pending_usd"] == held
    assert pending_exposure(shop) == Decimal(60)
    check(shop)


@pytest.mark.parametrize("label", LABELS)
def test_the_budget_is_lowered_in_between(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    budget = shop.budget("100.00")

    raced = Race(monkeypatch, label).run(
        lambda: shop.ask("60.00", key="first"),
        lambda: Api().patch(
            f"budgets/{budget}", {"monthly_limit_usd": "59.99"}, key=shop.world.admin.key
        ),
    )

    assert raced.rival.status_code == 200
    assert raced.rival_waited is (label in WITH_ACCOUNTS)
    assert raced.first["decision"] == ("ALLOW" if raced.rival_waited else "DENY")
    check(shop)


@pytest.mark.parametrize("label", LABELS)
def test_the_grant_is_voided_in_between(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    shop.budget("40.00")
    grant = shop.grant("reserved", "50.00")

    raced = Race(monkeypatch, label).run(
        lambda: shop.ask("60.00", key="first"),
        lambda: Api().post(f"credits/{grant}/void", {}, key=shop.world.admin.key),
    )

    assert raced.rival.status_code == 200
    assert raced.rival_waited is (label in WITH_ACCOUNTS)
    expected = "ALLOW_WITH_CREDITS" if raced.rival_waited else "DENY"
    assert raced.first["decision"] == expected
    state = shop.grant_state(grant)
    held = Decimal(20) if raced.rival_waited else Decimal(0)
    assert (state["reserved_amount_usd"], state["remaining_amount_usd"]) == (held, 50 - held)
    check(shop)


@pytest.mark.parametrize("label", LABELS)
def test_the_run_is_confirmed_between_look_up_and_hold(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    budget = shop.budget("1000.00")
    earlier = shop.ask("100.00", key="earlier", run_id="run-1")

    raced = Race(monkeypatch, label).run(
        lambda: shop.ask("150.00", key="first", run_id="run-1"), lambda: confirm(shop, earlier)
    )

    assert raced.rival.status_code == 200
    assert raced.rival_waited is (label in WITH_SHARERS)
    confirmed = {earlier["decision_id"]}
    if raced.rival_waited:
        confirmed.add(raced.first["decision_id"])
    assert set(raced.rival.json()["decision_ids"]) == confirmed
    # What was applied before the look-up is over: what comes now is charged anew.
    assert raced.first["reservation_shared"] is raced.rival_waited
    held = Decimal(150) if raced.rival_waited else Decimal(250)
    assert shop.budget_state(budget)["pending_usd"] == held
    check(shop)


@pytest.mark.parametrize("label", LABELS)
def test_a_computed_change_is_confirmed_between_look_up_and_hold(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    budget = shop.budget("1000.00")
    path, plan = "gate/terraform/preflight", build_plan()
    earlier = shop.ask("100.00", path=path, run_id="run-1", stage="post_plan", plan=plan)

    raced = Race(monkeypatch, label).run(
        lambda: shop.ask("100.00", path=path, run_id="run-2", stage="post_plan", plan=plan),
        lambda: confirm(shop, earlier),
    )

    # What was applied before the look-up is another change of the same kind: it is charged anew.
    assert raced.rival_waited is (label in WITH_SHARERS)
    assert raced.first["reservation_shared"] is raced.rival_waited
    held = Decimal(100) if raced.rival_waited else Decimal(200)
    assert shop.budget_state(budget)["pending_usd"] == held
    check(shop)


@pytest.mark.parametrize("label", LABELS)
def test_the_run_is_settled_in_between(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    budget = shop.budget("1000.00")
    earlier = shop.ask("100.00", key="earlier", run_id="run-1")

    raced = Race(monkeypatch, label).run(
        lambda: shop.ask("150.00", key="first", run_id="run-1"),
        lambda: reconcile(shop, earlier, "120.00"),
    )

    assert raced.rival.status_code == 200
    assert raced.rival_waited is (label in WITH_SHARERS)
    state = shop.budget_state(budget)
    if raced.rival_waited:
        assert (state["pending_usd"], state["posted_usd"], state["overrun_usd"]) == (0, 120, 0)
    else:
        assert (state["pending_usd"], state["posted_usd"], state["overrun_usd"]) == (150, 100, 20)
    assert raced.first["reservation_shared"] is raced.rival_waited
    check(shop)


@pytest.mark.parametrize("settles", [False, True])
@pytest.mark.parametrize("label", LABELS)
def test_the_parent_of_a_growing_child_is_confirmed_or_settled(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, label: str, settles: bool
) -> None:
    """A family is a chain of charges: whoever locks it must come to them in one order."""
    budget = shop.budget("1000.00")
    parent = shop.ask("100.00", key="parent", resource_reference="parent")
    names = {"run_id": "run-1", "parent_decision_id": parent["decision_id"]}
    shop.ask("150.00", key="child", **names)

    def rival() -> HttpResponse:
        return reconcile(shop, parent, "180.00") if settles else confirm(shop, parent)

    raced = Race(monkeypatch, label).run(
        lambda: shop.ask("200.00", key="first", run_id="run-1"), rival
    )

    assert raced.rival.status_code == 200, raced.rival.content
    assert raced.first["decision"] == "ALLOW", raced.first["reason_codes"]
    assert raced.rival_waited is (label in WITH_SHARERS)
    state = shop.budget_state(budget)
    if not settles:
        # What was applied before the look-up is over: what comes now is charged anew.
        assert state["pending_usd"] == (Decimal(200) if raced.rival_waited else Decimal(350))
    elif raced.rival_waited:
        assert (state["pending_usd"], state["posted_usd"], state["overrun_usd"]) == (0, 180, 0)
    else:
        assert (state["pending_usd"], state["posted_usd"], state["overrun_usd"]) == (200, 150, 30)
    check(shop)


@pytest.mark.parametrize("label", LABELS)
def test_two_changes_that_name_one_another(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    """Each asks about its own change and names the other one's decision as its parent."""
    budget = shop.budget("1000.00")
    one = shop.ask("100.00", key="one", run_id="run-1", resource_reference="one")
    two = shop.ask("100.00", key="two", run_id="run-2", resource_reference="two")

    def ask(name: str, run_id: str, parent: dict[str, Any]) -> dict[str, Any]:
        return shop.ask(
            "150.00",
            key=f"{name} again",
            run_id=run_id,
            resource_reference=name,
            parent_decision_id=parent["decision_id"],
        )

    raced = Race(monkeypatch, label).run(
        lambda: ask("one", "run-1", two), lambda: ask("two", "run-2", one)
    )

    assert raced.rival_waited is (label in WITH_SHARERS)
    assert Counter([raced.first["decision"], raced.rival["decision"]]) == {"ALLOW": 2}, [
        raced.first["reason_codes"],
        raced.rival["reason_codes"],
    ]
    # Each has a charge of its own and so a family: what it grows by, it holds itself.
    assert shop.budget_state(budget)["pending_usd"] == Decimal(300)
    check(shop)


def test_what_waits_for_its_approval_is_not_settled_by_hand(shop: Shop) -> None:
    waiting = shop.ask(None, environment="prod")
    assert waiting["decision"] == "REQUIRE_APPROVAL"

    assert reconcile(shop, waiting, "0.00").status_code == 409

    check(shop)
