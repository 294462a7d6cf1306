"""What an export's files are called, which columns they have, and what is summed in them."""

from __future__ import annotations

from typing import Final

MANIFEST_SCHEMA: Final = "valdrix.enforcement.export.v1"
CHECKPOINT_SCHEMA: Final = "valdrix.enforcement.ledger.checkpoint.v1"
ALGORITHM: Final = "Ed25519"
MARK_EVERY: Final = 1000
ZERO_HASH: Final = bytes(32)
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "＝", "＋", "－", "＠")
"""Text that begins so, and empty text, has an apostrophe in front; an empty cell is no value."""

CONTEXT_LINEAGE: Final = (
    "computed_context_version",
    "computed_context_month_start",
    "computed_context_month_end",
    "computed_context_month_elapsed_days",
    "computed_context_month_total_days",
    "computed_context_observed_cost_days",
    "computed_context_latest_cost_date",
    "computed_context_data_source_mode",
)
POLICY_LINEAGE: Final = (
    "policy_version",
    "policy_document_schema_version",
    "policy_document_sha256",
)
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "decisions.csv": (
        *("ledger_sequence", "decision_id", "created_at", "source", "project_id", "environment"),
        *("action", "resource_reference", "decision", "would_have_been", "mode", "is_fail_safe"),
        *("reason_codes", "entitlement_reason_code", "cost_state"),
        *("estimated_monthly_delta_usd", "estimated_hourly_delta_usd", "reserved_allocation_usd"),
        *("reserved_reserved_credit_usd", "reserved_emergency_credit_usd", "tags"),
        *("request_fingerprint", "change_fingerprint", "idempotency_key", "run_id", "actor"),
        *("approval_request_id", *POLICY_LINEAGE, "engine_version", "computed_context_version"),
        *("computed_context_generated_at", *CONTEXT_LINEAGE[1:]),
        *("outcome_sha256", "response_sha256", "row_sha256"),
    ),
    "approvals.csv": (
        *("ledger_sequence", "approval_request_id", "decision_id", "status", "source"),
        *("project_id", "environment", "action", "change_fingerprint", "change_is_computed"),
        *("monthly_delta_usd", "hourly_delta_usd", "requested_by", "routing_rule_id"),
        *("routing_trace", "required", "reviewer_roles", "reviewer_groups_all"),
        *("separate_requester", "requested_at", "request_reason", "round", "approvals_given"),
        *("max_monthly_delta_usd", "max_hourly_delta_usd", "approved_at", "expires_at"),
        *("held_decision_id", "tokens_issued", "token_status", "consumed_by_decision_id"),
        *("consumed_run_id", "closed_at", "row_sha256"),
    ),
    "ledger.csv": (
        *("sequence", "event", "at", "principal", "source", "project_id", "environment"),
        *("decision_id", "decision", "would_have_been", "mode", "cost_state"),
        *("approval_request_id", "approval_status", "subject_type", "subject_id", "amount_usd"),
        *("monthly_delta_usd", "hourly_delta_usd", "reserved_allocation_usd"),
        *("reserved_reserved_credit_usd", "reserved_emergency_credit_usd", "reason_codes"),
        *("entitlement_reason_code", "burn_rate_daily_usd", "forecast_eom_usd", "risk_class"),
        *("risk_score", "anomaly_signal", *POLICY_LINEAGE, "request_sha256", "response_sha256"),
        *("details_sha256", "prev_hash", "entry_hash"),
    ),
    "reservations.csv": (
        *("ledger_sequence", "decision_id", "charge_id", "family_id", "state", "is_shadow"),
        *("project_id", "environment", "own_usd", "taken_usd", "reserved_credit_usd"),
        *("emergency_credit_usd", "exposure_usd", "overrun_usd", "posted_usd", "month"),
        *("reserved_at", "due_at", "confirmed_at", "settlement_trigger", "settlement_actual_usd"),
        *("settlement_drift_usd", "settled_at", "row_sha256"),
    ),
}
FILES: Final = tuple(COLUMNS)
CLOSING_FILES: Final = (
    *("manifest.json", "manifest.canonical.json", "manifest.sha256", "manifest.sig"),
    "checkpoint.json",
)
RESERVING: Final = ("reserved", "overrun_reserved")
"""Events whose amounts add up to what a reservation holds of its own."""

SUMS: Final[dict[str, tuple[str, ...]]] = {
    "decisions.csv": (
        *("estimated_monthly_delta_usd", "reserved_allocation_usd"),
        *("reserved_reserved_credit_usd", "reserved_emergency_credit_usd"),
    ),
    "approvals.csv": ("monthly_delta_usd",),
    "ledger.csv": ("amount_usd",),
    "reservations.csv": ("own_usd", "exposure_usd", "posted_usd", "overrun_usd"),
}
"""Amounts that the manifest sums for each kind of row."""

KINDS: Final = {
    "decisions.csv": "decision",
    "approvals.csv": "status",
    "ledger.csv": "event",
    "reservations.csv": "state",
}
"""The column whose values rows are counted by; shadow reservations are counted apart."""
INTEGERS: Final = frozenset(
    {"sequence", "risk_score", "policy_version"}
    | {name for name in CONTEXT_LINEAGE if name.endswith("_days")}
)
SAME_IN_LEDGER: Final = {  # columns of decisions.csv, and what ledger.csv calls them
    "decision_id": "decision_id",
    "source": "source",
    "project_id": "project_id",
    "environment": "environment",
    "decision": "decision",
    "would_have_been": "would_have_been",
    "mode": "mode",
    "reason_codes": "reason_codes",
    "entitlement_reason_code": "entitlement_reason_code",
    "cost_state": "cost_state",
    "estimated_monthly_delta_usd": "monthly_delta_usd",
    "estimated_hourly_delta_usd": "hourly_delta_usd",
    "reserved_allocation_usd": "reserved_allocation_usd",
    "reserved_reserved_credit_usd": "reserved_reserved_credit_usd",
    "reserved_emergency_credit_usd": "reserved_emergency_credit_usd",
    "request_fingerprint": "request_sha256",
    "response_sha256": "response_sha256",
    "actor": "principal",
    "approval_request_id": "approval_request_id",
    **{name: name for name in POLICY_LINEAGE},
    "created_at": "at",
}
