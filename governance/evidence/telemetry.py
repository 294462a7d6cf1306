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


@dataclass(frozen=True, slots=True)
class TelemetryTerms:
    """What a release asks of a certification: the whole matrix unless a part is enough."""

    failure_matrix: str = FULL
    max_age: timedelta | None = None


def evidence_hash(document: dict[str, Any]) -> str:
    """Return the hash that a certification states of itself: of all its other members.

    :raises NotCanonicalError: when it has a value without a canonical form.
    """
    return sha256_hex({name: value for name, value in document.items() if name != HASH})


def verify_telemetry(examination: Examination, terms: TelemetryTerms, *, now: datetime) -> None:
    """Note everything that is wrong with the certification of the telemetry plane."""
    examination.text("/phase")
    matrix = examination.text("/failure_matrix")
    if matrix is not None and matrix != FULL and terms.failure_matrix == FULL:
        examination.refuse("/failure_matrix", "not_full", f"is {matrix}; a release needs {FULL}")
    executed = examination.count("/executed_injections")
    total = examination.count("/total_injections")
    examination.same("/executed_injections", executed, total, because="the injections are")
    if total == 0:
        examination.refuse("/total_injections", "empty", "nothing was injected")
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
