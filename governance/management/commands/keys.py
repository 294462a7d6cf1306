"""``manage.py keys list|rotate|retire``: the keys that sign approval tokens."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from governance.tokens.keys import list_keys, retire_key, rotate_keys
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import Refused

_LEAD_SECONDS: Final = 300
_MOST_SECONDS: Final = 366 * 86_400


class Command(BaseCommand):
    """Exit code 0: done; 1: refused, nothing changed; 2: used wrongly."""

    help = "Lists, rotates and retires the keys that sign approval tokens."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take one of the three verbs and its terms."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="every key and what it does now")
        rotate = verbs.add_parser("rotate", help="make a new key; the old ones go on verifying")
        rotate.add_argument(
            "--sign-in-seconds",
            type=int,
            default=_LEAD_SECONDS,
            help="when it begins to sign: verifiers that keep the key set know it by then (300)",
        )
        rotate.add_argument(
            "--retire-old-in-seconds",
            type=int,
            help="when the old keys are not accepted any more; without it they are retired by hand",
        )
        retire = verbs.add_parser("retire", help="refuse a key's tokens from now on")
        retire.add_argument("kid")
        retire.add_argument("--force", action="store_true", help="also when no other key signs")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what is asked, or say why not."""
        try:
            getattr(self, f"_{options['verb']}")(options)
        except Refused as refusal:
            self.stderr.write(f"{refusal.problem_code}: {refusal.detail}")
            sys.exit(1)

    def _list(self, options: dict[str, Any]) -> None:
        states = list_keys(timezone.now())
        for state in states:
            retired = state.retired_at.isoformat() if state.retired_at else "-"
            self.stdout.write(
                f"{state.kid} {state.status} signs from {state.active_from.isoformat()}"
                f" retired {retired}"
            )
        if not states:
            self.stdout.write("no keys; the first one is made with the first token")

    def _rotate(self, options: dict[str, Any]) -> None:
        lead, overlap = options["sign_in_seconds"], options["retire_old_in_seconds"]
        if not 0 <= lead <= _MOST_SECONDS:
            self._refuse_use("--sign-in-seconds must be 0 to a year")
        if overlap is not None and not lead <= overlap <= _MOST_SECONDS:
            self._refuse_use("--retire-old-in-seconds must not be before the new key signs")
        now = timezone.now()
        key = rotate_keys(
            kid=f"approvals-{new_id().hex[-12:]}",
            now=now,
            active_from=now + timedelta(seconds=lead),
            old_retire_at=None if overlap is None else now + timedelta(seconds=overlap),
        )
        self.stdout.write(f"{key.kid} signs from {key.active_from.isoformat()}")

    def _retire(self, options: dict[str, Any]) -> None:
        key = retire_key(kid=options["kid"], now=timezone.now(), force=options["force"])
        self.stdout.write(f"{key.kid} retired")

    def _refuse_use(self, detail: str) -> None:
        self.stderr.write(detail)
        sys.exit(2)
