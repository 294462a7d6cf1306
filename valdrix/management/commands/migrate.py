"""``manage.py migrate``: as the owner, and with the application's role given what it may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.core.management.commands.migrate import Command as DjangoMigrate
from django.db import connections

OWNER = "owner"


class Command(DjangoMigrate):
    """Runs Django's migrations over the owner's connection."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Take Django's own arguments, with the owner's connection as the default."""
        super().add_arguments(parser)
        if OWNER in settings.DATABASES:
            parser.set_defaults(database=OWNER)

    def handle(self, *args: Any, **options: Any) -> str | None:
        """Let the application's role use what the migrations create, then migrate.

        Privileges come by default for tables that do not exist yet, so that a migration can
        take some of them back and no later run gives them again.
        """
        database = options["database"] = (
            OWNER if OWNER in settings.DATABASES else options["database"]
        )
        role = settings.DATABASES["default"]["USER"]
        connection = connections[database]
        if role != connection.settings_dict["USER"]:
            quoted = connection.ops.quote_name(role)
            with connection.cursor() as cursor:
                cursor.execute(f"GRANT USAGE ON SCHEMA public TO {quoted}")
                cursor.execute(
                    "ALTER DEFAULT PRIVILEGES IN SCHEMA public"
                    f" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {quoted}"
                )
                cursor.execute(
                    "ALTER DEFAULT PRIVILEGES IN SCHEMA public"
                    f" GRANT USAGE, SELECT ON SEQUENCES TO {quoted}"
                )
        answer = super().handle(*args, **options)
        if role != connection.settings_dict["USER"]:
            with connection.cursor() as cursor:
                # Readiness believes this table: the application reads it and never writes it.
                cursor.execute(f"REVOKE INSERT, UPDATE, DELETE ON django_migrations FROM {quoted}")
                _confine_functions(cursor, quoted)
                _confine_telemetry(cursor, connection.ops.quote_name, role)
        return answer


def _confine_functions(cursor: Any, role: str) -> None:
    """Let only the application's role call the functions that run with their owner's rights."""
    cursor.execute(
        "SELECT oid::regprocedure::text FROM pg_proc"
        " WHERE prosecdef AND pronamespace = 'public'::regnamespace"
    )
    for (name,) in cursor.fetchall():
        cursor.execute(f"REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC")
        cursor.execute(f"GRANT EXECUTE ON FUNCTION {name} TO {role}")


def _confine_telemetry(cursor: Any, quote: Callable[[str], str], role: str) -> None:
    """Give telemetry's tables to telemetry's role and to no other.

    Without such a role, on a server whose roles were made before there was one, nobody gets them
    and telemetry stays off; a later run finds it.
    """
    cursor.execute("SELECT to_regclass('telemetry_event') IS NOT NULL")
    if not cursor.fetchone()[0]:
        return
    tables = "telemetry_event, telemetry_switch"
    cursor.execute(f"REVOKE ALL ON {tables} FROM {quote(role)}")
    name = (settings.TELEMETRY_STORE or {}).get("user", "valdrix_telemetry")
    cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [name])
    if name == role or cursor.fetchone() is None:
        return
    cursor.execute(f"GRANT USAGE ON SCHEMA public TO {quote(name)}")
    cursor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON telemetry_event TO {quote(name)}")
    cursor.execute(f"GRANT SELECT, INSERT, UPDATE ON telemetry_switch TO {quote(name)}")
