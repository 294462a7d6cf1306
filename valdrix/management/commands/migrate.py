"""``manage.py migrate``: as the owner, and with the application's role given what it may do."""

from __future__ import annotations

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
        return answer
