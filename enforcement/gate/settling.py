"""Settling a batch: several questions about the same accounts, one lock and one commit for all.

Each question is decided on what the ones before it hold, in the order in which they came, exactly
as if each had been a transaction of its own. Nothing is written until all are decided, and then
everything or nothing: where the batch fails, each question is tried alone by its own caller.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError

from billing.accounts.locking import GateLockTimeout, refuse_lock
from enforcement.gate import ahead
from enforcement.gate.ahead import Ahead, Question
from enforcement.gate.ask import OutOfTime, TimeBudget, Timer
from enforcement.gate.decision import GateContext, GivenApproval, Outcome
from enforcement.gate.joint import Alone, Waiting
from enforcement.gate.lastknown import last_known
from enforcement.gate.sharing import Sharers
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


def settle(
    batch: list[Waiting],
    *,
    alone: Callable[[Question, TimeBudget, Timer], dict[str, Any]],
    steps: Steps,
) -> None:
    """Give each question of a batch its response or its error; raises nothing.

    :param alone: evaluates one question in a transaction of its own.
    """
    try:
        if len(batch) == 1:
            one = batch[0]
            one.response = alone(one.question, one.budget, one.timer)
            GATE_BATCH_SIZE.observe(1)
        else:
            _settle_jointly(batch, steps)
    except Exception as error:  # noqa: BLE001 - raised again by whoever waits for it
        for one in batch:
            one.response, one.error = None, _error_for(one, error, batch)


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
    """Settle questions about the same accounts with one lock and one commit.

    :raises Alone: when one of them needs what only a transaction of its own does.
    """
    leader, questions = batch[0], [one.question for one in batch]
    tenant_id, now = leader.question.ask.tenant_id, leader.question.ask.clock()
    first = ahead.build_call(questions, now)
    try:
        with transaction_together(
            tenant_id, limits=leader.budget.limits(leader.timer), first=first
        ) as together:
            governing, read, found = ahead.take(questions, now, together.answer)
            last_known.keep(tenant_id, governing)
            is_current = all(governing.governs_as(one.governing) for one in questions)
            if found or not is_current or not read.is_whole:
                raise Alone
            responses = []
            for one in batch:
                decided = steps.decide(one.question, read)
                is_same_day = decided.context.evaluated_at.date() == now.date()
                if decided.outcome.routing is not None or not is_same_day:
                    raise Alone  # An approval is opened, or joined, by itself.
                responses.append(steps.record(one.question, decided, one.timer, together))
                read = read.after(decided.outcome)
            leader.timer.check()
    except DatabaseError as error:
        refuse_lock(error)
        raise
    GATE_BATCH_SIZE.observe(len(batch))
    for one, response in zip(batch, responses, strict=True):
        one.response = response
