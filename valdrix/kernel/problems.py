"""Problems: every refusal a caller can see has a stable code and one HTTP status (RFC 9457).

Exceptions live beside the code that raises them, subclass :class:`Refused` and carry a ``code``;
``STATUS_BY_CODE`` is the one table that says which status it becomes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Final

CONTENT_TYPE: Final = "application/problem+json"
_TYPE_PREFIX: Final = "urn:valdrix:problem:"

STATUS_BY_CODE: Final[dict[str, int]] = {
    # 400: cannot be parsed
    "malformed_body": 400,
    "malformed_json": 400,
    "malformed_request": 400,
    "malformed_review": 400,
    # 401, 403, 404
    "authentication_failed": 401,
    "not_authenticated": 401,
    "token_expired": 401,
    "approval_token_invalid": 401,
    "permission_denied": 403,
    "scope_missing": 403,
    "role_missing": 403,
    "approval_permission_missing": 403,
    "approve_scope_of_another": 403,
    "requester_cannot_review": 403,
    "credential_holder_cannot_review": 403,
    "reviewer_group_missing": 403,
    "reviewer_role_missing": 403,
    "not_the_requester": 403,
    "project_not_allowed": 403,
    "second_factor_required": 403,
    "feature_not_in_plan": 403,
    "provider_not_in_plan": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    # 409: state or key conflict
    "api_key_not_active": 409,
    "approval_already_given": 409,
    "approval_already_reviewed": 409,
    "approval_change_mismatch": 409,
    "approval_consumed": 409,
    "approval_cost_exceeded": 409,
    "approval_denied": 409,
    "approval_environment_mismatch": 409,
    "approval_expired": 409,
    "approval_not_applicable": 409,
    "approval_pending": 409,
    "approval_project_mismatch": 409,
    "approval_token_replayed": 409,
    "approval_token_revoked": 409,
    "approval_withdrawn": 409,
    "binding_exists": 409,
    "budget_exists": 409,
    "ceiling_exceeded": 409,
    "delivery_not_dead": 409,
    "gate_lock_contended": 409,
    "gate_lock_timeout": 409,
    "grant_not_voidable": 409,
    "idempotency_key_reused": 409,
    "integration_exists": 409,
    "integration_not_active": 409,
    "last_owner": 409,
    "last_signing_key": 409,
    "member_exists": 409,
    "mode_not_lower": 409,
    "mode_promotion_required": 409,
    "page_moved": 409,
    "parent_decision_not_applicable": 409,
    "quota_reservation_closed": 409,
    "policy_version_conflict": 409,
    "promotion_needs_another_person": 409,
    "promotion_not_applicable": 409,
    "promotion_not_ready": 409,
    "request_fingerprint_mismatch": 409,
    "reviewer_group_exists": 409,
    "reservation_not_active": 409,
    "second_factor_enrolled": 409,
    "settlement_inconsistent": 409,
    "stale_approval": 409,
    "stale_edit": 409,
    "tenant_exists": 409,
    "user_exists": 409,
    "workload_issuer_not_active": 409,
    # 411, 413 to 417, 422, 429, 431
    "length_required": 411,
    "request_timeout": 408,
    "body_too_large": 413,
    "uri_too_long": 414,
    "unsupported_media_type": 415,
    "expectation_failed": 417,
    "delta_mismatch": 422,
    "invalid_amount": 422,
    "ceiling_required": 422,
    "reason_required": 422,
    "invalid_cursor": 422,
    "invalid_plan": 422,
    "invalid_policy": 422,
    "invalid_request": 422,
    "metered_request_too_large": 422,
    "password_refused": 422,
    "second_factor_code_refused": 422,
    "run_task_host_not_allowed": 422,
    "sign_in_locked": 429,
    "throttled": 429,
    "quota_exceeded": 429,
    "header_fields_too_large": 431,
    # 5xx
    "internal_error": 500,
    "database_busy": 503,
    "database_unavailable": 503,
    "metering_suspended": 503,
    "not_ready": 503,
    "overloaded": 503,
    "sealing_key_missing": 503,
    "signing_key_missing": 503,
    "workload_issuer_unavailable": 503,
    "statement_timeout": 504,
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with a document: where (JSON pointer), which code, what to do."""

    pointer: str
    code: str
    detail: str

    def to_document(self) -> dict[str, str]:
        """Return the member of ``errors[]`` that a problem document carries."""
        return {"pointer": self.pointer, "code": self.code, "detail": self.detail}


class Refused(Exception):
    """A use case says no: nothing was written, and the caller is told why.

    :ivar code: a key of ``STATUS_BY_CODE``.
    :ivar detail: one sentence for a person; never holds a secret or a foreign id.
    :ivar errors: field errors with JSON pointers, for documents.
    """

    code: ClassVar[str] = "invalid_request"

    def __init__(
        self, detail: str, *, errors: tuple[FieldError, ...] = (), code: str | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.problem_code = code or self.code

    @property
    def status(self) -> int:
        """Return the HTTP status of this refusal."""
        return STATUS_BY_CODE[self.problem_code]


class InvalidRequest(Refused):
    """A body was parsed but its fields are not what the contract says (422)."""

    code = "invalid_request"


class NotFound(Refused):
    """There is no such object for this tenant; another tenant's object looks the same (404)."""

    code = "not_found"

    def __init__(self, detail: str = "No such object.") -> None:
        super().__init__(detail)


class NotAllowed(Refused):
    """The caller's own tenant, but not the caller's to do (403)."""

    code = "permission_denied"


def build_problem(
    code: str, detail: str, *, request_id: str | None, errors: Iterable[FieldError] = ()
) -> dict[str, Any]:
    """Return the problem document of a refusal with this code (RFC 9457)."""
    status = STATUS_BY_CODE[code]
    body: dict[str, Any] = {
        "type": _TYPE_PREFIX + code,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id,
    }
    documents = [error.to_document() for error in errors]
    if documents:
        body["errors"] = documents
    return body


def escape_pointer(token: str) -> str:
    """Return a key as one token of a JSON pointer (RFC 6901)."""
    return token.replace("~", "~0").replace("/", "~1")
