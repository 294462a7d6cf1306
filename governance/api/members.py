"""The API of members: owners admit people to the tenant and set their roles."""

from __future__ import annotations

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from governance.api import documents
from governance.api.api_keys import PAGE_PARAMETERS
from governance.api.callers import actor_of, principal_of
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.identity import operations, queries
from governance.identity.domain import OWNER, ROLES
from valdrix.kernel.db import reading
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import (
    InvalidPage,
    build_page,
    read_cursor,
    read_limit,
    refuse_unknown_query,
)

_TAGS = ["identity"]
_MOST_ID_DIGITS = 19


class MembersView(ApiView):
    """The tenant's people."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="list_members",
        tags=_TAGS,
        parameters=PAGE_PARAMETERS,
        responses={200: documents.page_of(documents.MEMBER_SCHEMA)},
    )
    def get(self, request: Request) -> Response:
        """List the people of the tenant and their roles."""
        refuse_unknown_query(request, "limit", "cursor")
        tenant_id, limit = principal_of(request).tenant_id, read_limit(request)
        after_id = _read_person_cursor(request)
        with reading(tenant_id):
            rows = queries.find_memberships(tenant_id, after_id=after_id, limit=limit + 1)
        return Response(
            build_page(
                request,
                rows,
                limit=limit,
                key=lambda row: str(row.user_id),
                render=documents.member_document,
            )
        )

    @extend_schema(
        operation_id="admit_member",
        tags=_TAGS,
        request={"application/json": documents.NEW_MEMBER_SCHEMA},
        responses={201: documents.MEMBER_SCHEMA},
    )
    def post(self, request: Request) -> Response:
        """Admit a person; a new user name makes a person who has no password yet."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        username = fields.text("username", required=True, max_length=operations.USERNAME_LIMIT)
        role = fields.choice("role", ROLES, required=True)
        fields.finish()
        membership = operations.admit_member(
            actor=actor_of(request, now=timezone.now()), username=str(username), role=str(role)
        )
        return Response(documents.member_document(membership), status=201)


class MemberView(ApiView):
    """One person's membership."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)

    @extend_schema(
        operation_id="change_role",
        tags=_TAGS,
        request={"application/json": documents.ROLE_CHANGE_SCHEMA},
        responses={200: documents.MEMBER_SCHEMA},
    )
    def patch(self, request: Request, person_id: int) -> Response:
        """Change a member's role; the last owner stays one."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        role = fields.choice("role", ROLES, required=True)
        fields.finish()
        membership = operations.change_role(
            actor=actor_of(request, now=timezone.now()), person_id=person_id, role=str(role)
        )
        return Response(documents.member_document(membership))

    @extend_schema(operation_id="remove_member", tags=_TAGS, request=None, responses={204: None})
    def delete(self, request: Request, person_id: int) -> Response:
        """End a membership; the keys that the person answers for stop with it."""
        refuse_unknown_query(request)
        operations.remove_member(actor=actor_of(request, now=timezone.now()), person_id=person_id)
        return Response(status=204)


def _read_person_cursor(request: Request) -> int | None:
    text = read_cursor(request)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_ID_DIGITS):
        raise InvalidPage("The cursor is not valid.")
    return int(text)
