"""Replay of a span: every decision decided again, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from enforcement.replay.domain import (
    DAMAGED,
    DIFFERENT,
    ENGINE_CHANGED,
    Replayed,
    replay_decision,
)
from enforcement.replay.queries import PolicyShelf, Span, count_decisions, stream_decisions

KEPT: Final = 100
"""How many decisions that were not the same are kept with their differences; all are counted."""


@dataclass(slots=True)
class ReplayReport:
    """What replay found in one tenant's span.

    :ivar results: how many decisions had each result.
    :ivar found: the first of those that were not the same.
    """

    total: int = 0
    results: Counter[str] = field(default_factory=Counter)
    found: list[Replayed] = field(default_factory=list)

    def is_faultless(self, *, strict: bool) -> bool:
        """Tell whether every outcome is the stored one; another engine's may differ unless strict."""
        faults = self.results[DIFFERENT] + self.results[DAMAGED]
        return not faults and not (strict and self.results[ENGINE_CHANGED])


def replay(span: Span, *, progress: Callable[[int, int], None] | None = None) -> ReplayReport:
    """Decide a span's decisions again, each under the policy version that it was made under.

    :param progress: called after each batch with how many are done, and how many there are.
    """
    report, policies = ReplayReport(), PolicyShelf(span.tenant_id)
    expected = count_decisions(span)
    for batch in stream_decisions(span):
        policies.fetch({stored.policy_version for stored in batch})
        for stored in batch:
            replayed = replay_decision(stored, policies)
            report.total += 1
            report.results[replayed.result] += 1
            if replayed.reason and len(report.found) < KEPT:
                report.found.append(replayed)
        if progress is not None:
            progress(report.total, expected)
    return report
