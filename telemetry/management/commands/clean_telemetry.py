"""``manage.py clean_telemetry``: delete telemetry that is past its time, as the job does."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any, Final

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from telemetry.retention.operations import delete_old
from telemetry.store.connection import NotConfigured, reason_of
from valdrix.kernel.db import tenant_ids_for_job

_MOST_DAYS: Final = 730


class Command(BaseCommand):
    """Deletes what is older than TELEMETRY_RETENTION_DAYS, or than --days."""

    help = "Delete telemetry that is past its time, in small batches. Nothing else is touched."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the age."""
        parser.add_argument(
            "--days", type=int, default=None, help="0 deletes everything; default: the setting"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Go through all tenants and say what was deleted."""
        days = settings.TELEMETRY_RETENTION_DAYS if options["days"] is None else options["days"]
        if not 0 <= days <= _MOST_DAYS:
            raise CommandError(f"--days takes 0 to {_MOST_DAYS}", returncode=2)
        tenant_ids = tenant_ids_for_job("clean-telemetry")
        self.stdout.write(f"deleting what is older than {days} days, of {len(tenant_ids)} tenants")
        try:
            done = delete_old(tenant_ids=tenant_ids, before=timezone.now() - timedelta(days=days))
        except (NotConfigured, psycopg.Error) as error:
            raise CommandError(f"the store failed: {reason_of(error)}") from error
        self.stdout.write(f"{done.deleted} events deleted in {done.batches} batches")
        if done.delayed is not None:
            raise CommandError(f"the rest is left for the next run: {done.delayed}")
