"""A certification goes on while everything holds, and stops where something does not."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from valdrix.certification.telemetry import matrix
from valdrix.certification.telemetry.injections import MATRIX
from valdrix.certification.telemetry.judging import Violation
from valdrix.certification.telemetry.matrix import Matrix, Violated, run_matrix, seal
from valdrix.kernel.canonical import canonical_bytes

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
CHOSEN = Matrix("MINIMAL", MATRIX[:3], ("I3",))


class Bench:
    """A bench that is never asked for anything but a version."""

    def fetch(self, statement: str) -> str:
        return "18.6"

    def progress(self, text: str) -> None:
        """Say nothing."""


class Certification:
    """Notices what it is told to, without a server."""

    def __init__(self, *, violated: str | None = None, notices: bool = True) -> None:
        self.bench = Bench()
        self.violated = violated
        self.notices = notices

    def clock(self) -> datetime:
        return NOW

    def take_baseline(self) -> dict[str, Any]:
        return {"gates": 16}

    def inject(self, injection: Any, *, plant: Any = None) -> dict[str, Any]:
        if plant is not None and self.notices:
            raise Violated(injection.id, Violation("I3", "an incident"))
        if injection.id == self.violated:
            raise Violated(injection.id, Violation("I1", "a decision is gone"))
        return {"injection_id": injection.id}


def run(certification: Certification, **options: Any) -> tuple[dict[str, Any], list[Any]]:
    told: list[Any] = []
    final = run_matrix(certification, CHOSEN, tell=told.append, **options)  # type: ignore[arg-type]
    return final, told


def test_a_whole_matrix_is_ready_and_sealed() -> None:
    final, told = run(Certification())
    assert final["executed_injections"] == ["W1", "W2", "W3"]
    assert final["total_injections"] == 3
    assert final["violations"] == []
    assert final["all_invariants_held"] is True
    assert final["certification_ready"] is True
    assert final["planted_violations_noticed"] == ["I3"]
    assert (final["phase"], final["failure_matrix"]) == ("C1", "MINIMAL")
    assert final["timestamp_utc"] == "2026-11-26T12:00:00Z"
    assert told == final["injections"]
    hashed = {name: value for name, value in final.items() if name != "evidence_hash"}
    digest = hashlib.sha256(canonical_bytes(hashed)).hexdigest()
    assert final["evidence_hash"] == f"sha256:{digest}"


def test_the_first_violation_ends_it_and_is_named() -> None:
    final, told = run(Certification(violated="W2"))
    assert final["executed_injections"] == ["W1"]
    assert final["certification_ready"] is final["all_invariants_held"] is False
    assert (
        final["violations"]
        == told[-1:]
        == [
            {
                "injection_id": "W2",
                "status": "FAIL",
                "violated_invariant": "I1",
                "evidence": "a decision is gone",
                "timestamp_utc": "2026-11-26T12:00:00Z",
            }
        ]
    )


def test_a_violation_that_is_not_noticed_ends_it() -> None:
    final, _ = run(Certification(notices=False))
    assert final["executed_injections"] == []
    assert final["violations"][0]["violated_invariant"] == "planted-violation"
    assert final["certification_ready"] is False


def test_a_violation_planted_by_hand_ends_it() -> None:
    final, _ = run(Certification(), plant="I3")
    assert final["violations"][0]["violated_invariant"] == "I3"
    assert final["executed_injections"] == []


def test_another_byte_is_another_hash() -> None:
    one, other = seal({"a": 1}), seal({"a": 2})
    assert one["evidence_hash"] != other["evidence_hash"]


@pytest.mark.parametrize("name", ["BEFORE", "DURING", "AFTER"])
def test_every_timing_leaves_questions_for_after_the_breaking(name: str) -> None:
    assert 0 <= matrix._BREAK_AT[getattr(matrix, name)] < matrix.QUESTIONS
