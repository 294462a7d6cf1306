"""Bad input at the gate: its status, its code, and not one row (SPEC 3.2, 17)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enforcement.models import Decision, IdempotencyKey, LedgerEntry
from tests.client import Api
from tests.factories.tenants import World
from valdrix.kernel.db import reading

VALID: dict[str, Any] = {
    "project_id": "shop",
    "environment": "dev",
    "resource_reference": "r",
    "estimated_monthly_delta_usd": "10.00",
}

UNPARSABLE = [
    b" ",
    b"{",
    b"nope",
    b'{"project_id": "a", "project_id": "b"}',
    b'{"estimated_monthly_delta_usd": NaN}',
    b'{"estimated_monthly_delta_usd": Infinity}',
    b'{"metadata": {"a": "\\u0000"}}',
    b'{"project_id": "\\ud800"}',
    b'{"project_id": "\xff\xfe"}',
    b'\xef\xbb\xbf{"project_id": "a"}',
    b"[" * 100_000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b'{"metadata": ' + b"[" * 65 + b"]" * 65 + b"}",
    b'{"project_id": "a\x00b"}',
    b'{"n": ' + b"9" * 5000 + b"}",
    b"[1e" + b"9" * 900 + b"]",
]

INVALID: list[tuple[str, Any, str]] = [
    ("estimated_monthly_delta_usd", "1e3", "invalid_amount"),
    ("estimated_monthly_delta_usd", "1_000", "invalid_amount"),
    ("estimated_monthly_delta_usd", "+5", "invalid_amount"),
    ("estimated_monthly_delta_usd", " 5", "invalid_amount"),
    ("estimated_monthly_delta_usd", "5 ", "invalid_amount"),
    ("estimated_monthly_delta_usd", "٥", "invalid_amount"),
    ("estimated_monthly_delta_usd", "", "invalid_amount"),
    ("estimated_monthly_delta_usd", ".5", "invalid_amount"),
    ("estimated_monthly_delta_usd", "0x10", "invalid_amount"),
    ("estimated_monthly_delta_usd", "NaN", "invalid_amount"),
    ("estimated_monthly_delta_usd", "Infinity", "invalid_amount"),
    ("estimated_monthly_delta_usd", "1.00001", "invalid_amount"),
    ("estimated_monthly_delta_usd", "1000000000000.01", "invalid_amount"),
    ("estimated_monthly_delta_usd", True, "invalid_amount"),
    ("estimated_monthly_delta_usd", [1], "invalid_amount"),
    ("estimated_hourly_delta_usd", "0.0000001", "invalid_amount"),
    ("project_id", "", "invalid_value"),
    ("project_id", 5, "invalid_type"),
    ("project_id", "x" * 201, "too_long"),
    ("project_id", "a\nb", "invalid_value"),
    ("project_id", None, "required"),
    ("resource_reference", None, "required"),
    ("action", "Apply", "invalid_value"),
    ("metadata", [], "invalid_type"),
    ("metadata", {"a": "x" * 20_000}, "too_long"),
    ("metadata", {"n": 2**60}, "invalid_value"),
    ("parent_decision_id", "not-a-uuid", "invalid_value"),
    ("dry_run", "true", "invalid_type"),
    ("idempotency_key", "k" * 201, "too_long"),
    ("idempotency_key", "ключ", "invalid_value"),
    ("unknown_field", 1, "unknown_field"),
]


def rows_of(world: World) -> list[int]:
    with reading(world.id):
        return [
            model.objects.filter(tenant_id=world.id).count()
            for model in (Decision, IdempotencyKey, LedgerEntry)
        ]


@pytest.mark.parametrize("body", UNPARSABLE, ids=lambda body: body[:24].decode("latin-1"))
def test_what_cannot_be_parsed_is_a_400(tenant: World, api: Api, body: bytes) -> None:
    for path in ("gate/terraform", "gate/terraform/preflight", "gate/batch"):
        response = api.post(path, body, key=tenant.key)

        assert (response.status_code, response.json()["code"]) == (400, "malformed_json"), path
        assert response["Content-Type"] == "application/problem+json"
    assert rows_of(tenant) == [0, 0, 0]


@pytest.mark.parametrize(("name", "value", "code"), INVALID)
def test_what_is_invalid_is_a_422_that_names_the_field(
    tenant: World, api: Api, name: str, value: Any, code: str
) -> None:
    response = api.post("gate/terraform", {**VALID, name: value}, key=tenant.key)

    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "invalid_request")
    assert [(error["pointer"], error["code"]) for error in problem["errors"]] == [
        (f"/{name}", code)
    ]
    assert rows_of(tenant) == [0, 0, 0]


@pytest.mark.parametrize("number", [b"1e400", b"1e13", b"1e-5", b"-1e13", b"1.00001"])
def test_json_numbers_are_exact_decimals(tenant: World, api: Api, number: bytes) -> None:
    body = json.dumps(VALID).encode().replace(b'"10.00"', number)

    response = api.post("gate/terraform", body, key=tenant.key)

    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/estimated_monthly_delta_usd"


def test_a_json_number_never_passes_through_a_float(tenant: World, api: Api) -> None:
    body = json.dumps(VALID).encode().replace(b'"10.00"', b"123456789012.3456")

    response = api.post("gate/terraform", body, key=tenant.key)

    assert response.json()["estimated_monthly_delta_usd"] == "123456789012.3456"


@pytest.mark.parametrize(
    ("monthly", "hourly", "status"),
    [
        ("730.00", "1.000000", 200),
        ("100.00", "0.136986", 200),
        ("730.01", "1.00", 422),
        ("-730.00", "1.00", 422),
        (None, "1.00", 200),
    ],
)
def test_both_deltas_must_name_one_cost(
    tenant: World, api: Api, monthly: str | None, hourly: str, status: int
) -> None:
    body = {**VALID, "estimated_monthly_delta_usd": monthly, "estimated_hourly_delta_usd": hourly}

    response = api.post("gate/terraform", body, key=tenant.key)

    assert response.status_code == status
    if status == 422:
        assert response.json()["code"] == "delta_mismatch"


@pytest.mark.parametrize("header", ["", "k" * 201, "tab\tkey", "schlüssel"])
def test_a_malformed_key_header_is_refused(tenant: World, api: Api, header: str) -> None:
    response = api.post(
        "gate/terraform", VALID, key=tenant.key, headers={"Idempotency-Key": header}
    )

    assert response.status_code == 422
    assert rows_of(tenant) == [0, 0, 0]


def test_no_body_is_an_object_without_members(tenant: World, api: Api) -> None:
    response = api.post("gate/terraform", b"", key=tenant.key)

    assert response.status_code == 422
    assert {error["code"] for error in response.json()["errors"]} == {"required"}
    assert rows_of(tenant) == [0, 0, 0]


def test_the_wrong_content_type_is_a_415(tenant: World, api: Api) -> None:
    for content_type in ("text/plain", "application/xml", "multipart/form-data; boundary=x"):
        response = api.post("gate/terraform", VALID, key=tenant.key, content_type=content_type)

        assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


def test_a_body_above_the_bound_is_a_413(tenant: World, api: Api) -> None:
    body = b'{"metadata": "' + b"x" * (10 * 1024 * 1024) + b'"}'

    response = api.post("gate/terraform", body, key=tenant.key)

    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_gate_without_credentials_is_a_401(api: Api) -> None:
    response = api.post("gate/terraform", VALID)

    assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")
