"""Many questions of one caller: settled together where they can be, each as if sent alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from enforcement.gate.ahead import question_ahead
from enforcement.gate.ask import Ask, TimeBudget, Timer
from enforcement.gate.evaluate import evaluate, settle_in_time
from enforcement.gate.joint import Batch, Waiting
from enforcement.gate.observing import observe
from valdrix.kernel.problems import Refused

Answer = dict[str, Any] | Refused
"""The common response, or the refusal of a question that was not evaluated."""


def evaluate_all(asks: Sequence[Ask], *, budget: TimeBudget) -> list[Answer]:
    """Decide questions in the order given, and return an answer for each.

    Neighbours that can be settled together share a transaction; where that fails, and for
    whatever else has to be by itself, each is evaluated alone.
    """
    answers: list[Answer] = []
    while len(answers) < len(asks):
        batch = _take(asks[len(answers) :], budget)
        if len(batch) > 1:
            settle_in_time(batch, budget)
        for one, ask in zip(batch, asks[len(answers) :], strict=False):
            answers.append(_finish(ask, one, budget))
        if not batch:
            answers.append(_evaluate_alone(asks[len(answers)], budget))
    return answers


def _take(asks: Sequence[Ask], budget: TimeBudget) -> list[Waiting]:
    """Return the first question with those right behind it that can be settled with it."""
    batch: Batch | None = None
    for ask in asks:
        question = None if ask.request.dry_run else question_ahead(ask)
        if question is None:
            break
        one = Waiting(question, budget, Timer(budget))
        if batch is None:
            batch = Batch(one)
        elif not batch.add(one):
            break
    return [] if batch is None else batch.questions


def _finish(ask: Ask, waiting: Waiting, budget: TimeBudget) -> Answer:
    if waiting.response is None:
        return _evaluate_alone(ask, budget)
    observe(ask, waiting.response, elapsed_ms=waiting.timer.elapsed_ms)
    return waiting.response


def _evaluate_alone(ask: Ask, budget: TimeBudget) -> Answer:
    try:
        return evaluate(ask, budget=budget)
    except Refused as refusal:
        return refusal
