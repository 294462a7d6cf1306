"""The ledger over HTTP: its items, filters, order and pages, and who may read it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from enforcement.ledger.domain import COLUMNS
from enforcement.models import LedgerEntry
from tests.client import Api
from tests.factories.rows import append_entries, build_facts
from tests.factories.tenants import World, issue_key
from valdrix.kernel.db import reading
from valdrix.kernel.ids import new_id


def read(api: Api, world: World, query: str = "") -> list[dict[str, Any]]:
    answer = api.get(f"ledger{query}", key=world.admin.key)
    assert answer.status_code == 200, answer.content
    return list(answer.json()["results"])


def sequences(items: list[dict[str, Any]]) -> list[int]:
    return [item["sequence"] for item in items]


def test_an_item_answers_which_approval_authorised_a_decision(api: Api, tenant: World) -> None:
    approval_id, decision_id = new_id(), new_id()
    facts = build_facts(
        decision_id, approval_request_id=approval_id, approval_status="pending",
        at=datetime(2026, 1, 31, 12, 0, tzinfo=UTC), monthly_delta_usd=Decimal("73.0000"),
        hourly_delta_usd=Decimal("0.100000"), burn_rate_daily_usd=Decimal("1.5000"),
        forecast_eom_usd=Decimal("46.5000"), risk_class="low", risk_score=10,
        anomaly_signal="none", policy_version=3, policy_document_sha256="cd" * 32,
    )  # fmt: skip
    append_entries(tenant.id, [facts])
    (item,) = read(api, tenant)
    assert set(item) == {"sequence", "prev_hash", "entry_hash", *COLUMNS}
    shown = {
        "decision_id": str(decision_id), "approval_request_id": str(approval_id),
        "approval_status": "pending", "at": "2026-01-31T12:00:00.000000Z", "event": "decision_made",
        "monthly_delta_usd": "73.0000", "hourly_delta_usd": "0.100000",
        "burn_rate_daily_usd": "1.5000", "forecast_eom_usd": "46.5000", "risk_class": "low",
        "risk_score": 10, "anomaly_signal": "none", "policy_version": 3,
        "policy_document_sha256": "cd" * 32, "reason_codes": ["within_budget"], "source": None,
        "prev_hash": "00" * 32,
    }  # fmt: skip
    assert {name: item[name] for name in shown} == shown
    with reading(tenant.id):
        canonical = LedgerEntry.objects.get().canonical
    assert item["entry_hash"] == hashlib.sha256(bytes(32) + canonical.encode()).hexdigest()


def test_items_are_chained_newest_first_unless_asked_otherwise(api: Api, tenant: World) -> None:
    append_entries(tenant.id, [build_facts() for _ in range(3)])
    newest_first = read(api, tenant)
    assert sequences(newest_first) == [3, 2, 1]
    assert newest_first[0]["prev_hash"] == newest_first[1]["entry_hash"]
    assert read(api, tenant, "?order=asc") == newest_first[::-1]


def test_filters_keep_their_own(api: Api, tenant: World) -> None:
    decision_id = new_id()
    facts = [build_facts(decision_id), build_facts(project_id="web"), build_facts(decision_id)]
    append_entries(tenant.id, facts)
    assert sequences(read(api, tenant, f"?decision_id={decision_id}")) == [3, 1]
    assert sequences(read(api, tenant, "?project_id=web")) == [2]
    assert read(api, tenant, f"?decision_id={new_id()}") == []
    assert read(api, tenant, f"?decision_id={decision_id}&project_id=web") == []


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_hold_every_entry_once(api: Api, tenant: World, order: str) -> None:
    append_entries(tenant.id, [build_facts() for _ in range(5)])
    seen: list[int] = []
    path = f"ledger?limit=2&order={order}&project_id=shop"
    while path:
        page = api.get(path, key=tenant.admin.key).json()
        seen += sequences(page["results"])
        path = page["next"]
        append_entries(tenant.id, [build_facts()] if order == "desc" else [])
    assert seen == ([1, 2, 3, 4, 5] if order == "asc" else [5, 4, 3, 2, 1])


@pytest.mark.parametrize(
    "query",
    [
        "decision_id=x", "order=up", "project_id=", "limit=501", "cursor=%00", "cursor=LTE=",
        "projekt_id=shop", "order=asc&order=desc",
    ],
)  # fmt: skip
def test_a_bad_query_is_refused(api: Api, tenant: World, query: str) -> None:
    assert api.get(f"ledger?{query}", key=tenant.admin.key).status_code == 422


def test_only_admins_read_it(api: Api, tenant: World, other_tenant: World) -> None:
    append_entries(tenant.id, [build_facts()])
    refused = api.get("ledger", key=tenant.member.key)
    assert (refused.status_code, refused.json()["code"]) == (403, "role_missing")
    assert api.get("ledger").status_code == 401
    assert api.get("ledger", key=tenant.owner.key).status_code == 200
    assert read(api, other_tenant) == []


def test_a_bound_credential_names_one_of_its_projects(api: Api, tenant: World) -> None:
    append_entries(tenant.id, [build_facts(), build_facts(project_id="web")])
    key = issue_key(
        tenant.id, name="b", role="admin", person_id=tenant.owner.user_id, projects=["web"]
    )[1]
    mine = api.get("ledger?project_id=web", key=key)
    assert sequences(mine.json()["results"]) == [2]
    for path in ("ledger", "ledger?project_id=shop"):
        refused = api.get(path, key=key)
        assert (refused.status_code, refused.json()["code"]) == (403, "project_not_allowed")


def test_the_ledger_is_read_only_over_http(api: Api, tenant: World) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert api.send(method, "ledger", {}, key=tenant.owner.key).status_code == 405
