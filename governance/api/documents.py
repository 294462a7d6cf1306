"""Documents: identity's rows as JSON, and the JSON Schemas that describe them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from governance.identity.domain import KEY_PREFIX, ROLES, SCOPES
from governance.models import ApiKey, AuditEntry, Membership
from valdrix.kernel import schemas
from valdrix.kernel.http.times import to_text
from valdrix.kernel.schemas import text_schema

closed_object = schemas.closed_object

_TIME: Final = {"type": "string", "format": "date-time"}
_MAYBE_TIME: Final = {"type": ["string", "null"], "format": "date-time"}
_ROLE: Final = {"type": "string", "enum": list(ROLES)}
_SCOPES: Final = {"type": "array", "items": {"type": "string", "enum": list(SCOPES)}}
_PROJECTS: Final = {
    "type": ["array", "null"],
    "items": text_schema(),
    "description": "The projects that the key is bound to; null means all of the tenant.",
}
_PERSON: Final = {"type": "integer", "description": "The person who answers for the key."}


def page_of(items: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of one page of a list."""
    return closed_object(
        {
            "results": {"type": "array", "items": items},
            "next": {"type": ["string", "null"], "description": "The next page's path."},
        }
    )


API_KEY_SCHEMA: Final = closed_object(
    {
        "id": {"type": "string", "format": "uuid"},
        "name": {"type": "string"},
        "prefix": {"type": "string", "description": "How the key's text begins; not secret."},
        "role": _ROLE,
        "scopes": _SCOPES,
        "projects": _PROJECTS,
        "person_id": _PERSON,
        "status": {"type": "string", "enum": ["active", "expired", "revoked"]},
        "created_by": {"type": "string"},
        "created_at": _TIME,
        "expires_at": _MAYBE_TIME,
        "revoked_at": _MAYBE_TIME,
        "last_used_at": {**_MAYBE_TIME, "description": "To the minute."},
    }
)
ISSUED_KEY_SCHEMA: Final = closed_object(
    {
        **API_KEY_SCHEMA["properties"],
        "key": {"type": "string", "description": "The key's text, shown this once."},
    }
)
NEW_KEY_SCHEMA: Final = closed_object(
    {
        "name": text_schema(),
        "role": _ROLE,
        "scopes": _SCOPES,
        "projects": _PROJECTS,
        "person_id": {**_PERSON, "description": "A member; the caller's own person if absent."},
        "expires_at": _MAYBE_TIME,
    },
    optional=("scopes", "projects", "person_id", "expires_at"),
)
EMPTY_SCHEMA: Final = closed_object({})
MEMBER_SCHEMA: Final = closed_object(
    {
        "person_id": {"type": "integer"},
        "username": {"type": "string"},
        "role": _ROLE,
        "is_active": {"type": "boolean"},
        "created_at": _TIME,
    }
)
NEW_MEMBER_SCHEMA: Final = closed_object({"username": text_schema(150), "role": _ROLE})
ROLE_CHANGE_SCHEMA: Final = closed_object({"role": _ROLE})
AUDIT_ENTRY_SCHEMA: Final = closed_object(
    {
        "id": {"type": "string", "format": "uuid"},
        "at": _TIME,
        "actor": {"type": "string"},
        "address": {"type": ["string", "null"]},
        "action": {"type": "string"},
        "object_type": {"type": "string"},
        "object_id": {"type": "string"},
        "before": {"type": ["object", "null"]},
        "after": {"type": ["object", "null"]},
    }
)


def api_key_document(key: ApiKey, *, now: datetime) -> dict[str, Any]:
    """Return an API key as its managers see it; its digest never leaves the database."""
    status = "active"
    if key.revoked_at is not None:
        status = "revoked"
    elif key.expires_at is not None and key.expires_at <= now:
        status = "expired"
    return {
        "id": str(key.pk),
        "name": key.name,
        "prefix": KEY_PREFIX + key.lookup,
        "role": key.role,
        "scopes": list(key.scopes),
        "projects": key.projects,
        "person_id": key.person_id,
        "status": status,
        "created_by": key.created_by,
        "created_at": to_text(key.created_at),
        "expires_at": to_text(key.expires_at),
        "revoked_at": to_text(key.revoked_at),
        "last_used_at": to_text(key.last_used_at),
    }


def member_document(membership: Membership) -> dict[str, Any]:
    """Return a person's membership; nothing of the person beyond name and state."""
    return {
        "person_id": membership.user_id,
        "username": membership.user.username,
        "role": membership.role,
        "is_active": membership.user.is_active,
        "created_at": to_text(membership.created_at),
    }


def audit_document(entry: AuditEntry) -> dict[str, Any]:
    """Return one administrative change."""
    return {
        "id": str(entry.pk),
        "at": to_text(entry.at),
        "actor": entry.actor,
        "address": entry.address,
        "action": entry.action,
        "object_type": entry.object_type,
        "object_id": entry.object_id,
        "before": entry.before,
        "after": entry.after,
    }
