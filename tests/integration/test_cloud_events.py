"""``gate/cloud-event`` over HTTP: the three modes, batches, the handshake, and bad input."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from django.http import HttpResponse

from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.sums import find_differences
from tests.factories.tenants import World, issue_key
from tests.integration.test_gate_terraform import rows_of

PATH = "gate/cloud-event"
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
DATA = {
    "project_id": "shop",
    "environment": "dev",
    "resource_reference": "database/orders",
    "estimated_monthly_delta_usd": "10.00",
}


@pytest.fixture
def shop(tenant: World) -> Shop:
    made = Shop(tenant)
    made.budget("1000.00")
    return made


def an_event(number: int = 1, **members: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"e-{number}",
        "source": "/provisioner",
        "type": "com.example.requested",
        "data": DATA,
        **members,
    }


def send(shop: Shop, body: Any, content_type: str = STRUCTURED, **options: Any) -> HttpResponse:
    return Api().post(PATH, body, key=shop.world.key, content_type=content_type, **options)


def binary_headers(**attributes: str) -> dict[str, str]:
    named = {name: str(value) for name, value in an_event().items() if name != "data"}
    return {f"ce-{name}": value for name, value in {**named, **attributes}.items()}


def test_one_event_is_the_same_in_every_mode(shop: Shop) -> None:
    structured = send(shop, an_event()).json()
    binary = send(shop, DATA, "application/json", headers=binary_headers()).json()
    plain = send(shop, an_event(), "application/json").json()
    batch = send(shop, [an_event()], BATCHED).json()

    # The data's media type is told in one mode and implied in the others.
    assert structured["decision"] == "ALLOW"
    assert plain == {**structured, "replayed": True}
    assert batch == {"results": [{"status": 200, "body": plain}]}
    assert binary["code"] == "idempotency_key_reused"
    told = an_event(2, datacontenttype="application/json")
    first = send(shop, told).json()
    headers = binary_headers(id="e-2")
    assert send(shop, DATA, "application/json", headers=headers).json() == {
        **first,
        "replayed": True,
    }


def test_binary_headers_are_decoded(shop: Shop) -> None:
    headers = binary_headers(id="Euro%20%E2%82%AC", source="/caf%C3%A9", subject='"a b"')

    answer = send(shop, DATA, "application/json", headers=headers).json()

    assert answer["idempotency_key"] == "cloudevent:/café:Euro €"
    assert answer["decision"] == "ALLOW"


def test_a_binary_event_of_any_type_asks_by_its_extensions(shop: Shop) -> None:
    headers = binary_headers(projectid="shop", environment="dev", estimatedmonthlydeltausd="7")

    answer = send(shop, b"<order/>", "application/xml", headers=headers).json()

    assert answer["estimated_monthly_delta_usd"] == "7.0000"
    assert answer["resource_reference"] == "/provisioner"


def test_a_batch_is_answered_item_by_item(shop: Shop) -> None:
    broken = {"specversion": "1.0", "id": "x"}
    large = an_event(3, data={**DATA, "estimated_monthly_delta_usd": "5000.00"})
    reused = an_event(1, data={**DATA, "estimated_monthly_delta_usd": "11.00"})

    response = send(shop, [an_event(1), broken, large, "text", reused, an_event(2)], BATCHED)

    results = response.json()["results"]
    assert response.status_code == 200
    assert [one["status"] for one in results] == [200, 422, 200, 422, 409, 200]
    assert [one["body"].get("decision") for one in results] == [
        "ALLOW",
        None,
        "DENY",
        None,
        None,
        "ALLOW",
    ]
    assert results[1]["body"]["errors"][0]["pointer"] == "/source"
    assert find_differences(shop.world.id) == []


def test_an_empty_batch_is_legal(shop: Shop) -> None:
    before = rows_of(shop.world)

    assert send(shop, [], BATCHED).json() == {"results": []}
    assert rows_of(shop.world) == before


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ({"a": 1}, {}),
        ([an_event(n) for n in range(101)], {}),
        ([an_event()], {"headers": {"Idempotency-Key": "one for all"}}),
    ],
)
def test_what_is_no_batch_is_refused_as_a_whole(
    shop: Shop, body: Any, options: dict[str, Any]
) -> None:
    before = rows_of(shop.world)

    response = send(shop, body, BATCHED, **options)

    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert rows_of(shop.world) == before


@pytest.mark.parametrize(
    ("status", "body", "content_type", "headers"),
    [
        (400, b"{", STRUCTURED, {}),
        (400, b" ", STRUCTURED, {}),
        (400, b'{"id": 1, "id": 2}', STRUCTURED, {}),
        (400, b'{"id": NaN}', STRUCTURED, {}),
        (400, b"{", BATCHED, {}),
        (415, b"{}", "application/cloudevents+avro", {}),
        (415, b"{}", STRUCTURED, {"Content-Encoding": "gzip"}),
        (422, b"[]", STRUCTURED, {}),
        (422, b"{}", "application/json", {}),
        (422, b"text", "text/plain", {}),
        (422, b"{", "application/json", binary_headers()),
        (422, b"", "", binary_headers()),
        (422, b"{}", "application/json", binary_headers(specversion="0.3")),
        (422, b"{}", "application/json", binary_headers(subject="%C0%A0")),
        (422, b"{}", "application/json", binary_headers(datacontenttype="text/xml")),
        (422, b"a=b", "application/x-www-form-urlencoded", binary_headers()),
    ],
)
def test_bad_input_changes_no_row(
    shop: Shop, status: int, body: bytes, content_type: str, headers: dict[str, str]
) -> None:
    before = rows_of(shop.world)

    response = send(shop, body, content_type, headers=headers)

    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    assert rows_of(shop.world) == before


def test_a_body_that_is_too_large_is_413(shop: Shop) -> None:
    large = an_event(data={**DATA, "other": "x" * (10 * 1024 * 1024)})

    assert send(shop, large).status_code == 413


def test_a_credential_for_other_projects_is_refused(shop: Shop) -> None:
    world = shop.world
    _, key = issue_key(
        world.id, name="k", role="member", person_id=world.member.user_id, projects=["other"]
    )
    before = rows_of(world)

    response = Api().post(PATH, an_event(), key=key, content_type=STRUCTURED)

    assert (response.status_code, response.json()["code"]) == (403, "project_not_allowed")
    assert rows_of(world) == before


def test_a_dry_run_leaves_no_row_and_no_key(shop: Shop) -> None:
    before = rows_of(shop.world)

    answer = send(shop, an_event(dryrun=True)).json()

    assert (answer["decision"], answer["decision_id"]) == ("ALLOW", None)
    assert rows_of(shop.world) == before
    assert not send(shop, an_event()).json()["replayed"]


def test_an_event_that_names_a_pipelines_decision_is_one_charge(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    decision = shop.ask("10.00")["decision_id"]

    answer = send(shop, an_event(parentdecisionid=decision)).json()

    assert (answer["reservation_shared"], answer["reserved_allocation_usd"]) == (True, "0.0000")
    assert shop.budget_state(budget)["pending_usd"] == Decimal(10)


def test_money_is_read_exactly_and_never_through_a_float(shop: Shop) -> None:
    text = json.dumps(an_event()).replace('"10.00"', "0.1000000000000000055511151231257827")

    response = send(shop, text.encode())

    assert (response.status_code, response.json()["errors"][0]["code"]) == (422, "invalid_amount")


def handshake(shop: Shop, key: str | None = None, **headers: str) -> HttpResponse:
    sent = {f"WebHook-Request-{name}": value for name, value in headers.items()}
    return Api().send("OPTIONS", PATH, key=key or shop.world.key, headers=sent)


@pytest.mark.parametrize(
    ("asked", "of_all", "granted"),
    [
        ("120", 120_000, "120"),
        ("90000", 120_000, "36000"),
        ("x", 120_000, "36000"),
        ("0", 120_000, "36000"),
        # Far above what other tests have asked within the minute: all of them share this cap.
        ("90000", 60_000, "30000"),
    ],
)
def test_a_sender_with_a_credential_is_granted_what_it_asks_within_the_tenant_s_limits(
    shop: Shop, settings: Any, asked: str, of_all: int, granted: str
) -> None:
    settings.ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP = 600
    settings.ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP = of_all
    response = handshake(shop, Origin="eventemitter.example", Rate=asked)

    assert response.status_code == 204
    assert response["Allow"] == "POST, OPTIONS"
    assert response["WebHook-Allowed-Origin"] == "eventemitter.example"
    assert response["WebHook-Allowed-Rate"] == granted


@pytest.mark.parametrize("origin", ["", "a b", "a\u20acb", "<script>"])
def test_without_an_origin_nothing_is_granted(shop: Shop, origin: str) -> None:
    response = handshake(shop, Origin=origin.encode().decode("latin-1"))

    assert response.status_code == 204
    assert "WebHook-Allowed-Origin" not in response
    assert "WebHook-Allowed-Rate" not in response


def test_a_stranger_is_granted_nothing(shop: Shop) -> None:
    response = handshake(shop, key="vdx_wrong", Origin="eventemitter.example")

    assert response.status_code == 401
    assert "WebHook-Allowed-Origin" not in response
