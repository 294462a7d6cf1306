"""System checks with permanent ids: what would make a running Valdrix unsafe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register
from django.db import DatabaseError, connection


@register(Tags.database)
def check_database_role(
    *, databases: Sequence[str] | None = None, **options: Any
) -> list[CheckMessage]:
    """Check that the application's role cannot bypass row-level security (``valdrix.E001-E003``)."""
    if not databases or "default" not in databases:
        return []
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT rolsuper, rolbypassrls,"
                " EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                "          WHERE n.nspname = 'public' AND c.relkind = 'r'"
                "            AND pg_has_role(current_user, c.relowner, 'USAGE'))"
                " FROM pg_roles WHERE rolname = current_user"
            )
            is_superuser, bypasses, owns = cursor.fetchone()
    except DatabaseError as error:
        return [Error(f"the database of DATABASE_URL does not answer: {error}", id="valdrix.E004")]
    messages: list[CheckMessage] = []
    if is_superuser:
        messages.append(Error("DATABASE_URL connects as a superuser", id="valdrix.E001"))
    if bypasses:
        messages.append(Error("DATABASE_URL's role has BYPASSRLS", id="valdrix.E002"))
    if owns and not is_superuser:
        messages.append(Error("DATABASE_URL's role owns the tables", id="valdrix.E003"))
    return messages
