"""``manage.py capture_evidence PROFILE``: run it for real, and write down what happened."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from governance.evidence.stress import StressTerms
from valdrix.certification.load import Server
from valdrix.certification.scenarios import NothingRan, capture_failure_injection, to_json
from valdrix.certification.stress import StressOrder, capture_stress
from valdrix.kernel.strict_json import StrictJsonError, loads

_TERMS = StressTerms()


class Command(BaseCommand):
    """Exits 0 when what was captured is good, 1 when not (it is written all the same).

    Exits 2 when used wrongly.
    """

    help = "Capture a piece of release evidence by really running what it proves."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take a profile and what it needs."""
        profiles = parser.add_subparsers(dest="profile", required=True, metavar="PROFILE")
        stress = profiles.add_parser("stress", help="load against a running server")
        stress.add_argument("--output", type=Path, required=True, metavar="FILE")
        stress.add_argument("--base-url", help="the running server; make run's without this")
        stress.add_argument("--api-key", help="an admin's key; make run's without this")
        stress.add_argument("--project", default="shop", help="the project that gates name")
        stress.add_argument("--rounds", type=int, default=3)
        stress.add_argument("--duration-seconds", type=int, default=30)
        stress.add_argument("--concurrent-users", type=int, default=10)
        for name in ("max_p95_seconds", "max_error_rate_percent", "min_throughput_rps"):
            flag = "--" + name.replace("_", "-")
            stress.add_argument(flag, type=Decimal, default=getattr(_TERMS, name))
        failures = profiles.add_parser("failure_injection", help="the five failure scenarios")
        failures.add_argument("--output", type=Path, required=True, metavar="FILE")
        failures.add_argument("--executed-by", required=True)
        failures.add_argument("--approved-by", required=True)

    def handle(self, *args: Any, **options: Any) -> None:
        """Capture, write the file, and say whether it is good."""
        is_stress = options["profile"] == "stress"
        document = self._stress(options) if is_stress else self._failures(options)
        path: Path = options["output"]
        path.write_text(to_json(document))
        good = document["meets_targets"] if is_stress else document["summary"]["overall_passed"]
        if not good or (is_stress and not document["preflight"]["passed"]):
            raise CommandError(f"{path} was written, and is no release evidence", returncode=1)
        self.stdout.write(
            f"{path} was written; verify it with verify_evidence {options['profile']}"
        )

    def _stress(self, options: dict[str, Any]) -> dict[str, Any]:
        for name in ("rounds", "duration_seconds", "concurrent_users"):
            if options[name] < 1:
                raise CommandError(f"--{name.replace('_', '-')} must be at least 1", returncode=2)
        base_url, api_key = self._server(options)
        try:
            server = Server.of(base_url, api_key)
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from error
        order = StressOrder(
            server=server,
            project_id=options["project"],
            rounds=options["rounds"],
            duration_seconds=options["duration_seconds"],
            concurrent_users=options["concurrent_users"],
            terms=StressTerms(
                max_p95_seconds=options["max_p95_seconds"],
                max_error_rate_percent=options["max_error_rate_percent"],
                min_throughput_rps=options["min_throughput_rps"],
            ),
        )
        return capture_stress(order, clock=_now, tell=self.stderr.write)

    def _server(self, options: dict[str, Any]) -> tuple[str, str]:
        base_url, api_key = options["base_url"], options["api_key"]
        if base_url and api_key:
            return base_url, api_key
        path = settings.BASE_DIR / ".valdrix" / "demo.json"
        try:
            demo = loads(path.read_bytes())
        except (OSError, StrictJsonError) as error:
            raise CommandError(
                "give --base-url and --api-key: no `make run` is running here", returncode=2
            ) from error
        return base_url or demo["base_url"], api_key or demo["api_keys"]["admin"]

    def _failures(self, options: dict[str, Any]) -> dict[str, Any]:
        executed_by, approved_by = options["executed_by"].strip(), options["approved_by"].strip()
        if not executed_by or not approved_by or executed_by.lower() == approved_by.lower():
            raise CommandError("--executed-by and --approved-by must name two people", returncode=2)
        try:
            return capture_failure_injection(
                executed_by=executed_by, approved_by=approved_by, clock=_now, tell=self.stderr.write
            )
        except NothingRan as error:
            raise CommandError(f"the tests could not be run: {error}", returncode=1) from error


def _now() -> datetime:
    return datetime.now(UTC)
