"""The one way to write a decision."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Final

import msgspec

from valdrix.kernel.db import Call, call_now


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextProvenance:
    """Where a decision's computed context comes from (SPEC 3.4): ``computed_context_*``."""

    version: str
    generated_at: datetime
    month_start: date
    month_end: date
    month_elapsed_days: int
    month_total_days: int
    observed_cost_days: int
    latest_cost_date: date | None
    data_source_mode: str


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision as it is stored: the columns of ``Decision``, amounts in US dollars.

    :ivar computed: None for a fail-safe outcome, which computed nothing.
    """

    decision_id: uuid.UUID
    tenant_id: uuid.UUID
    created_at: datetime
    source: str
    project_id: str
    environment: str
    action: str
    resource_reference: str
    cost_state: str
    monthly_delta_usd: Decimal | None
    hourly_delta_usd: Decimal | None
    request_fingerprint: str
    change_fingerprint: str
    plan_digest: str | None
    run_id: str | None
    actor: str
    person_id: int
    idempotency_key: str | None
    decision: str
    would_have_been: str | None
    mode: str
    is_fail_safe: bool
    reason_codes: tuple[str, ...]
    entitlement_reason_code: str | None
    approval_request_id: uuid.UUID | None
    policy_version: int
    policy_document_schema_version: str
    policy_document_sha256: str
    engine_version: str
    context_json: str
    outcome_json: str
    outcome_sha256: str
    response_json: str
    tags: tuple[str, ...]
    computed: ContextProvenance | None


_COLUMNS: Final = tuple(
    (field.name, "id" if field.name == "decision_id" else field.name)
    for field in fields(DecisionRecord)
    if field.name != "computed"
)
_COMPUTED_COLUMNS: Final = tuple(
    (field.name, f"computed_context_{field.name}") for field in fields(ContextProvenance)
)
_APPEND: Final = "SELECT enforcement_append_decisions(%s::json)"


def append(*, record: DecisionRecord) -> None:
    """Write one decision, once and for ever.

    :raises NotInTransaction: outside the decision's transaction.
    """
    call_now(append_call(record))


def append_call(record: DecisionRecord) -> Call:
    """Return the write of :func:`append` as a call to be sent with others."""
    document = {column: getattr(record, name) for name, column in _COLUMNS}
    if record.computed is not None:
        for name, column in _COMPUTED_COLUMNS:
            document[column] = getattr(record.computed, name)
    return _APPEND, msgspec.json.encode(document).decode()
