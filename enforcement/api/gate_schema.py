"""JSON Schemas of what gates answer, for OpenAPI; a test holds them to a real answer."""

from __future__ import annotations

from typing import Any, Final

from enforcement.adapters.terraform_schema import GATE_BODY_SCHEMA

_TEXT: Final[dict[str, Any]] = {"type": "string"}
_MAYBE_TEXT: Final[dict[str, Any]] = {"type": ["string", "null"]}
_FLAG: Final[dict[str, Any]] = {"type": "boolean"}
_NUMBER: Final[dict[str, Any]] = {"type": "integer"}
_USD: Final[dict[str, Any]] = {
    "type": "string",
    "pattern": r"^-?[0-9]+\.[0-9]{4,6}$",
    "description": "US dollars as an exact decimal string.",
}
_MAYBE_USD: Final[dict[str, Any]] = {**_USD, "type": ["string", "null"]}
_TIME: Final[dict[str, Any]] = {"type": "string", "format": "date-time"}
_CODES: Final[dict[str, Any]] = {"type": "array", "items": _TEXT}
_DECISION: Final[dict[str, Any]] = {
    "type": "string",
    "enum": ["ALLOW", "ALLOW_WITH_CREDITS", "REQUIRE_APPROVAL", "DENY"],
}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


_STAGE: Final = _object(
    {
        "stage": _TEXT,
        "limit_usd": _MAYBE_USD,
        "used_usd": _USD,
        "headroom_usd": _MAYBE_USD,
        "requested_usd": _USD,
        "consumed_usd": _USD,
        "status": {"type": "string", "enum": ["pass", "limited", "skipped"]},
        "reason_code": _MAYBE_TEXT,
    }
)
_FINDING: Final = _object(
    {
        "code": _TEXT,
        "effect": _TEXT,
        "detail": _TEXT,
        "reference": _MAYBE_TEXT,
        "waived_by": _MAYBE_TEXT,
    }
)
_CONTEXT: Final = {
    **_object(
        {
            "context_version": _TEXT,
            "generated_at": _TIME,
            "month_start": _TEXT,
            "month_end": _TEXT,
            "month_elapsed_days": _NUMBER,
            "month_total_days": _NUMBER,
            "observed_cost_days": _NUMBER,
            "latest_cost_date": _MAYBE_TEXT,
            "data_source_mode": _TEXT,
            "mtd_spend_usd": _USD,
            "burn_rate_daily_usd": _USD,
            "forecast_eom_usd": _USD,
            "anomaly_kind": _TEXT,
            "anomaly_delta_usd": _USD,
            "anomaly_percent": _TEXT,
            "risk_class": {"type": "string", "enum": ["low", "medium", "high", "critical"]},
            "risk_score": _NUMBER,
            "risk_factors": _CODES,
        }
    ),
    "required": [],
    "description": "Empty in a fail-safe answer, which computed nothing.",
}
_EXPLANATION: Final = _object(
    {
        "summary": _TEXT,
        "reason_codes": {
            "type": "array",
            "items": _object({"code": _TEXT, "title": _TEXT, "detail": _TEXT, "action": _TEXT}),
        },
        "first_limiting_stage": _MAYBE_TEXT,
    }
)

GATE_RESPONSE_SCHEMA: Final = _object(
    {
        "decision_id": {"type": ["string", "null"], "format": "uuid"},
        "decision": _DECISION,
        "mode": {"type": "string", "enum": ["shadow", "soft", "hard"]},
        "mode_scope": _TEXT,
        "source": _TEXT,
        "project_id": _TEXT,
        "environment": {"type": "string", "enum": ["prod", "nonprod"]},
        "environment_original": _TEXT,
        "action": _TEXT,
        "resource_reference": _TEXT,
        "run_id": _MAYBE_TEXT,
        "stage": _MAYBE_TEXT,
        "estimated_monthly_delta_usd": _MAYBE_USD,
        "estimated_hourly_delta_usd": _MAYBE_USD,
        "reason_codes": _CODES,
        "entitlement_reason_code": _MAYBE_TEXT,
        "entitlement_waterfall": {"type": "array", "items": _STAGE},
        "findings": {"type": "array", "items": _FINDING},
        "tags": _CODES,
        "would_have_been": {
            **_DECISION,
            "type": ["string", "null"],
            "enum": [*_DECISION["enum"], None],
        },
        "reserved_allocation_usd": _USD,
        "reserved_reserved_credit_usd": _USD,
        "reserved_emergency_credit_usd": _USD,
        "reservation_shared": _FLAG,
        "shared_reserved_usd": _USD,
        "computed_context": _CONTEXT,
        "approval_required": _FLAG,
        "approval_request_id": {"type": ["string", "null"], "format": "uuid"},
        "approval_token": {"type": "null"},
        "approval_token_contract": {"type": "string", "const": "approval_flow_only"},
        "request_fingerprint": _TEXT,
        "change_fingerprint": _TEXT,
        "cost_state": {"type": "string", "enum": ["known", "partial", "unknown"]},
        "cost_state_reasons": _CODES,
        "idempotency_key": _MAYBE_TEXT,
        "policy_version": _NUMBER,
        "policy_document_sha256": _TEXT,
        "replayed": _FLAG,
        "persisted": _FLAG,
        "dry_run": _FLAG,
        "explanation": _EXPLANATION,
        "evaluated_at": _TIME,
        "latency_ms": _NUMBER,
    }
)

_CALL: Final[dict[str, Any]] = {"type": ["object", "null"]}
_CONTINUATION: Final = _object(
    {
        "run_id": _TEXT,
        "stage": _TEXT,
        "may_proceed": _FLAG,
        "poll": _CALL,
        "binding": _object(
            {
                "expected_request_fingerprint": _TEXT,
                "change_fingerprint": _TEXT,
                "change_digest": _MAYBE_TEXT,
                "expected_project_id": _TEXT,
                "expected_environment": _TEXT,
                "monthly_delta_usd": _MAYBE_USD,
                "hourly_delta_usd": _MAYBE_USD,
            }
        ),
        "token": _CALL,
    }
)
PREFLIGHT_RESPONSE_SCHEMA: Final = _object(
    {**GATE_RESPONSE_SCHEMA["properties"], "continuation": _CONTINUATION}
)

# An item that is wrong is answered as if sent alone, so the batch takes it.
_ITEM: Final[dict[str, Any]] = {
    "anyOf": [GATE_BODY_SCHEMA, {"description": "Refused for itself; the others are decided."}]
}
BATCH_BODY_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"items": {"type": "array", "minItems": 1, "maxItems": 100, "items": _ITEM}},
    "required": ["items"],
    "additionalProperties": False,
}
BATCH_RESPONSE_SCHEMA: Final = _object(
    {
        "results": {
            "type": "array",
            "items": _object({"status": _NUMBER, "body": {"type": "object"}}),
        }
    }
)
