"""Joint settlement: one commit for many questions, each with the outcome it would have had alone."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from enforcement.adapters.terraform import to_gate_request
from enforcement.gate import ahead, evaluate
from enforcement.gate.ask import Ask, OutOfTime, TimeBudget, Timer
from enforcement.gate.inputs import K8S_ADMISSION
from enforcement.gate.joint import Alone, StepByStep, Waiting
from governance.identity.assuming import Assumption, NotAsAssumed
from governance.identity.domain import read_key_text
from governance.identity.queries import authenticate_key
from tests.assumed import note_uses_ahead
from tests.factories.headroom import Shop
from tests.factories.tenants import Person, World
from tests.storms.books import check_books, replay
from valdrix.kernel.canonical import sha256_hex
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id

BUDGET = TimeBudget(total_ms=10_000, lock_ms=5_000)


@pytest.fixture
def shop(tenant: World) -> Shop:
    made = Shop(tenant)
    made.ask("0.00", key="seen", project_id="elsewhere")
    return made


def ask(shop: Shop, amount: str, key: str, **members: Any) -> Waiting:
    """Return a question as it stands in a line."""
    decision_id = members.pop("decision_id", None) or new_id()
    as_review = members.pop("as_review", {})
    body = {
        "project_id": "shop",
        "environment": "dev",
        "resource_reference": "module.web",
        "estimated_monthly_delta_usd": amount,
        **members,
    }
    person = shop.world.member
    request = to_gate_request(body, actor=person.principal.principal_id, header_key=key)
    asked = Ask(
        tenant_id=shop.world.id,
        person_id=person.user_id,
        request=msgspec.structs.replace(request, **as_review),
        decision_id=decision_id,
        charge_id=new_id(),
        approval_id=new_id(),
        clock=lambda: datetime.now(UTC),
        may_spend_approval=bool(as_review),
    )
    question = evaluate.question_ahead(asked)
    assert question is not None
    return Waiting(question, BUDGET, Timer(BUDGET))


def review(shop: Shop, amount: str, name: str) -> Waiting:
    """Return what an admission review of an object asks."""
    facts = {
        "source": K8S_ADMISSION,
        "change_digest": sha256_hex(name),
        "change_digest_is_computed": True,
        "retry_seconds": 60,
    }
    return ask(shop, amount, f"retry of {name}", resource_reference=name, as_review=facts)


def decisions(batch: Sequence[Waiting]) -> list[str]:
    return [one.result()["decision"] for one in batch]


def transactions_of(shop: Shop, batch: Sequence[dict[str, Any]]) -> int:
    """Return how many transactions wrote these decisions."""
    ids = [uuid.UUID(one["decision_id"]) for one in batch]
    with reading(shop.world.id), connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(DISTINCT xmin::text), count(*) FROM enforcement_decision"
            " WHERE id = ANY(%s)",
            [ids],
        )
        transactions, found = cursor.fetchone()
    assert found == len(ids)
    return int(transactions)


def check(shop: Shop) -> None:
    """Check that each decision saw what the ones before it left, and that the books are right."""
    check_books(shop.world.id)
    replay(shop.world.id, explaining=False)


def test_each_question_sees_what_those_before_it_hold(shop: Shop) -> None:
    budget = shop.budget("100.00")
    grant = shop.grant("reserved", "50.00")
    batch = [ask(shop, amount, f"k{n}") for n, amount in enumerate(["60", "30", "40", "30", "10"])]

    evaluate._settle(batch)

    # 60 and 30 from the budget; of 40 the last 10 of it and 30 of the grant; 30 find 20 left.
    assert decisions(batch) == [
        "ALLOW",
        "ALLOW",
        "ALLOW_WITH_CREDITS",
        "DENY",
        "ALLOW_WITH_CREDITS",
    ]
    assert transactions_of(shop, [one.result() for one in batch]) == 1
    assert shop.budget_state(budget)["pending_usd"] == 100
    assert shop.grant_state(grant)["reserved_amount_usd"] == 40
    check(shop)


def test_a_grant_that_is_used_up_is_gone_for_the_next(shop: Shop) -> None:
    shop.grant("reserved", "50.00")
    shop.grant("reserved", "20.00", priority=200)
    shop.budget("0.00")
    batch = [ask(shop, amount, f"k{n}") for n, amount in enumerate(["50", "20", "1"])]

    evaluate._settle(batch)

    assert decisions(batch) == ["ALLOW_WITH_CREDITS", "ALLOW_WITH_CREDITS", "DENY"]
    check(shop)


def test_shadow_holds_count_for_the_next_shadow_decision(tenant: World) -> None:
    shop = Shop(tenant, modes={"terraform": {"default": "shadow"}})
    shop.ask("0.00", key="seen", project_id="elsewhere")
    shop.budget("100.00")
    batch = [ask(shop, "60", f"k{n}") for n in range(2)]

    evaluate._settle(batch)

    assert decisions(batch) == ["ALLOW", "ALLOW"]
    assert [one.result()["would_have_been"] for one in batch] == [None, "DENY"]
    check_books(shop.world.id)


def test_questions_about_different_projects_share_locks_and_commit(shop: Shop) -> None:
    budgets = [
        shop.budget("100.00"),
        shop.budget("50.00", project_id="site"),
        shop.budget("45.00", project_id="site", environment="prod"),
    ]
    anywhere = shop.grant("reserved", "40.00")
    only_site = shop.grant("reserved", "10.00", priority=200, project_id="site")
    asked = [
        ("shop", "dev", "90"),
        ("site", "prod", "45"),
        ("shop", "dev", "30"),  # 10 of the budget, 20 of the grant for all
        ("site", "dev", "30"),  # 5 of the budget, 10 of the site's own grant, 15 of that for all
        ("shop", "dev", "1"),
        ("site", "dev", "5"),  # 4 are left
        ("site", "prod", "1"),
    ]
    batch = [
        ask(shop, amount, f"k{n}", project_id=project, environment=environment)
        for n, (project, environment, amount) in enumerate(asked)
    ]

    evaluate._settle(batch)

    assert decisions(batch) == [
        "ALLOW",
        "ALLOW",
        "ALLOW_WITH_CREDITS",
        "ALLOW_WITH_CREDITS",
        "ALLOW_WITH_CREDITS",
        "DENY",
        "ALLOW_WITH_CREDITS",
    ]
    assert transactions_of(shop, [one.result() for one in batch]) == 1
    assert [shop.budget_state(one)["pending_usd"] for one in budgets] == [100, 50, 45]
    assert shop.grant_state(anywhere)["reserved_amount_usd"] == 37
    assert shop.grant_state(only_site)["reserved_amount_usd"] == 10
    check(shop)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("key taken", StepByStep), ("run shared", Alone), ("approval", Alone)],
)
def test_what_cannot_be_joint_is_left_out_and_the_others_are_settled_together(
    shop: Shop, kind: str, error: type[Exception]
) -> None:
    shop.publish(thresholds={"nonprod": {"require_approval_from_usd": "500.00"}})
    budget = shop.budget("1000.00")
    shop.ask("10.00", key="earlier", run_id="run-1")
    special = {
        "key taken": lambda: ask(shop, "10.00", "earlier", run_id="run-1"),
        "run shared": lambda: ask(shop, "15.00", "other", run_id="run-1"),
        "approval": lambda: ask(shop, "600.00", "large"),
    }[kind]()
    batch = [ask(shop, "20.00", "first"), special, ask(shop, "30.00", "last")]

    evaluate._settle(batch)

    with pytest.raises(error):
        special.result()
    settled = [batch[0], batch[2]]
    assert decisions(settled) == ["ALLOW", "ALLOW"]
    assert transactions_of(shop, [one.result() for one in settled]) == 1
    assert shop.budget_state(budget)["pending_usd"] == 60
    if kind != "key taken":
        # Nothing is left of it, its key neither.
        key, amount = ("other", "15.00") if kind == "run shared" else ("large", "600.00")
        run = {"run_id": "run-1"} if kind == "run shared" else {}
        assert shop.ask(amount, key=key, **run)["replayed"] is False
    check(shop)


def test_reviews_are_joint_but_for_those_that_the_past_answers(shop: Shop) -> None:
    shop.publish(thresholds={"nonprod": {"require_approval_from_usd": "500.00"}})
    shop.ask("0.00", key="seen again", project_id="elsewhere")
    budget = shop.budget("1000.00")
    held, large = review(shop, "10.00", "held"), review(shop, "600.00", "large")
    for one in (held, large):
        evaluate._settle([one])
    assert decisions([held, large]) == ["ALLOW", "REQUIRE_APPROVAL"]
    approval = large.result()["approval_request_id"]
    reason = {"reason": "ok"}
    approved = shop.api.post(f"approvals/{approval}/approve", reason, key=shop.world.owner.key)
    assert approved.status_code == 200
    first, last = review(shop, "20.00", "first"), review(shop, "30.00", "last")
    retried, spending = review(shop, "10.00", "held"), review(shop, "600.00", "large")

    evaluate._settle([first, retried, spending, last])

    for one in (retried, spending):
        with pytest.raises(StepByStep):
            one.result()
    assert decisions([first, last]) == ["ALLOW", "ALLOW"]
    assert transactions_of(shop, [first.result(), last.result()]) == 1
    answers = [evaluate.evaluate(one.question.ask, budget=BUDGET) for one in (retried, spending)]
    assert [answer["decision"] for answer in answers] == ["ALLOW", "ALLOW"]
    assert answers[0]["decision_id"] == held.result()["decision_id"]
    assert [answer["replayed"] for answer in answers] == [True, False]
    spent = shop.api.get(f"approvals/{approval}", key=shop.world.owner.key).json()
    assert spent["status"] == "consumed"
    assert shop.budget_state(budget)["pending_usd"] == 660
    check(shop)


def test_a_batch_under_a_policy_that_is_no_longer_in_force_is_not_kept(shop: Shop) -> None:
    shop.budget("1000.00")
    batch = [ask(shop, "20.00", "first"), ask(shop, "30.00", "last")]
    shop.publish(thresholds={"nonprod": {"require_approval_from_usd": "900.00"}})

    evaluate._settle(batch)

    assert [type(one.error) for one in batch] == [Alone] * 2
    answers = [shop.ask("20.00", key="first"), shop.ask("30.00", key="last")]
    assert [answer["replayed"] for answer in answers] == [False, False]
    check(shop)


def test_a_batch_whose_writes_fail_leaves_nothing(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    taken = shop.ask("10.00", key="earlier")
    broken = ask(shop, "5.00", "broken", decision_id=uuid.UUID(taken["decision_id"]))
    batch = [ask(shop, "20.00", "first"), broken, ask(shop, "30.00", "last")]

    evaluate._settle(batch)

    assert [type(one.error) for one in batch] == [Alone] * 3
    assert shop.budget_state(budget)["pending_usd"] == 10
    check(shop)


def test_a_batch_of_one_caller_is_one_transaction(shop: Shop) -> None:
    budget = shop.budget("100.00")

    def item(amount: str, key: str, **members: Any) -> dict[str, Any]:
        return {
            "project_id": "shop",
            "environment": "dev",
            "resource_reference": "module.web",
            "estimated_monthly_delta_usd": amount,
            "idempotency_key": key,
            **members,
        }

    items = [item("40.00", "a"), item("40.00", "b"), item("40.00", "c"), item("20.00", "d")]
    body = {"items": [*items, item("5.00", "dry", dry_run=True), item("1.00", "a")]}
    response = shop.api.post("gate/batch", body, key=shop.world.member.key)

    results = response.json()["results"]
    assert [one["status"] for one in results] == [200, 200, 200, 200, 200, 409]
    bodies = [one["body"] for one in results]
    assert [one.get("decision") for one in bodies[:5]] == [
        "ALLOW",
        "ALLOW",
        "DENY",
        "ALLOW",
        "DENY",
    ]
    assert transactions_of(shop, bodies[:4]) == 1
    assert shop.budget_state(budget)["pending_usd"] == 100
    check(shop)


class StoppedTimer(Timer):
    """A timer whose budget is used up when the test says so."""

    def __init__(self, *, is_over: bool) -> None:
        super().__init__(BUDGET)
        self._is_over = is_over

    @property
    def is_over(self) -> bool:
        return self._is_over


def test_each_fails_by_its_own_clock_and_nobody_by_the_leader_s(shop: Shop) -> None:
    """The leader's time is over when all is written: the batch is undone, and the others go on."""
    budget = shop.budget("1000.00")
    batch = [ask(shop, "10.00", key) for key in ("leader", "late", "patient", "another")]
    for one, is_over in zip(batch, (True, True, False, False), strict=True):
        one.timer = StoppedTimer(is_over=is_over)

    evaluate._settle(batch)

    assert [type(one.error) for one in batch] == [OutOfTime, OutOfTime, Alone, Alone]
    assert shop.budget_state(budget)["pending_usd"] == 0
    for one in batch[2:]:
        answer = evaluate._evaluate_ahead(one.question, one.budget, one.timer)
        assert answer["decision"] == "ALLOW"
    assert shop.budget_state(budget)["pending_usd"] == 20
    check(shop)


def test_a_late_member_s_clock_ends_nobody_else_s_question(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    batch = [ask(shop, "10.00", key) for key in ("leader", "late")]
    batch[1].timer = StoppedTimer(is_over=True)

    evaluate._settle(batch)

    assert decisions(batch) == ["ALLOW", "ALLOW"], "what was decided in time stands"
    assert shop.budget_state(budget)["pending_usd"] == 20
    check(shop)


def test_a_caller_that_says_nothing_of_keys_gets_the_answer_without_them(shop: Shop) -> None:
    """Old processes go on while new ones start."""
    shop.budget("100.00")
    one = ask(shop, "1.00", "k")
    now = datetime.now(UTC)
    _, document = ahead.build_call([one.question], now)
    members = json.loads(document)
    assert members.pop("keys") == []
    lengths = []
    for sent in (members, {**members, "keys": []}):
        with reading_and_writing_nothing(shop.world.id), connection.cursor() as cursor:
            call = "SELECT json_array_length(enforcement_gate_begin(%s::jsonb))"
            cursor.execute(call, [json.dumps(sent)])
            lengths.append(cursor.fetchone()[0])
    assert lengths == [4, 5]


class _Undone(Exception):
    pass


@contextmanager
def reading_and_writing_nothing(tenant_id: uuid.UUID) -> Iterator[None]:
    with suppress(_Undone), transaction(tenant_id):
        yield
        raise _Undone


def assumed(waiting: Waiting, person: Person, *, noted: list[str], **changes: Any) -> Waiting:
    """Return a question whose credential is assumed: what a person's key is, with changes."""
    key = read_key_text(person.key)
    assert key is not None
    told = authenticate_key(key)
    assert told is not None
    lookup, digest, row = json.loads(told.text)
    row[4] = changes.get("membership_role", row[4])
    assumption = Assumption(
        json.dumps([lookup, digest, row]),
        judge=lambda: pytest.fail("confirmed on the way, or not at all"),
        noted=lambda: noted.append(person.role),
        refuted=lambda: pytest.fail("that is its door's to say"),
    )
    asked = replace(waiting.question.ask, assumption=assumption)
    return Waiting(replace(waiting.question, ask=asked), BUDGET, Timer(BUDGET))


def test_each_credential_of_a_batch_is_confirmed_once_and_none_for_another(shop: Shop) -> None:
    budget = shop.budget("100.00")
    people = [shop.world.member, shop.world.admin, shop.world.member, shop.world.owner]
    noted: list[str] = []
    batch = [
        assumed(ask(shop, "10.00", f"k{n}"), person, noted=noted) for n, person in enumerate(people)
    ]
    fallen = assumed(
        ask(shop, "10.00", "fallen"), shop.world.admin, noted=noted, membership_role="owner"
    )
    note_uses_ahead(shop.world)

    with CaptureQueriesContext(connection) as captured:
        evaluate._settle([batch[0], fallen, *batch[1:]])

    with pytest.raises(NotAsAssumed):
        fallen.result()
    assert decisions(batch) == ["ALLOW"] * 4
    assert noted == ["member", "member", "admin", "owner"]
    begun = [query["sql"] for query in captured if "enforcement_gate_begin" in query["sql"]]
    # The first named the member's once, though two ask with it, and the admin's as it is and as it
    # is not; after that nobody had to be named again.
    lookups = [read_key_text(person.key).lookup for person in people[:2]]  # type: ignore[union-attr]
    assert [[text.count(lookup) for lookup in lookups] for text in begun] == [[1, 2], [0, 0]]
    assert ['"keys":[]' in text for text in begun] == [False, True]
    assert transactions_of(shop, [one.result() for one in batch]) == 1
    assert shop.budget_state(budget)["pending_usd"] == 40
    check(shop)


def test_where_no_credential_of_a_batch_stands_nothing_is_settled(shop: Shop) -> None:
    noted: list[str] = []
    batch = [
        assumed(ask(shop, "1.00", f"k{n}"), shop.world.admin, noted=noted, membership_role="owner")
        for n in range(3)
    ]
    for settled in (batch[:1], batch):
        evaluate._settle(settled)
        for one in settled:
            with pytest.raises(NotAsAssumed):
                one.result()
    assert noted == []
    for one in batch:
        assert one.question.ask.assumption is not None
        assert not one.question.ask.assumption.is_confirmed
    check(shop)
