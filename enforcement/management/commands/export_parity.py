"""``manage.py export_parity``: a window's figures, and its archive as a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from enforcement.exports.archive import Export, Signed, build_parity
from enforcement.exports.domain import LIMIT_MAXIMUM, build_scope
from governance.tenants.queries import find_tenant_id
from valdrix.kernel.fields import Fields
from valdrix.kernel.problems import InvalidRequest


class Command(BaseCommand):
    """Prints the figures as JSON; exits 1 when rows do not agree with the ledger."""

    help = (
        "Print the counts, sums and hashes that bind a window's decisions, approvals, ledger and"
        " reservations to one another; with --output also write them as an archive that"
        " verify_export accepts."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take a tenant, a window and where the archive goes."""
        parser.add_argument("--tenant", metavar="SLUG", required=True)
        parser.add_argument("--window-start", metavar="TIME", help="the current UTC month's start")
        parser.add_argument("--window-end", metavar="TIME", help="exclusive")
        parser.add_argument("--limit", type=int, metavar="N", help="decisions at most; all without")
        parser.add_argument("--output", type=Path, metavar="FILE", help="write the archive here")

    def handle(self, *args: Any, **options: Any) -> None:
        """Read one snapshot, write, print."""
        key = settings.EXPORT_SIGNING_KEY
        if key is None:
            raise CommandError("ENFORCEMENT_EXPORT_SIGNING_KEY is not configured", returncode=2)
        tenant_id = find_tenant_id(options["tenant"])
        if tenant_id is None:
            raise CommandError(f"there is no tenant {options['tenant']!r}", returncode=2)
        limit = options["limit"]
        if limit is not None and not 1 <= limit <= LIMIT_MAXIMUM:
            raise CommandError(f"--limit must be from 1 to {LIMIT_MAXIMUM}", returncode=2)
        try:
            scope = build_scope(
                tenant_id=tenant_id, window=_window(options), limit=limit, now=timezone.now()
            )
        except InvalidRequest as refusal:
            details = "; ".join(f"{one.pointer[1:]} {one.detail}" for one in refusal.errors)
            raise CommandError(details or refusal.detail, returncode=2) from refusal
        parity = build_parity(self._export(Export(scope, key), options["output"]))
        self.stdout.write(orjson.dumps(parity, option=orjson.OPT_INDENT_2).decode())
        if not parity["parity_ok"]:
            raise CommandError("rows do not agree with their ledger entries", returncode=1)

    def _export(self, export: Export, output: Path | None) -> Signed:
        if output is None:
            return export.finish()
        # A file of this name is only ever a whole archive.
        half = output.with_name(f"{output.name}.part")
        try:
            with half.open("wb") as file:
                for chunk in export.stream():
                    file.write(chunk)
                    self._tell(file.tell())
            half.replace(output)
        except OSError as error:
            raise CommandError(
                f"{output} cannot be written: {error.strerror}", returncode=2
            ) from error
        finally:
            half.unlink(missing_ok=True)
        assert export.signed is not None
        return export.signed

    def _tell(self, size: int) -> None:
        if sys.stderr.isatty():
            self.stderr.write(f"\r{size / 1e6:,.0f} MB", ending="")


def _window(options: dict[str, Any]) -> tuple[Any, Any]:
    given = {name: options[name] for name in ("window_start", "window_end") if options[name]}
    fields = Fields(given)
    window = fields.time("window_start"), fields.time("window_end")
    fields.finish()
    return window
