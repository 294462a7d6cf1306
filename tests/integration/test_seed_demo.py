"""The demo tenants: made once by the ordinary use cases, never made twice, never put back."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.core.management import call_command
from django.db import connection

from billing.accounts.models import Account
from billing.accounts.operations import BudgetChange
from billing.costs.domain import DayAmount
from billing.costs.models import DailyCost
from billing.costs.operations import record_daily_costs
from billing.costs.queries import find_latest_cost_date
from billing.plans.models import Subscription
from enforcement.controls.budgets import change_budget, find_budgets
from enforcement.controls.credits import find_credits
from enforcement.controls.policies import find_live_version, publish_policy
from enforcement.ledger.verification import verify_ledger
from governance.audit.operations import Actor
from governance.identity.domain import ROLES, read_key_text
from governance.identity.models import User
from governance.identity.operations import change_role, create_user, revoke_api_key
from governance.identity.queries import find_key_principal
from governance.policies.document import parse_policy
from governance.policies.operations import build_draft
from governance.tenants.queries import find_tenant_id
from tests.client import Api
from tests.factories.tenants import World, system_actor
from valdrix.demo.content import DEMO, PROJECT, daily_costs
from valdrix.demo.people import NotOurs
from valdrix.demo.seed import Place, seed
from valdrix.kernel import strict_json
from valdrix.kernel.db import NotInTransaction, reading, transaction
from valdrix.kernel.ids import new_id
from valdrix.kernel.money import AmountError

URL = "http://127.0.0.1:8123"
NOON = datetime(2026, 3, 18, 12, tzinfo=UTC)
TABLES = (
    "governance_tenant:id",
    "governance_membership",
    "governance_api_key",
    "governance_audit_entry",
    "governance_policy_version",
    "billing_account",
    "billing_daily_cost",
    "billing_subscription",
    "enforcement_ledger_entry",
)


@dataclass(frozen=True)
class Demo:
    """A demo under names of its own, so that every test has another one."""

    place: Place

    def seed(self, now: datetime = NOON) -> dict[str, Any]:
        return seed(place=self.place, now=now)

    @property
    def tenant_id(self) -> Any:
        return find_tenant_id(self.place.slug)

    @property
    def other_id(self) -> Any:
        return find_tenant_id(self.place.other_slug)

    def actor(self) -> Actor:
        return system_actor(self.tenant_id)


@pytest.fixture(autouse=True)
def _quick_passwords(settings: Any) -> None:
    """Hash passwords in no time: none of these tests is about how well they are hashed."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    name = new_id().hex[-20:]
    return Demo(Place(f"demo-{name}", f"other-{name}", tmp_path, URL))


def rows_of(tenant_id: Any) -> dict[str, list[Any]]:
    """Return every row of a tenant in every table that the demo fills."""
    found = {}
    with reading(tenant_id), connection.cursor() as cursor:
        for entry in TABLES:
            table, _, column = entry.partition(":")
            cursor.execute(
                f"SELECT t::text FROM {table} t WHERE {column or 'tenant_id'} = %s ORDER BY 1",
                [tenant_id],
            )
            found[table] = cursor.fetchall()
    return found


def principal_of(text: str) -> Any:
    key = read_key_text(text)
    assert key is not None
    return find_key_principal(key)


def costs_of(tenant_id: Any, project: str = PROJECT) -> dict[date, Decimal]:
    with reading(tenant_id):
        rows = DailyCost.objects.filter(tenant_id=tenant_id, project_id=project)
        return dict(rows.order_by("date").values_list("date", "amount_usd"))


# --- what there is ------------------------------------------------------------------------------


def test_the_document_has_exactly_the_promised_members(demo: Demo) -> None:
    document = demo.seed()
    assert set(document) == {
        "base_url", "tenant", "projects", "api_keys", "console", "other_tenant"
    }  # fmt: skip
    assert document["base_url"] == URL
    assert document["tenant"] == demo.place.slug
    assert document["projects"] == ["shop", "analytics"]
    assert set(document["api_keys"]) == set(ROLES)
    assert set(document["console"]) == {"url", "users"}
    assert document["console"]["url"] == f"{URL}/admin/"
    assert [user["role"] for user in document["console"]["users"]] == ["owner", "admin", "member"]
    assert all(set(u) == {"username", "password", "role"} for u in document["console"]["users"])
    assert set(document["other_tenant"]) == {"tenant", "api_keys"}
    assert document["other_tenant"]["tenant"] == demo.place.other_slug
    assert set(document["other_tenant"]["api_keys"]) == set(ROLES)


def test_keys_belong_to_different_people_and_the_upper_two_may_approve(demo: Demo) -> None:
    document = demo.seed()
    for keys, tenant_id in (
        (document["api_keys"], demo.tenant_id),
        (document["other_tenant"]["api_keys"], demo.other_id),
    ):
        principals = {role: principal_of(text) for role, text in keys.items()}
        assert {p.tenant_id for p in principals.values()} == {tenant_id}
        assert {role: p.role for role, p in principals.items()} == {role: role for role in ROLES}
        assert len({p.person_id for p in principals.values()}) == 3
        assert {role for role, p in principals.items() if "approve" in p.scopes} == {
            "admin", "owner"
        }  # fmt: skip
        assert {p.projects for p in principals.values()} == {None}


def test_people_can_sign_in_with_the_passwords(demo: Demo) -> None:
    for user in demo.seed()["console"]["users"]:
        person = authenticate(username=user["username"], password=user["password"])
        assert person is not None
        assert person.is_staff
        assert not person.is_superuser
    others = User.objects.filter(username__startswith=f"{demo.place.other_slug}-")
    assert others.count() == 3
    assert not any(person.is_staff or person.has_usable_password() for person in others)


def test_the_policy_says_what_the_demo_promises(demo: Demo) -> None:
    demo.seed()
    version = find_live_version(demo.tenant_id)
    assert version is not None
    assert version.number == 1
    policy = parse_policy(strict_json.loads(version.canonical_json.encode()))
    modes = {
        (source, environment): policy.mode(source, environment).mode
        for source in ("terraform", "k8s_admission", "cloud_event")
        for environment in ("prod", "nonprod")
    }
    assert modes == {
        ("terraform", "prod"): "soft",
        ("terraform", "nonprod"): "hard",
        ("k8s_admission", "prod"): "hard",
        ("k8s_admission", "nonprod"): "soft",
        ("cloud_event", "prod"): "shadow",
        ("cloud_event", "nonprod"): "shadow",
    }
    assert policy.threshold_prod.finding(Decimal("499.9999")) == "allow"
    assert policy.threshold_prod.finding(Decimal("500.0001")) == "require_approval"
    assert policy.threshold_nonprod.finding(Decimal("4999.9999")) == "allow"
    assert policy.threshold_nonprod.finding(Decimal("5000.0000")) == "require_approval"
    assert policy.approvals_prod.required == 1
    assert policy.routing_rules[0].reviewer_roles == ("owner",)
    assert (policy.unknown_cost.prod, policy.unknown_cost.nonprod) == ("require_approval", "allow")
    assert policy.kubernetes.trust_object_annotations


def test_money_is_there(demo: Demo) -> None:
    demo.seed()
    budgets = find_budgets(demo.tenant_id, projects=["shop"], after_id=None, limit=10, now=NOON)
    assert {b.account.environment: b.account.monthly_limit_usd for b in budgets} == {
        "prod": Decimal("3000.0000"), "nonprod": Decimal("2000.0000")
    }  # fmt: skip
    grants = find_credits(demo.tenant_id, projects=None, after_id=None, limit=10, now=NOON)
    assert {g.account.pool: (g.headroom_usd, g.account.project_id) for g in grants} == {
        "reserved": (Decimal("500.0000"), None), "emergency": (Decimal("250.0000"), None)
    }  # fmt: skip
    with reading(demo.tenant_id):
        assert Subscription.objects.get(tenant_id=demo.tenant_id).tier == "enterprise"


def test_costs_are_the_month_that_ended_yesterday(demo: Demo) -> None:
    demo.seed()
    costs = costs_of(demo.tenant_id)
    assert (min(costs), max(costs), len(costs)) == (date(2026, 2, 16), date(2026, 3, 17), 30)
    assert all(amount > 0 for amount in costs.values())
    fridays = [amount for day, amount in costs.items() if day.weekday() == 4]
    sundays = [amount for day, amount in costs.items() if day.weekday() == 6]
    assert min(fridays) > max(sundays)
    assert costs_of(demo.tenant_id, "analytics").keys() == costs.keys()


def test_everything_is_audited_and_on_a_ledger_that_verifies(demo: Demo) -> None:
    demo.seed()
    rows = rows_of(demo.tenant_id)
    assert len(rows["enforcement_ledger_entry"]) == 6  # A policy, three budgets, two grants.
    assert len(rows["governance_audit_entry"]) == 1 + 3 + 3 + 1 + 6
    for tenant_id in (demo.tenant_id, demo.other_id):
        assert verify_ledger(tenant_id).status == "intact"


def test_the_two_tenants_do_not_see_each_other(demo: Demo, api: Api) -> None:
    document = demo.seed()
    key, other_key = document["api_keys"]["admin"], document["other_tenant"]["api_keys"]["admin"]
    mine, theirs = (api.get("budgets", key=one).json()["results"] for one in (key, other_key))
    assert len(mine) == 3
    assert [budget["monthly_limit_usd"] for budget in theirs] == ["400.0000"]
    assert api.get(f"budgets/{theirs[0]['id']}", key=key).status_code == 404
    assert api.get(f"budgets/{mine[0]['id']}", key=other_key).status_code == 404


# --- again --------------------------------------------------------------------------------------


def test_a_second_time_changes_nothing(demo: Demo) -> None:
    first = demo.seed()
    before = rows_of(demo.tenant_id), rows_of(demo.other_id)
    digests = dict(
        User.objects.filter(username__contains=demo.place.slug).values_list("pk", "password")
    )
    assert demo.seed(NOON + timedelta(hours=3)) == first
    after = rows_of(demo.tenant_id), rows_of(demo.other_id)
    # Looking whether a key works notes that it was used.
    for rows in (*before, *after):
        rows.pop("governance_api_key")
    assert after == before
    assert digests == dict(
        User.objects.filter(username__contains=demo.place.slug).values_list("pk", "password")
    )


def test_later_days_are_added_and_known_ones_kept(demo: Demo) -> None:
    demo.seed()
    first = costs_of(demo.tenant_id)
    demo.seed(NOON + timedelta(days=3))
    second = costs_of(demo.tenant_id)
    assert {day: second[day] for day in first} == first
    assert sorted(set(second) - set(first)) == [date(2026, 3, day) for day in (18, 19, 20)]


def test_what_people_changed_is_not_put_back(demo: Demo) -> None:
    first = demo.seed()
    actor = demo.actor()
    budget = find_budgets(demo.tenant_id, projects=["shop"], after_id=None, limit=1, now=NOON)[0]
    change_budget(
        actor=actor,
        projects=None,
        budget_id=budget.account.id,
        change=BudgetChange(monthly_limit_usd=Decimal("1.0000")),
    )
    draft = build_draft(version_id=new_id(), document={}, comment="Strict", base_version=1)
    publish_policy(actor=actor, draft=draft)
    person = User.objects.get(username=f"{demo.place.slug}-admin")
    change_role(actor=actor, person_id=person.pk, role="member")
    with transaction(demo.tenant_id):
        restated = DayAmount(project_id=PROJECT, date=date(2026, 3, 1), amount_usd=Decimal(7))
        record_daily_costs(tenant_id=demo.tenant_id, days=[restated], ingested_at=NOON)

    assert demo.seed() == first
    with reading(demo.tenant_id):
        assert Account.objects.get(pk=budget.account.id).monthly_limit_usd == 1
    live = find_live_version(demo.tenant_id)
    assert live is not None
    assert live.number == 2
    assert principal_of(first["api_keys"]["admin"]).role == "member"
    assert costs_of(demo.tenant_id)[date(2026, 3, 1)] == 7


# --- lost and found -----------------------------------------------------------------------------


def test_lost_secrets_are_replaced_and_the_old_ones_end(demo: Demo) -> None:
    first = demo.seed()
    (demo.place.directory / "demo-secrets.json").unlink()
    second = demo.seed()
    for role in ROLES:
        assert principal_of(first["api_keys"][role]) is None
        assert principal_of(second["api_keys"][role]).role == role
    for old, new in zip(first["console"]["users"], second["console"]["users"], strict=True):
        assert authenticate(username=new["username"], password=new["password"]) is not None
        assert authenticate(username=old["username"], password=old["password"]) is None
    with reading(demo.tenant_id):
        assert len(rows_of_keys(demo.tenant_id)) == 3


def rows_of_keys(tenant_id: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM governance_api_key WHERE tenant_id = %s", [tenant_id])
        return cursor.fetchall()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"api_keys": 7}', '{"api_keys": {"a": 7}}'])
def test_a_damaged_file_is_like_a_lost_one(demo: Demo, content: str) -> None:
    (demo.place.directory / "demo-secrets.json").write_text(content)
    document = demo.seed()
    assert principal_of(document["api_keys"]["member"]).role == "member"


def test_a_revoked_key_is_issued_anew(demo: Demo) -> None:
    first = demo.seed()
    principal = principal_of(first["api_keys"]["member"])
    key_id = principal.principal_id.removeprefix("key:")
    revoke_api_key(actor=demo.actor(), key_id=key_id)
    second = demo.seed()
    assert principal_of(second["api_keys"]["member"]).person_id == principal.person_id
    assert second["api_keys"]["owner"] == first["api_keys"]["owner"]


def test_a_password_that_was_changed_elsewhere_is_made_good(demo: Demo) -> None:
    first = demo.seed()
    person = User.objects.get(username=f"{demo.place.slug}-owner")
    person.set_password("something else entirely")
    person.save(update_fields=["password"])
    assert demo.seed() == first
    owner = first["console"]["users"][0]
    assert authenticate(username=owner["username"], password=owner["password"]) is not None


def test_a_stranger_with_a_demo_name_is_left_alone(demo: Demo) -> None:
    username = f"{demo.place.slug}-owner"
    create_user(username=username, password="a stranger's password", now=NOON)
    with pytest.raises(NotOurs, match=username):
        demo.seed()
    assert authenticate(username=username, password="a stranger's password") is not None
    assert demo.tenant_id is None


# --- the command --------------------------------------------------------------------------------


def test_the_command_writes_private_files_that_a_second_run_repeats(
    demo: Demo, tmp_path: Path
) -> None:
    pending = tmp_path / "demo.pending.json"

    def run() -> bytes:
        call_command(
            "seed_demo",
            "--base-url", f"{URL}/",
            "--pending-file", str(pending),
            "--tenant", demo.place.slug,
            "--other-tenant", demo.place.other_slug,
        )  # fmt: skip
        return pending.read_bytes()

    first = run()
    assert strict_json.loads(first)["console"]["url"] == f"{URL}/admin/"
    for path in (pending, tmp_path / "demo-secrets.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    pending.unlink()
    assert run() == first


def test_the_command_tells_what_is_in_its_way(
    demo: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_user(username=f"{demo.place.slug}-owner", password=None, now=NOON)
    with pytest.raises(SystemExit) as end:
        call_command(
            "seed_demo", "--pending-file", str(tmp_path / "p"), "--tenant", demo.place.slug
        )
    assert end.value.code == 1
    assert "is not the demo's" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


# --- daily costs --------------------------------------------------------------------------------


def day(number: int, amount: str, **facts: Any) -> DayAmount:
    return DayAmount(
        project_id="p", date=date(2026, 5, number), amount_usd=Decimal(amount), **facts
    )


def record(tenant_id: Any, *days: DayAmount, at: datetime = NOON) -> int:
    with transaction(tenant_id):
        return record_daily_costs(tenant_id=tenant_id, days=days, ingested_at=at)


def test_recording_tells_how_many_days_are_new_or_different(tenant: World) -> None:
    assert record(tenant.id, day(1, "1.5"), day(2, "-2.0001")) == 2
    later = NOON + timedelta(days=1)
    assert record(tenant.id, day(1, "1.5"), day(2, "-2.0001"), at=later) == 0
    assert record(tenant.id, day(1, "1.5", is_final=False), day(3, "9"), at=later) == 2
    with reading(tenant.id):
        rows = DailyCost.objects.filter(tenant_id=tenant.id).order_by("date")
        assert [(r.date.day, r.amount_usd, r.is_final, r.ingested_at) for r in rows] == [
            (1, Decimal("1.5"), False, later),
            (2, Decimal("-2.0001"), True, NOON),
            (3, Decimal(9), True, later),
        ]
        assert find_latest_cost_date(tenant.id, "p") == date(2026, 5, 3)
        assert find_latest_cost_date(tenant.id, "q") is None


def test_recording_nothing_is_nothing(tenant: World) -> None:
    assert record(tenant.id) == 0


def test_tenants_have_costs_of_their_own(tenant: World, other_tenant: World) -> None:
    record(tenant.id, day(1, "1"))
    record(other_tenant.id, day(1, "2"))
    assert costs_of(tenant.id, "p") == {date(2026, 5, 1): Decimal(1)}
    assert costs_of(other_tenant.id, "p") == {date(2026, 5, 1): Decimal(2)}


@pytest.mark.parametrize("amount", ["1.00001", "NaN", "Infinity"])
def test_an_amount_that_the_column_cannot_hold_is_refused(tenant: World, amount: str) -> None:
    with pytest.raises(AmountError):
        record(tenant.id, day(1, "1"), day(2, amount))
    assert costs_of(tenant.id, "p") == {}


def test_one_day_twice_is_refused(tenant: World) -> None:
    with pytest.raises(ValueError, match="twice"):
        record(tenant.id, day(1, "1"), day(1, "1"))
    assert costs_of(tenant.id, "p") == {}


def test_recording_needs_a_transaction(tenant: World) -> None:
    with pytest.raises(NotInTransaction):
        record_daily_costs(tenant_id=tenant.id, days=[day(1, "1")], ingested_at=NOON)


def test_two_who_record_the_same_days_at_once_do_not_deadlock(
    tenant: World, run_in_threads: Callable[..., list[object]]
) -> None:
    days = [day(number, "1") for number in range(1, 29)]
    orders = [days, days[::-1]]
    counts = run_in_threads(8, lambda number: record(tenant.id, *orders[number % 2]))
    assert sum(int(str(count)) for count in counts) == 28
    assert len(costs_of(tenant.id, "p")) == 28


def test_the_demo_s_costs_do_not_depend_on_when_they_are_asked_for() -> None:
    since, until = date(2026, 1, 1), date(2027, 1, 1)
    usd = DEMO.projects[PROJECT]
    whole = daily_costs(PROJECT, working_day_usd=usd, since=since, until=until)
    assert len(whole) == 365
    parts = [
        one
        for number in range(365)
        for one in daily_costs(
            PROJECT,
            working_day_usd=usd,
            since=since + timedelta(days=number),
            until=since + timedelta(days=number + 1),
        )
    ]
    assert parts == whole
    assert {one.amount_usd.as_tuple().exponent for one in whole} == {-4}
    assert daily_costs(PROJECT, working_day_usd=usd, since=until, until=until) == []
