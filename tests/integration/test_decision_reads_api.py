"""Past decisions over HTTP: the stored response, by id and in lists, inside a binding."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from enforcement.models import Decision
from tests.client import Api
from tests.factories.rows import DIGEST
from tests.factories.tenants import World, issue_key
from valdrix.kernel.db import transaction
from valdrix.kernel.ids import new_id

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def plant(world: World, *, project_id: str = "shop", **changes: Any) -> uuid.UUID:
    """Commit one decision and return its id."""
    decision_id = new_id()
    decision = changes.get("decision", "ALLOW")
    response = {"decision_id": str(decision_id), "decision": decision, "project_id": project_id}
    columns: dict[str, Any] = {
        "id": decision_id, "tenant_id": world.id, "created_at": NOW, "source": "terraform",
        "project_id": project_id, "environment": "prod", "action": "terraform.apply",
        "resource_reference": "module.web", "decision": decision, "mode": "hard",
        "reason_codes": ["within_budget"], "cost_state": "known", "request_fingerprint": DIGEST,
        "change_fingerprint": DIGEST, "actor": "user:1", "person_id": 1, "policy_version": 1,
        "policy_document_schema_version": "valdrix.enforcement.policy.v1",
        "policy_document_sha256": DIGEST, "engine_version": "1", "context_json": "{}",
        "outcome_json": "{}", "outcome_sha256": DIGEST,
        "response_json": orjson.dumps(response | {"estimated_monthly_delta_usd": "5.0000"}).decode(),
    }  # fmt: skip
    with transaction(world.id):
        Decision.objects.create(**(columns | changes))
    return decision_id


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [item["decision_id"] for item in answer.json()["results"]]


def bound_key(world: World, role: str, *projects: str) -> str:
    return issue_key(
        world.id, name="bound", role=role, person_id=world.owner.user_id, projects=projects
    )[1]


def test_a_decision_is_the_very_response_that_was_given(api: Api, tenant: World) -> None:
    decision_id = plant(tenant, decision="DENY")
    answer = api.get(f"decisions/{decision_id}", key=tenant.member.key)
    assert (answer.status_code, answer.json()) == (200, {
        "decision_id": str(decision_id), "decision": "DENY", "project_id": "shop",
        "estimated_monthly_delta_usd": "5.0000",
    })  # fmt: skip
    assert api.get("decisions", key=tenant.member.key).json()["results"] == [answer.json()]


def test_lists_are_newest_first_and_filtered(api: Api, tenant: World) -> None:
    first = str(plant(tenant, created_at=NOW - timedelta(days=2)))
    second = str(plant(tenant, decision="DENY"))
    third = str(plant(tenant, project_id="web"))
    key = tenant.member.key
    assert ids(api.get("decisions", key=key)) == [third, second, first]
    assert ids(api.get("decisions?project=shop", key=key)) == [second, first]
    assert ids(api.get("decisions?decision=DENY", key=key)) == [second]
    assert ids(api.get("decisions?since=2026-03-01T12:00:00Z", key=key)) == [third, second]
    assert ids(api.get("decisions?project=web&decision=DENY", key=key)) == []


def test_pages_hold_every_decision_once(api: Api, tenant: World) -> None:
    planted = [str(plant(tenant)) for _ in range(5)]
    seen, path = [], "decisions?limit=2&project=shop"
    while path:
        page = api.get(path, key=tenant.key)
        seen += ids(page)
        path = page.json()["next"]
        plant(tenant)
    assert seen == planted[::-1]


def test_another_tenants_decision_is_not_there(
    api: Api, tenant: World, other_tenant: World
) -> None:
    decision_id = plant(tenant)
    for path in (f"decisions/{decision_id}", f"decisions/{new_id()}"):
        answer = api.get(path, key=other_tenant.owner.key)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert ids(api.get("decisions", key=other_tenant.owner.key)) == []
    assert api.get(f"decisions/{decision_id}").status_code == 401
    assert api.get("decisions").status_code == 401


@pytest.mark.parametrize("role", ["member", "admin"])
def test_a_bound_credential_sees_its_own_projects(api: Api, tenant: World, role: str) -> None:
    mine, other = plant(tenant), plant(tenant, project_id="web")
    key = bound_key(tenant, role, "shop")
    assert ids(api.get("decisions", key=key)) == [str(mine)]
    assert api.get(f"decisions/{mine}", key=key).status_code == 200
    for path in (f"decisions/{other}", "decisions?project=web"):
        answer = api.get(path, key=key)
        assert (answer.status_code, answer.json()["code"]) == (403, "project_not_allowed")
    assert ids(api.get("decisions", key=bound_key(tenant, role))) == []


@pytest.mark.parametrize(
    "query",
    ["decision=allow", "since=yesterday", "since=2026-03-01", "project=", "limit=0",
     "cursor=Zm9v", "environment=prod", "project=a&project=b"],
)  # fmt: skip
def test_a_bad_query_is_refused(api: Api, tenant: World, query: str) -> None:
    assert api.get(f"decisions?{query}", key=tenant.key).status_code == 422
