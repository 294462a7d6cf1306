"""The run of a matrix: one injection after the other, each judged, mended and shown to be well.

The first violation ends it. What it writes holds only what was seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from valdrix.certification.telemetry import truth
from valdrix.certification.telemetry.bench import Bench, wait_for
from valdrix.certification.telemetry.injections import AFTER, BEFORE, DURING, MATRIX, Injection
from valdrix.certification.telemetry.judging import (
    I4,
    OUTCOME,
    PLANTED,
    RESTORATION,
    Facts,
    Violation,
    judge,
)
from valdrix.certification.telemetry.judging import (
    PROBES as PROBES_FAILED,
)
from valdrix.certification.telemetry.plants import PLANTED_SLOWEST_MS, PLANTS
from valdrix.certification.telemetry.probes import (
    PROBES,
    SLOWEST_MS,
    Probed,
    Setting,
    find_unavailable,
    run_probe,
)
from valdrix.certification.telemetry.subject import (
    Asked,
    Subject,
    build_questions,
    create_subject,
    probe_question,
)
from valdrix.certification.telemetry.under_way import NotSeen, Run
from valdrix.kernel.canonical import canonical_bytes

PHASE: Final = "C1"
QUESTIONS: Final = 16
_BREAK_AT: Final = {BEFORE: 0, DURING: QUESTIONS // 2, AFTER: QUESTIONS - 3}
_ROWS_OF_THE_BLOW_UP: Final = 10_000_000

Clock = Callable[[], datetime]
Plant = Callable[[Run], AbstractContextManager[None]]


class Violated(Exception):
    """A certification ends here: an invariant did not hold, or nothing was shown."""

    def __init__(self, injection_id: str, violation: Violation) -> None:
        super().__init__(f"{injection_id}: {violation.invariant}: {violation.evidence}")
        self.injection_id = injection_id
        self.violation = violation


@dataclass(frozen=True, slots=True)
class Shown:
    """What was seen with telemetry broken: the outcome in words, and the probes."""

    observed: str
    probed: Sequence[Probed]


@dataclass(slots=True)
class Certification:
    """What one run works with and has found so far.

    :ivar reference_sha256: of what the questions were answered with telemetry well.
    """

    bench: Bench
    clock: Clock
    rows: int = _ROWS_OF_THE_BLOW_UP
    reference_sha256: str = ""
    signature: str = ""

    def take_baseline(self) -> dict[str, Any]:
        """Ask the questions with telemetry well, run every probe, and keep how things are.

        :raises Violated: when a probe fails though nothing is broken.
        """
        subject = create_subject(self.bench.place, "baseline", at=self.clock())
        for question in build_questions(QUESTIONS):
            subject.ask(question)
        self.reference_sha256 = subject.asked.sha256
        self.signature = self.bench.signature()
        probed = _probe(Setting(subject, self.clock()))
        self._demand_probes("baseline", probed)
        self._demand_well("baseline", subject)
        return {
            "gates": QUESTIONS,
            "answers_sha256": self.reference_sha256,
            "slowest_gate_ms": subject.asked.slowest_ms,
            "probes": [one.to_document() for one in probed],
        }

    def inject(self, injection: Injection, *, plant: Plant | None = None) -> dict[str, Any]:
        """Break, ask, probe, judge, mend, and probe again; return the injection's evidence.

        :param plant: breaks truth as well, so that judging is seen to notice.
        :raises Violated: at the first thing that does not hold.
        """
        at = self.clock()
        subject = create_subject(self.bench.place, injection.id, at=at)
        run = Run(self.bench, subject, at, self.rows)
        questions = build_questions(QUESTIONS)
        break_at = _BREAK_AT[injection.timing]
        for question in questions[:break_at]:
            subject.ask(question)
        run.figures["asked_when_broken"] = break_at
        try:
            with ExitStack() as planted:
                with injection.breaking(run):
                    for question in questions[break_at:]:
                        subject.ask(question)
                    if plant is not None:
                        planted.enter_context(plant(run))
                        subject.ask(probe_question("planted"))
                    run.settle()
                    seen_broken = self._see(injection, run)
                    self._judge(injection, seen_broken)
                    observed = injection.expect(run)
                    setting = Setting(
                        subject, self.clock(), injection.slowest_ms, seen_broken.unavailable
                    )
                    probed = _probe(setting)
                    self._demand_probes(injection.id, probed)
                facts = self._see_mended(run, seen_broken)
                self._judge(injection, facts)
        except NotSeen as error:
            raise Violated(injection.id, Violation(OUTCOME, str(error))) from error
        return self._conclude(injection, run, facts, Shown(observed, probed))

    def _see(self, injection: Injection, run: Run) -> Facts:
        """Look at truth while telemetry is broken."""
        subject = run.subject
        tenant_id, asked = subject.tenant_id, subject.asked
        run.replayed_ids = tuple(asked.decision_ids)
        replayed = truth.replay(tenant_id, run.replayed_ids)
        incidents, of_telemetry = truth.count_incidents(tenant_id)
        digest = truth.digest_truth(tenant_id)
        return Facts(
            asked=len(asked.decision_ids),
            decided=truth.count_decisions(tenant_id),
            answers_sha256=Asked(compared=asked.compared[:QUESTIONS]).sha256,
            reference_sha256=self.reference_sha256,
            ledger_fault=truth.find_ledger_fault(tenant_id),
            books_fault=truth.find_books_fault(tenant_id),
            replayed=replayed.count,
            differing=replayed.differing,
            replay_sha256=(replayed.sha256, replayed.sha256),
            incidents=incidents,
            telemetry_incidents=of_telemetry,
            slowest_ms=asked.slowest_ms,
            slowest_allowed_ms=injection.slowest_ms,
            # Where truth itself was away for a moment, its own time budget may run out.
            timed_out=0 if injection.slowest_ms > SLOWEST_MS else asked.timed_out,
            unavailable=find_unavailable(subject),
            truth_sha256=(digest, digest),
        )

    def _see_mended(self, run: Run, broken: Facts) -> Facts:
        """Look again with telemetry mended, and then taken away whole."""
        tenant_id = run.subject.tenant_id
        again = truth.replay(tenant_id, run.replayed_ids)
        before = truth.digest_truth(tenant_id)
        self._take_away()
        return replace(
            broken,
            replay_sha256=(broken.replay_sha256[0], again.sha256),
            truth_sha256=(before, truth.digest_truth(tenant_id)),
        )

    def _take_away(self) -> None:
        """Delete every event there is."""
        self.bench.execute("TRUNCATE telemetry_event")

    def _judge(self, injection: Injection, facts: Facts) -> None:
        violation = judge(facts, injection.invariants)
        if violation is not None:
            raise Violated(injection.id, violation)

    def _conclude(
        self, injection: Injection, run: Run, facts: Facts, shown: Shown
    ) -> dict[str, Any]:
        """Show that telemetry is well again, and write the evidence."""
        self._demand_well(injection.id, run.subject)
        again = _probe(Setting(run.subject, self.clock()))
        self._demand_probes(f"{injection.id} restored", again)
        probed = shown.probed
        return {
            "injection_id": injection.id,
            "injection_name": injection.name,
            "timestamp_utc": _utc(self.clock()),
            "timing": injection.timing,
            "failure_method": injection.method,
            "probes_run": [one.name for one in probed],
            "probes_passed": sum(one.passed for one in probed),
            "probes_failed": sum(not one.passed for one in probed),
            "invariants_checked": list(injection.invariants),
            "invariants_passed": True,
            "replay_hash_verified": facts.differing == 0,
            "o1_available": not facts.unavailable,
            "incidents_changed": facts.incidents != 0,
            "expected_outcome": injection.expected,
            "observed_outcome": shown.observed,
            "restored": True,
            "probes_passed_after_restoration": sum(one.passed for one in again),
            "figures": {
                "gates": facts.asked,
                "slowest_gate_ms": facts.slowest_ms,
                "retries": run.subject.asked.retries,
                "replayed": facts.replayed,
                **run.figures,
            },
        }

    def _demand_probes(self, where: str, probed: Sequence[Probed]) -> None:
        failed = [f"{one.name}: {one.said}" for one in probed if not one.passed]
        if failed:
            raise Violated(where, Violation(PROBES_FAILED, "; ".join(failed)))

    def _demand_well(self, where: str, subject: Subject) -> None:
        """Check that telemetry is as at first, and that a gate's event arrives in it."""
        if self.bench.signature() != self.signature and self.signature:
            violation = Violation(RESTORATION, "telemetry's tables are not as they were")
            raise Violated(where, violation)
        subject.ask(probe_question("well"))
        last = subject.asked.decision_ids[-1]
        try:
            wait_for(
                lambda: bool(
                    self.bench.fetch("SELECT count(*) FROM telemetry_event WHERE id = %s", last)
                ),
                "no event arrives",
            )
        except TimeoutError as error:
            raise Violated(where, Violation(RESTORATION, str(error))) from error


@dataclass(frozen=True, slots=True)
class Matrix:
    """Which injections, by which name, and which invariants are violated on purpose first."""

    name: str
    injections: Sequence[Injection]
    planted: Sequence[str] = tuple(PLANTS)


def run_matrix(
    certification: Certification,
    matrix: Matrix,
    *,
    tell: Callable[[dict[str, Any]], None],
    plant: str | None = None,
) -> dict[str, Any]:
    """Run a matrix to its end or to its first violation; return the sealed final document.

    :param tell: given the document of each injection as soon as there is one.
    :param plant: an invariant that the first injection is made to violate.
    """
    done: list[dict[str, Any]] = []
    document: dict[str, Any] = {"phase": PHASE, "failure_matrix": matrix.name}
    violations: list[dict[str, Any]] = []
    try:
        document["baseline"] = certification.take_baseline()
        document["planted_violations_noticed"] = prove(certification, matrix.planted)
        for number, injection in enumerate(matrix.injections):
            chosen = PLANTS[plant] if plant is not None and number == 0 else None
            done.append(certification.inject(injection, plant=chosen))
            tell(done[-1])
    except Violated as violated:
        violations.append(build_failure(violated, at=certification.clock()))
        tell(violations[-1])
    executed = [one["injection_id"] for one in done]
    is_whole = executed == [one.id for one in matrix.injections]
    return seal(
        {
            **document,
            "executed_injections": executed,
            "total_injections": len(executed),
            "violations": violations,
            "all_invariants_held": not violations,
            "certification_ready": is_whole and not violations,
            "timestamp_utc": _utc(certification.clock()),
            "database_version": str(certification.bench.fetch("SHOW server_version")),
            "injections": done,
        }
    )


def prove(certification: Certification, invariants: Sequence[str]) -> list[str]:
    """Violate invariants on purpose and check that each is noticed, under its own name.

    :raises Violated: when one is not.
    """
    noticed = []
    first = replace(MATRIX[0], slowest_ms=PLANTED_SLOWEST_MS)
    for invariant in invariants:
        plant = PLANTS[invariant]
        injection = first if invariant == I4 else MATRIX[0]
        try:
            certification.inject(injection, plant=plant)
            found = "nothing"
        except Violated as violated:
            found = violated.violation.invariant
        if found != invariant:
            evidence = f"{invariant} was violated on purpose, and {found} was noticed"
            raise Violated("planted", Violation(PLANTED, evidence))
        noticed.append(invariant)
        certification.bench.progress(f"  planted violation of {invariant}: noticed")
    return noticed


def _probe(setting: Setting) -> list[Probed]:
    return [run_probe(name, setting) for name in PROBES]


def build_failure(violated: Violated, *, at: datetime) -> dict[str, Any]:
    """Return the document of what ended a certification."""
    return {
        "injection_id": violated.injection_id,
        "status": "FAIL",
        "violated_invariant": violated.violation.invariant,
        "evidence": violated.violation.evidence,
        "timestamp_utc": _utc(at),
    }


def seal(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document with the SHA-256 of its canonical JSON (RFC 8785) in ``evidence_hash``."""
    digest = hashlib.sha256(canonical_bytes(document)).hexdigest()
    return {**document, "evidence_hash": f"sha256:{digest}"}


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
