"""Joint settlement: who waits for the same tenant's accounts shares one set of locks and one commit.

Threads of one process that ask for one tenant stand in one line: all of its questions lock its
exposure account. The first one leads: it
settles what has come together while the one before it was at work, at most 64 questions, each with
an outcome of its own. Nobody is waited for: a question that finds no line is settled at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from enforcement.gate.ahead import Question
from enforcement.gate.ask import OutOfTime, TimeBudget, Timer

MAX_TOGETHER: Final = 64


class Alone(Exception):
    """A question is to be evaluated in a transaction of its own."""


class StepByStep(Exception):
    """A key was claimed before, or the past has an answer or an approval: go on step by step."""


@dataclass(eq=False, slots=True)
class Waiting:
    """One question in a line, and in the end what came of it.

    :ivar batch: set for whoever leads: the questions to settle, its own first.
    :ivar error: what it ends with instead of a response.
    """

    question: Question
    budget: TimeBudget
    timer: Timer
    response: dict[str, Any] | None = None
    error: BaseException | None = None
    batch: list[Waiting] | None = None
    called: threading.Event = field(default_factory=threading.Event)

    @property
    def line(self) -> Hashable:
        """Return what has to be the same for two questions to be settled together."""
        return self.question.scope.tenant_id

    @property
    def key(self) -> object:
        """Return what its idempotency key is known by, or None where it has none."""
        claim = self.question.claim
        return None if claim is None else (claim.source, claim.stored_key)

    @property
    def names(self) -> set[object]:
        """Return what no two questions of one transaction may have in common: keys and changes."""
        keys = set() if self.key is None else {self.key}
        return keys | set(self.question.change.lock_names())

    @property
    def can_be_joined(self) -> bool:
        """Tell whether it needs no lock but of its key, its change and the accounts.

        An earlier decision that it names has a charge of its own.
        """
        return self.question.gate_input.parent_decision_id is None

    def result(self) -> dict[str, Any]:
        """Return the response.

        :raises BaseException: what the evaluation ended with.
        """
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        assert self.response is not None
        return self.response


Settle = Callable[[list[Waiting]], None]


class Lines:
    """The lines of one process; a question is in at most one of them, and taken once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[Hashable, deque[Waiting]] = {}
        """Present while somebody leads; who leads is not in it any more."""

    def settle(self, waiting: Waiting, settle: Settle) -> dict[str, Any]:
        """Have a question settled, by this thread or by the one that leads its line.

        :param settle: gives every question of a batch a response or an error, and never raises.
        :raises OutOfTime: when its time was over before anybody took it.
        """
        with self._lock:
            line = self._lines.get(waiting.line)
            if line is None:
                self._lines[waiting.line] = deque()
                waiting.batch = [waiting]
            else:
                line.append(waiting)
        if waiting.batch is None:
            self._wait(waiting)
        # A batch holds its leader: let go of here, both are freed when they are done.
        batch, waiting.batch = waiting.batch, None
        if batch is not None:
            self._lead(waiting, batch, settle)
        return waiting.result()

    def _wait(self, waiting: Waiting) -> None:
        if waiting.called.wait(waiting.timer.remaining_ms / 1000):
            return
        with self._lock:
            line = self._lines.get(waiting.line, ())
            if waiting in line:
                line.remove(waiting)  # type: ignore[union-attr]  # it is in it, so it is a deque
                raise OutOfTime
        # Somebody is at work on it: what comes of it stands, and is the answer.
        waiting.called.wait()

    def _lead(self, leader: Waiting, batch: list[Waiting], settle: Settle) -> None:
        try:
            settle(batch)
        finally:
            for other in batch:
                if other.response is None and other.error is None:
                    other.error = Alone()
            self._dismiss(leader.line, {one.key for one in batch if one.response is not None})
            self._call_next(leader.line)
            for other in batch:
                if other is not leader:
                    other.called.set()

    def _dismiss(self, name: Hashable, claimed: set[object]) -> None:
        """Let those go whose key was claimed by a question that is settled: theirs is a replay."""
        claimed.discard(None)
        with self._lock:
            line = self._lines[name]
            dismissed = [one for one in line if one.key in claimed]
            for one in dismissed:
                line.remove(one)
        for one in dismissed:
            one.error = StepByStep()
            one.called.set()

    def _call_next(self, name: Hashable) -> None:
        """Let the first one in a line lead, or end the line where nobody stands in it."""
        with self._lock:
            line = self._lines[name]
            if not line:
                del self._lines[name]
                return
            batch = take_batch(line)
            for taken in batch:
                line.remove(taken)
        batch[0].batch = batch
        batch[0].called.set()


class Batch:
    """Questions that can be settled together, in their order."""

    def __init__(self, first: Waiting) -> None:
        self.questions = [first]
        self._names = first.names

    @property
    def is_full(self) -> bool:
        """Tell whether nobody can join it any more."""
        return len(self.questions) == MAX_TOGETHER or not self.questions[0].can_be_joined

    def add(self, other: Waiting) -> bool:
        """Add a question, if it can be settled with these; tell whether it was added."""
        if self.is_full or other.line != self.questions[0].line or not other.can_be_joined:
            return False
        names = other.names
        if not self._names.isdisjoint(names):
            return False
        self.questions.append(other)
        self._names |= names
        return True


def take_batch(line: Sequence[Waiting]) -> list[Waiting]:
    """Return those of a line that can be settled together, in their order, the first among them."""
    batch = Batch(line[0])
    for other in list(line)[1:]:
        if batch.is_full:
            break
        batch.add(other)
    return batch.questions
