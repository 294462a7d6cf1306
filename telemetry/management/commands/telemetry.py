"""``manage.py telemetry``: look at the kill switch, or turn it, without a new deployment."""

from __future__ import annotations

import argparse
from typing import Any, Final

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from telemetry.store.connection import WRITING, NotConfigured, open_store, reason_of

_REASON_CHARACTERS: Final = 200


class Command(BaseCommand):
    """Turns telemetry off and on in every running process, within seconds."""

    help = "Show whether telemetry is collected, or switch it on or off in all running processes."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take what to do, and why."""
        parser.add_argument("action", choices=("status", "on", "off"))
        parser.add_argument("--reason", default="", help="kept with the switch; needed for off")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it and say how the switch stands."""
        action, reason = options["action"], options["reason"].strip()
        if action == "off" and not reason:
            raise CommandError("Say why: --reason TEXT", returncode=2)
        if len(reason) > _REASON_CHARACTERS or "\0" in reason:
            raise CommandError(
                f"--reason takes up to {_REASON_CHARACTERS} characters", returncode=2
            )
        if not settings.TELEMETRY_ENABLED:
            self.stdout.write("TELEMETRY_ENABLED is false here: processes like this emit nothing")
        try:
            with open_store(WRITING) as store:
                if action != "status":
                    store.execute(
                        "INSERT INTO telemetry_switch (id, is_on, reason, changed_at)"
                        " VALUES (1, %(on)s, %(reason)s, %(at)s) ON CONFLICT (id) DO UPDATE"
                        " SET is_on = %(on)s, reason = %(reason)s, changed_at = %(at)s",
                        {"on": action == "on", "reason": reason, "at": timezone.now()},
                    )
                row = store.execute(
                    "SELECT is_on, reason, changed_at FROM telemetry_switch WHERE id = 1"
                ).fetchone()
        except (NotConfigured, psycopg.Error) as error:
            raise CommandError(f"the switch cannot be reached: {reason_of(error)}") from error
        if row is None:
            raise CommandError("there is no switch: run manage.py migrate")
        is_on, why, changed_at = row
        said = f"telemetry is {'on' if is_on else 'off'}"
        if changed_at is not None:
            said += f" since {changed_at:%Y-%m-%d %H:%M:%S} UTC"
        self.stdout.write(said + (f": {why}" if why else ""))
