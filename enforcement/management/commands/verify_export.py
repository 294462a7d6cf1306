"""``manage.py verify_export``: check an archive offline, with the files and a public key alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from enforcement.exports.verifier.checks import verify
from enforcement.exports.verifier.files import Refused
from enforcement.exports.verifier.program import describe


class Command(BaseCommand):
    """Exits 0 when everything holds, 1 naming the first place that does not, 2 when used wrongly.

    Reads no database. ``deploy/auditors/verify_export.py`` is the same check as one file.
    """

    help = "Verify an export, a ZIP or a directory of its files, without a database."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the archive, who must have signed it, and what was kept elsewhere."""
        parser.add_argument("archive", type=Path, help="the ZIP, or the directory of its files")
        parser.add_argument(
            "--public-key",
            action="append",
            default=[],
            metavar="BASE64URL",
            help="who must have signed it; the configured key's public half without this",
        )
        parser.add_argument(
            "--checkpoint",
            action="append",
            default=[],
            type=Path,
            metavar="FILE",
            help="a checkpoint that was kept elsewhere and must agree; may be given again",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Verify and say what was verified, or the first file, row and reason that do not hold."""
        keys = options["public_key"]
        if not keys and settings.EXPORT_SIGNING_KEY is not None:
            keys = [settings.EXPORT_SIGNING_KEY.public_text]
        if not keys:
            raise CommandError("give --public-key: no signing key is configured", returncode=2)
        try:
            report = verify(
                options["archive"],
                keys,
                checkpoints=options["checkpoint"],
                progress=self._tell if sys.stderr.isatty() else None,
            )
        except Refused as refusal:
            raise CommandError(f"REFUSED {refusal}", returncode=1) from refusal
        except (OSError, ValueError) as error:
            raise CommandError(f"cannot verify: {error}", returncode=2) from error
        self.stdout.write(f"VERIFIED\n{describe(report)}")

    def _tell(self, rows: int) -> None:
        self.stderr.write(f"{rows} ledger rows ...")
