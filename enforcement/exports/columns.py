"""The files' columns as SQL: text that cannot become a formula, numbers and times exactly.

Each row begins with a head that is not in the file: whether the row is bound to the ledger, its
kind, its amounts, and for decisions their lineage. Heads hold codes and numbers only, so that
they need no quoting and can be cut off at the commas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enforcement.exports.verifier.layout import (
    COLUMNS,
    CONTEXT_LINEAGE,
    FORMULA_STARTS,
    POLICY_LINEAGE,
    RESERVING,
    SUMS,
)

_STARTS: Final = ", ".join(
    "E'" + "".join(f"\\u{ord(sign):04x}" for sign in start) + "'" for start in ("", *FORMULA_STARTS)
)


def _text(expression: str) -> str:
    """Return text with an apostrophe in front where a spreadsheet would compute, or see nothing."""
    return (
        f"CASE WHEN left({expression}, 1) IN ({_STARTS}) THEN '''' || {expression}"
        f" ELSE {expression} END"
    )


def _time(expression: str) -> str:
    return f"to_char({expression} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"


def _boolean(expression: str) -> str:
    return f"CASE WHEN {expression} THEN 'true' ELSE 'false' END"


def _codes(expression: str) -> str:
    return f"array_to_string({expression}, ' ')"


@dataclass(frozen=True, slots=True)
class Source:
    """How one file's rows are read: their head, their cells, where from and in which order."""

    head: tuple[str, ...]
    cells: dict[str, str]
    tables: str
    order: str

    def select(self) -> str:
        """Return the statement whose rows COPY writes."""
        return f"SELECT {', '.join((*self.head, *self.cells.values()))}{self.tables}{self.order}"


_COVERED: Final = """
  FROM enforcement_ledger_entry l{more}
 WHERE l.tenant_id = %(tenant)s AND l.sequence > %(after)s AND l.sequence <= %(last)s
   AND l.event = 'decision_made' AND l.at >= %(start)s AND l.at < %(end)s
"""
_IS_BOUND_DECISION: Final = """
CASE WHEN d.decision = l.decision AND d.source = l.source AND d.project_id = l.project_id
      AND d.environment = l.environment AND d.mode = l.mode AND d.cost_state = l.cost_state
      AND d.request_fingerprint = l.request_sha256 AND d.policy_version = l.policy_version
      AND d.policy_document_sha256 = l.policy_document_sha256
      AND d.monthly_delta_usd IS NOT DISTINCT FROM l.monthly_delta_usd THEN 1 ELSE 0 END
"""
_DECISION_CELLS: Final = {
    "ledger_sequence": "l.sequence",
    "decision_id": "l.decision_id",
    "created_at": _time("d.created_at"),
    "source": "d.source",
    "project_id": _text("d.project_id"),
    "environment": "d.environment",
    "action": _text("d.action"),
    "resource_reference": _text("d.resource_reference"),
    "decision": "d.decision",
    "would_have_been": "d.would_have_been",
    "mode": "d.mode",
    "is_fail_safe": _boolean("d.is_fail_safe"),
    "reason_codes": _codes("d.reason_codes"),
    "entitlement_reason_code": "d.entitlement_reason_code",
    "cost_state": "d.cost_state",
    "estimated_monthly_delta_usd": "d.monthly_delta_usd",
    "estimated_hourly_delta_usd": "d.hourly_delta_usd",
    "reserved_allocation_usd": "l.reserved_allocation_usd",
    "reserved_reserved_credit_usd": "l.reserved_reserved_credit_usd",
    "reserved_emergency_credit_usd": "l.reserved_emergency_credit_usd",
    "tags": _text("array_to_json(d.tags)::text"),
    "request_fingerprint": "d.request_fingerprint",
    "change_fingerprint": "d.change_fingerprint",
    "idempotency_key": _text("d.idempotency_key"),
    "run_id": _text("d.run_id"),
    "actor": _text("d.actor"),
    "approval_request_id": "d.approval_request_id",
    "policy_version": "d.policy_version",
    "policy_document_schema_version": _text("d.policy_document_schema_version"),
    "policy_document_sha256": _text("d.policy_document_sha256"),
    "engine_version": _text("d.engine_version"),
    "computed_context_version": "d.computed_context_version",
    "computed_context_generated_at": _time("d.computed_context_generated_at"),
    **{
        name: f"d.{name}"
        for name in COLUMNS["decisions.csv"]
        if name.startswith("computed_context_")
        and name not in {"computed_context_version", "computed_context_generated_at"}
    },
    "outcome_sha256": "d.outcome_sha256",
    "response_sha256": "l.response_sha256",
}
_APPROVAL_CELLS: Final = {
    "ledger_sequence": "l.sequence",
    "approval_request_id": "a.id",
    "decision_id": "a.decision_id",
    "status": "a.status",
    "source": "a.source",
    "project_id": _text("a.project_id"),
    "environment": "a.environment",
    "action": _text("a.action"),
    "change_fingerprint": "a.change_fingerprint",
    "change_is_computed": _boolean("a.change_is_computed"),
    "monthly_delta_usd": "a.monthly_delta_usd",
    "hourly_delta_usd": "a.hourly_delta_usd",
    "requested_by": _text("a.requested_by"),
    "routing_rule_id": _text("a.routing_rule_id"),
    "routing_trace": _text("a.routing_trace::text"),
    "required": "a.required",
    "reviewer_roles": _codes("a.reviewer_roles"),
    "reviewer_groups_all": _text("array_to_json(a.reviewer_groups_all)::text"),
    "separate_requester": _boolean("a.separate_requester"),
    "requested_at": _time("a.requested_at"),
    "request_reason": _text("a.request_reason"),
    "round": "a.round",
    "approvals_given": (
        "(SELECT count(DISTINCT v.person_id) FROM governance_review v WHERE v.approval_id = a.id"
        " AND v.round = a.round AND v.verdict = 'approve')"
    ),
    "max_monthly_delta_usd": "a.max_monthly_delta_usd",
    "max_hourly_delta_usd": "a.max_hourly_delta_usd",
    "approved_at": _time("a.approved_at"),
    "expires_at": _time("a.expires_at"),
    "held_decision_id": "a.held_decision_id",
    "tokens_issued": "k.issued",
    "token_status": "k.status",
    "consumed_by_decision_id": "a.consumed_by_decision_id",
    "consumed_run_id": _text("a.consumed_run_id"),
    "closed_at": _time("a.closed_at"),
}
_RESERVATION_CELLS: Final = {
    "ledger_sequence": "l.sequence",
    "decision_id": "r.decision_id",
    "charge_id": "r.charge_id",
    "family_id": "c.family_id",
    "state": "r.state",
    "is_shadow": _boolean("c.is_shadow"),
    "project_id": _text("c.project_id"),
    "environment": "c.environment",
    "own_usd": "r.own_usd",
    "taken_usd": "r.taken_usd",
    "reserved_credit_usd": "coalesce(h.reserved_credit_usd, 0.0000)",
    "emergency_credit_usd": "coalesce(h.emergency_credit_usd, 0.0000)",
    "exposure_usd": "coalesce(h.exposure_usd, 0.0000)",
    "overrun_usd": "coalesce(h.overrun_usd, 0.0000)",
    "posted_usd": "coalesce(h.posted_usd, 0.0000)",
    "month": "r.month",
    "reserved_at": _time("r.reserved_at"),
    "due_at": _time("r.due_at"),
    "confirmed_at": _time("c.confirmed_at"),
    "settlement_trigger": "s.trigger",
    "settlement_actual_usd": "s.actual_usd",
    "settlement_drift_usd": "s.drift_usd",
    "settled_at": _time("s.settled_at"),
}
# An approval's tokens: how many there were, and what became of the last.
_TOKENS: Final = """
  LEFT JOIN LATERAL (
       SELECT count(*) AS issued, (array_agg(t.status ORDER BY t.jti DESC))[1] AS status
         FROM governance_approval_token t WHERE t.approval_id = a.id) AS k ON true
"""
# What a reservation holds: lines of credits, and the tenant's exposure, which every holder has once.
_LINES: Final = """
  LEFT JOIN LATERAL (
       SELECT sum(amount_usd) FILTER (WHERE kind = 'reserved_credit') AS reserved_credit_usd,
              sum(amount_usd) FILTER (WHERE kind = 'emergency_credit') AS emergency_credit_usd,
              sum(amount_usd) FILTER (WHERE kind = 'exposure') AS exposure_usd,
              sum(amount_usd) FILTER (WHERE kind = 'overrun') AS overrun_usd,
              sum(posted_usd) FILTER (WHERE kind = 'exposure') AS posted_usd
         FROM billing_reservation_line n WHERE n.reservation_id = r.decision_id) AS h ON true
"""
_LEDGER_TEXTS: Final = frozenset(
    {
        "principal",
        "project_id",
        "subject_type",
        "subject_id",
        "entitlement_reason_code",
        "anomaly_signal",
        "policy_document_schema_version",
        "policy_document_sha256",
    }
)


def _ledger_cell(name: str) -> str:
    if name in {"prev_hash", "entry_hash"}:
        return f"encode(l.{name}, 'hex')"
    if name in _LEDGER_TEXTS:
        return _text(f"l.{name}")
    if name == "at":
        return _time("l.at")
    return _codes("l.reason_codes") if name == "reason_codes" else f"l.{name}"


def _key(names: tuple[str, ...]) -> str:
    return "concat(" + ", '|', ".join(f"d.{name}" for name in names) + ")"


_IS_BOUND_APPROVAL: Final = """
CASE WHEN EXISTS (SELECT FROM enforcement_ledger_entry q WHERE q.tenant_id = l.tenant_id
      AND q.decision_id = a.decision_id AND q.event = 'approval_requested'
      AND q.approval_request_id = a.id) THEN 1 ELSE 0 END
"""
_IS_BOUND_RESERVATION: Final = f"""
CASE WHEN c.is_shadow OR r.own_usd = (SELECT sum(q.amount_usd) FROM enforcement_ledger_entry q
      WHERE q.tenant_id = l.tenant_id AND q.decision_id = r.decision_id AND q.event IN {RESERVING})
     THEN 1 ELSE 0 END
"""
_BY_SEQUENCE: Final = " ORDER BY l.sequence"

SOURCES: Final = {
    "decisions.csv": Source(
        head=(
            _IS_BOUND_DECISION,
            "d.decision",
            *(_DECISION_CELLS[name] for name in SUMS["decisions.csv"]),
            _key(POLICY_LINEAGE),
            _key(CONTEXT_LINEAGE),
        ),
        cells=_DECISION_CELLS,
        tables=_COVERED.format(
            more=" LEFT JOIN enforcement_decision d"
            " ON d.id = l.decision_id AND d.tenant_id = l.tenant_id"
        ),
        order=_BY_SEQUENCE,
    ),
    "approvals.csv": Source(
        head=(
            _IS_BOUND_APPROVAL,
            "a.status",
            *(_APPROVAL_CELLS[name] for name in SUMS["approvals.csv"]),
        ),
        cells=_APPROVAL_CELLS,
        tables=_COVERED.format(
            more=" JOIN governance_approval a"
            " ON a.decision_id = l.decision_id AND a.tenant_id = l.tenant_id" + _TOKENS
        ),
        order=_BY_SEQUENCE,
    ),
    "ledger.csv": Source(
        head=(
            "1",
            "l.event",
            *(f"l.{name}" for name in SUMS["ledger.csv"]),
            "encode(l.entry_hash, 'hex')",
        ),
        cells={name: _ledger_cell(name) for name in COLUMNS["ledger.csv"]},
        tables=" FROM enforcement_ledger_entry l WHERE l.tenant_id = %(tenant)s"
        " AND l.sequence > %(after)s AND l.sequence <= %(last)s",
        order=_BY_SEQUENCE,
    ),
    "reservations.csv": Source(
        head=(
            _IS_BOUND_RESERVATION,
            "CASE WHEN c.is_shadow THEN 'shadow ' || r.state ELSE r.state END",
            *(_RESERVATION_CELLS[name] for name in SUMS["reservations.csv"]),
        ),
        cells=_RESERVATION_CELLS,
        tables=_COVERED.format(
            more=" JOIN billing_reservation r"
            " ON r.decision_id = l.decision_id AND r.tenant_id = l.tenant_id"
            " JOIN billing_charge c ON c.id = r.charge_id"
            " LEFT JOIN billing_settlement s"
            " ON s.tenant_id = l.tenant_id AND s.family_id = c.family_id" + _LINES
        ),
        order=_BY_SEQUENCE,
    ),
}
