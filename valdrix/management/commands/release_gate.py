"""``manage.py release_gate``: verify all evidence, run the tests, and say whether to promote."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from valdrix.certification.commit import NoCommit, read_commit
from valdrix.certification.release_gate import (
    SLOTS,
    GateRefused,
    Result,
    are_signatures_wanted,
    ask_alerts,
    bind_to_commit,
    find_prometheus,
    plan_gate,
    run_suite,
    verify_step,
)
from valdrix.management.commands.verify_evidence import build_world


def find_commit_here() -> str | None:
    """Return the commit that is checked out, None where this is no clone."""
    try:
        return read_commit(settings.BASE_DIR).id
    except NoCommit:
        return None


class Command(BaseCommand):
    """Exits 0 when the release may be promoted, 1 when not, 2 when something is missing."""

    help = "Verify every piece of release evidence, run the tests, and print one summary."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take a path, a requirement and bounds for each profile."""
        for slot in SLOTS:
            parser.add_argument(f"--{slot.path_flag}", metavar="FILE")
            parser.add_argument(f"--{slot.required_flag}", action="store_true")
            for bound in slot.bounds:
                parser.add_argument(f"--{bound.flag}", metavar="N", help=f"or {bound.variable}")
        parser.add_argument("--signer", action="append", default=[], metavar="KID=BASE64URL")
        parser.add_argument(
            "--signatures-required",
            action="store_true",
            help="what was captured has to be signed; or ENFORCEMENT_SIGNATURES_REQUIRED",
        )
        parser.add_argument(
            "--prometheus-url",
            metavar="URL",
            help="ask it whether an alert holds the release; or ENFORCEMENT_PROMETHEUS_URL",
        )
        parser.add_argument(
            "--commit", metavar="ID", help="what is promoted, where this is no clone"
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would be done")

    def handle(self, *args: Any, **options: Any) -> None:
        """Refuse what is missing, then verify, test, and print the summary."""
        given = {name.replace("_", "-"): value for name, value in options.items()}
        try:
            here = find_commit_here()
            steps = bind_to_commit(plan_gate(given, os.environ), options["commit"], here)
            wants_signatures = are_signatures_wanted(given, os.environ)
            prometheus = find_prometheus(given, os.environ)
        except GateRefused as error:
            raise CommandError(f"nothing was run:\n{error}", returncode=2) from error
        if options["dry_run"]:
            for step in steps:
                self.stdout.write(f"would verify {step.profile.name}: {step.path}")
            if prometheus is not None:
                self.stdout.write(f"would ask {prometheus} for alerts that hold the release")
            self.stdout.write("would run the tests and hold the coverage floors")
            return
        results = []
        for step in steps:
            world = replace(
                build_world(Path(step.path), options["signer"]),
                commit=options["commit"] or here,
                wants_signatures=wants_signatures,
            )
            results.append(verify_step(step, world))
            self.stderr.write(f"verified {step.profile.name}")
        if prometheus is not None:
            results.append(ask_alerts(prometheus))
        if not all(result.passed for result in results):
            # A release that is held already is not worth a quarter of an hour of tests.
            self._conclude(results)
        self.stderr.write("running the tests ...")
        results += run_suite(tell=self.stderr.write)
        self._conclude(results)
        self.stdout.write("to be promoted")

    def _conclude(self, results: list[Result]) -> None:
        """Print the summary, and end with 1 when anything was wrong."""
        self._report(results)
        failed = [result.name for result in results if not result.passed]
        if failed:
            raise CommandError(f"not to be promoted: {', '.join(failed)}", returncode=1)

    def _report(self, results: list[Result]) -> None:
        width = max(len(result.name) for result in results)
        for result in results:
            verdict = "pass" if result.passed else "FAIL"
            self.stdout.write(f"{verdict}  {result.name:<{width}}  {result.says}")
            for fault in result.faults:
                self.stdout.write(f"      {fault}")
