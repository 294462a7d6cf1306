"""People who review: shorthands over the API, and a tenant whose policy asks them."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse

from enforcement.integrity.queries import run_checks
from governance.identity.domain import SCOPE_APPROVE
from governance.identity.operations import admit_member
from governance.models import User
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import Person, World, issue_key, system_actor

ASK_FROM = {"require_approval_from_usd": "100.00"}
ASKS = {"prod": ASK_FROM, "nonprod": ASK_FROM}


def open_shop(world: World, **policy: Any) -> Shop:
    """Return a tenant where a change from 100 dollars a month on needs an approval."""
    return Shop(world, **{"thresholds": ASKS, **policy})


def admit(world: World, role: str, name: str) -> Person:
    """Return one more person of a tenant, with an API key that may approve."""
    username = f"{name}@{world.slug}.test"
    admit_member(actor=system_actor(world.id), username=username, role=role)
    user = User.objects.get(username=username)
    scopes = frozenset({SCOPE_APPROVE})
    key_id, text = issue_key(
        world.id, name=f"{name} key", role=role, person_id=user.pk, scopes=scopes
    )
    return Person(
        user_id=user.pk,
        username=username,
        role=role,
        key_id=key_id,
        key=text,
        tenant_id=world.id,
        scopes=scopes,
    )


def act(person: Person, approval_id: str, verb: str, **body: Any) -> HttpResponse:
    """Send one verdict as a person."""
    return Api().post(f"approvals/{approval_id}/{verb}", body, key=person.key)


def approve(person: Person, approval_id: str, **body: Any) -> dict[str, Any]:
    """Approve as a person; it must be accepted."""
    response = act(person, approval_id, "approve", **body)
    assert response.status_code == 200, response.content
    answer: dict[str, Any] = response.json()
    return answer


def refusal(response: HttpResponse) -> tuple[int, str]:
    """Return the status and the code of a refusal."""
    return response.status_code, response.json()["code"]


def show(person: Person, approval_id: str) -> dict[str, Any]:
    """Return an approval as a person sees it."""
    response = Api().get(f"approvals/{approval_id}", key=person.key)
    assert response.status_code == 200, response.content
    document: dict[str, Any] = response.json()
    return document


def queue_of(person: Person) -> list[str]:
    """Return the ids of what a person may approve now."""
    response = Api().get("approvals/queue", key=person.key)
    assert response.status_code == 200, response.content
    return [row["id"] for row in response.json()["results"]]


def events_of(shop: Shop, decision_id: str) -> list[str]:
    """Return what the ledger says of a decision, in order."""
    response = Api().get(
        f"ledger?decision_id={decision_id}&order=asc&limit=500", key=shop.world.admin.key
    )
    return [entry["event"] for entry in response.json()["results"]]


def check_books(world: World) -> None:
    """Check that every kept total, every invariant and the chain hold."""
    assert find_differences(world.id) == []
    assert run_checks(world.id).violated == ()
    check_chain(world.id)
