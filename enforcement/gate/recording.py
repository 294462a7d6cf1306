"""Recording: a decision's row and its ledger entries, the last steps of an evaluation."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

import msgspec

from enforcement.decisions import operations as decisions
from enforcement.decisions.operations import ContextProvenance, DecisionRecord
from enforcement.gate.ask import Ask
from enforcement.gate.context import ComputedContext
from enforcement.gate.decision import ENGINE_VERSION, GivenApproval, encode, outcome_sha256
from enforcement.gate.response import Record
from enforcement.ledger import domain as ledger
from enforcement.ledger import operations as ledger_operations
from enforcement.ledger.domain import EntryFacts
from governance.approvals.operations import OpenedApproval
from governance.policies.governing import GoverningPolicy
from valdrix.kernel.db import Together


@dataclass(frozen=True, slots=True)
class Made:
    """One decision about to be recorded.

    :ivar context_json: the exact bytes that the outcome was computed from.
    :ivar response_json: the exact bytes that every later call with the same key gets.
    :ivar approval: the one that it waits for.
    :ivar given: the one by which it goes ahead.
    :ivar revoked: tokens of it that nobody can spend any more.
    """

    record: Record
    governing: GoverningPolicy
    context_json: str
    response_json: str
    approval: OpenedApproval | None
    given: GivenApproval | None
    revoked: tuple[uuid.UUID, ...]
    is_fail_safe: bool

    @property
    def approval_id(self) -> uuid.UUID | None:
        """Return the approval that the decision waits for or goes ahead by."""
        if self.given is not None:
            return uuid.UUID(self.given.approval_id)
        return self.approval.approval_id if self.approval else None

    @property
    def approval_status(self) -> str | None:
        """Return the status of that approval."""
        if self.given is not None:
            return "consumed"
        return "pending" if self.approval else None


def record_decision(*, ask: Ask, made: Made, together: Together | None = None) -> None:
    """Append a decision and what it did to the record; the ledger's head is the last lock.

    :param together: what the writes are sent with, at the end of the transaction.
    """
    record, facts = _build_record(ask, made), _ledger_facts(ask, made)
    if together is None:
        decisions.append(record=record)
        ledger_operations.append(tenant_id=ask.tenant_id, facts=facts)
    else:
        together.later(decisions.append_call(record))
        for call in ledger_operations.append_calls(tenant_id=ask.tenant_id, facts=facts):
            together.later(call)


def _build_record(ask: Ask, made: Made) -> DecisionRecord:
    record, governing = made.record, made.governing
    gate_input = record.gate_input
    outcome_json = encode(record.outcome)
    return DecisionRecord(
        decision_id=ask.decision_id,
        tenant_id=ask.tenant_id,
        created_at=record.evaluated_at,
        source=gate_input.source,
        project_id=gate_input.project_id,
        environment=gate_input.environment,
        action=gate_input.action,
        resource_reference=gate_input.resource_reference,
        cost_state=gate_input.cost.state,
        monthly_delta_usd=gate_input.cost.monthly_delta_usd,
        hourly_delta_usd=gate_input.cost.hourly_delta_usd,
        request_fingerprint=gate_input.request_fingerprint,
        change_fingerprint=gate_input.change_fingerprint,
        plan_digest=gate_input.computed_digest,
        run_id=gate_input.run_id,
        actor=gate_input.actor,
        person_id=ask.person_id,
        idempotency_key=ask.request.idempotency_key,
        decision=record.outcome.decision,
        would_have_been=record.outcome.would_have_been,
        mode=record.outcome.mode,
        is_fail_safe=made.is_fail_safe,
        reason_codes=record.outcome.reason_codes,
        entitlement_reason_code=record.outcome.entitlement_reason_code,
        approval_request_id=made.approval_id,
        policy_version=governing.version,
        policy_document_schema_version=governing.schema_version,
        policy_document_sha256=governing.sha256,
        engine_version=ENGINE_VERSION,
        context_json=made.context_json,
        outcome_json=outcome_json,
        outcome_sha256=outcome_sha256(outcome_json),
        response_json=made.response_json,
        tags=record.outcome.tags,
        computed=_provenance(record.computed),
    )


def _provenance(computed: ComputedContext | None) -> ContextProvenance | None:
    if computed is None:
        return None
    return ContextProvenance(
        version=computed.context_version,
        generated_at=computed.generated_at,
        month_start=computed.month_start,
        month_end=computed.month_end,
        month_elapsed_days=computed.month_elapsed_days,
        month_total_days=computed.month_total_days,
        observed_cost_days=computed.observed_cost_days,
        latest_cost_date=computed.latest_cost_date,
        data_source_mode=computed.data_source_mode,
    )


def _ledger_facts(ask: Ask, made: Made) -> list[EntryFacts]:
    """Return the entries of one decision: that it was made, what it holds, whom it waits for."""
    outcome, approval = made.record.outcome, made.approval
    base = _base_facts(ask, made)
    entries = [base]
    if outcome.is_holding and not outcome.is_shadow:
        entries.append(
            msgspec.structs.replace(base, event=ledger.RESERVED, amount_usd=outcome.increase_usd)
        )
    if approval is not None:
        event = ledger.APPROVAL_JOINED if approval.is_joined else ledger.APPROVAL_REQUESTED
        entries.append(msgspec.structs.replace(base, event=event))
    if made.given is not None and not made.given.is_spent:
        entries.append(msgspec.structs.replace(base, event=ledger.APPROVAL_CONSUMED))
    entries.extend(
        msgspec.structs.replace(
            base, event=ledger.TOKEN_REVOKED, subject_type="approval_token", subject_id=str(jti)
        )
        for jti in made.revoked
    )
    return entries


def _base_facts(ask: Ask, made: Made) -> EntryFacts:
    record, governing, outcome = made.record, made.governing, made.record.outcome
    gate_input, computed = record.gate_input, record.computed
    return EntryFacts(
        event=ledger.DECISION_MADE,
        at=record.evaluated_at,
        principal=gate_input.actor,
        source=gate_input.source,
        project_id=gate_input.project_id,
        environment=gate_input.environment,
        decision_id=ask.decision_id,
        decision=outcome.decision,
        would_have_been=outcome.would_have_been,
        mode=outcome.mode,
        cost_state=gate_input.cost.state,
        approval_request_id=made.approval_id,
        approval_status=made.approval_status,
        monthly_delta_usd=gate_input.cost.monthly_delta_usd,
        hourly_delta_usd=gate_input.cost.hourly_delta_usd,
        reserved_allocation_usd=outcome.reserved_allocation_usd,
        reserved_reserved_credit_usd=outcome.reserved_reserved_credit_usd,
        reserved_emergency_credit_usd=outcome.reserved_emergency_credit_usd,
        reason_codes=outcome.reason_codes,
        entitlement_reason_code=outcome.entitlement_reason_code,
        burn_rate_daily_usd=computed.burn_rate_daily_usd if computed else None,
        forecast_eom_usd=computed.forecast_eom_usd if computed else None,
        risk_class=computed.risk_class if computed else None,
        risk_score=computed.risk_score if computed else None,
        anomaly_signal=computed.anomaly_kind if computed else None,
        policy_version=governing.version,
        policy_document_schema_version=governing.schema_version,
        policy_document_sha256=governing.sha256,
        request_sha256=gate_input.request_fingerprint,
        response_sha256=hashlib.sha256(made.response_json.encode()).hexdigest(),
    )
