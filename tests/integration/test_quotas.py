"""Metered use: held before it is spent, counted afterwards, by tenant, person and system (SPEC 13)."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.http import HttpResponse

from billing.models import QuotaCount, QuotaReservation
from billing.plans.domain import ENTERPRISE, FREE, TIERS
from billing.quotas.domain import (
    HELD_FOR,
    LLM_TOKENS,
    QUOTAS,
    Count,
    MeteredRequest,
    Quota,
    Refusal,
    find_refusal,
    find_shape_refusal,
    seconds_left,
)
from billing.quotas.operations import Origin, commit, release, reserve
from tests.client import Api
from tests.factories.tenants import Person, World, put_on_tier
from valdrix.kernel.db import reading
from valdrix.kernel.ids import new_id

BASE = "/api/v1/billing/quotas"
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
SMALL = Quota(
    tenant_daily=100,
    user_daily=60,
    system_daily=50,
    request_units=40,
    request_days=31,
    request_records=1000,
    providers=("standard", "economy"),
)
FREE_QUOTA = QUOTAS[LLM_TOKENS][FREE]


def ask(person: Person, units: int = 100, **members: Any) -> HttpResponse:
    body = {"meter": LLM_TOKENS, "units": units, **members}
    return Api().post(f"{BASE}/reservations", body, key=person.key)


def close(person: Person, reservation_id: str, verb: str, **body: Any) -> HttpResponse:
    return Api().post(f"{BASE}/reservations/{reservation_id}/{verb}", body, key=person.key)


def today(person: Person) -> dict[str, Any]:
    (shown,) = Api().get(BASE, key=person.key).json()["results"]
    return dict(shown)


def hold(world: World, units: int, **options: Any) -> QuotaReservation | Refusal:
    wanted = MeteredRequest(
        meter=LLM_TOKENS, units=units, person_id=options.get("person_id", world.member.user_id)
    )
    origin = Origin(
        tenant_id=world.id,
        reservation_id=new_id(),
        principal_id="key:test",
        at=options.get("at", NOON),
    )
    return reserve(origin=origin, wanted=wanted, quota=SMALL, is_suspended=False)


def check_sums(world: World) -> dict[str, tuple[int, int]]:
    """Return each holder's counts of all days, which must be what the reservations add up to."""
    held, used = Counter[str](), Counter[str]()
    with reading(world.id):
        for row in QuotaReservation.objects.filter(tenant_id=world.id):
            for holder in ("tenant", row.holder):
                held[holder] += row.units if row.state == "reserved" else 0
                used[holder] += row.used_units or 0
        kept = {
            row.holder: (row.reserved_units, row.used_units)
            for row in QuotaCount.objects.filter(tenant_id=world.id)
        }
    assert kept == {name: (held[name], used[name]) for name in kept}
    assert sum(held.values()) == sum(one for one, _ in kept.values())
    return kept


def test_what_is_reserved_is_committed_or_given_back(tenant: World) -> None:
    first, second = ask(tenant.member, 1000), ask(tenant.member, 500)
    assert (first.status_code, second.status_code) == (201, 201), first.content
    shown = today(tenant.member)
    assert (shown["user"]["reserved_units"], shown["tenant"]["reserved_units"]) == (1500, 1500)
    assert shown["user"]["left_units"] == FREE_QUOTA.user_daily - 1500

    done = close(tenant.member, first.json()["id"], "commit", used_units=700)
    assert (done.json()["state"], done.json()["used_units"]) == ("committed", 700)
    back = close(tenant.member, second.json()["id"], "release")
    assert (back.status_code, back.json()["state"]) == (200, "released")

    shown = today(tenant.member)
    assert (shown["tenant"]["reserved_units"], shown["tenant"]["used_units"]) == (0, 700)
    assert shown["system"] == {
        "limit_units": FREE_QUOTA.system_daily, "reserved_units": 0, "used_units": 0,
        "left_units": FREE_QUOTA.system_daily,
    }  # fmt: skip
    check_sums(tenant)


def test_the_same_end_again_is_the_same_and_another_is_a_conflict(tenant: World) -> None:
    made = ask(tenant.member).json()["id"]
    for _ in range(2):
        assert close(tenant.member, made, "commit", used_units=40).status_code == 200
    for verb, body in (("commit", {"used_units": 41}), ("release", {})):
        refused = close(tenant.member, made, verb, **body)
        assert (refused.status_code, refused.json()["code"]) == (409, "quota_reservation_closed")
    other = ask(tenant.member).json()["id"]
    for _ in range(2):
        assert close(tenant.member, other, "release").status_code == 200
    assert close(tenant.member, other, "commit", used_units=1).status_code == 409
    assert check_sums(tenant)["tenant"] == (0, 40)


def test_a_person_the_system_and_the_tenant_have_their_own_share(tenant: World) -> None:
    member, owner = tenant.member.user_id, tenant.owner.user_id
    assert isinstance(hold(tenant, 40), QuotaReservation)
    refused = hold(tenant, 21)
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.limit) == ("quota_exceeded", "user")
    assert isinstance(hold(tenant, 20), QuotaReservation), "exactly what is left"
    assert isinstance(hold(tenant, 30, person_id=None), QuotaReservation)
    refused = hold(tenant, 21, person_id=None)
    assert isinstance(refused, Refusal)
    assert refused.limit == "tenant"
    assert isinstance(hold(tenant, 10, person_id=owner), QuotaReservation)
    assert check_sums(tenant) == {
        "tenant": (100, 0),
        f"user:{member}": (60, 0),
        f"user:{owner}": (10, 0),
        "system": (30, 0),
    }
    assert isinstance(hold(tenant, 40, at=NOON + timedelta(hours=12)), QuotaReservation)


def test_many_at_once_never_hold_more_than_there_is(tenant: World, run_in_threads: Any) -> None:
    people = [tenant.member.user_id, tenant.admin.user_id, None]
    made = run_in_threads(12, lambda number: hold(tenant, 15, person_id=people[number % 3]))
    held = [one for one in made if isinstance(one, QuotaReservation)]
    assert len(held) == 6, "of 100 units"
    assert {one.limit for one in made if isinstance(one, Refusal)} <= {"tenant", "user", "system"}
    assert check_sums(tenant)["tenant"] == (90, 0)

    def settle(number: int) -> str:
        one = held[number % 6]
        return commit(tenant_id=tenant.id, reservation_id=one.pk, used_units=10, at=NOON).state

    assert set(run_in_threads(12, settle)) == {"committed"}
    assert check_sums(tenant)["tenant"] == (0, 60)


def test_what_nobody_closed_is_given_back_and_what_it_used_is_counted(tenant: World) -> None:
    lost, late = hold(tenant, 30), hold(tenant, 30)
    assert isinstance(lost, QuotaReservation)
    assert isinstance(late, QuotaReservation)
    soon, after = NOON + HELD_FOR - timedelta(seconds=1), NOON + HELD_FOR
    assert isinstance(hold(tenant, 1, at=soon), Refusal)
    assert isinstance(hold(tenant, 40, at=after), QuotaReservation)
    assert check_sums(tenant)["tenant"] == (40, 0)
    used = commit(tenant_id=tenant.id, reservation_id=late.pk, used_units=55, at=after)
    assert (used.state, used.used_units) == ("committed", 55), "spent is spent"
    assert release(tenant_id=tenant.id, reservation_id=lost.pk, at=after).state == "expired"
    assert check_sums(tenant)["tenant"] == (40, 55)
    assert isinstance(hold(tenant, 6, at=after), Refusal)


def test_use_above_what_was_held_counts_and_limits_what_follows(tenant: World) -> None:
    made = hold(tenant, 10)
    assert isinstance(made, QuotaReservation)
    commit(tenant_id=tenant.id, reservation_id=made.pk, used_units=500, at=NOON)
    assert check_sums(tenant)["tenant"] == (0, 500)
    assert isinstance(hold(tenant, 1, person_id=None), Refusal)


@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"units": FREE_QUOTA.request_units + 1}, 422, "metered_request_too_large"),
        ({"days": FREE_QUOTA.request_days + 1}, 422, "metered_request_too_large"),
        ({"records": FREE_QUOTA.request_records + 1}, 422, "metered_request_too_large"),
        ({"provider": "premium"}, 403, "provider_not_in_plan"),
        ({"units": 0}, 422, "invalid_request"),
        ({"units": "100"}, 422, "invalid_request"),
        ({"meter": "cpu"}, 422, "invalid_request"),
        ({"actor": "robot"}, 422, "invalid_request"),
        ({"tokens": 5}, 422, "invalid_request"),
        ({"actor": "system"}, 403, "role_missing"),
    ],
)
def test_a_request_of_another_shape_is_refused_and_holds_nothing(
    tenant: World, members: dict[str, Any], status: int, code: str
) -> None:
    refused = ask(tenant.member, **{"units": 10, **members})
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert check_sums(tenant) == {}


def test_a_day_that_is_used_up_says_when_the_next_begins(tenant: World) -> None:
    for _ in range(2):
        assert ask(tenant.member, FREE_QUOTA.request_units).status_code == 201
    refused = ask(tenant.member, FREE_QUOTA.request_units)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert 1 <= int(refused["Retry-After"]) <= 86400
    assert seconds_left(NOON) == 12 * 3600
    assert seconds_left(NOON.replace(hour=23, minute=59, second=59, microsecond=1)) == 1


def test_the_tier_gives_the_limits_and_who_serves(tenant: World) -> None:
    assert ask(tenant.member).json()["provider"] == "economy"
    put_on_tier(tenant, ENTERPRISE)
    assert ask(tenant.member, 100_000).json()["provider"] == "premium"
    assert ask(tenant.member, provider="standard").json()["provider"] == "standard"
    assert today(tenant.member)["tier"] == ENTERPRISE


def test_metered_use_can_be_suspended_for_everybody(tenant: World, settings: Any) -> None:
    made = ask(tenant.member).json()["id"]
    settings.METERED_USE_SUSPENDED = True
    refused = ask(tenant.admin, actor="system")
    assert (refused.status_code, refused.json()["code"]) == (503, "metering_suspended")
    assert today(tenant.member)["suspended"] is True
    assert close(tenant.member, made, "commit", used_units=1).status_code == 200, "spent is spent"


def test_members_see_their_own_and_nobody_another_tenants(
    tenant: World, other_tenant: World
) -> None:
    theirs = ask(tenant.admin, actor="system").json()
    assert theirs["actor"] == "system"
    path = f"{BASE}/reservations/{theirs['id']}"
    assert Api().get(path, key=tenant.admin.key).json() == theirs
    for stranger in (tenant.member, other_tenant.owner):
        assert Api().get(path, key=stranger.key).status_code == 404
        assert close(stranger, theirs["id"], "commit", used_units=5).status_code == 404
        assert close(stranger, theirs["id"], "release").status_code == 404
    assert today(other_tenant.owner)["tenant"]["reserved_units"] == 0
    assert check_sums(tenant)["system"] == (100, 0)


def test_a_higher_tier_is_never_narrower() -> None:
    tiers = [QUOTAS[LLM_TOKENS][tier] for tier in TIERS]
    for lower, higher in pairwise(tiers):
        for name in ("tenant_daily", "user_daily", "system_daily", "request_units"):
            assert getattr(lower, name) < getattr(higher, name)
        assert set(lower.providers) <= set(higher.providers)
    for quota in tiers:
        assert max(quota.user_daily, quota.system_daily) < quota.tenant_daily
        assert quota.request_units <= min(quota.user_daily, quota.system_daily)


def test_each_limit_flips_by_one_unit() -> None:
    wanted = MeteredRequest(meter=LLM_TOKENS, units=40, person_id=7, days=31, records=1000)
    assert find_shape_refusal(SMALL, wanted) is None
    none = Count(reserved_units=0, used_units=0)
    for holder, full in (("tenant", 60), ("user:7", 20)):
        counts = {"tenant": none, "user:7": none}
        counts[holder] = Count(reserved_units=full // 2, used_units=full - full // 2)
        assert find_refusal(SMALL, wanted, counts) is None
        counts[holder] = Count(reserved_units=full // 2 + 1, used_units=full - full // 2)
        refusal = find_refusal(SMALL, wanted, counts)
        assert refusal is not None
        assert refusal.limit == holder.partition(":")[0]
