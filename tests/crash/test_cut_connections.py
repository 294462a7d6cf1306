"""A connection that is cut: the gate answers in time, and one key makes one decision, one charge.

The proxy stands between this process and PostgreSQL and cuts at a statement, as a network does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.db import close_old_connections, connection

from enforcement.gate import evaluate
from enforcement.gate.failsafe import DECISION_BY_MODE, EVALUATION_ERROR
from enforcement.models import Decision
from tests.crash.proxy import BEFORE, DELAYED, LATE, UNANSWERED, Cut, Proxy, proxied
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World
from valdrix.kernel.db import reading

BUDGET_MS = 1000
SLACK_SECONDS = 2.0
"""What recording a fail-safe outcome may take, and a machine that is busy with other tests."""

COMMIT = b"COMMIT\0"
WAITED_FOR_LOCKS = b"billing_gate_accounts"
BEGUN_TOGETHER = b"enforcement_gate_begin"
CLAIM = b"INSERT INTO enforcement_idempotency_key"
HOLD = b"billing_hold_all"
DECISION = b"enforcement_append_decisions"
LEDGER = b"enforcement_append_ledger"

STEP_BY_STEP = {
    "before BEGIN": (b"BEGIN\0", BEFORE),
    "after BEGIN": (b"BEGIN\0", UNANSWERED),
    "before the key is claimed": (CLAIM, BEFORE),
    "after the key is claimed": (CLAIM, UNANSWERED),
    "before the locks": (WAITED_FOR_LOCKS, BEFORE),
    "between lock and insert": (WAITED_FOR_LOCKS, UNANSWERED),
    "before the charge": (HOLD, BEFORE),
    "before the decision": (DECISION, BEFORE),
    "before the ledger": (LEDGER, BEFORE),
    "after the ledger": (LEDGER, UNANSWERED),
    "COMMIT never arrives": (COMMIT, BEFORE),
}
"""Where the transaction of a process that has not seen the tenant cannot have been committed."""

TOGETHER = {
    "before claim, locks and reads": (BEGUN_TOGETHER, BEFORE),
    "after claim, locks and reads": (BEGUN_TOGETHER, UNANSWERED),
    "before the writes and COMMIT": (HOLD, BEFORE),
    "COMMIT never arrives": (COMMIT, BEFORE),
}
"""The same for the two round trips of one that has."""


@pytest.fixture
def proxy(database: None) -> Iterator[Proxy]:
    """Let this process reach its database through a proxy."""
    with proxied(connection) as made:
        yield made


@pytest.fixture
def open_shop(proxy: Proxy, tenant: World, settings: Any) -> Callable[[str], Shop]:
    """Give a function that opens a shop of a mode, with one budget, seen by this process before."""
    settings.GATE_TIME_BUDGET_MS = BUDGET_MS

    def open_one(mode: str) -> Shop:
        made = Shop(tenant, modes={"terraform": {"default": mode}})
        made.budget_id = made.budget("1000.00")  # type: ignore[attr-defined]
        made.ask("1.00", key="seen")
        return made

    return open_one


def ask_cut(shop: Shop, proxy: Proxy, cut: Cut) -> dict[str, Any]:
    """Ask over a connection that is being cut; the answer is a decision, and comes in time."""
    proxy.arm(cut)
    started = time.monotonic()
    answer = shop.ask("10.00", key="cut")
    assert time.monotonic() - started < BUDGET_MS / 1000 + SLACK_SECONDS
    assert cut.happened.is_set(), "the connection was not cut"
    return answer


def check_once(shop: Shop) -> dict[str, Any]:
    """With the connection back: one decision for the key, one charge, and books that are right."""
    asked = [shop.ask("10.00", key="cut") for _ in range(3)]
    assert all(one["replayed"] for one in asked[1:])
    assert len({one["decision_id"] for one in asked}) == 1
    assert asked[0]["decision"] == "ALLOW"
    with reading(shop.world.id):
        made = Decision.objects.filter(tenant_id=shop.world.id, idempotency_key="cut")
        evaluated = [str(one.id) for one in made if not one.is_fail_safe]
    assert evaluated == [asked[0]["decision_id"]]
    held = Decimal(0) if asked[0]["mode"] == "shadow" else Decimal("11.00")
    assert shop.budget_state(shop.budget_id)["pending_usd"] == held  # type: ignore[attr-defined]
    assert find_differences(shop.world.id) == []
    check_chain(shop.world.id)
    return asked[0]


def check_fail_safe(answer: dict[str, Any], mode: str) -> None:
    assert answer["reason_codes"] == [EVALUATION_ERROR]
    assert answer["decision"] == DECISION_BY_MODE[mode]
    assert (answer["mode"], answer["approval_request_id"]) == (mode, None)
    assert answer["reserved_allocation_usd"] == "0.0000"


@pytest.mark.parametrize("where", STEP_BY_STEP)
def test_cut_before_the_commit_step_by_step(
    open_shop: Callable[[str], Shop], proxy: Proxy, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = open_shop("hard")

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "question_ahead", lambda ask: None)
        answer = ask_cut(shop, proxy, Cut(*STEP_BY_STEP[where]))

    check_fail_safe(answer, "hard")
    retried = check_once(shop)
    assert retried["decision_id"] != answer["decision_id"]


@pytest.mark.parametrize("where", TOGETHER)
def test_cut_before_the_commit(open_shop: Callable[[str], Shop], proxy: Proxy, where: str) -> None:
    shop = open_shop("hard")

    answer = ask_cut(shop, proxy, Cut(*TOGETHER[where]))

    check_fail_safe(answer, "hard")
    retried = check_once(shop)
    assert retried["decision_id"] != answer["decision_id"]


@pytest.mark.parametrize("mode", ["soft", "shadow"])
def test_each_mode_fails_to_its_safe_side(
    open_shop: Callable[[str], Shop], proxy: Proxy, mode: str
) -> None:
    shop = open_shop(mode)

    answer = ask_cut(shop, proxy, Cut(*TOGETHER["after claim, locks and reads"]))

    check_fail_safe(answer, mode)
    retried = check_once(shop)
    assert retried["decision_id"] != answer["decision_id"]


@pytest.mark.parametrize("mode", ["hard", "soft", "shadow"])
def test_the_answer_to_a_commit_is_lost(
    open_shop: Callable[[str], Shop], proxy: Proxy, mode: str
) -> None:
    """The decision that stands is the answer, because the gate looks for it."""
    shop = open_shop(mode)

    answer = ask_cut(shop, proxy, Cut(COMMIT, UNANSWERED))

    assert (answer["decision"], answer["persisted"]) == ("ALLOW", True)
    assert EVALUATION_ERROR not in answer["reason_codes"]
    later = check_once(shop)
    assert later["replayed"] is True
    assert {**later, "replayed": False} == answer


def test_a_commit_arrives_after_its_caller_gave_up(
    open_shop: Callable[[str], Shop], proxy: Proxy
) -> None:
    """Nobody can know while the server has not decided: fail safe, and what stands is one decision.

    Where the fail-safe outcome was recorded first, the late writes find its id taken and fail whole.
    """
    shop = open_shop("hard")

    answer = ask_cut(shop, proxy, Cut(COMMIT, LATE))

    check_fail_safe(answer, "hard")
    time.sleep(0.5)
    assert check_once(shop)["replayed"] is not answer["persisted"]


def test_without_a_key_a_lost_commit_answer_is_one_decision_too(
    open_shop: Callable[[str], Shop], proxy: Proxy
) -> None:
    shop = open_shop("hard")
    cut = proxy.arm(Cut(COMMIT, UNANSWERED))

    answer = shop.ask("10.00")

    assert cut.happened.is_set()
    assert (answer["decision"], answer["persisted"]) == ("ALLOW", True)
    assert shop.budget_state(shop.budget_id)["pending_usd"] == Decimal("11.00")  # type: ignore[attr-defined]
    assert find_differences(shop.world.id) == []


def test_cut_after_any_number_of_bytes(open_shop: Callable[[str], Shop], proxy: Proxy) -> None:
    """One call's traffic, cut at twenty places that were not chosen for their meaning."""
    shop = open_shop("hard")
    proxy.arm(Cut(after_bytes=10**9))
    shop.ask("1.00", key="measured")
    whole = proxy.passed_bytes
    cuts = [Cut(after_bytes=1 + whole * part // 20) for part in range(20)]

    for number, cut in enumerate(cuts):
        close_old_connections()  # As a server does between requests, and the test client does not.
        proxy.arm(cut)
        response = shop.send("1.00", key=f"k{number}")
        assert response.status_code in {200, 503}, response.content
        if response.status_code == 503:
            assert response.json()["code"] == "database_unavailable"

    close_old_connections()
    assert sum(cut.happened.is_set() for cut in cuts) == len(cuts)
    answers = [shop.ask("1.00", key=f"k{number}") for number in range(len(cuts))]
    assert {answer["decision"] for answer in answers} == {"ALLOW"}
    pending = shop.budget_state(shop.budget_id)["pending_usd"]  # type: ignore[attr-defined]
    assert pending == 2 + len(cuts)
    assert find_differences(shop.world.id) == []
    check_chain(shop.world.id)


def test_a_slow_network_costs_time_only(open_shop: Callable[[str], Shop], proxy: Proxy) -> None:
    shop = open_shop("hard")

    answer = ask_cut(shop, proxy, Cut(LEDGER, DELAYED, delay_seconds=0.2))

    assert (answer["decision"], answer["persisted"]) == ("ALLOW", True)
    assert check_once(shop)["replayed"] is True
