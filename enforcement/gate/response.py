"""The common response of every gate surface (SPEC 8). Pure: the same record, the same bytes."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
import orjson

from enforcement.gate.context import ComputedContext
from enforcement.gate.decision import Outcome
from enforcement.gate.explanation import explain
from enforcement.gate.inputs import GateInput
from valdrix.kernel.money import to_text

APPROVAL_TOKEN_CONTRACT: Final = "approval_flow_only"  # noqa: S105 - a contract's name


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a response is made of: the question, its outcome, and the names they were given.

    :ivar computed: None for a fail-safe outcome, which computed nothing and answers {}.
    """

    decision_id: str | None
    gate_input: GateInput
    outcome: Outcome
    computed: ComputedContext | None
    idempotency_key: str | None
    approval_request_id: str | None
    policy_version: int
    policy_sha256: str
    persisted: bool
    evaluated_at: datetime
    latency_ms: int


def build_response(record: Record) -> dict[str, Any]:
    """Return the response's members, amounts as strings and times in UTC."""
    gate_input, outcome = record.gate_input, record.outcome
    return {
        "decision_id": record.decision_id,
        "decision": outcome.decision,
        "mode": outcome.mode,
        "mode_scope": outcome.mode_scope,
        "source": gate_input.source,
        "project_id": gate_input.project_id,
        "environment": gate_input.environment,
        "environment_original": gate_input.environment_original,
        "action": gate_input.action,
        "resource_reference": gate_input.resource_reference,
        "run_id": gate_input.run_id,
        "stage": gate_input.stage,
        "estimated_monthly_delta_usd": to_wire(gate_input.cost.monthly_delta_usd),
        "estimated_hourly_delta_usd": to_wire(gate_input.cost.hourly_delta_usd),
        "reason_codes": list(outcome.reason_codes),
        "entitlement_reason_code": outcome.entitlement_reason_code,
        "entitlement_waterfall": [to_wire(stage) for stage in outcome.stages],
        "findings": [to_wire(finding) for finding in outcome.findings],
        "tags": list(outcome.tags),
        "would_have_been": outcome.would_have_been,
        "reserved_allocation_usd": to_wire(outcome.reserved_allocation_usd),
        "reserved_reserved_credit_usd": to_wire(outcome.reserved_reserved_credit_usd),
        "reserved_emergency_credit_usd": to_wire(outcome.reserved_emergency_credit_usd),
        "reservation_shared": outcome.reservation_shared,
        "shared_reserved_usd": to_wire(outcome.shared_reserved_usd),
        "computed_context": {} if record.computed is None else to_wire(record.computed),
        "approval_required": outcome.decision == "REQUIRE_APPROVAL",
        "approval_request_id": record.approval_request_id,
        "approval_token": None,
        "approval_token_contract": APPROVAL_TOKEN_CONTRACT,
        "request_fingerprint": gate_input.request_fingerprint,
        "change_fingerprint": gate_input.change_fingerprint,
        "cost_state": gate_input.cost.state,
        "cost_state_reasons": list(gate_input.cost.reasons),
        "idempotency_key": record.idempotency_key,
        "policy_version": record.policy_version,
        "policy_document_sha256": record.policy_sha256,
        "replayed": False,
        "persisted": record.persisted,
        "dry_run": gate_input.dry_run,
        "explanation": explain(outcome),
        "evaluated_at": to_wire(record.evaluated_at),
        "latency_ms": record.latency_ms,
    }


def encode_response(response: dict[str, Any]) -> str:
    """Return the response's stored text."""
    return orjson.dumps(response).decode()


def decode_response(response_json: str) -> dict[str, Any]:
    """Return a stored response's members."""
    response: dict[str, Any] = orjson.loads(response_json)
    return response


def mark_replayed(response_json: str) -> dict[str, Any]:
    """Return a stored response as a later call with the same key gets it."""
    response = decode_response(response_json)
    response["replayed"] = True
    return response


def to_wire(value: Any) -> Any:
    """Return a value as JSON responses carry it."""
    kind = type(value)
    if kind in _AS_IT_IS:
        return value
    if kind is Decimal:
        return to_text(value)
    if kind is datetime:
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if kind is date:
        return value.isoformat()
    if kind is tuple or kind is list:
        return [to_wire(item) for item in value]
    if issubclass(kind, msgspec.Struct):
        members = msgspec.structs.asdict(value)
        return {
            name: member if type(member) in _AS_IT_IS else to_wire(member)
            for name, member in members.items()
        }
    return value


_AS_IT_IS: Final = frozenset({str, int, bool, type(None)})
