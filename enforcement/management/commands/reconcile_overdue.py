"""``manage.py reconcile_overdue``: settle what is past its time, of one tenant or of all."""

from __future__ import annotations

import uuid
from argparse import ArgumentTypeError
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from enforcement.reconciliation.operations import reconcile_overdue
from governance.audit.operations import Actor
from governance.tenants.queries import find_tenant_id
from valdrix.kernel.db import tenant_ids_for_job

_TOLD_EVERY = 10
_JOB = "reconcile_overdue"
_PRINCIPAL = "system:reconcile-overdue"


class Command(BaseCommand):
    """Exits 0 when all that was due is settled, 1 when something is left, 2 when used wrongly."""

    help = (
        "Release reservations past their time that nobody confirmed, and post the confirmed ones"
        " at what was reserved. Any number of workers may do this at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take one tenant or all of them, and how much of it."""
        scope = parser.add_mutually_exclusive_group(required=True)
        scope.add_argument("--tenant", metavar="SLUG", help="settle this tenant's reservations")
        scope.add_argument("--all", action="store_true", help="settle every tenant's")
        parser.add_argument(
            "--limit", type=_positive, metavar="N", help="settle at most N families in all"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Settle what is due, tenant by tenant; one that fails stops no other."""
        totals: Counter[str] = Counter(posted=0, released=0, inconsistent=0)
        tenants, failed = _tenants(options), []
        for tenant_id, name in tenants:
            actor = Actor(
                tenant_id=tenant_id, principal_id=_PRINCIPAL, address=None, at=timezone.now()
            )
            try:
                counts = reconcile_overdue(
                    actor=actor, limit=_left(options["limit"], totals), progress=self._progress
                )
            except Exception as error:  # noqa: BLE001 - told below, and in the exit code
                failed.append(name)
                self.stderr.write(f"{name}: failed: {type(error).__name__}: {error}")
                continue
            totals.update(counts)
            self.stdout.write(f"{name}: {_say(counts)}")
        if options["limit"] is not None and _left(options["limit"], totals) == 0:
            self.stdout.write(f"stopped at the limit of {options['limit']}")
        if len(tenants) != 1:
            self.stdout.write(f"{len(tenants)} tenants: {_say(totals)}")
        if failed:
            raise CommandError(f"failed: {', '.join(failed)}", returncode=1)
        if totals["inconsistent"]:
            raise CommandError(
                f"{totals['inconsistent']} do not add up and were left alone; see the incidents",
                returncode=1,
            )

    def _progress(self, counts: dict[str, int]) -> None:
        """Tell a terminal how far it has come; a file or a pipe gets the result alone."""
        done = sum(counts.values())
        if self.stderr.isatty() and done % _TOLD_EVERY == 0:
            self.stderr.write(f"\r{_say(counts)} ...", ending="")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ArgumentTypeError("must be a whole number above 0")
    return int(text)


def _left(limit: int | None, totals: Counter[str]) -> int | None:
    return None if limit is None else limit - sum(totals.values())


def _tenants(options: dict[str, Any]) -> list[tuple[uuid.UUID, str]]:
    if options["all"]:
        return [(tenant_id, str(tenant_id)) for tenant_id in tenant_ids_for_job(_JOB)]
    tenant_id = find_tenant_id(options["tenant"])
    if tenant_id is None:
        raise CommandError(f"there is no tenant {options['tenant']!r}", returncode=2)
    return [(tenant_id, options["tenant"])]


def _say(counts: dict[str, int]) -> str:
    return (
        f"{counts['posted']} posted, {counts['released']} released,"
        f" {counts['inconsistent']} inconsistent"
    )
