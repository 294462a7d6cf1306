"""Steps, their thresholds, and what of them a measurement misses. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

MEASURED_DAYS: Final = 14
"""How far back decisions are measured."""
MEASURED_DECISIONS: Final = 10_000
"""How many of them at most, the newest first."""
PROPOSAL_DAYS: Final = 7
"""For how long a proposal may wait for its second person."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """What a step asks for."""

    decisions: int
    false_positive_rate: Decimal
    error_rate: Decimal
    p95_ms: int


STEPS: Final[dict[str, str]] = {"shadow": "soft", "soft": "hard"}
THRESHOLDS: Final = {
    "soft": Thresholds(
        decisions=50,
        false_positive_rate=Decimal("0.05"),
        error_rate=Decimal("0.01"),
        p95_ms=1000,
    ),
    "hard": Thresholds(
        decisions=100,
        false_positive_rate=Decimal("0.02"),
        error_rate=Decimal("0.005"),
        p95_ms=500,
    ),
}
"""By the mode that is stepped up to."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one source and environment in the mode that is in force.

    :ivar refusals: decisions that the next mode refuses, or shadow would have refused.
    :ivar false_positives: those of them that people approved, or whose change was applied.
    :ivar errors: fail-safe outcomes.
    :ivar p95_ms: None without a decision.
    """

    decisions: int
    refusals: int
    false_positives: int
    errors: int
    p95_ms: int | None

    @property
    def false_positive_rate(self) -> Decimal:
        """Return false positives of all decisions."""
        return _rate(self.false_positives, self.decisions)

    @property
    def error_rate(self) -> Decimal:
        """Return fail-safe outcomes of all decisions."""
        return _rate(self.errors, self.decisions)


def find_missing(figures: Figures, to_mode: str) -> tuple[str, ...]:
    """Return what a step still lacks, each with the figure and the threshold."""
    asked = THRESHOLDS[to_mode]
    missing = []
    if figures.decisions < asked.decisions:
        missing.append(f"volume is {figures.decisions} decisions, {asked.decisions} are needed")
    if figures.false_positive_rate > asked.false_positive_rate:
        missing.append(
            f"false-positive rate is {figures.false_positive_rate},"
            f" at most {asked.false_positive_rate} is allowed"
        )
    if figures.error_rate > asked.error_rate:
        missing.append(f"error rate is {figures.error_rate}, at most {asked.error_rate} is allowed")
    if figures.p95_ms is not None and figures.p95_ms > asked.p95_ms:
        missing.append(f"p95 is {figures.p95_ms} ms, at most {asked.p95_ms} ms is allowed")
    return tuple(missing)


def _rate(part: int, whole: int) -> Decimal:
    return (Decimal(part) / whole).quantize(Decimal("0.0001")) if whole else Decimal("0.0000")
