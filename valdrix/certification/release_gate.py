"""The gate of a release: every piece of evidence verified, every test run, every floor held.

Nothing runs before all of what was asked for is known to be there: a missing file or a bound that is
no bound is refused first.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from governance.evidence.domain import Problem
from governance.evidence.registry import (
    MOST,
    PROFILES,
    Profile,
    World,
    default_terms,
    verify_evidence,
)
from valdrix.certification.files import EVIDENCE_BYTES, EVIDENCE_VALUES, Unreadable, read_bounded
from valdrix.certification.holds import HOLDS, PrometheusSilent, ask_prometheus, is_http_url
from valdrix.certification.suite import run_pytest
from valdrix.kernel.strict_json import StrictJsonError, loads

_TESTS_WITHIN_SECONDS: Final = 3600
_SHOWN_LINES: Final = 20
_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"", "0", "false", "no", "off"})
_SIGNATURES: Final = "ENFORCEMENT_SIGNATURES_REQUIRED"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}", re.ASCII)
_MEASURED: Final = ("enforcement", "billing")


@dataclass(frozen=True, slots=True)
class Bound:
    """One bound of a profile as the gate spells it.

    :ivar flag: on the command line, without dashes in front.
    :ivar variable: in the environment.
    :ivar term: the verifier's own name for it.
    :ivar default: what is held when nobody says; None leaves it to the verifier.
    """

    flag: str
    variable: str
    term: str
    default: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the gate takes one profile's evidence from.

    :ivar prefix: of the variables ``…_PATH`` and ``…_REQUIRED``.
    :ivar always: required though nobody says so.
    """

    profile: str
    flag: str
    prefix: str
    bounds: tuple[Bound, ...] = ()
    always: bool = False

    @property
    def path_flag(self) -> str:
        """Return the flag that names the file."""
        return f"{self.flag}-path"

    @property
    def required_flag(self) -> str:
        """Return the flag that makes the file's absence a refusal."""
        return f"{self.flag}-required"


_STRESS: Final = "ENFORCEMENT_STRESS_EVIDENCE"
_FAILURE: Final = "ENFORCEMENT_FAILURE_INJECTION_EVIDENCE"
_DRILL: Final = "ENFORCEMENT_KEY_ROTATION_DRILL"
_AGE: Final = "max_artifact_age_hours"

# fmt: off
SLOTS: Final = (
    Slot("stress", "stress-evidence", _STRESS, (
        Bound("stress-max-age-hours", f"{_STRESS}_MAX_AGE_HOURS", _AGE, Decimal(24)),
        Bound("stress-min-duration-seconds", f"{_STRESS}_MIN_DURATION_SECONDS",
              "min_duration_seconds"),
        Bound("stress-min-concurrent-users", f"{_STRESS}_MIN_CONCURRENT_USERS",
              "min_concurrent_users"),
        Bound("stress-required-database-engine", f"{_STRESS}_REQUIRED_DATABASE_ENGINE",
              "required_database_engine"),
    ), always=True),
    Slot("failure_injection", "failure-evidence", _FAILURE, (
        Bound("failure-max-age-hours", f"{_FAILURE}_MAX_AGE_HOURS", _AGE, Decimal(48)),
    ), always=True),
    Slot("key_rotation_drill", "key-rotation-drill", _DRILL, (
        Bound("key-rotation-drill-max-age-days", f"{_DRILL}_MAX_AGE_DAYS", "max_drill_age_days"),
    )),
    Slot("jwt_bcp", "jwt-bcp-checklist", "ENFORCEMENT_JWT_BCP_CHECKLIST"),
    Slot("ssdf_traceability", "ssdf-matrix", "ENFORCEMENT_SSDF_MATRIX"),
    Slot("post_closure_sanity", "post-closure-sanity", "ENFORCEMENT_POST_CLOSURE_SANITY"),
    Slot("ci_green", "ci-green", "ENFORCEMENT_CI_GREEN", (
        Bound("ci-green-max-age-hours", "ENFORCEMENT_CI_GREEN_MAX_AGE_HOURS", _AGE),
    )),
    Slot("attestation", "attestation", "ENFORCEMENT_ATTESTATION"),
    Slot("telemetry_c1", "telemetry-c1", "ENFORCEMENT_TELEMETRY_C1", (
        Bound("telemetry-c1-max-age-hours", "ENFORCEMENT_TELEMETRY_C1_MAX_AGE_HOURS", _AGE),
    )),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Floor:
    """How much of a part of the code the tests have to run, in percent of its statements."""

    name: str
    folder: str
    percent: Decimal


FLOORS: Final = (
    Floor("enforcement", "enforcement/", Decimal(95)),
    Floor("billing", "billing/", Decimal(90)),
    Floor("billing quotas", "billing/quotas/", Decimal(90)),
)


class GateRefused(Exception):
    """What was asked of the gate cannot be done; nothing ran."""


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of evidence that will be verified."""

    profile: Profile
    path: Path
    terms: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """How one step of the gate ended.

    :ivar faults: why it did not pass; empty when it did.
    """

    name: str
    says: str
    faults: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Tell whether nothing was wrong."""
        return not self.faults


def find_prometheus(given: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    """Return the Prometheus that is asked for alerts, if one was named.

    :raises GateRefused: for a text that is no address.
    """
    url = given.get("prometheus-url") or environment.get("ENFORCEMENT_PROMETHEUS_URL")
    if url is not None and not is_http_url(str(url)):
        raise GateRefused(f"--prometheus-url (ENFORCEMENT_PROMETHEUS_URL): {url!r} is no address")
    return None if url is None else str(url)


def are_signatures_wanted(given: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Tell whether what was captured has to be signed.

    :raises GateRefused: for a variable that says neither yes nor no.
    """
    said = _read_yes(environment.get(_SIGNATURES, ""))
    if said is None:
        raise GateRefused(f"{_SIGNATURES}: says neither yes nor no")
    return said or bool(given.get("signatures-required"))


def plan_gate(given: Mapping[str, Any], environment: Mapping[str, str]) -> list[Step]:
    """Return what will be verified, from flags and then the environment.

    :param given: the value of each flag that was set, by the flag.
    :raises GateRefused: naming everything that is missing or no bound.
    """
    steps: list[Step] = []
    faults: list[str] = []
    for slot in SLOTS:
        path = given.get(slot.path_flag) or environment.get(f"{slot.prefix}_PATH")
        required = slot.always or given.get(slot.required_flag)
        said = _read_yes(environment.get(f"{slot.prefix}_REQUIRED", ""))
        if said is None:
            faults.append(f"{slot.prefix}_REQUIRED: says neither yes nor no")
        terms = _read_terms(slot, given, environment, faults)
        if path and _is_file(path):
            steps.append(Step(PROFILES[slot.profile], Path(path), terms))
        elif path:
            faults.append(f"--{slot.path_flag} ({slot.prefix}_PATH): there is no file {path}")
        elif required or said:
            faults.append(f"--{slot.path_flag} ({slot.prefix}_PATH): {slot.profile} is required")
    if faults:
        raise GateRefused("\n".join(faults))
    return steps


def bind_to_commit(steps: list[Step], given: str | None, here: str | None) -> list[Step]:
    """Return the steps with the commit that is promoted, for evidence that is of one commit.

    :param given: the commit as it was said on the command line.
    :param here: the commit that is checked out, whose tests are run; None where there is none.
    :raises GateRefused: when they are two, or when none is known and evidence is of one.
    """
    if given is not None and not _COMMIT.fullmatch(given):
        raise GateRefused(f"--commit: {given!r} is no 40 hexadecimal digits")
    if None not in {given, here} and given != here:
        raise GateRefused(f"--commit: the tests would be run on {here}")
    commit = given or here
    names = [step.profile.name for step in steps if "commit" in step.terms]
    if names and commit is None:
        raise GateRefused(
            f"--commit: {', '.join(names)} is of a commit, and this is no clone of one"
        )
    return [
        replace(step, terms={**step.terms, "commit": commit}) if "commit" in step.terms else step
        for step in steps
    ]


def verify_step(step: Step, world: World) -> Result:
    """Verify one piece of evidence."""
    try:
        body = read_bounded(step.path, EVIDENCE_BYTES)
        document = loads(body, max_values=EVIDENCE_VALUES)
        problems = verify_evidence(step.profile, document, step.terms, world)
    except StrictJsonError as error:
        problems = [Problem("", "malformed_json", str(error))]
    except Unreadable as error:
        problems = [Problem("", "unreadable", str(error))]
    return Result(step.profile.name, step.profile.says, tuple(map(str, problems)))


def ask_alerts(url: str) -> Result:
    """Ask whether an alert holds the release; a Prometheus that watches none cannot say no."""
    try:
        watch = ask_prometheus(url)
    except PrometheusSilent as error:
        return Result("alerts", "-", (str(error),))
    if not watch.watched:
        return Result("alerts", "-", (f"{url} has no alert labelled {HOLDS}: load the rules",))
    faults = tuple(f"{name} is firing" for name in watch.firing)
    return Result("alerts", f"watched: {', '.join(watch.watched)}", faults)


def run_suite(tell: Callable[[str], None] = lambda _: None) -> list[Result]:
    """Run the whole test suite, measuring what of the code it runs, and hold the floors.

    :param tell: called with each line that the tests say.
    """
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "coverage.json"
        finished = run_pytest(
            [
                "-n", "2", "-q", *(f"--cov={name}" for name in _MEASURED),
                "--cov-report=", f"--cov-report=json:{report}",
            ],
            environment={"COVERAGE_FILE": str(Path(directory) / "coverage")},
            within_seconds=_TESTS_WITHIN_SECONDS,
            tell=tell,
        )  # fmt: skip
        files = read_coverage(report)
    said = finished.tail[-1] if finished.tail else "nothing was said"
    ended = f"the tests ended with {finished.exit_code}"
    failed = (*finished.tail[-_SHOWN_LINES:], ended) if finished.exit_code else ()
    return [
        Result("tests", said, failed),
        *(hold_floor(floor, files) for floor in FLOORS),
    ]


def read_coverage(report: Path) -> dict[str, Any]:
    """Return the files of a coverage report, none when there is no report or only half of one."""
    try:
        document = loads(report.read_bytes())
    except (OSError, StrictJsonError):
        return {}
    files = document.get("files") if isinstance(document, dict) else None
    return files if isinstance(files, dict) else {}


def hold_floor(floor: Floor, files: Mapping[str, Any]) -> Result:
    """Hold one floor against the files of a coverage report; a part that is empty fails."""
    counts = [
        (entry["summary"]["covered_lines"], entry["summary"]["num_statements"])
        for name, entry in files.items()
        if name.startswith(floor.folder) and "/migrations/" not in name
    ]
    statements = sum(count for _, count in counts)
    if not statements:
        return Result(
            f"coverage of {floor.name}", "-", (f"nothing of {floor.folder} was measured",)
        )
    percent = Decimal(100 * sum(covered for covered, _ in counts)) / statements
    says = f"{percent:.1f} % of {statements} statements; the floor is {floor.percent} %"
    return Result(f"coverage of {floor.name}", says, () if percent >= floor.percent else (says,))


def _read_terms(
    slot: Slot, given: Mapping[str, Any], environment: Mapping[str, str], faults: list[str]
) -> dict[str, Any]:
    """Return the terms of a slot's profile, and note what is no bound."""
    terms = default_terms(PROFILES[slot.profile])
    for bound in slot.bounds:
        flag = given.get(bound.flag)
        text = environment.get(bound.variable) if flag is None else flag
        if text is None:
            terms[bound.term] = bound.default or terms[bound.term]
            continue
        value = _read_bound(text, terms[bound.term])
        if value is None:
            faults.append(f"--{bound.flag} ({bound.variable}): {text!r} is no bound above 0")
        terms[bound.term] = value
    return terms


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # A name that no file can have.
        return False


def _read_bound(text: object, default: object) -> Any:
    """Return a bound of the default's type, or None when it is not above zero."""
    if isinstance(default, str):
        return str(text).strip() or None
    try:
        value = Decimal(str(text))
    except InvalidOperation:
        return None
    if not value.is_finite() or not 0 < value <= MOST:
        return None
    if isinstance(default, int):
        return int(value) if value == int(value) else None
    return value


def _read_yes(text: str) -> bool | None:
    """Return what a variable says, False for an empty one; None for a text that says neither."""
    said = text.strip().lower()
    if said in _YES:
        return True
    return False if said in _NO else None
