"""The API of policies: members read, admins publish, roll back and lint."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from enforcement.controls import policies
from governance.api.api_keys import PAGE_PARAMETERS
from governance.api.assuming import confirming
from governance.api.callers import actor_of, principal_of
from governance.api.documents import closed_object, page_of
from governance.api.permissions import RequireRole, RequireWholeTenant, require_whole_tenant
from governance.identity.domain import ADMIN, MEMBER
from governance.policies.document import InvalidPolicy, lint
from governance.policies.models import PolicyVersion
from governance.policies.operations import Draft, build_draft
from governance.policies.schema import json_schema
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import (
    InvalidPage,
    build_page,
    read_cursor,
    read_limit,
    refuse_unknown_query,
)
from valdrix.kernel.http.times import to_text as time_text
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import FieldError
from valdrix.kernel.schemas import prose_schema

_TAGS: Final = ["policies"]
_POINTER: Final = "/policy_document"
_MAX_VERSION: Final = 2**31 - 1
_MOST_ERRORS: Final = 1000
"""More than this is no document that somebody corrects line by line."""

_DOCUMENT: Final = {"type": "object", "description": "See GET policies/schema."}
_COMMENT: Final = prose_schema()
_NUMBER: Final = {"type": "integer", "minimum": 0, "maximum": _MAX_VERSION}
_BASE: Final = {**_NUMBER, "description": "The live version that the document was made from."}
_SUMMARY_MEMBERS: Final = {
    "policy_version": {**_NUMBER, "description": "0 where nothing was published."},
    "policy_document_sha256": {"type": "string"},
    "policy_document_schema_version": {"type": "string"},
    "author": {"type": ["string", "null"], "description": "Principal id."},
    "comment": {"type": "string"},
    "published_at": {"type": ["string", "null"], "format": "date-time"},
}
_SUMMARY: Final = closed_object(_SUMMARY_MEMBERS)
_VERSION: Final = closed_object({**_SUMMARY_MEMBERS, "policy_document": _DOCUMENT})
_PUBLICATION: Final = closed_object(
    {"policy_document": _DOCUMENT, "comment": _COMMENT, "base_version": _BASE},
    optional=("comment",),
)
_ROLLBACK: Final = closed_object(
    {"comment": _COMMENT, "base_version": _BASE}, optional=("comment",)
)
_ERROR: Final = closed_object({name: {"type": "string"} for name in ("pointer", "code", "detail")})
_LINTED: Final = closed_object(
    {"valid": {"type": "boolean"}, "errors": {"type": "array", "items": _ERROR}}
)
_ANYTHING: Final = {
    "type": ["object", "array", "string", "number", "boolean"],
    "description": "A document of any kind; what is wrong with it is the answer.",
}
_DRAFT: Final = closed_object({"policy_document": _DOCUMENT})
_TO_LINT: Final = closed_object({"policy_document": _ANYTHING})
_CHANGE: Final = closed_object(
    {
        "kind": {"type": "string", "enum": ["added", "removed", "changed", "reordered"]},
        "pointer": {"type": "string"},
        "old": {},
        "new": {},
    },
    optional=("old", "new"),
)
_COMPARISON: Final = closed_object(
    {
        "base_version": _BASE,
        "changes": {"type": "array", "items": _CHANGE},
        "raised_modes": {"type": "array", "items": {"type": "string"}},
    }
)


class PolicyView(ApiView):
    """The live policy."""

    permission_classes = (RequireRole(MEMBER, to_write=ADMIN),)

    @extend_schema(operation_id="get_policy", tags=_TAGS, responses={200: _VERSION})
    @confirming
    def get(self, request: Request) -> Response:
        """Show the live policy; before the first publication the empty, strictest one."""
        refuse_unknown_query(request)
        version = policies.find_live_version(principal_of(request).tenant_id)
        return Response(_render(version))

    @extend_schema(
        operation_id="publish_policy",
        tags=_TAGS,
        request={"application/json": _PUBLICATION},
        responses={200: _VERSION},
    )
    def put(self, request: Request) -> Response:
        """Publish a document as the next version."""
        refuse_unknown_query(request)
        require_whole_tenant(principal_of(request))
        draft = _read_draft(request)
        version = policies.publish_policy(actor=actor_of(request, now=timezone.now()), draft=draft)
        return Response(_render(version))


class PolicyLintView(ApiView):
    """The check of a document that is not published."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(
        operation_id="lint_policy",
        tags=_TAGS,
        request={"application/json": _TO_LINT},
        responses={200: _LINTED},
    )
    def post(self, request: Request) -> Response:
        """Tell everything that is wrong with a document; publishes nothing."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        document = fields.raw("policy_document", required=True)
        fields.finish()
        errors = [error.to_document() for error in _prefixed(lint(document))]
        return Response({"valid": not errors, "errors": errors})


class PolicyDiffView(ApiView):
    """The comparison of a document with the live one."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(
        operation_id="diff_policy",
        tags=_TAGS,
        request={"application/json": _DRAFT},
        responses={200: _COMPARISON},
    )
    def post(self, request: Request) -> Response:
        """Tell how a document differs from the live one; publishes nothing."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        document = fields.raw("policy_document", required=True)
        fields.finish()
        try:
            found = policies.compare_with_live(principal_of(request).tenant_id, document)
        except InvalidPolicy as error:
            raise _at_its_place(error) from None
        return Response(
            {
                "base_version": found.live_version,
                "changes": [
                    {
                        name: value
                        for name, value in msgspec.structs.asdict(change).items()
                        if value is not None
                    }
                    for change in found.changes
                ],
                "raised_modes": list(found.raised_modes),
            }
        )


class PolicyVersionsView(ApiView):
    """Every published version."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(
        operation_id="list_policy_versions",
        tags=_TAGS,
        parameters=PAGE_PARAMETERS,
        responses={200: page_of(_SUMMARY)},
    )
    def get(self, request: Request) -> Response:
        """List published versions, newest first, without their documents."""
        refuse_unknown_query(request, "limit", "cursor")
        limit = read_limit(request)
        found = policies.find_versions(
            principal_of(request).tenant_id,
            below_number=read_number_cursor(request),
            limit=limit + 1,
        )
        page = build_page(
            request, found, limit=limit, key=lambda one: str(one.number), render=_summarise
        )
        return Response(page)


class PolicyVersionView(ApiView):
    """One published version."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(operation_id="get_policy_version", tags=_TAGS, responses={200: _VERSION})
    def get(self, request: Request, number: int) -> Response:
        """Show a published version with its document."""
        refuse_unknown_query(request)
        return Response(_render(policies.get_version(principal_of(request).tenant_id, number)))


class PolicyRollbackView(ApiView):
    """The return to an older document."""

    permission_classes = (RequireRole(ADMIN), RequireWholeTenant)

    @extend_schema(
        operation_id="roll_back_policy",
        tags=_TAGS,
        request={"application/json": _ROLLBACK},
        responses={200: _VERSION},
    )
    def post(self, request: Request, number: int) -> Response:
        """Publish the document of an older version as the next version."""
        refuse_unknown_query(request)
        fields = Fields(request.data)
        comment, base_version = _read_publication(fields)
        fields.finish()
        version = policies.roll_back_policy(
            actor=actor_of(request, now=timezone.now()),
            version_id=new_id(),
            number=number,
            comment=comment,
            base_version=base_version,
        )
        return Response(_render(version))


class PolicySchemaView(ApiView):
    """The JSON Schema of the policy document."""

    permission_classes = (RequireRole(MEMBER),)

    @extend_schema(
        operation_id="get_policy_schema", tags=_TAGS, responses={200: {"type": "object"}}
    )
    def get(self, request: Request) -> Response:
        """Show the JSON Schema (2020-12) of the policy document."""
        refuse_unknown_query(request)
        return Response(json_schema())


def read_number_cursor(request: Request) -> int | None:
    """Return the number after which a list ordered by numbers goes on.

    :raises InvalidPage: for a cursor that such a list does not give.
    """
    text = read_cursor(request)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidPage("The cursor is not valid.")
    return int(text)


def _read_draft(request: Request) -> Draft:
    """Return the body of a publication.

    :raises InvalidRequest: when a member is wrong.
    :raises InvalidPolicy: when only the document is, with pointers into the body.
    """
    fields = Fields(request.data)
    document = fields.raw("policy_document", required=True)
    comment, base_version = _read_publication(fields)
    fields.finish()
    try:
        return build_draft(
            version_id=new_id(), document=document, comment=comment, base_version=base_version
        )
    except InvalidPolicy as error:
        raise _at_its_place(error) from None


def _read_publication(fields: Fields) -> tuple[str, int]:
    comment = fields.prose("comment")
    base_version = fields.integer("base_version", minimum=0, maximum=_MAX_VERSION, required=True)
    return comment or "", base_version or 0


def _at_its_place(error: InvalidPolicy) -> InvalidPolicy:
    return InvalidPolicy(error.detail, errors=_prefixed(error.errors))


def _prefixed(errors: tuple[FieldError, ...]) -> tuple[FieldError, ...]:
    """Return errors of a document with pointers into the body, at most ``_MOST_ERRORS`` of them."""
    shown = [
        FieldError(_POINTER + error.pointer, error.code, error.detail)
        for error in errors[:_MOST_ERRORS]
    ]
    if len(errors) > _MOST_ERRORS:
        shown.append(FieldError(_POINTER, "too_many_errors", f"{len(errors)} errors in all"))
    return tuple(shown)


def _summarise(version: PolicyVersion | None) -> dict[str, Any]:
    lineage = policies.show_lineage(version)
    if version is None:
        return {**lineage, "author": None, "comment": "", "published_at": None}
    return {
        **lineage,
        "author": version.author,
        "comment": version.comment,
        "published_at": time_text(version.published_at),
    }


def _render(version: PolicyVersion | None) -> dict[str, Any]:
    document = {} if version is None else orjson.Fragment(version.canonical_json)
    return {**_summarise(version), "policy_document": document}
