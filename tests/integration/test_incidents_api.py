"""Incidents over HTTP: admins read what is wrong, of their own tenant."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from governance.incidents.operations import Sighting, open_incident, resolve_incident
from tests.client import Api
from tests.factories.tenants import World, issue_key, system_actor
from valdrix.kernel.db import transaction
from valdrix.kernel.ids import new_id


def open_one(world: World, subject: str) -> str:
    incident_id = new_id()
    with transaction(world.id):
        open_incident(
            sighting=Sighting(
                incident_id=incident_id,
                tenant_id=world.id,
                kind="kept_total_differs",
                subject=subject,
                detail="2 is not 3",
                at=datetime(2026, 11, 1, 12, tzinfo=UTC),
            )
        )
    return str(incident_id)


def test_incidents_are_listed_and_shown(tenant: World, other_tenant: World) -> None:
    api, key = Api(), tenant.admin.key
    first, second = open_one(tenant, "a"), open_one(tenant, "b")
    foreign = open_one(other_tenant, "a")
    resolve_incident(actor=system_actor(tenant.id), incident_id=uuid.UUID(first), reason="done")
    document = api.get("incidents", key=key).json()
    assert [one["id"] for one in document["results"]] == [second, first]
    assert document["next"] is None
    assert document["results"][0] == {
        "id": second,
        "kind": "kept_total_differs",
        "subject": "b",
        "detail": "2 is not 3",
        "state": "open",
        "occurrences": 1,
        "opened_at": "2026-11-01T12:00:00Z",
        "last_seen_at": "2026-11-01T12:00:00Z",
        "resolved_at": None,
    }
    shown = api.get(f"incidents/{first}", key=key).json()
    assert (shown["state"], shown["resolved_at"] is None) == ("resolved", False)
    only = api.get("incidents", key=key, query={"state": "resolved"}).json()["results"]
    assert [one["id"] for one in only] == [first]
    page = api.get("incidents", key=key, query={"limit": "1"}).json()
    rest = api.get(page["next"], key=key).json()
    assert [one["id"] for one in (*page["results"], *rest["results"])] == [second, first]
    assert api.get(f"incidents/{foreign}", key=key).status_code == 404


@pytest.mark.parametrize(
    "query", [{"state": "gone"}, {"limit": "0"}, {"cursor": "eA=="}, {"a": "b"}]
)
def test_what_cannot_be_asked_is_refused(tenant: World, query: dict[str, str]) -> None:
    assert Api().get("incidents", key=tenant.admin.key, query=query).status_code == 422


def test_who_may_read_them(tenant: World) -> None:
    path = f"incidents/{open_one(tenant, 'a')}"
    bound = issue_key(
        tenant.id, name="bound", role="admin", person_id=tenant.admin.user_id, projects=("shop",)
    )[1]
    for one in ("incidents", path):
        assert Api().get(one).status_code == 401
        assert Api().get(one, key=tenant.member.key).status_code == 403
        assert Api().get(one, key=bound).status_code == 403
