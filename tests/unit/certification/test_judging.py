"""Each invariant is violated by one fact, under its own name, and the run stops there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.factories.evidence import FACTS
from valdrix.certification.telemetry.injections import MATRIX, MINIMAL
from valdrix.certification.telemetry.judging import ALL, INVARIANTS, judge
from valdrix.certification.telemetry.plants import PLANTS
from valdrix.certification.telemetry.probes import PROBES

SEEN = {
    "I1": [
        {"decided": 17},
        {"decided": 19},
        {"asked": 0, "decided": 0},
        {"answers_sha256": "other"},
        {"ledger_fault": "broken at 3"},
        {"books_fault": "grant_adds_up"},
    ],
    "I2": [{"replayed": 0}, {"differing": 1}, {"replay_sha256": ("a", "b")}],
    "I3": [{"telemetry_incidents": 1, "incidents": 1}, {"incidents": 1}],
    "I4": [{"slowest_ms": 1_501}, {"timed_out": 1}],
    "I5": [{"unavailable": ("ledger",)}],
    "I6": [{"truth_sha256": ("a", "b")}],
}
CASES = [(name, changes) for name, each in SEEN.items() for changes in each]


def test_nothing_is_violated_by_facts_that_are_well() -> None:
    assert judge(FACTS, ALL) is None


@pytest.mark.parametrize(("invariant", "changes"), CASES)
def test_one_fact_violates_one_invariant(invariant: str, changes: dict[str, Any]) -> None:
    violation = judge(replace(FACTS, **changes), ALL)
    assert violation is not None
    assert violation.invariant == invariant
    assert violation.evidence
    others = [one for one in ALL if one != invariant]
    assert judge(replace(FACTS, **changes), others) is None


def test_the_matrix_is_the_seed_s() -> None:
    ids = [one.id for one in MATRIX]
    assert ids == [
        *(f"W{n}" for n in range(1, 7)), *(f"R{n}" for n in range(1, 5)),
        *(f"C{n}" for n in range(1, 4)), *(f"A{n}" for n in range(1, 4)),
        *(f"P{n}" for n in range(1, 4)), *(f"X{n}" for n in range(1, 4)),
    ]  # fmt: skip
    assert MINIMAL == ("W1", "W3", "R2", "C2", "A1", "P1", "P3", "X1", "X3")
    for one in MATRIX:
        expected = {"R": 5, "A": 5, "P": 4}.get(one.id[0], 6)
        assert tuple(one.invariants) == ALL[:expected], one.id


def test_there_are_fifteen_probes_and_a_plant_for_each_invariant() -> None:
    assert len(PROBES) == 15
    assert {
        "truth-independence",
        "telemetry-write-failure-safe",
        "replay-does-not-read-telemetry",
        "o1-survives-telemetry-outage",
    } < set(PROBES)
    assert all(name == name.lower() and "_" not in name for name in PROBES)
    assert set(PLANTS) == set(INVARIANTS)
