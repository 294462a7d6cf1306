"""The API of reviewers: owners keep groups, and permissions to approve beyond a role."""

from __future__ import annotations

import uuid
from typing import Any, Final

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from governance.api.api_keys import PAGE_PARAMETERS, read_id_cursor
from governance.api.callers import actor_of, principal_of
from governance.api.documents import closed_object, page_of
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.identity import reviewing
from governance.identity.domain import APPROVAL_PERMISSIONS, OWNER
from governance.identity.models import ReviewerGroup
from valdrix.kernel.db import reading
from valdrix.kernel.edits import edit_mark
from valdrix.kernel.fields import Fields, as_integer
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import build_page, read_limit, refuse_unknown_query
from valdrix.kernel.ids import new_id
from valdrix.kernel.schemas import text_schema

_TAGS: Final = ["identity"]
_JSON: Final = "application/json"
_MOST_MEMBERS: Final = 500
_PEOPLE: Final = {"type": "array", "items": {"type": "integer"}, "maxItems": _MOST_MEMBERS}
_NAME: Final = text_schema()
_MARK: Final = {
    "type": "string",
    "description": "What owners said so far. Send it back: a group that moved meanwhile is not changed.",
}
_GROUP: Final = closed_object(
    {
        "id": {"type": "string", "format": "uuid"},
        "name": _NAME,
        "person_ids": _PEOPLE,
        "edit_mark": _MARK,
    }
)
_NEW_GROUP: Final = closed_object({"name": _NAME})
_MEMBERS: Final = closed_object(
    {"person_ids": _PEOPLE, "edit_mark": _MARK}, optional=("edit_mark",)
)
_PERMISSIONS: Final = closed_object(
    {
        "permissions": {
            "type": "array",
            "items": {"type": "string", "enum": list(APPROVAL_PERMISSIONS)},
        }
    }
)


class _OwnersView(ApiView):
    """Who reviews is the owners' to say."""

    permission_classes = (RequireRole(OWNER), RequireWholeTenant)


class ReviewerGroupsView(_OwnersView):
    """``reviewer-groups``."""

    @extend_schema(
        operation_id="list_reviewer_groups",
        tags=_TAGS,
        parameters=PAGE_PARAMETERS,
        responses={200: page_of(_GROUP)},
    )
    def get(self, request: Request) -> Response:
        """List reviewer groups and who is in them."""
        refuse_unknown_query(request, "limit", "cursor")
        tenant_id, limit = principal_of(request).tenant_id, read_limit(request)
        after_id = read_id_cursor(request)
        with reading(tenant_id):
            rows = reviewing.find_groups(tenant_id, after_id=after_id, limit=limit + 1)
            page = build_page(
                request,
                rows,
                limit=limit,
                key=lambda row: str(row[0].pk),
                render=lambda row: _show(row[0], row[1]),
            )
        return Response(page)

    @extend_schema(
        operation_id="create_reviewer_group",
        tags=_TAGS,
        request={_JSON: _NEW_GROUP},
        responses={201: _GROUP},
    )
    def post(self, request: Request) -> Response:
        """Create a group that routing rules can demand a person of."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        name = fields.text("name", required=True)
        fields.finish()
        group = reviewing.create_group(
            actor=actor_of(request, now=timezone.now()), group_id=new_id(), name=str(name)
        )
        with reading(group.tenant_id):
            return Response(_show(group, []), status=201)


class ReviewerGroupView(_OwnersView):
    """``reviewer-groups/{id}``."""

    @extend_schema(
        operation_id="set_reviewer_group_members",
        tags=_TAGS,
        request={_JSON: _MEMBERS},
        responses={200: _GROUP},
    )
    def put(self, request: Request, group_id: uuid.UUID) -> Response:
        """Say who is in a group."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        people = _read_people(fields)
        shown = fields.text("edit_mark")
        fields.finish()
        actor = actor_of(request, now=timezone.now())
        members = reviewing.set_group_members(
            actor=actor, group_id=group_id, person_ids=people, shown=shown
        )
        with reading(actor.tenant_id):
            return Response(_show(reviewing.get_group(actor.tenant_id, group_id), members))

    @extend_schema(
        operation_id="delete_reviewer_group", tags=_TAGS, request=None, responses={204: None}
    )
    def delete(self, request: Request, group_id: uuid.UUID) -> Response:
        """Delete a group; a rule that names it then finds nobody."""
        refuse_unknown_query(request)
        actor = actor_of(request, now=timezone.now())
        reviewing.delete_group(actor=actor, group_id=group_id)
        return Response(status=204)


class ApprovalPermissionsView(_OwnersView):
    """``members/{person_id}/approval-permissions``."""

    @extend_schema(
        operation_id="set_approval_permissions",
        tags=_TAGS,
        request={_JSON: _PERMISSIONS},
        responses={200: _PERMISSIONS},
    )
    def put(self, request: Request, person_id: int) -> Response:
        """Say what a person may approve beyond their role."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        permissions = _read_list(fields, "permissions", str)
        fields.finish()
        given = reviewing.set_permissions(
            actor=actor_of(request, now=timezone.now()),
            person_id=person_id,
            permissions=permissions,
        )
        return Response({"permissions": given})


def _show(group: ReviewerGroup, members: list[int]) -> dict[str, Any]:
    return {
        "id": str(group.pk),
        "name": group.name,
        "person_ids": members,
        "edit_mark": edit_mark(reviewing.find_own_members(group)),
    }


def _read_people(fields: Fields) -> list[int]:
    return _read_list(fields, "person_ids", int)


def _read_list(fields: Fields, name: str, kind: type) -> list[Any]:
    """Return a list of plain values of one type; a truth value is no number."""
    value = fields.raw(name, required=True)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MOST_MEMBERS:
        fields.refuse(name, f"must be a list of at most {_MOST_MEMBERS}", code="invalid_type")
        return []
    value = [as_integer(one) for one in value]
    if any(type(one) is not kind for one in value):
        fields.refuse(name, "holds a value of another type", code="invalid_type")
        return []
    return value
