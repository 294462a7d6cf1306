"""``manage.py certify_telemetry``: the C1 matrix, for real, on a PostgreSQL of its own."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from valdrix.certification.output import (
    OutputFailed,
    OutputRefused,
    claim_output,
    ending_in_order,
)
from valdrix.certification.own_database import find_own_state, run_on_own_database
from valdrix.certification.telemetry.bench import running_bench
from valdrix.certification.telemetry.injections import MATRIX, MINIMAL
from valdrix.certification.telemetry.judging import I3, I6, INVARIANTS
from valdrix.certification.telemetry.matrix import Certification, Matrix, run_matrix
from valdrix.embedded.errors import EmbeddedError

_ENVIRONMENT: Final = {
    "TELEMETRY_LONGEST_PAUSE_SECONDS": "1",
    # What is broken on purpose fills the log; the evidence says what was seen.
    "LOG_LEVEL": "ERROR",
}
_MOST_ROWS: Final = 100_000_000


class Command(BaseCommand):
    """Exit code 0: every invariant held; 1: one did not, or nothing was shown; 2: used wrongly."""

    help = (
        "Break telemetry in every way of the C1 matrix, on a database made for it, and show that no"
        " truth changes. The configured database is not touched."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the matrix and where the evidence goes."""
        parser.add_argument("--minimal", action="store_true", help="the nine of the 80/20 matrix")
        parser.add_argument("--output", type=Path, required=True, help="the final JSON's path")
        parser.add_argument("--rows", type=int, default=10_000_000, help="of the blow-up, R4")
        parser.add_argument(
            "--plant",
            choices=tuple(INVARIANTS),
            help="violate this invariant on purpose in the first injection: has to end with 1",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Start a server, and the process that certifies on it; or be that process."""
        output: Path = options["output"]
        if not output.parent.is_dir():
            raise CommandError(f"{output.parent} is no directory", returncode=2)
        if not 1 <= options["rows"] <= _MOST_ROWS:
            raise CommandError(f"--rows takes 1 to {_MOST_ROWS}", returncode=2)
        state = find_own_state()
        try:
            with ending_in_order():
                if state is None:
                    self._start(output, options)
                else:
                    self._certify(state, output, options)
        except OutputRefused as error:
            raise CommandError(str(error), returncode=2) from error
        except OutputFailed as error:
            raise CommandError(str(error), returncode=1) from error

    def _start(self, output: Path, options: dict[str, Any]) -> None:
        """Run this command once more, with the environment of a throw-away server."""
        with claim_output(output):
            pass  # It can be written; the other process holds it while it certifies.
        arguments = ["certify_telemetry", f"--output={output.absolute()}"]
        arguments.append(f"--rows={options['rows']}")
        arguments += ["--minimal"] if options["minimal"] else []
        arguments += [f"--plant={options['plant']}"] if options["plant"] else []
        try:
            exit_code = run_on_own_database(arguments, _ENVIRONMENT)
        except EmbeddedError as error:
            raise CommandError(str(error)) from error
        if exit_code != 0:
            sys.exit(1)

    def _certify(self, state: Path, output: Path, options: dict[str, Any]) -> None:
        if options["minimal"]:
            matrix = Matrix("MINIMAL", [one for one in MATRIX if one.id in MINIMAL], (I3, I6))
        else:
            matrix = Matrix("FULL", MATRIX)
        folder = output.with_suffix("")
        folder.mkdir(exist_ok=True)
        with claim_output(output) as place:
            final = self._run(state, matrix, folder, options)
            place.write(_to_json(final))
        self._say(
            f"{final['total_injections']} of {len(matrix.injections)} injections,"
            f" {len(final['violations'])} violations, {final['evidence_hash']}"
        )
        if not final["certification_ready"]:
            sys.exit(1)

    def _run(
        self, state: Path, matrix: Matrix, folder: Path, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Run the matrix, write each injection's evidence as it comes, and return the final one."""
        with running_bench(state, self._say) as bench:
            self._say("the bench is ready")
            certification = Certification(bench, timezone.now, rows=options["rows"])

            def tell(document: dict[str, Any]) -> None:
                with claim_output(folder / f"{document['injection_id']}.json") as place:
                    place.write(_to_json(document))
                if document.get("status") == "FAIL":
                    self._say(json.dumps(document))
                else:
                    said = document["observed_outcome"]
                    self._say(f"{document['injection_id']}  held  {said}")

            return run_matrix(certification, matrix, tell=tell, plant=options["plant"])

    def _say(self, text: str) -> None:
        self.stdout.write(f"{timezone.now():%H:%M:%S} {text}")
        self.stdout.flush()


def _to_json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"
