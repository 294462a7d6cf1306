"""``manage.py capture_evidence PROFILE``: run it for real, and write down what happened."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from governance.evidence.attestation import ARTIFACTS
from governance.evidence.failure_injection import name_of_person
from governance.evidence.key_rotation import PASSED, KeyRotationTerms
from governance.evidence.materials import MaterialsError
from governance.evidence.stress import StressTerms
from valdrix.certification.commit import NoCommit
from valdrix.certification.drill import DrillOrder, capture_key_rotation
from valdrix.certification.green import CheckOrder, capture_ci_green, is_green
from valdrix.certification.load import NoAnswer, Server
from valdrix.certification.output import (
    OutputFailed,
    OutputRefused,
    claim_output,
    ending_in_order,
)
from valdrix.certification.own_database import find_own_state, run_on_own_database
from valdrix.certification.provenance import BUILDER, AttestationOrder, capture_attestation
from valdrix.certification.scenarios import NothingRan, capture_failure_injection, to_json
from valdrix.certification.stress import StressOrder, capture_stress, find_distortions
from valdrix.certification.telemetry.bench import running_bench
from valdrix.certification.telemetry.calling import Place
from valdrix.certification.tenant import CallRefused, open_furnished_tenant
from valdrix.embedded.errors import EmbeddedError
from valdrix.kernel.strict_json import StrictJsonError, loads
from valdrix.management.commands.verify_evidence import read_bound

_TERMS: Final = StressTerms()
_PAGE_ROWS: Final = 60
"""More than a page of each list."""
_MOST_DAYS: Final = KeyRotationTerms().max_age.days


@dataclass(frozen=True, slots=True)
class _Captured:
    """A document, and whether it is worth verifying."""

    document: dict[str, Any]
    is_good: bool


class Command(BaseCommand):
    """Exits 0 when what was captured is good, 1 when not (it is written all the same).

    Exits 2 when used wrongly: also when it could not write, or another one is about to. Who asks it to
    end is obeyed in order; nothing is written then.
    """

    help = "Capture a piece of release evidence by really running what it proves."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take a profile and what it needs."""
        profiles = parser.add_subparsers(dest="profile", required=True, metavar="PROFILE")
        stress = profiles.add_parser("stress", help="load against a running server")
        stress.add_argument("--base-url", help="the running server; make run's without this")
        stress.add_argument("--api-key", help="an admin's key; make run's without this")
        stress.add_argument("--project", default="shop", help="the project that gates name")
        stress.add_argument(
            "--own-tenant",
            action="store_true",
            help="ask as a new tenant of the configured database, whose pages are full",
        )
        stress.add_argument("--rounds", type=int, default=3)
        stress.add_argument("--duration-seconds", type=int, default=30)
        stress.add_argument("--concurrent-users", type=int, default=10)
        for name in ("max_p95_seconds", "max_error_rate_percent", "min_throughput_rps"):
            flag = "--" + name.replace("_", "-")
            stress.add_argument(flag, type=read_bound, default=getattr(_TERMS, name))
        failures = profiles.add_parser("failure_injection", help="the five failure scenarios")
        failures.add_argument("--executed-by", required=True)
        failures.add_argument("--approved-by", required=True)
        drill = profiles.add_parser("key_rotation_drill", help="keys rotated while tokens are out")
        drill.add_argument("--owner", required=True)
        drill.add_argument("--approver", required=True)
        drill.add_argument("--next-in-days", type=int, default=90)
        drill.add_argument(
            "--base-url",
            help="a running server on the configured database, whose keys are rotated; without this"
            " the drill has a database and a server of its own",
        )
        green = profiles.add_parser("ci_green", help="the whole check, on the commit that is here")
        attestation = profiles.add_parser("attestation", help="bills of materials, signed")
        attestation.add_argument("--builder", default=BUILDER, help="who built, as it is signed")
        for sub in (stress, failures, drill, green, attestation):
            sub.add_argument("--output", type=Path, required=True, metavar="FILE")

    def handle(self, *args: Any, **options: Any) -> None:
        """Capture, write the file, and say whether it is good."""
        path: Path = options["output"]
        if not path.parent.is_dir():
            raise CommandError(f"{path.parent} is no directory", returncode=2)
        profile = options["profile"]
        if profile == "key_rotation_drill" and self._is_for_own_database(options):
            self._drill_elsewhere(options)
            return
        captures: dict[str, Callable[[dict[str, Any]], _Captured]] = {
            "stress": self._stress,
            "failure_injection": self._failures,
            "key_rotation_drill": self._drill,
            "ci_green": self._green,
            "attestation": self._attestation,
        }
        captured = self._capture(captures[profile], options)
        if not captured.is_good:
            raise CommandError(f"{path} was written, and is no release evidence", returncode=1)
        self.stdout.write(f"{path} was written; verify it with verify_evidence {profile}")

    def _capture(
        self, capture: Callable[[dict[str, Any]], _Captured], options: dict[str, Any]
    ) -> _Captured:
        """Hold the output, capture, and write it whole."""
        path: Path = options["output"]
        try:
            with ending_in_order(), claim_output(path) as output:
                captured = capture(options)
                output.write(to_json(captured.document))
        except OutputRefused as error:
            raise CommandError(str(error), returncode=2) from error
        except OutputFailed as error:
            raise CommandError(str(error), returncode=1) from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise CommandError(f"the capture was stopped: {reason}", returncode=1) from error
        return captured

    def _stress(self, options: dict[str, Any]) -> _Captured:
        for name in ("rounds", "duration_seconds", "concurrent_users"):
            if options[name] < 1:
                raise CommandError(f"--{name.replace('_', '-')} must be at least 1", returncode=2)
        base_url, api_key = self._server(options)
        try:
            server = Server.of(base_url, api_key)
            if options["own_tenant"]:
                server = _furnish(server)
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from error
        except (CallRefused, OSError) as error:
            raise CommandError(f"no tenant could be furnished: {error}", returncode=1) from error
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
        try:
            document = capture_stress(order, clock=_now, tell=self.stderr.write)
        except NoAnswer as error:
            raise CommandError(f"the load could not be made: {error}", returncode=1) from error
        distortions = find_distortions(document)
        for told in distortions:
            self.stderr.write(f"  {told}")
        is_good = document["meets_targets"] and document["preflight"]["passed"]
        return _Captured(document, is_good and not distortions)

    def _server(self, options: dict[str, Any]) -> tuple[str, str]:
        base_url, api_key = options["base_url"], options["api_key"]
        if base_url and (api_key or options["own_tenant"]):
            return base_url, api_key or ""
        path = settings.BASE_DIR / ".valdrix" / "demo.json"
        try:
            demo = loads(path.read_bytes())
        except (OSError, StrictJsonError) as error:
            raise CommandError(
                "give --base-url and --api-key: no `make run` is running here", returncode=2
            ) from error
        return base_url or demo["base_url"], api_key or demo["api_keys"]["admin"]

    def _failures(self, options: dict[str, Any]) -> _Captured:
        executed_by, approved_by = _read_two_people(options, "executed_by", "approved_by")
        try:
            document = capture_failure_injection(
                executed_by=executed_by, approved_by=approved_by, clock=_now, tell=self.stderr.write
            )
        except NothingRan as error:
            raise CommandError(f"the tests could not be run: {error}", returncode=1) from error
        return _Captured(document, document["summary"]["overall_passed"])

    def _is_for_own_database(self, options: dict[str, Any]) -> bool:
        return options["base_url"] is None and find_own_state() is None

    def _drill_elsewhere(self, options: dict[str, Any]) -> None:
        """Do the drill in a process that has a database and a server of its own."""
        owner, approver = _read_two_people(options, "owner", "approver")
        arguments = [
            "capture_evidence", "key_rotation_drill", f"--output={options['output'].absolute()}",
            f"--owner={owner}", f"--approver={approver}",
            f"--next-in-days={_read_days(options)}",
        ]  # fmt: skip
        try:
            with claim_output(options["output"]):
                pass  # It can be written; the other process holds it during the drill.
            with ending_in_order():
                exit_code = run_on_own_database(arguments, {"LOG_LEVEL": "ERROR"})
        except OutputRefused as error:
            raise CommandError(str(error), returncode=2) from error
        except EmbeddedError as error:
            raise CommandError(str(error), returncode=1) from error
        if exit_code != 0:
            raise CommandError("the drill did not pass", returncode=exit_code)

    def _drill(self, options: dict[str, Any]) -> _Captured:
        owner, approver = _read_two_people(options, "owner", "approver")
        next_in, state = timedelta(days=_read_days(options)), find_own_state()

        def drill(place: Place) -> _Captured:
            order = DrillOrder(place, owner, approver, next_in)
            try:
                document = capture_key_rotation(order, clock=_now, tell=self.stderr.write)
            except (CallRefused, OSError) as error:
                raise CommandError(f"the drill was stopped: {error}", returncode=1) from error
            return _Captured(document, document["post_drill_status"] == PASSED)

        if options["base_url"] is None:
            assert state is not None
            with running_bench(state, self.stderr.write) as bench:
                return drill(bench.place)
        try:
            server = Server.of(options["base_url"], "")
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from error
        return drill(Place(server.host, server.port))

    def _green(self, options: dict[str, Any]) -> _Captured:
        output: Path = options["output"]
        junit, log = output.with_suffix(".junit.xml"), output.with_suffix(".log")
        _check_beside(output, (junit.name, log.name))
        order = CheckOrder(root=settings.BASE_DIR, junit=junit, log=log)
        try:
            document = capture_ci_green(order, clock=_now, tell=self.stderr.write)
        except (NoCommit, OSError) as error:
            raise CommandError(f"the check could not be run: {error}", returncode=1) from error
        return _Captured(document, is_green(document))

    def _attestation(self, options: dict[str, Any]) -> _Captured:
        _check_beside(options["output"], ARTIFACTS)
        key = settings.EXPORT_SIGNING_KEY
        if key is None:
            raise CommandError("ENFORCEMENT_EXPORT_SIGNING_KEY is not set", returncode=2)
        order = AttestationOrder(options["output"].parent, key, options["builder"])
        try:
            document = capture_attestation(order, clock=_now, tell=self.stderr.write)
        except (NoCommit, MaterialsError) as error:
            raise CommandError(f"nothing was attested: {error}", returncode=1) from error
        self.stdout.write(f"signed by {key.key_id}={key.public_text}")
        return _Captured(document, is_good=True)


def _check_beside(output: Path, names: Collection[str]) -> None:
    """Refuse an output that what belongs beside it would overwrite."""
    if output.name in names:
        raise CommandError(f"{output.name} is written beside it: name another file", returncode=2)


def _furnish(server: Server) -> Server:
    place = Place(server.host, server.port)
    own = open_furnished_tenant(place, "stress", rows=_PAGE_ROWS, at=_now())
    return Server(server.host, server.port, own.key)


def _read_two_people(options: dict[str, Any], first: str, second: str) -> tuple[str, str]:
    one, other = options[first].strip(), options[second].strip()
    names = {name_of_person(one), name_of_person(other)}
    if len(names) != 2 or "" in names:
        flags = " and ".join("--" + name.replace("_", "-") for name in (first, second))
        raise CommandError(f"{flags} must name two people", returncode=2)
    return one, other


def _read_days(options: dict[str, Any]) -> int:
    days: int = options["next_in_days"]
    if not 1 <= days <= _MOST_DAYS:
        raise CommandError(f"--next-in-days takes 1 to {_MOST_DAYS}", returncode=2)
    return days


def _now() -> datetime:
    return datetime.now(UTC)
