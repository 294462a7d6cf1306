"""Settling a batch: several questions of one tenant, one set of locks and one commit for all.

Each question is decided on what the ones before it hold, in the order in which they came, exactly
as if each had been a transaction of its own. Nothing is written until all are decided, and then
everything or nothing: where the batch fails, each question is tried alone by its own caller.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import DatabaseError

from billing.accounts.locking import GateLockTimeout, refuse_lock
from enforcement.gate import ahead
from enforcement.gate.ahead import Ahead, KeysChanged, Question, Reads
from enforcement.gate.ask import OutOfTime, TimeBudget, Timer
from enforcement.gate.decision import GateContext, GivenApproval, Outcome
from enforcement.gate.joint import Alone, StepByStep, Waiting
from enforcement.gate.lastknown import last_known
from enforcement.gate.sharing import Sharers
from governance.identity.assuming import NotAsAssumed
from valdrix.kernel.db import Together, is_database_down, transaction_together
from valdrix.kernel.metrics import GATE_BATCH_SIZE


@dataclass(frozen=True, slots=True)
class Locked:
    """What is locked for a question when its context is read; of a dry run what would be."""

    sharers: Sharers
    account_ids: list[uuid.UUID]
    given: GivenApproval | None


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided about a question, by what was read under its locks."""

    sharers: Sharers
    context: GateContext
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Steps:
    """How one question is decided, and how what was decided is written."""

    decide: Callable[[Question, Ahead], Decided]
    record: Callable[[Question, Decided, Timer, Together], dict[str, Any]]


class _Apart(Exception):
    """Some questions of a batch are to be evaluated alone; nothing of the batch was written."""

    def __init__(self, those: list[Waiting], error: type[Exception] = Alone) -> None:
        super().__init__()
        self.those = those
        self.error = error


def settle(
    batch: list[Waiting],
    *,
    alone: Callable[[Question, TimeBudget, Timer], dict[str, Any]],
    steps: Steps,
) -> None:
    """Give each question of a batch its response or its error; raises nothing.

    :param alone: evaluates one question in a transaction of its own.
    """
    left = list(batch)
    try:
        while len(left) > 1:
            try:
                _settle_jointly(left, steps)
            except _Apart as parting:
                for one in parting.those:
                    one.error = parting.error()
                left = [one for one in left if one not in parting.those]
            else:
                return
        for one in left:
            one.response = alone(one.question, one.budget, one.timer)
            GATE_BATCH_SIZE.observe(1)
    except Exception as error:  # noqa: BLE001 - raised again by whoever waits for it
        for one in left:
            one.response, one.error = None, _error_for(one, error, left)


def _error_for(one: Waiting, error: Exception, batch: list[Waiting]) -> Exception:
    """Return what a question of a failed batch ends with.

    A lock or a database that was not had in time is not waited for a second time; but that the
    leader's time was over says nothing about those who came later.
    """
    count, leader = len(batch), batch[0]
    if leader.timer.is_over and not one.timer.is_over:
        return Alone()
    is_final = isinstance(error, GateLockTimeout | OutOfTime) or is_database_down(error)
    return error if count == 1 or is_final else Alone()


def _settle_jointly(batch: list[Waiting], steps: Steps) -> None:
    """Settle questions of one tenant with one set of locks and one commit.

    :raises _Apart: when some of them need what only a transaction of their own does.
    """
    leader, questions = batch[0], [one.question for one in batch]
    tenant_id, now = leader.question.ask.tenant_id, leader.question.ask.clock()
    first = ahead.build_call(questions, now)
    try:
        with transaction_together(
            tenant_id, limits=leader.budget.limits(leader.timer), first=first
        ) as together:
            begun = ahead.take(questions, now, together.answer)
            last_known.keep(tenant_id, begun.governing)
            is_current = all(begun.governing.governs_as(one.governing) for one in questions)
            if not is_current or not begun.reads.is_whole:
                raise _Apart(batch)
            if begun.taken:
                raise _Apart([batch[place] for place in begun.taken], StepByStep)
            if begun.charged:
                raise _Apart([batch[place] for place in begun.charged])
            responses = _decide_each(batch, begun.reads, now=now, steps=steps, together=together)
            leader.timer.check()
    except KeysChanged as changed:
        raise _Apart([batch[place] for place in changed.places], NotAsAssumed) from None
    except DatabaseError as error:
        refuse_lock(error)
        raise
    GATE_BATCH_SIZE.observe(len(batch))
    for one, response in zip(batch, responses, strict=True):
        one.response = response


def _decide_each(
    batch: list[Waiting], reads: Reads, *, now: datetime, steps: Steps, together: Together
) -> list[dict[str, Any]]:
    """Decide one after the other, each on what those before it hold; return their responses.

    :raises _Apart: for those that open an approval, or join one, which each does by itself.
    """
    responses, apart = [], []
    for one in batch:
        decided = steps.decide(one.question, reads.of(one.question))
        if decided.context.evaluated_at.date() != now.date():
            raise _Apart(batch)
        if decided.outcome.routing is not None:
            apart.append(one)
            continue
        responses.append(steps.record(one.question, decided, one.timer, together))
        reads = reads.after(decided.outcome)
    if apart:
        raise _Apart(apart)
    return responses
