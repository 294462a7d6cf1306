"""Tokens: claimed by their requester, spent once on what was approved, and on nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings

from enforcement.reconciliation.expiry import expire_approvals
from enforcement.review.consume import Binding, consume
from governance.audit.operations import Actor
from governance.models import ApprovalToken
from governance.tokens.domain import CLAIMS, TOKEN_TYPE
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import Person, World, issue_key
from tests.preflight import build_preflight
from tests.reviews import act, approve, check_books, events_of, open_shop, refusal, show
from valdrix.kernel.db import reading
from valdrix.kernel.signing import decode


@pytest.fixture
def shop(tenant: World) -> Iterator[Shop]:
    made = open_shop(tenant)
    made.budget("5000.00")
    yield made
    check_books(tenant)


def ask(shop: Shop, **members: Any) -> dict[str, Any]:
    """Ask for an approval of one plan, as a pipeline does."""
    response = Api().post(
        "gate/terraform/preflight", build_preflight(**members), key=shop.world.key
    )
    answer: dict[str, Any] = response.json()
    assert answer["decision"] == "REQUIRE_APPROVAL"
    return answer


def claim(person: Person, approval_id: str, **body: Any) -> str:
    response = Api().post(f"approvals/{approval_id}/token", body, key=person.key)
    assert response.status_code == 200, response.content
    assert response["Cache-Control"] == "no-store"
    return str(response.json()["approval_token"])


def spend(shop: Shop, token: str, asked: dict[str, Any], **changes: Any) -> Any:
    """Spend a token as the continuation says; ``key`` is the idempotency key."""
    key = changes.pop("key", None)
    world = changes.pop("world", shop.world)
    body = {
        "approval_token": token,
        "monthly_delta_usd": "300.00",
        "change_digest": asked["continuation"]["binding"]["change_digest"],
        **changes,
    }
    body = {name: value for name, value in body.items() if value is not None}
    headers = {} if key is None else {"Idempotency-Key": key}
    return Api().post("approvals/consume", body, key=world.key, headers=headers)


def given(shop: Shop, **members: Any) -> tuple[dict[str, Any], str]:
    """Return an approved question and its token."""
    asked = ask(shop, **members)
    approve(shop.world.owner, asked["approval_request_id"])
    return asked, claim(shop.world.member, asked["approval_request_id"])


def read_claims(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = token.split(".")
    return json.loads(decode(header)), json.loads(decode(payload))


def test_the_token_says_what_was_approved(shop: Shop) -> None:
    asked, token = given(shop)
    header, claims = read_claims(token)
    assert set(header) == {"alg", "typ", "kid"}
    assert (header["alg"], header["typ"], claims["token_type"]) == ("EdDSA", TOKEN_TYPE, TOKEN_TYPE)
    assert tuple(claims) == CLAIMS
    assert claims["tenant_id"] == str(shop.world.id)
    assert (claims["project_id"], claims["environment"]) == ("shop", "nonprod")
    assert claims["approval_id"] == asked["approval_request_id"]
    assert claims["decision_id"] == asked["decision_id"]
    assert claims["change_fingerprint"] == asked["change_fingerprint"]
    assert claims["max_monthly_delta_usd"] == "300.0000"
    assert claims["max_hourly_delta_usd"] == "0.410959"
    keys = Api().get("/.well-known/jwks.json").json()["keys"]
    assert header["kid"] in {key["kid"] for key in keys}


def test_consuming_confirms_and_is_on_the_ledger(shop: Shop) -> None:
    asked, token = given(shop)

    answer = spend(shop, token, asked, expected_project_id="shop", expected_environment="dev")

    assert answer.status_code == 200, answer.content
    assert answer.json() == {
        "status": "consumed",
        "decision_id": asked["decision_id"],
        "approval_id": asked["approval_request_id"],
        "max_monthly_delta_usd": "300.0000",
        "max_hourly_delta_usd": "0.410959",
    }
    assert events_of(shop, asked["decision_id"])[-4:] == [
        "token_issued", "token_consumed", "approval_consumed", "confirmed",
    ]  # fmt: skip
    rows = Api().get("reservations/active", key=shop.world.admin.key).json()["results"]
    assert rows[0]["confirmed_at"] is not None
    assert show(shop.world.member, asked["approval_request_id"])["status"] == "consumed"
    assert refusal(act(shop.world.member, asked["approval_request_id"], "withdraw")) == (
        409, "approval_consumed",
    )  # fmt: skip


def test_only_the_requester_claims_and_gets_the_same_again(shop: Shop) -> None:
    asked = ask(shop)
    approval_id, member = asked["approval_request_id"], shop.world.member
    path = f"approvals/{approval_id}/token"
    assert refusal(Api().post(path, {}, key=member.key)) == (409, "approval_pending")
    answer = approve(shop.world.owner, approval_id)
    assert "approval_token" not in json.dumps(answer)
    assert refusal(Api().post(path, {}, key=shop.world.owner.key)) == (403, "not_the_requester")

    first = claim(member, approval_id)

    assert claim(member, approval_id) == first
    _, other_key = issue_key(shop.world.id, name="other", role="member", person_id=member.user_id)
    again = Api().post(path, {}, key=other_key).json()["approval_token"]
    assert again == first, "persons are compared, not credentials"
    second = claim(member, approval_id, rotate=True)
    assert second != first
    assert refusal(spend(shop, first, asked)) == (409, "approval_token_revoked")
    assert spend(shop, second, asked).status_code == 200
    assert events_of(shop, asked["decision_id"]).count("token_revoked") == 1


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"monthly_delta_usd": "300.01"}, (409, "approval_cost_exceeded")),
        ({"monthly_delta_usd": "300.0001"}, (409, "approval_cost_exceeded")),
        ({"hourly_delta_usd": "0.410960"}, (409, "approval_cost_exceeded")),
        ({"change_digest": "another"}, (409, "approval_change_mismatch")),
        ({"expected_project_id": "other"}, (409, "approval_project_mismatch")),
        ({"expected_environment": "prod"}, (409, "approval_environment_mismatch")),
        ({"expected_environment": "devv"}, (409, "approval_environment_mismatch")),
        ({"expected_request_fingerprint": "0" * 64}, (409, "request_fingerprint_mismatch")),
        ({"monthly_delta_usd": None}, (422, "invalid_request")),
        ({"change_digest": None}, (422, "invalid_request")),
        ({"monthly_delta_usd": "1e2"}, (422, "invalid_request")),
        ({"unknown": 1}, (422, "invalid_request")),
        ({"approval_token": "x" * 9000}, (422, "invalid_request")),
        ({"approval_token": 7}, (422, "invalid_request")),
        ({"key": "é"}, (422, "invalid_request")),
    ],
)
def test_another_binding_is_refused_and_consumes_nothing(
    shop: Shop, changes: dict[str, Any], refused: tuple[int, str]
) -> None:
    asked, token = given(shop)
    before = Api().get("ledger?limit=1", key=shop.world.admin.key).json()["results"]

    assert refusal(spend(shop, token, asked, **changes)) == refused

    assert Api().get("ledger?limit=1", key=shop.world.admin.key).json()["results"] == before
    assert spend(shop, token, asked).status_code == 200


def test_at_or_below_the_ceiling_it_passes_and_by_the_request_too(shop: Shop) -> None:
    for number, changes in enumerate(
        (
            {"monthly_delta_usd": "299.99", "hourly_delta_usd": "0.410959"},
            {"change_digest": None, "expected_request_fingerprint": "own"},
            {"monthly_delta_usd": "-5.00"},
        )
    ):
        asked, token = given(shop, resource_reference=f"module.m{number}", run_id=f"r{number}")
        own = {
            name: asked["request_fingerprint"] if value == "own" else value
            for name, value in changes.items()
        }
        assert spend(shop, token, asked, **own).status_code == 200


def test_a_replay_is_refused_except_for_the_same_call(shop: Shop) -> None:
    asked, token = given(shop)
    first = spend(shop, token, asked, key="attempt-1")
    assert (first.status_code, "Idempotent-Replayed" in first) == (200, False)

    again = spend(shop, token, asked, key="attempt-1")

    assert (again.status_code, again["Idempotent-Replayed"]) == (200, "true")
    assert again.json() == first.json()
    assert refusal(spend(shop, token, asked)) == (409, "approval_token_replayed")
    assert refusal(spend(shop, token, asked, key="attempt-2")) == (409, "approval_token_replayed")
    assert refusal(spend(shop, token, asked, key="attempt-1", monthly_delta_usd="299.00")) == (
        409, "idempotency_key_reused",
    )  # fmt: skip
    assert refusal(
        Api().post(f"approvals/{asked['approval_request_id']}/token", {}, key=shop.world.key)
    ) == (409, "approval_consumed")


def test_another_tenant_gets_nothing_from_a_token(shop: Shop, other_tenant: World) -> None:
    asked, token = given(shop)
    response = spend(shop, token, asked, world=other_tenant)
    assert refusal(response) == (401, "approval_token_invalid")
    assert response["WWW-Authenticate"].startswith("Bearer")
    path = f"approvals/{asked['approval_request_id']}/token"
    assert refusal(Api().post(path, {}, key=other_tenant.key)) == (404, "not_found")
    assert spend(shop, token, asked).status_code == 200


def test_a_key_bound_to_other_projects_cannot_spend_it(shop: Shop) -> None:
    asked, token = given(shop)
    _, bound = issue_key(
        shop.world.id,
        name="bound",
        role="member",
        person_id=shop.world.member.user_id,
        projects=["other"],
    )
    body = {
        "approval_token": token,
        "monthly_delta_usd": "1.00",
        "expected_request_fingerprint": asked["request_fingerprint"],
    }
    assert refusal(Api().post("approvals/consume", body, key=bound)) == (
        403, "project_not_allowed",
    )  # fmt: skip


@pytest.mark.parametrize("ending", ["withdraw", "expire"])
def test_what_ended_cannot_be_spent(shop: Shop, ending: str) -> None:
    asked, token = given(shop)
    approval_id = asked["approval_request_id"]
    if ending == "withdraw":
        assert act(shop.world.member, approval_id, "withdraw").status_code == 200
    else:
        at = datetime.now(UTC) + timedelta(days=2)
        actor = Actor(tenant_id=shop.world.id, principal_id="system:t", address=None, at=at)
        assert expire_approvals(actor=actor)["expired"] == 1
    assert refusal(spend(shop, token, asked)) == (409, "approval_token_revoked")
    assert events_of(shop, asked["decision_id"]).count("token_revoked") == 1


@pytest.mark.parametrize(("late", "code"), [(9, None), (11, "token_expired")])
def test_ten_seconds_of_leeway(shop: Shop, late: int, code: str | None) -> None:
    asked, token = given(shop)
    _, claims = read_claims(token)
    at = datetime.fromtimestamp(claims["exp"] + late, UTC)
    binding = Binding(
        monthly_delta_usd=shop.budget_state(shop.budget("1.00", project_id="x"))["posted_usd"],
        expected_request_fingerprint=asked["request_fingerprint"],
    )

    def present() -> Any:
        return consume(
            principal=shop.world.member.principal,
            text=token,
            binding=binding,
            issuer=settings.APPROVAL_TOKEN_ISSUER,
            clock=lambda: at,
        )

    if code is None:
        assert present()[0]["status"] == "consumed"
    else:
        with pytest.raises(Exception, match="past its end") as caught:
            present()
        assert caught.value.problem_code == code  # type: ignore[attr-defined]


def test_what_was_confirmed_without_a_token_is_spent(shop: Shop) -> None:
    asked, token = given(shop)
    confirmed = Api().post(f"reservations/{asked['decision_id']}/confirm", {}, key=shop.world.key)
    assert confirmed.status_code == 200, confirmed.content
    assert refusal(spend(shop, token, asked)) == (409, "approval_token_revoked")
    assert show(shop.world.member, asked["approval_request_id"])["status"] == "consumed"


def test_what_is_not_held_any_more_is_not_spent(shop: Shop) -> None:
    asked, token = given(shop)
    response = Api().post(
        f"reservations/{asked['decision_id']}/reconcile",
        {"actual_monthly_delta_usd": "300.00"},
        key=shop.world.admin.key,
    )
    assert response.status_code == 200
    assert refusal(spend(shop, token, asked)) == (409, "reservation_not_active")


def test_many_presenters_one_winner(shop: Shop, run_in_threads: Any) -> None:
    pairs = [given(shop, resource_reference=f"m{n}", run_id=f"r{n}") for n in range(3)]

    def present(number: int) -> int:
        asked, token = pairs[number % 3]
        return int(spend(shop, token, asked).status_code)

    statuses = run_in_threads(18, present)

    assert sorted(statuses) == [200] * 3 + [409] * 15
    with reading(shop.world.id):
        consumed = ApprovalToken.objects.filter(tenant_id=shop.world.id, status="consumed")
        assert consumed.count() == 3


def test_what_leaned_on_a_hold_that_was_given_back_is_not_spent(shop: Shop) -> None:
    """An approval of what another decision held covers nothing once that hold is gone."""
    first = shop.ask("300.00", key="a", run_id="r")
    again = shop.ask("300.00", key="b", run_id="r")
    assert again["reservation_shared"]
    approve(shop.world.owner, again["approval_request_id"])
    token = claim(shop.world.member, again["approval_request_id"])
    assert act(shop.world.member, first["approval_request_id"], "withdraw").status_code == 200

    response = Api().post(
        "approvals/consume",
        {
            "approval_token": token,
            "monthly_delta_usd": "300.00",
            "expected_request_fingerprint": again["request_fingerprint"],
        },
        key=shop.world.key,
    )

    assert refusal(response) == (409, "reservation_not_active")
    with reading(shop.world.id):
        assert ApprovalToken.objects.get(approval_id=again["approval_request_id"]).status == "live"


def test_a_first_answer_is_repeated_to_its_own_project_only(shop: Shop) -> None:
    asked, token = given(shop)
    assert spend(shop, token, asked, key="once").status_code == 200
    assert spend(shop, token, asked, key="once").headers["Idempotent-Replayed"] == "true"
    member = shop.world.member
    _, other = issue_key(
        shop.world.id, name="other", role="member", person_id=member.user_id, projects=["other"]
    )
    body = {
        "approval_token": token,
        "monthly_delta_usd": "300.00",
        "expected_request_fingerprint": asked["request_fingerprint"],
    }
    for headers in ({"Idempotency-Key": "once"}, {}):
        answer = Api().post("approvals/consume", body, key=other, headers=headers)
        assert refusal(answer) == (403, "project_not_allowed")
