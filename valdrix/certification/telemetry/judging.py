"""Judging: what was seen while telemetry was broken, against the six invariants. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

I1: Final = "I1"
I2: Final = "I2"
I3: Final = "I3"
I4: Final = "I4"
I5: Final = "I5"
I6: Final = "I6"
INVARIANTS: Final = {
    I1: "decisions, ledger and incidents persist correctly",
    I2: "replay gives the same bytes",
    I3: "telemetry causes no incident",
    I4: "nothing waits for telemetry",
    I5: "decision, ledger, approval and incident pages and endpoints work",
    I6: "telemetry may be lost without consequence",
}
ALL: Final = tuple(INVARIANTS)
OUTCOME: Final = "expected-outcome"
PROBES: Final = "probes"
RESTORATION: Final = "restoration"
PLANTED: Final = "planted-violation"
"""What is no invariant and ends a certification too: then nothing was shown."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen of one tenant's truth while telemetry was broken, and after.

    :ivar asked: how many gates got an answer that is to be found again.
    :ivar decided: how many of those are decisions in the database; fail-safe ones do not count.
    :ivar answers_sha256: of what they answered, less ids and times.
    :ivar reference_sha256: of what the same questions got with telemetry well.
    :ivar ledger_fault: what is wrong with the chain, or None.
    :ivar books_fault: which kept totals do not hold, or None.
    :ivar replayed: how many decisions were made once more, and ``differing`` how many of those
        came out otherwise.
    :ivar replay_sha256: of what replay gave while telemetry was broken, and then restored.
    :ivar incidents: how many the tenant has, and ``telemetry_incidents`` how many speak of it.
    :ivar unavailable: pages and endpoints of truth that did not answer 200.
    :ivar truth_sha256: of all rows of truth, before telemetry was taken away and after.
    """

    asked: int
    decided: int
    answers_sha256: str
    reference_sha256: str
    ledger_fault: str | None
    books_fault: str | None
    replayed: int
    differing: int
    replay_sha256: tuple[str, str]
    incidents: int
    telemetry_incidents: int
    slowest_ms: int
    slowest_allowed_ms: int
    timed_out: int
    unavailable: tuple[str, ...]
    truth_sha256: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that did not hold, and what shows it."""

    invariant: str
    evidence: str


def judge(facts: Facts, invariants: Sequence[str]) -> Violation | None:
    """Return the first of some invariants that does not hold, or None."""
    for invariant in invariants:
        evidence = _RULES[invariant](facts)
        if evidence is not None:
            return Violation(invariant, evidence)
    return None


def _truth_persists(facts: Facts) -> str | None:
    if facts.decided != facts.asked or not facts.asked:
        return f"{facts.asked} gates answered, {facts.decided} decisions are there"
    if facts.answers_sha256 != facts.reference_sha256:
        return "the same questions got other answers than with telemetry well"
    return facts.ledger_fault or facts.books_fault


def _replay_is_stable(facts: Facts) -> str | None:
    if not facts.replayed:
        return "nothing was replayed"
    if facts.differing:
        return f"{facts.differing} of {facts.replayed} decisions replay otherwise"
    if len(set(facts.replay_sha256)) != 1:
        return "replay gives other bytes with telemetry broken than with telemetry well"
    return None


def _no_incident(facts: Facts) -> str | None:
    if facts.telemetry_incidents or facts.incidents:
        return f"{facts.incidents} incidents, {facts.telemetry_incidents} of them of telemetry"
    return None


def _nothing_waits(facts: Facts) -> str | None:
    if facts.timed_out:
        return f"{facts.timed_out} gates ran out of their time budget"
    if facts.slowest_ms > facts.slowest_allowed_ms:
        return f"a gate took {facts.slowest_ms} ms, {facts.slowest_allowed_ms} are allowed"
    return None


def _truth_is_shown(facts: Facts) -> str | None:
    return f"not available: {', '.join(facts.unavailable)}" if facts.unavailable else None


def _loss_changes_nothing(facts: Facts) -> str | None:
    if len(set(facts.truth_sha256)) != 1:
        return "rows of truth are others after telemetry was taken away"
    return None


_RULES: Final = {
    I1: _truth_persists,
    I2: _replay_is_stable,
    I3: _no_incident,
    I4: _nothing_waits,
    I5: _truth_is_shown,
    I6: _loss_changes_nothing,
}
