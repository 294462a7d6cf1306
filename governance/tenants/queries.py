"""Reads of tenants."""

from __future__ import annotations

import uuid

from django.db import connection


def find_tenant_id(slug: str) -> uuid.UUID | None:
    """Return the id of the tenant with this slug, or None.

    Needs no tenant: it asks a named function of the database that returns nothing but the id.
    """
    if "\x00" in slug:  # PostgreSQL's text cannot hold it, so no slug does.
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT governance_find_tenant(%s)", [slug])
        found: uuid.UUID | None = cursor.fetchone()[0]
    return found
