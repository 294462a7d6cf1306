"""A model of everything that moves money: any order of steps, and after each one the books add up.

Hypothesis invents the order; each example has a tenant of its own on the real database. What is
right is said by the difference that each step made to the accounts, not by the code under test.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from billing.models import Reservation
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.sums import find_differences
from tests.factories.tenants import create_world
from tests.preflight import build_plan
from tests.storms import report
from tests.storms.books import check_books, replay
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id

FULL = os.environ.get("VALDRIX_STORM") == "1"
EXAMPLES, STEPS = (60, 60) if FULL else (14, 40)
# Shrinking a failure takes minutes: worth it to somebody who looks for one.
PHASES = (Phase.generate, Phase.shrink) if FULL else (Phase.generate,)

_ACCOUNTS = """
SELECT a.id::text, a.kind, a.project_id, a.environment, a.team, a.active, a.voided_at IS NULL,
       a.monthly_limit_usd, a.pending_usd, coalesce(m.posted_usd, 0), coalesce(m.overrun_usd, 0),
       a.remaining_usd, a.reserved_usd, a.consumed_usd
  FROM billing_account a LEFT JOIN billing_account_month m
    ON m.account_id = a.id AND m.month = date_trunc('month', now() AT TIME ZONE 'UTC')::date
 WHERE a.tenant_id = %s
"""
# Families with a part that waits for its approval: they are settled by what becomes of that.
_WAITING = """
SELECT r.decision_id::text FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
 WHERE r.tenant_id = %(tenant)s AND r.state = 'active' AND c.family_id IN (
       SELECT m.family_id FROM billing_reservation w JOIN billing_charge m ON m.id = w.charge_id
         JOIN enforcement_decision d ON d.id = w.decision_id
         JOIN governance_approval a ON a.id = d.approval_request_id
        WHERE w.tenant_id = %(tenant)s AND w.state = 'active' AND a.status = 'pending')
"""

AMOUNTS = st.one_of(
    st.none(),
    st.sampled_from(["0", "0.0001", "50.00", "100.00", "-40.00", "350.00"]),
    st.decimals(-200, 400, places=4).map(lambda value: format(value, "f")),
)
LIMITS = st.decimals(0, 500, places=2).map(lambda value: format(value, "f"))
PROJECTS = st.sampled_from(["alpha", "alpha", "beta", "nobudget"])
ENVIRONMENTS = st.sampled_from(["dev", "dev", "prod", "prodd", ""])
TEAMS = st.sampled_from([None, "web"])
KEYS = st.sampled_from([None, None, *(f"key-{number}" for number in range(6))])
RUNS = st.sampled_from([None, None, "run-1", "run-2"])
MODES = st.sampled_from(["hard", "hard", "soft", "shadow"])


@dataclass(frozen=True, slots=True)
class Row:
    """One account as a step found it or left it; amounts in US dollars."""

    account_id: str
    kind: str
    project_id: str | None
    environment: str | None
    team: str | None
    active: bool
    unvoided: bool
    limit: Decimal | None
    pending: Decimal
    posted: Decimal
    overrun: Decimal
    remaining: Decimal
    reserved: Decimal
    consumed: Decimal

    @property
    def held(self) -> Decimal:
        """Return what reservations hold of it."""
        return self.reserved if self.kind == "grant" else self.pending

    @property
    def used(self) -> Decimal:
        """Return what of its limit is taken."""
        return self.pending + self.posted + self.overrun


class MoneyMachine(RuleBasedStateMachine):
    """Everything that callers, people and jobs may do to one tenant's money."""

    seen: Counter[str] = Counter()

    decisions = Bundle("decisions")
    budgets = Bundle("budgets")
    grants = Bundle("grants")

    @initialize(target=budgets, limit=LIMITS)
    def open_tenant(self, limit: str) -> str:
        self.world = create_world()
        self.ceiling = Decimal(900)
        self.last: Any = None
        self.shop = Shop(self.world, **self._policy("hard", self.ceiling))
        self.shop.grant("reserved", "60.00")
        self.shop.grant("emergency", "40.00", project_id="alpha")
        return self.shop.budget(str(limit), project_id="alpha")

    @rule(
        target=decisions,
        amount=AMOUNTS,
        project=PROJECTS,
        environment=ENVIRONMENTS,
        team=TEAMS,
        key=KEYS,
        run=RUNS,
        plan=st.sampled_from([None, None, "m5.large", "m5.xlarge"]),
        digest=st.sampled_from([None, None, "sha256:declared"]),
        parent=st.one_of(st.none(), st.none(), decisions, st.just("unknown")),
        dry_run=st.sampled_from([False, False, False, True]),
        resource=st.sampled_from(["web", "db"]),
    )
    def ask(self, **drawn: Any) -> Any:
        path, body, key = self._question(**drawn)
        return self._send(path, body, drawn["amount"], key)

    @rule(
        target=decisions,
        amount=st.sampled_from(["20.00", "75.50", "120.00"]),
        run=RUNS,
        project=st.sampled_from(["alpha", "beta"]),
    )
    def spend(self, amount: str, run: str | None, project: str) -> Any:
        names = {} if run is None else {"run_id": run}
        body = {"project_id": project, "resource_reference": "web", **names}
        return self._send("gate/terraform", body, amount, str(new_id()))

    @rule(target=decisions, beyond=st.sampled_from(["0.01", "15.00"]))
    def spend_beyond_the_budget(self, beyond: str) -> Any:
        """Ask for what is left of the project's budgets and a little more."""
        left = [
            max(Decimal(0), row.limit - row.used)
            for row in self._accounts().values()
            if row.limit is not None
            and (row.active, row.project_id) == (True, "alpha")
            and row.environment != "prod"
            and row.team is None
        ]
        amount = min(left, default=Decimal(0)) + Decimal(beyond)
        body = {"project_id": "alpha", "resource_reference": "credits"}
        return self._send("gate/terraform", body, format(amount, "f"), str(new_id()))

    @rule()
    def send_again(self) -> None:
        """Send the last decided question again: the same answer, and nothing moves."""
        if self.last is None:
            return
        (path, body, amount, key), answer = self.last
        before = self._accounts()
        again = self.shop.ask(amount, key=key, path=path, **body)
        again.pop("continuation", None)
        assert {**again, "replayed": answer["replayed"]} == answer
        assert again["replayed"]
        assert self._accounts() == before
        self._count("replayed")

    @rule(decision=decisions)
    def confirm(self, decision: str) -> None:
        before = self._accounts()
        response = Api().post(f"reservations/{decision}/confirm", {}, key=self.world.member.key)
        self._check_status(response, 200, "reservation_not_active", "approval_pending")
        assert self._accounts() == before
        self._count("confirmed" if response.status_code == 200 else "confirm refused")

    @rule(
        decision=decisions,
        factor=st.sampled_from(["0", "0.5", "1", "1", "1.5", "-1"]),
        key=st.sampled_from([None, None, "settle-1", "settle-2"]),
    )
    def reconcile(self, decision: str, factor: str, key: str | None) -> None:
        is_waiting = decision in self._waiting()
        before = self._accounts()
        actual = (self._held_by(decision) * Decimal(factor)).quantize(Decimal("0.0001"))
        if factor == "-1" and actual == 0:
            actual = Decimal(-25)
        body = {"actual_monthly_delta_usd": format(actual, "f"), "idempotency_key": key}
        path = f"reservations/{decision}/reconcile"
        response = Api().post(path, body, key=self.world.admin.key)
        refusals = ("reservation_not_active", "idempotency_key_reused", "approval_pending")
        self._check_status(response, 200, *refusals)
        after = self._accounts()
        if response.status_code == 409 or "Idempotent-Replayed" in response:
            assert after == before
            return
        assert not is_waiting, "settled what waits for its approval"
        self._check_settlement(response.json(), actual, before, after)

    @rule(due=st.sampled_from([False, False, False, True]))
    def overdue(self, due: bool) -> None:
        before = self._accounts()
        if due:
            self._make_due()
        response = Api().post("reservations/reconcile-overdue", {}, key=self.world.admin.key)
        assert response.status_code == 200, response.content
        counts = response.json()
        assert counts["inconsistent"] == 0
        after = self._accounts()
        if not due:
            assert after == before
        elif not self._waiting():
            assert {row.held for row in after.values()} <= {Decimal(0)}
        # Nothing that was never confirmed is posted, and nothing becomes an overrun.
        for account_id, row in before.items():
            assert after[account_id].overrun == row.overrun
            assert row.posted <= after[account_id].posted <= row.posted + row.held
        self._count("released by the overdue job", counts["released"])
        self._count("posted by the overdue job", counts["posted"])

    @rule(
        target=budgets,
        project=st.sampled_from(["alpha", "beta"]),
        environment=st.sampled_from([None, "prod", "nonprod"]),
        team=TEAMS,
        limit=LIMITS,
    )
    def create_budget(self, project: str, limit: str, **scope: Any) -> Any:
        body = {"project_id": project, "monthly_limit_usd": limit, **scope}
        response = Api().post("budgets", body, key=self.world.admin.key)
        self._check_status(response, 201, "budget_exists")
        return response.json()["id"] if response.status_code == 201 else multiple()

    @rule(
        budget=budgets,
        change=st.one_of(
            st.fixed_dictionaries({"active": st.booleans()}),
            st.fixed_dictionaries({"monthly_limit_usd": LIMITS}),
        ),
    )
    def change_budget(self, budget: str, change: dict[str, Any]) -> None:
        response = Api().patch(f"budgets/{budget}", change, key=self.world.admin.key)
        assert response.status_code == 200, response.content

    @rule(
        target=grants,
        pool=st.sampled_from(["reserved", "emergency"]),
        total=st.decimals("0.01", 120, places=2).map(lambda value: format(value, "f")),
        project=st.sampled_from([None, "alpha", "beta"]),
        priority=st.sampled_from([1, 100]),
        expires=st.booleans(),
    )
    def grant(self, pool: str, total: str, expires: bool, **terms: Any) -> str:
        named = {"project_id": terms["project"], "priority": terms["priority"]}
        if expires:
            later = datetime.now(UTC) + timedelta(days=1)
            named["expires_at"] = later.isoformat().replace("+00:00", "Z")
        chosen = {name: value for name, value in named.items() if value is not None}
        return self.shop.grant(pool, total, **chosen)

    @rule(grant=grants)
    def void(self, grant: str) -> None:
        before = self._accounts()
        response = Api().post(f"credits/{grant}/void", {}, key=self.world.admin.key)
        self._check_status(response, 200, "grant_not_voidable")
        after = self._accounts()
        assert {key: row.held for key, row in after.items()} == {
            key: row.held for key, row in before.items()
        }

    @rule(mode=MODES, ceiling=st.sampled_from([900, 400, 2000]))
    def publish(self, mode: str, ceiling: int) -> None:
        self.ceiling = Decimal(ceiling)
        self.shop.publish(**self._policy(mode, self.ceiling))
        self._count(f"published {mode}")

    @invariant()
    def the_books_add_up(self) -> None:
        assert find_differences(self.world.id) == []
        for row in self._accounts().values():
            amounts = (row.pending, row.overrun, row.remaining, row.reserved, row.consumed)
            assert min(*amounts, row.posted) >= 0, row
        self._count("steps checked")

    def teardown(self) -> None:
        if not hasattr(self, "shop"):
            return
        found = replay(self.world.id, explaining=False)
        assert found.fail_safe.total() == 0
        self._count("decisions replayed, equal", found.decisions.total())
        self._count(
            "ledger entries verified", check_books(self.world.id)["ledger entries verified"]
        )

    def _policy(self, mode: str, ceiling: Decimal) -> dict[str, Any]:
        return {
            "modes": {"terraform": {"default": mode}},
            "limits": {
                "plan_monthly_ceiling_usd": str(ceiling),
                "enterprise_monthly_ceiling_usd": str(ceiling * 2),
            },
        }

    def _question(self, **drawn: Any) -> tuple[str, dict[str, Any], str]:
        body: dict[str, Any] = {
            "project_id": drawn["project"],
            "environment": drawn["environment"],
            "resource_reference": drawn["resource"],
            "dry_run": drawn["dry_run"],
        }
        parent = str(new_id()) if drawn["parent"] == "unknown" else drawn["parent"]
        optional = {"team": drawn["team"], "run_id": drawn["run"], "parent_decision_id": parent}
        body |= {name: value for name, value in optional.items() if value is not None}
        key = drawn["key"] or str(new_id())
        if drawn["plan"] is None:
            if drawn["digest"] is not None:
                body["change_digest"] = drawn["digest"]
            return "gate/terraform", body, key
        body |= {"plan": build_plan(drawn["plan"]), "stage": "post_plan"}
        body.setdefault("run_id", str(new_id()))
        return "gate/terraform/preflight", body, key

    def _send(self, path: str, body: dict[str, Any], amount: str | None, key: str) -> Any:
        """Send a question and check what came of it; give its decision."""
        before = self._accounts()
        response = self.shop.send(amount, key=key, path=path, **body)
        after = self._accounts()
        if response.status_code == 409:
            assert response.json()["code"] == "idempotency_key_reused"
            assert after == before
            self._count("key of another request refused")
            return multiple()
        assert response.status_code == 200, response.content
        answer = response.json()
        answer.pop("continuation", None)
        self._check_ask(answer, before, after)
        if answer["dry_run"]:
            return multiple()
        self.last = (path, body, amount, key), answer
        return answer["decision_id"]

    def _check_ask(
        self, answer: dict[str, Any], before: dict[str, Row], after: dict[str, Row]
    ) -> None:
        """Check one answer against the difference that it made."""
        self._count(f"answered {answer['decision']}")
        self._count("replayed", answer["replayed"])
        self._count("dry runs", answer["dry_run"])
        self._count("shared", answer["reservation_shared"])
        self._count(
            "negative or zero amounts", (answer["estimated_monthly_delta_usd"] or "1") < "0"
        )
        parts = [
            Decimal(answer[f"reserved_{name}_usd"])
            for name in ("allocation", "reserved_credit", "emergency_credit")
        ]
        taken = {
            account_id: row.held - (before[account_id].held if account_id in before else 0)
            for account_id, row in after.items()
        }
        if answer["replayed"] or answer["dry_run"] or answer["decision"] == "DENY":
            assert not any(taken.values())
        if answer["mode"] == "shadow":
            assert not any(taken.values()) or answer["replayed"]
        if answer["replayed"] or answer["dry_run"]:
            assert after == before
            return
        exposure = Decimal(0)
        credits_taken = Decimal(0)
        for account_id, amount in taken.items():
            assert amount >= 0
            if amount == 0:
                continue
            row = after[account_id]
            self._check_scope(answer, row)
            if row.kind == "exposure":
                exposure = amount
                assert row.used <= self.ceiling, "more than the ceiling at decision time"
            elif row.kind == "budget":
                assert amount == parts[0]
                assert row.used <= (row.limit or 0), "more than the limit at decision time"
            else:
                credits_taken += amount
        assert credits_taken == parts[1] + parts[2]
        if any(row.kind == "budget" and taken[key] for key, row in after.items()) or credits_taken:
            assert exposure == sum(parts)
        self._count("took credits", credits_taken > 0)

    def _check_scope(self, answer: dict[str, Any], row: Row) -> None:
        assert row.active
        assert row.unvoided
        assert row.project_id in {None, answer["project_id"]}
        assert row.environment in {None, answer["environment"]}

    def _check_settlement(
        self,
        result: dict[str, Any],
        actual: Decimal,
        before: dict[str, Row],
        after: dict[str, Row],
    ) -> None:
        """Check that what was held is posted or given back, and the rest is an overrun."""
        amounts = {name: Decimal(result[name]) for name in ("reserved_usd", "overrun_usd")}
        over = max(Decimal(0), actual - amounts["reserved_usd"])
        assert amounts["overrun_usd"] == over
        is_real = any(after[key] != row for key, row in before.items())
        exposure = next((key for key, row in before.items() if row.kind == "exposure"), None)
        if is_real and exposure is not None:
            old, new = before[exposure], after[exposure]
            assert old.pending - new.pending in {amounts["reserved_usd"], Decimal(0)}
            assert new.overrun - old.overrun in {over, Decimal(0)}
        for account_id, row in before.items():
            if row.kind == "grant":
                now = after[account_id]
                assert now.reserved <= row.reserved
                assert now.remaining >= row.remaining
                assert now.consumed - row.consumed <= max(Decimal(0), actual)
        self._count("settled")
        self._count("settled with an overrun", over > 0)
        self._count("settled below", actual < amounts["reserved_usd"])
        self._count("settled as a saving", actual < 0)

    def _accounts(self) -> dict[str, Row]:
        with reading(self.world.id), connection.cursor() as cursor:
            cursor.execute(_ACCOUNTS, [self.world.id])
            return {row[0]: Row(*row) for row in cursor.fetchall()}

    def _held_by(self, decision: str) -> Decimal:
        with reading(self.world.id):
            row = Reservation.objects.filter(decision_id=decision).first()
        return Decimal(0) if row is None else row.own_usd

    def _waiting(self) -> set[str]:
        """Return the decisions whose family has a part that waits for its approval."""
        with reading(self.world.id), connection.cursor() as cursor:
            cursor.execute(_WAITING, {"tenant": self.world.id})
            return {decision_id for (decision_id,) in cursor.fetchall()}

    def _make_due(self) -> None:
        waiting = self._waiting()
        with transaction(self.world.id):
            rows = Reservation.objects.filter(tenant_id=self.world.id, state="active")
            for row in rows.exclude(pk__in=waiting):
                Reservation.objects.filter(pk=row.pk).update(
                    due_at=row.reserved_at - timedelta(seconds=1)
                )

    def _check_status(self, response: Any, success: int, *codes: str) -> None:
        if response.status_code != success:
            assert (response.status_code, response.json()["code"]) in [
                (409, code) for code in codes
            ], response.content

    def _count(self, name: str, times: int = 1) -> None:
        MoneyMachine.seen[name] += times


HARD_THINGS = (
    "answered ALLOW",
    "answered DENY",
    "answered ALLOW_WITH_CREDITS",
    "answered REQUIRE_APPROVAL",
    "replayed",
    "dry runs",
    "shared",
    "confirmed",
    "settled",
    "settled below",
    "settled with an overrun",
    "settled as a saving",
    "released by the overdue job",
    "posted by the overdue job",
    "published shadow",
)
QUESTION: dict[str, Any] = {
    "project": "alpha",
    "environment": "dev",
    "team": None,
    "key": None,
    "run": None,
    "plan": None,
    "digest": None,
    "parent": None,
    "dry_run": False,
    "resource": "web",
}


def walk() -> None:
    """Take a fixed path past every hard thing: the invented ones may be short of one."""
    machine = MoneyMachine()
    machine.open_tenant(limit="150.00")
    spend = {"amount": "20.00", "project": "alpha"}
    steps = (
        lambda: machine.spend(**spend, run="run-1"),
        machine.send_again,
        lambda: machine.spend(**spend | {"amount": "75.50"}, run="run-1"),
        lambda: machine.reconcile(machine.spend(**spend, run=None), "1.5", None),
        lambda: machine.reconcile(machine.spend_beyond_the_budget("15.00"), "0.5", None),
        lambda: machine.ask(amount="350.00", **QUESTION),
        lambda: machine.ask(amount=None, **QUESTION | {"environment": "prod"}),
        lambda: machine.ask(amount="1.00", **QUESTION | {"dry_run": True}),
        lambda: machine.reconcile(machine.ask(amount="-40.00", **QUESTION), "-1", None),
        lambda: machine.confirm(machine.spend(**spend, run=None)),
        lambda: machine.overdue(due=True),
        lambda: machine.publish(mode="shadow", ceiling=900),
        lambda: machine.spend(**spend, run=None),
    )
    for step in steps:
        step()
        machine.the_books_add_up()
    machine.teardown()


def test_the_books_add_up_after_every_step(database: None) -> None:
    MoneyMachine.seen.clear()
    walk()
    missing = [name for name in HARD_THINGS if not MoneyMachine.seen[name]]
    assert missing == [], f"an empty walk: {dict(MoneyMachine.seen)}"

    run_state_machine_as_test(
        MoneyMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=PHASES,
            suppress_health_check=list(HealthCheck),
        ),
    )

    assert MoneyMachine.seen["steps checked"] > EXAMPLES * STEPS / 2
    if FULL:
        counts = dict(sorted(MoneyMachine.seen.items()))
        figures = {"examples": EXAMPLES, "steps an example, at most": STEPS, **counts}
        report.record("model", "Any order of steps", figures)
