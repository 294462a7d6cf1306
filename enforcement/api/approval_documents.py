"""Approvals as JSON, and the JSON Schemas that describe them."""

from __future__ import annotations

from typing import Any, Final

from enforcement.review.judging import mark_of
from enforcement.review.reading import Seen, shown_decisions
from governance.api.documents import closed_object
from governance.approvals.models import STATUSES, VERDICTS, Review
from governance.approvals.reviewers import Person
from governance.tokens.domain import MAX_TEXT
from valdrix.kernel.http.times import to_text as time_text
from valdrix.kernel.money import to_text
from valdrix.kernel.schemas import amount_schema, prose_schema, text_schema

_TEXT: Final = {"type": "string"}
_MAYBE_TEXT: Final = {"type": ["string", "null"]}
_ID: Final = {"type": "string", "format": "uuid"}
_IDS: Final = {"type": "array", "items": _ID}
_TIME: Final = {"type": "string", "format": "date-time"}
_MAYBE_TIME: Final = {"type": ["string", "null"], "format": "date-time"}
_MAYBE_USD: Final = {"type": ["string", "null"], "examples": ["120.0000"]}
_NAMES: Final = {"type": "array", "items": _TEXT}
_YES_OR_NO: Final = {"type": "boolean"}
_COUNT: Final = {"type": "integer", "minimum": 0}
STATUS_SCHEMA: Final = {"type": "string", "enum": list(STATUSES)}

_REVIEWER: Final = closed_object(
    {"person_id": {"type": "integer"}, "username": _TEXT, "role": _TEXT, "groups": _NAMES}
)
_REVIEW: Final = closed_object(
    {
        "verdict": {"type": "string", "enum": list(VERDICTS)},
        "person_id": {"type": "integer"},
        "groups": _NAMES,
        "reason": _TEXT,
        "max_monthly_delta_usd": _MAYBE_USD,
        "reviewed_at": _TIME,
        "counts": {**_YES_OR_NO, "description": "It is one of `approvals_given`."},
    }
)
_LISTED: Final[dict[str, Any]] = {
    "id": _ID,
    "status": STATUS_SCHEMA,
    "decision_id": _ID,
    "source": _TEXT,
    "project_id": _TEXT,
    "environment": _TEXT,
    "action": _TEXT,
    "resource_reference": _MAYBE_TEXT,
    "change_fingerprint": _TEXT,
    "estimated_monthly_delta_usd": _MAYBE_USD,
    "estimated_hourly_delta_usd": _MAYBE_USD,
    "cost_state": _MAYBE_TEXT,
    "reason_codes": _NAMES,
    "requested_by": _TEXT,
    "requested_at": _TIME,
    "request_reason": _TEXT,
    "expires_at": _TIME,
    "routing_rule_id": _MAYBE_TEXT,
    "reviewer_roles": _NAMES,
    "reviewer_groups_all": _NAMES,
    "separate_requester": _YES_OR_NO,
    "approvals_given": _COUNT,
    "approvals_required": _COUNT,
    "may_approve": {**_YES_OR_NO, "description": "The caller's yes is allowed and needed now."},
    "reason_required": _YES_OR_NO,
    "ceiling_required": _YES_OR_NO,
    "max_monthly_delta_usd": _MAYBE_USD,
    "max_hourly_delta_usd": _MAYBE_USD,
    "approved_at": _MAYBE_TIME,
    "closed_at": _MAYBE_TIME,
    "review_mark": {**_TEXT, "description": "Of what is to be judged; a verdict may carry it."},
}
LISTED_SCHEMA: Final = closed_object(_LISTED)
APPROVAL_SCHEMA: Final = closed_object(
    {
        **_LISTED,
        "decision_ids": {**_IDS, "description": "The decisions that wait for it, up to 50."},
        "consumed_by_decision_id": {"type": ["string", "null"], "format": "uuid"},
        "routing_trace": {
            "type": "array",
            "items": closed_object({"rule_id": _TEXT, "outcome": _TEXT}),
        },
        "eligible_reviewers": {"type": "array", "items": _REVIEWER},
        "reviews": {"type": "array", "items": _REVIEW},
    }
)
_MARK: Final = text_schema(
    description="As it was shown. When it is another one by now: 409 stale_approval."
)
REASON_SCHEMA: Final = closed_object(
    {"reason": prose_schema(), "review_mark": _MARK}, optional=("reason", "review_mark")
)
DENIAL_SCHEMA: Final = closed_object(
    {"reason": prose_schema(), "review_mark": _MARK}, optional=("review_mark",)
)
"""As :data:`REASON_SCHEMA`; nobody is refused without a reason."""
VERDICT_SCHEMA: Final = closed_object(
    {
        "reason": prose_schema(),
        "max_monthly_delta_usd": amount_schema(examples=["500.00"]),
        "review_mark": _MARK,
    },
    optional=("reason", "max_monthly_delta_usd", "review_mark"),
)
OUTCOME_SCHEMA: Final = closed_object(
    {
        "status": STATUS_SCHEMA,
        "approvals_given": _COUNT,
        "approvals_required": _COUNT,
        "max_monthly_delta_usd": _MAYBE_USD,
    },
    optional=("max_monthly_delta_usd",),
)
REQUEST_SCHEMA: Final = closed_object(
    {"decision_id": _ID, "reason": prose_schema()}, optional=("reason",)
)


CLAIM_SCHEMA: Final = closed_object(
    {"rotate": {**_YES_OR_NO, "description": "Revoke the live token and issue another."}},
    optional=("rotate",),
)
TOKEN_SCHEMA: Final = closed_object({"approval_token": _TEXT, "expires_at": _TIME})
_CONSUME: Final = closed_object(
    {
        "approval_token": text_schema(MAX_TEXT),
        "monthly_delta_usd": amount_schema(examples=["120.00"]),
        "change_digest": text_schema(description="This or the request's fingerprint is needed."),
        "expected_request_fingerprint": text_schema(),
        "hourly_delta_usd": amount_schema(places=6),
        "expected_project_id": text_schema(),
        "expected_environment": text_schema(),
    },
    optional=(
        "change_digest",
        "expected_request_fingerprint",
        "hourly_delta_usd",
        "expected_project_id",
        "expected_environment",
    ),
)
CONSUME_SCHEMA: Final = {
    **_CONSUME,
    "anyOf": [{"required": ["change_digest"]}, {"required": ["expected_request_fingerprint"]}],
}
CONSUMED_SCHEMA: Final = closed_object(
    {
        "status": {"type": "string", "enum": ["consumed"]},
        "decision_id": _ID,
        "approval_id": _ID,
        "max_monthly_delta_usd": {"type": "string"},
        "max_hourly_delta_usd": _MAYBE_USD,
    }
)


def listed_document(seen: Seen) -> dict[str, Any]:
    """Return one approval as lists show it."""
    approval, bench = seen.approval, seen.bench
    own = next((one for one in seen.waiting if one.pk == approval.decision_id), None)
    return {
        "id": str(approval.pk),
        "status": seen.status,
        "decision_id": str(approval.decision_id),
        "source": approval.source,
        "project_id": approval.project_id,
        "environment": approval.environment,
        "action": approval.action,
        "resource_reference": own.resource_reference if own else None,
        "change_fingerprint": approval.change_fingerprint,
        "estimated_monthly_delta_usd": _usd(approval.monthly_delta_usd),
        "estimated_hourly_delta_usd": _usd(approval.hourly_delta_usd),
        "cost_state": own.cost_state if own else None,
        "reason_codes": list(own.reason_codes) if own else [],
        "requested_by": approval.requested_by,
        "requested_at": time_text(approval.requested_at),
        "request_reason": approval.request_reason,
        "expires_at": time_text(approval.expires_at),
        "routing_rule_id": approval.routing_rule_id,
        "reviewer_roles": list(approval.reviewer_roles),
        "reviewer_groups_all": list(approval.reviewer_groups_all),
        "separate_requester": bench.terms.is_separate,
        "approvals_given": len(bench.given),
        "approvals_required": bench.terms.needed,
        "may_approve": seen.may_approve,
        "reason_required": seen.reason_required,
        "ceiling_required": seen.ceiling_required,
        "max_monthly_delta_usd": _usd(approval.max_monthly_delta_usd),
        "max_hourly_delta_usd": _usd(approval.max_hourly_delta_usd),
        "approved_at": _time(approval.approved_at),
        "closed_at": _time(approval.closed_at),
        "review_mark": mark_of(approval),
    }


def approval_document(seen: Seen) -> dict[str, Any]:
    """Return one approval in full."""
    approval = seen.approval
    counting = {review.pk for review in seen.bench.reviews}
    authorised = {reviewer.person_id for reviewer in seen.bench.given}
    spent_by = approval.consumed_by_decision_id
    return {
        **listed_document(seen),
        "decision_ids": shown_decisions(seen),
        "consumed_by_decision_id": None if spent_by is None else str(spent_by),
        "routing_trace": [
            {"rule_id": step["rule_id"], "outcome": step["outcome"]}
            for step in approval.routing_trace
        ],
        "eligible_reviewers": [_reviewer(person) for person in seen.eligible or ()],
        "reviews": [
            _review(review, counts=review.pk in counting and review.person_id in authorised)
            for review in seen.reviews
        ],
    }


def _reviewer(person: Person) -> dict[str, Any]:
    return {
        "person_id": person.reviewer.person_id,
        "username": person.username,
        "role": person.reviewer.role,
        "groups": sorted(person.reviewer.groups),
    }


def _review(review: Review, *, counts: bool) -> dict[str, Any]:
    return {
        "verdict": review.verdict,
        "person_id": review.person_id,
        "groups": list(review.groups),
        "reason": review.reason,
        "max_monthly_delta_usd": _usd(review.max_monthly_delta_usd),
        "reviewed_at": time_text(review.reviewed_at),
        "counts": counts,
    }


def _usd(amount: Any) -> str | None:
    return None if amount is None else to_text(amount)


def _time(moment: Any) -> str | None:
    return None if moment is None else time_text(moment)
