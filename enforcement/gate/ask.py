"""One question with the names its door made for it, and the time it may take."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from enforcement.gate.inputs import GateRequest
from governance.identity.assuming import Assumption
from valdrix.kernel.db import TimeLimits

Clock = Callable[[], datetime]


class OutOfTime(Exception):
    """The evaluation's time budget is used up."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question with the names that its door made for it.

    :ivar person_id: the responsible person behind the credential.
    :ivar may_spend_approval: whether an approval that was given for this computed change lets it
        go ahead without a token: run tasks and native admissions, which cannot carry one (SPEC 6).
    :ivar clock: read once more after the locks: waiting must not make a moment old.
    :ivar assumption: what the door assumed of the credential, where the database has not said yet.
    """

    tenant_id: uuid.UUID
    person_id: int
    request: GateRequest
    decision_id: uuid.UUID
    charge_id: uuid.UUID
    approval_id: uuid.UUID
    clock: Clock
    may_spend_approval: bool = False
    assumption: Assumption | None = None

    def confirm(self) -> None:
        """Have the database say whom the credential speaks for, where that is assumed so far.

        :raises NotAsAssumed: when it is somebody else, or nobody.
        """
        if self.assumption is not None:
            self.assumption.confirm()


@dataclass(frozen=True, slots=True)
class TimeBudget:
    """What one evaluation may take, in milliseconds, and how long it may wait for one lock."""

    total_ms: int
    lock_ms: int

    def limits(self, timer: Timer | None = None) -> TimeLimits:
        """Return the transaction's own time-outs.

        :param timer: who waited in a line has less than the whole budget left.
        """
        total_ms = self.total_ms if timer is None else max(1, timer.remaining_ms)
        return TimeLimits(
            lock_timeout_ms=min(self.lock_ms, total_ms), statement_timeout_ms=total_ms
        )


class Timer:
    """Measures an evaluation against its budget, by a clock that never jumps."""

    def __init__(self, budget: TimeBudget) -> None:
        self._started = time.monotonic()
        self._budget_seconds = budget.total_ms / 1000

    def check(self) -> None:
        """Check that there is time left.

        :raises OutOfTime: when the budget is used up.
        """
        if self.is_over:
            raise OutOfTime

    @property
    def is_over(self) -> bool:
        """Tell whether the budget is used up."""
        return time.monotonic() - self._started > self._budget_seconds

    @property
    def remaining_ms(self) -> int:
        """Return what is left of the budget in whole milliseconds, never below zero."""
        left = self._started + self._budget_seconds - time.monotonic()
        return max(0, int(left * 1000))

    @property
    def elapsed_ms(self) -> int:
        """Return the time since the evaluation began, in whole milliseconds."""
        return int((time.monotonic() - self._started) * 1000)
