"""The common response: every member of SPEC 8, amounts as strings, the same bytes each time."""

from __future__ import annotations

from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any

import orjson
import pytest

from enforcement.gate import failsafe
from enforcement.gate.response import (
    Record,
    build_response,
    encode_response,
    mark_replayed,
    to_wire,
)
from tests.builders import NOW, a_context, a_cost, a_policy, an_outcome

MEMBERS = [
    "decision_id",
    "decision",
    "mode",
    "mode_scope",
    "estimated_monthly_delta_usd",
    "estimated_hourly_delta_usd",
    "reason_codes",
    "entitlement_reason_code",
    "entitlement_waterfall",
    "findings",
    "would_have_been",
    "reserved_allocation_usd",
    "reserved_reserved_credit_usd",
    "reserved_emergency_credit_usd",
    "reservation_shared",
    "shared_reserved_usd",
    "computed_context",
    "approval_required",
    "approval_request_id",
    "approval_token",
    "approval_token_contract",
    "request_fingerprint",
    "change_fingerprint",
    "cost_state",
    "cost_state_reasons",
    "idempotency_key",
    "policy_version",
    "policy_document_sha256",
    "replayed",
    "persisted",
    "dry_run",
    "explanation",
    "evaluated_at",
    "latency_ms",
]


def a_record(**changes: Any) -> Record:
    context = a_context(**{"metadata": {"note": "é"}} | changes)
    return Record(
        decision_id="d",
        gate_input=context.gate_input,
        outcome=an_outcome(**changes),
        computed=context.computed,
        idempotency_key="k",
        approval_request_id=None,
        policy_version=3,
        policy_sha256="0" * 64,
        persisted=True,
        evaluated_at=NOW,
        latency_ms=7,
    )


def test_every_member_is_there() -> None:
    assert set(MEMBERS) <= build_response(a_record()).keys()


def test_amounts_are_strings_and_never_floats() -> None:
    response = build_response(a_record(cost=a_cost("-0.0001")))

    def walk(value: Any) -> None:
        assert not isinstance(value, float | Decimal)
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, dict | list):
                walk(item)
            else:
                assert not isinstance(item, float | Decimal)

    walk(response)
    assert response["estimated_monthly_delta_usd"] == "-0.0001"
    assert response["estimated_hourly_delta_usd"] == "0.000000"
    assert response["reserved_allocation_usd"] == "0.0000"
    assert len(response["entitlement_waterfall"]) == 5
    assert response["entitlement_waterfall"][4]["limit_usd"] is None


def test_an_unknown_cost_is_null_and_not_zero() -> None:
    response = build_response(a_record(cost=a_cost(None)))
    assert response["estimated_monthly_delta_usd"] is None
    assert response["estimated_hourly_delta_usd"] is None
    assert (response["cost_state"], response["cost_state_reasons"]) == ("unknown", ["no_estimate"])


def test_no_response_carries_a_token() -> None:
    policy = a_policy(thresholds={})
    record = a_record()
    waiting = Record(
        **{name: getattr(record, name) for name in Record.__struct_fields__}
        | {"outcome": an_outcome(policy), "approval_request_id": "a"}
    )
    response = build_response(waiting)
    assert (response["approval_required"], response["approval_request_id"]) == (True, "a")
    assert response["approval_token"] is None
    assert response["approval_token_contract"] == "approval_flow_only"


def test_a_failing_gate_answers_the_same_members() -> None:
    record = a_record()
    failed = Record(
        **{name: getattr(record, name) for name in Record.__struct_fields__}
        | {
            "outcome": failsafe.build_outcome(failsafe.TIMEOUT, failsafe.CLOSED),
            "computed": None,
            "decision_id": None,
            "persisted": False,
        }
    )
    response = build_response(failed)
    assert set(MEMBERS) <= response.keys()
    assert (response["decision"], response["reason_codes"]) == ("DENY", ["gate_timeout"])
    assert response["entitlement_waterfall"] == []
    assert (response["approval_request_id"], response["persisted"]) == (None, False)


def test_the_same_record_gives_the_same_bytes_and_a_replay_only_says_so() -> None:
    stored = encode_response(build_response(a_record()))
    assert stored == encode_response(build_response(a_record()))
    replayed = mark_replayed(stored)
    assert replayed == orjson.loads(stored) | {"replayed": True}
    assert list(replayed) == list(orjson.loads(stored))


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (NOW, "2026-11-20T12:00:00.000000Z"),
        (NOW.astimezone(timezone(timedelta(hours=-9))), "2026-11-20T12:00:00.000000Z"),
        (NOW.date(), "2026-11-20"),
        (Decimal("1E+3"), "1000"),
        (Decimal("0E-4"), "0.0000"),
        ((Decimal(1), None, "x", True, 3), ["1", None, "x", True, 3]),
    ],
)
def test_values_on_the_wire(value: Any, wire: Any) -> None:
    assert to_wire(value) == wire
