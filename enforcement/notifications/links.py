"""Links in messages: signed, for a while, and worth nothing without signing in.

A link only says which tenant and which page. It is signed so that what a message leads to was
named by Valdrix, and it opens the page where a person decides; it decides nothing.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.core import signing

_SALT: Final = "valdrix.notifications.link"
_VALID: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a link leads: an object of a tenant."""

    tenant_id: uuid.UUID
    kind: str
    object_id: uuid.UUID


def link_to(place: Place) -> str:
    """Return the address that a message carries."""
    token = signing.dumps(
        [str(place.tenant_id), place.kind, str(place.object_id)], salt=_SALT, compress=False
    )
    return f"{settings.PUBLIC_URL}/admin/go/{token}/"


def read_link(token: str) -> Place | None:
    """Return where a link leads, or None for one that is forged or too old."""
    try:
        tenant_id, kind, object_id = signing.loads(token, salt=_SALT, max_age=_VALID)
        return Place(uuid.UUID(tenant_id), str(kind), uuid.UUID(object_id))
    except (signing.BadSignature, ValueError, TypeError):
        return None
