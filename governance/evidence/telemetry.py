"""Profile ``telemetry_c1``: the telemetry plane was broken in every way, and truth held (SPEC 14)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from governance.evidence.domain import Examination
from valdrix.kernel.canonical import NotCanonicalError, sha256_hex

FULL: Final = "FULL"
MINIMAL: Final = "MINIMAL"
HASH: Final = "evidence_hash"
PHASE: Final = "C1"
MATRICES: Final[dict[str, tuple[str, ...]]] = {
    FULL: (
        "W1", "W2", "W3", "W4", "W5", "W6", "R1", "R2", "R3", "R4", "C1", "C2", "C3",
        "A1", "A2", "A3", "P1", "P2", "P3", "X1", "X2", "X3",
    ),
    MINIMAL: ("W1", "W3", "R2", "C2", "A1", "P1", "P3", "X1", "X3"),
}  # fmt: skip
"""The injections of each matrix of the seed, in their order."""


@dataclass(frozen=True, slots=True)
class TelemetryTerms:
    """What a release asks of a certification: the whole matrix unless a part is enough."""

    failure_matrix: str = FULL
    max_age: timedelta | None = None


def evidence_hash(document: dict[str, Any]) -> str:
    """Return the hash that a certification states of itself: of all its other members.

    :raises NotCanonicalError: when it has a value without a canonical form.
    """
    digest = sha256_hex({name: value for name, value in document.items() if name != HASH})
    return f"sha256:{digest}"


def verify_telemetry(examination: Examination, terms: TelemetryTerms, *, now: datetime) -> None:
    """Note everything that is wrong with the certification of the telemetry plane."""
    examination.same("/phase", examination.text("/phase"), PHASE, because="the phase is")
    matrix = examination.text("/failure_matrix")
    if matrix is not None and matrix not in MATRICES:
        examination.refuse("/failure_matrix", "unknown", f"must be one of {', '.join(MATRICES)}")
    elif matrix is not None and matrix != FULL and terms.failure_matrix == FULL:
        examination.refuse("/failure_matrix", "not_full", f"is {matrix}; a release needs {FULL}")
    _verify_injections(examination, MATRICES.get(matrix or ""))
    if examination.items("/violations", may_be_empty=True):
        examination.refuse("/violations", "not_empty", "an invariant was violated")
    examination.is_true("/all_invariants_held", because="an invariant did not hold")
    examination.is_true("/certification_ready", because="the certification is not complete")
    examination.fresh("/timestamp_utc", now=now, at_most=terms.max_age)
    stated = examination.text(f"/{HASH}")
    if stated is not None and isinstance(examination.document, dict):
        try:
            computed = evidence_hash(examination.document)
        except NotCanonicalError:
            examination.refuse("", "not_canonical", "has no canonical form to be hashed")
            return
        examination.same(f"/{HASH}", stated, computed, because="what it states hashes to")


def _verify_injections(examination: Examination, expected: tuple[str, ...] | None) -> None:
    """Compare what was executed with the matrix, and each injection's own evidence with both."""
    executed = examination.texts("/executed_injections")
    if expected is not None and executed and tuple(executed) != expected:
        examination.refuse(
            "/executed_injections", "mismatch", f"is not the matrix: {', '.join(expected)}"
        )
    total = examination.count("/total_injections")
    examination.same("/total_injections", total, len(executed), because="the executed ones are")
    seen = [
        _verify_injection(examination, f"/injections/{index}")
        for index in range(len(examination.items("/injections")))
    ]
    if None not in seen and seen != executed:
        examination.refuse("/injections", "mismatch", "is the evidence of other injections")


def _verify_injection(examination: Examination, pointer: str) -> str | None:
    for name in ("invariants_passed", "replay_hash_verified", "o1_available", "restored"):
        examination.is_true(f"{pointer}/{name}", because=f"{name} does not hold")
    if examination.flag(f"{pointer}/incidents_changed"):
        examination.refuse(f"{pointer}/incidents_changed", "not_false", "incidents were opened")
    run = len(examination.texts(f"{pointer}/probes_run"))
    passed = examination.count(f"{pointer}/probes_passed")
    failed = examination.count(f"{pointer}/probes_failed")
    examination.same(f"{pointer}/probes_passed", passed, run, because="the probes run are")
    examination.same(f"{pointer}/probes_failed", failed, 0, because="a release needs")
    return examination.text(f"{pointer}/injection_id")
