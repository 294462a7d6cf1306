"""The API of approvals: what waits for whom, and what people decide about it (SPEC 6)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from enforcement.adapters.gate_body import DIGEST_PATTERN, KEY_PATTERN
from enforcement.api.approval_documents import (
    APPROVAL_SCHEMA,
    CLAIM_SCHEMA,
    CONSUME_SCHEMA,
    CONSUMED_SCHEMA,
    DENIAL_SCHEMA,
    LISTED_SCHEMA,
    OUTCOME_SCHEMA,
    REASON_SCHEMA,
    REQUEST_SCHEMA,
    TOKEN_SCHEMA,
    VERDICT_SCHEMA,
    approval_document,
    listed_document,
)
from enforcement.api.gates import KEY_HEADER
from enforcement.api.reservations import REPLAY_HEADER
from enforcement.review.approve import approve
from enforcement.review.claim import claim_token
from enforcement.review.consume import Binding, consume
from enforcement.review.domain import Words
from enforcement.review.queue import see_queue
from enforcement.review.reading import (
    ApprovalFilter,
    Seen,
    find_approvals,
    see_approval,
    see_approvals,
)
from enforcement.review.refuse import deny, withdraw
from enforcement.review.request import request_approval
from governance.api.api_keys import PAGE_PARAMETERS, read_id_cursor
from governance.api.assuming import confirming
from governance.api.callers import principal_of
from governance.api.documents import page_of
from governance.api.permissions import RequireRole, require_project, require_role
from governance.approvals.models import STATUSES
from governance.identity.domain import ADMIN, MEMBER, Principal
from governance.tokens.domain import MAX_TEXT
from valdrix.kernel.db import reading
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import build_page, read_limit, refuse_unknown_query
from valdrix.kernel.http.times import to_text as time_text
from valdrix.kernel.money import HOURLY_PLACES, MONTHLY_PLACES
from valdrix.kernel.rows import rendering
from valdrix.kernel.schemas import text_schema

_TAGS: Final = ["approvals"]
_JSON: Final = "application/json"


class _ApprovalView(ApiView):
    """Approvals: every member may call, and the use case says what they may do."""

    permission_classes = (RequireRole(MEMBER),)


class ApprovalQueueView(_ApprovalView):
    """``GET approvals/queue``."""

    @extend_schema(
        operation_id="list_approval_queue",
        tags=_TAGS,
        parameters=PAGE_PARAMETERS,
        responses={200: page_of(LISTED_SCHEMA)},
    )
    @confirming
    def get(self, request: Request) -> Response:
        """List what the caller may approve now, the oldest first."""
        refuse_unknown_query(request, "limit", "cursor")
        principal, limit = principal_of(request), read_limit(request)
        after_id, now = read_id_cursor(request), timezone.now()
        seen = see_queue(principal, after_id=after_id, limit=limit + 1, now=now)
        return Response(_page(request, seen, limit, render=_shown))


class ApprovalsView(_ApprovalView):
    """``GET approvals``."""

    @extend_schema(
        operation_id="list_approvals",
        tags=_TAGS,
        parameters=[
            *PAGE_PARAMETERS,
            OpenApiParameter("mine", str, enum=("true", "false"), description="Own requests only."),
            OpenApiParameter("status", str, enum=STATUSES),
            OpenApiParameter("project", text_schema()),
        ],
        responses={200: page_of(LISTED_SCHEMA)},
    )
    def get(self, request: Request) -> Response:
        """List approvals, newest first; members list their own requests, by ``mine=true``."""
        refuse_unknown_query(request, "limit", "cursor", "mine", "status", "project")
        principal, limit = principal_of(request), read_limit(request)
        wanted = _read_filter(request, principal)
        with reading(principal.tenant_id):
            rows = find_approvals(principal.tenant_id, wanted, limit=limit + 1)
            seen = see_approvals(principal, rows, now=timezone.now())
        return Response(_page(request, seen, limit, render=listed_document))


class ApprovalView(_ApprovalView):
    """``GET approvals/{id}``."""

    @extend_schema(operation_id="get_approval", tags=_TAGS, responses={200: APPROVAL_SCHEMA})
    def get(self, request: Request, approval_id: uuid.UUID) -> Response:
        """Show one approval: its change, its routing, who may judge it and who did."""
        refuse_unknown_query(request)
        return Response(_show(principal_of(request), approval_id))


class ApprovalRequestsView(_ApprovalView):
    """``POST approvals/requests``."""

    @extend_schema(
        operation_id="request_approval",
        tags=_TAGS,
        request={_JSON: REQUEST_SCHEMA},
        responses={200: APPROVAL_SCHEMA},
    )
    def post(self, request: Request) -> Response:
        """Ask reviewers again, after an approval has expired or was withdrawn."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        decision_id = fields.identifier("decision_id", required=True)
        reason = fields.prose("reason") or ""
        fields.finish()
        assert decision_id is not None
        principal = principal_of(request)
        approval = request_approval(
            principal=principal, decision_id=decision_id, reason=reason, clock=timezone.now
        )
        return Response(_show(principal, approval.pk))


class ApproveView(_ApprovalView):
    """``POST approvals/{id}/approve``."""

    @extend_schema(
        operation_id="approve",
        tags=_TAGS,
        request={_JSON: VERDICT_SCHEMA},
        responses={200: OUTCOME_SCHEMA},
    )
    def post(self, request: Request, approval_id: uuid.UUID) -> Response:
        """Approve; with the last person needed the change is reserved and the approval given."""
        words = _read_words(request, with_ceiling=True)
        principal = principal_of(request)
        return Response(
            approve(principal=principal, approval_id=approval_id, words=words, clock=timezone.now)
        )


class DenyView(_ApprovalView):
    """``POST approvals/{id}/deny``."""

    @extend_schema(
        operation_id="deny",
        tags=_TAGS,
        request={_JSON: DENIAL_SCHEMA},
        responses={200: OUTCOME_SCHEMA},
    )
    def post(self, request: Request, approval_id: uuid.UUID) -> Response:
        """Deny, with a reason: one person is enough, and what was held goes back."""
        words = _read_words(request, with_ceiling=False)
        principal = principal_of(request)
        return Response(
            deny(principal=principal, approval_id=approval_id, words=words, clock=timezone.now)
        )


class WithdrawView(_ApprovalView):
    """``POST approvals/{id}/withdraw``."""

    @extend_schema(
        operation_id="withdraw",
        tags=_TAGS,
        request={_JSON: REASON_SCHEMA},
        responses={200: OUTCOME_SCHEMA},
    )
    def post(self, request: Request, approval_id: uuid.UUID) -> Response:
        """Withdraw what waits, or what was given and is not spent."""
        words = _read_words(request, with_ceiling=False)
        principal = principal_of(request)
        return Response(
            withdraw(principal=principal, approval_id=approval_id, words=words, clock=timezone.now)
        )


class TokenView(_ApprovalView):
    """``POST approvals/{id}/token``."""

    @extend_schema(
        operation_id="claim_approval_token",
        tags=_TAGS,
        request={_JSON: CLAIM_SCHEMA},
        responses={200: TOKEN_SCHEMA},
    )
    def post(self, request: Request, approval_id: uuid.UUID) -> Response:
        """Claim the token of an own request: the same one again, until it is rotated."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        rotate = fields.boolean("rotate", default=False)
        fields.finish()
        claimed = claim_token(
            principal=principal_of(request),
            approval_id=approval_id,
            rotate=rotate,
            issuer=settings.APPROVAL_TOKEN_ISSUER,
            clock=timezone.now,
        )
        body = {"approval_token": claimed.text, "expires_at": time_text(claimed.expires_at)}
        return Response(body, headers={"Cache-Control": "no-store"})


class ConsumeView(_ApprovalView):
    """``POST approvals/consume``."""

    @extend_schema(
        operation_id="consume_approval_token",
        tags=_TAGS,
        request={_JSON: CONSUME_SCHEMA},
        responses={200: CONSUMED_SCHEMA},
    )
    def post(self, request: Request) -> Response:
        """Spend a token on the change that it was given for, once."""
        refuse_unknown_query(request)
        text, binding = _read_binding(request)
        answer, is_replay = consume(
            principal=principal_of(request),
            text=text,
            binding=binding,
            issuer=settings.APPROVAL_TOKEN_ISSUER,
            clock=timezone.now,
        )
        return Response(answer, headers={REPLAY_HEADER: "true"} if is_replay else {})


def _read_binding(request: Request) -> tuple[str, Binding]:
    fields = Fields(request.data)
    text = fields.text("approval_token", required=True, max_length=MAX_TEXT)
    monthly = fields.amount("monthly_delta_usd", places=MONTHLY_PLACES, required=True)
    hourly = fields.amount("hourly_delta_usd", places=HOURLY_PLACES)
    digest = fields.text("change_digest", pattern=DIGEST_PATTERN)
    expected = fields.text("expected_request_fingerprint")
    project_id = fields.text("expected_project_id")
    environment = fields.text("expected_environment")
    key = request.headers.get(KEY_HEADER)
    if key is not None and not KEY_PATTERN.fullmatch(key):
        fields.refuse(
            "", "the Idempotency-Key header must have 1 to 200 printable ASCII characters"
        )
    if digest is None and expected is None and not fields.errors:
        fields.refuse(
            "change_digest", "or expected_request_fingerprint is required", code="required"
        )
    fields.finish()
    assert text is not None
    assert monthly is not None
    binding = Binding(
        monthly_delta_usd=monthly,
        hourly_delta_usd=hourly,
        change_digest=digest,
        expected_request_fingerprint=expected,
        expected_project_id=project_id,
        expected_environment=environment,
        idempotency_key=key,
    )
    return text, binding


def _show(principal: Principal, approval_id: uuid.UUID) -> dict[str, Any]:
    with reading(principal.tenant_id):
        return approval_document(see_approval(principal, approval_id, now=timezone.now()))


def _page(
    request: Request, seen: list[Seen], limit: int, *, render: Callable[[Seen], Any]
) -> dict[str, Any]:
    return build_page(
        request, seen, limit=limit, key=lambda one: str(one.approval.pk), render=render
    )


_shown: Final = rendering(listed_document)


def _read_words(request: Request, *, with_ceiling: bool) -> Words:
    refuse_unknown_query(request)
    fields = Fields(request.data)
    reason = fields.prose("reason") or ""
    ceiling = fields.amount("max_monthly_delta_usd", places=MONTHLY_PLACES)
    if ceiling is not None and not with_ceiling:
        fields.refuse("max_monthly_delta_usd", "belongs to an approval only")
    shown = fields.text("review_mark")
    fields.finish()
    return Words(reason=reason.strip(), max_monthly_delta_usd=ceiling, shown=shown)


def _read_filter(request: Request, principal: Principal) -> ApprovalFilter:
    fields = Fields(request.GET.dict())
    mine = fields.choice("mine", ("true", "false"))
    status = fields.choice("status", STATUSES)
    project_id = fields.text("project")
    fields.raw("limit")
    fields.raw("cursor")
    fields.finish("The query has invalid parameters.")
    if mine != "true":
        require_role(principal, ADMIN)
    projects = principal.projects
    if project_id is not None:
        require_project(principal, project_id)
        projects = frozenset({project_id})
    return ApprovalFilter(
        projects=projects,
        status=status,
        requester_person_id=principal.person_id if mine == "true" else None,
        before_id=read_id_cursor(request),
    )
