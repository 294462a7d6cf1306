"""Lines: who leads, who is taken along, and what becomes of those who cannot wait."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from enforcement.gate.ask import OutOfTime, TimeBudget, Timer
from enforcement.gate.joint import MAX_TOGETHER, Alone, Lines, StepByStep, Waiting, take_batch
from tests.waiting import wait_until

WAIT_SECONDS = 10.0


def waiting(
    key: str = "",
    *,
    run: str = "",
    tenant: int = 1,
    seconds: float = WAIT_SECONDS,
    **facts: Any,
) -> Waiting:
    """Return a question with what lines look at."""
    budget = TimeBudget(total_ms=int(seconds * 1000), lock_ms=1000)
    question = SimpleNamespace(
        scope=SimpleNamespace(tenant_id=tenant),
        claim=SimpleNamespace(source="terraform", stored_key=key) if key else None,
        change=SimpleNamespace(lock_names=lambda: (f"run:{run}",) if run else ()),
        gate_input=SimpleNamespace(parent_decision_id=facts.get("parent")),
    )
    return Waiting(question, budget, Timer(budget))  # type: ignore[arg-type]


class Settler:
    """Settles batches; the first one only when it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[Waiting]] = []
        self.is_at_work, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self, batch: list[Waiting]) -> None:
        self.batches.append(batch)
        if len(self.batches) == 1:
            self.is_at_work.set()
            assert self.may_go_on.wait(WAIT_SECONDS)
        for one in batch:
            one.response = {"of": id(one)}


def start(
    pool: ThreadPoolExecutor, lines: Lines, settler: Settler, *asked: Waiting
) -> list[Future[Any]]:
    """Let the first one lead, and the others stand in line in their order."""
    calls = [pool.submit(lines.settle, asked[0], settler)]
    assert settler.is_at_work.wait(WAIT_SECONDS)
    for one in asked[1:]:
        calls.append(pool.submit(lines.settle, one, settler))
        wait_until(lambda one=one: one in (lines._lines.get(one.line) or ()))
    return calls


def test_who_finds_no_line_is_settled_at_once_and_leaves_none() -> None:
    lines, settler = Lines(), Settler()
    settler.may_go_on.set()
    one = waiting("a")
    assert lines.settle(one, settler) == {"of": id(one)}
    assert settler.batches == [[one]]
    assert lines._lines == {}


def test_those_who_came_meanwhile_are_settled_together_in_their_order() -> None:
    lines, settler = Lines(), Settler()
    asked = [waiting(key) for key in "abcde"]
    with ThreadPoolExecutor(8) as pool:
        calls = start(pool, lines, settler, *asked)
        settler.may_go_on.set()
        assert [call.result(WAIT_SECONDS) for call in calls] == [{"of": id(one)} for one in asked]
    assert settler.batches == [asked[:1], asked[1:]]
    assert lines._lines == {}


def test_who_waits_with_a_key_that_was_claimed_meanwhile_goes_to_its_replay() -> None:
    lines, settler = Lines(), Settler()
    asked = [waiting("a"), waiting("b"), waiting("a"), waiting(""), waiting("a")]
    with ThreadPoolExecutor(8) as pool:
        calls = start(pool, lines, settler, *asked)
        settler.may_go_on.set()
        for place in (2, 4):
            with pytest.raises(StepByStep):
                calls[place].result(WAIT_SECONDS)
        for place in (0, 1, 3):
            assert calls[place].result(WAIT_SECONDS) == {"of": id(asked[place])}
    assert settler.batches == [asked[:1], [asked[1], asked[3]]]
    assert lines._lines == {}


def test_other_tenants_do_not_wait() -> None:
    lines, settler = Lines(), Settler()
    with ThreadPoolExecutor(4) as pool:
        calls = start(pool, lines, settler, waiting("a"))
        other = waiting("b", tenant=2)
        assert lines.settle(other, settler) == {"of": id(other)}
        settler.may_go_on.set()
        calls[0].result(WAIT_SECONDS)


def test_no_key_and_no_change_is_twice_in_a_batch() -> None:
    line = [waiting("a"), waiting("b", run="1"), waiting("a"), waiting("c", run="1"), waiting("d")]
    assert take_batch(line) == [line[0], line[1], line[4]]


def test_a_batch_is_bounded() -> None:
    line = [waiting(str(number)) for number in range(MAX_TOGETHER + 5)]
    assert take_batch(line) == line[:MAX_TOGETHER]


def test_what_needs_more_locks_goes_alone() -> None:
    special, plain = waiting("a", parent="0190"), waiting("b")
    assert take_batch([special, plain]) == [special]
    assert take_batch([plain, special]) == [plain]


def test_who_cannot_wait_leaves_the_line_and_is_never_settled() -> None:
    lines, settler = Lines(), Settler()
    late = waiting("late", seconds=0.05)
    with ThreadPoolExecutor(4) as pool:
        calls = start(pool, lines, settler, waiting("a"), late)
        with pytest.raises(OutOfTime):
            calls[1].result(WAIT_SECONDS)
        settler.may_go_on.set()
        calls[0].result(WAIT_SECONDS)
    assert [late in batch for batch in settler.batches] == [False]


def test_who_was_taken_waits_for_what_comes_of_it() -> None:
    lines, settler = Lines(), Settler()
    settler.may_go_on.set()
    slow = threading.Event()

    def settle(batch: list[Waiting]) -> None:
        settler(batch)
        if len(batch) == 2:
            assert slow.wait(WAIT_SECONDS)

    first, taken = waiting("a"), [waiting("b"), waiting("c", seconds=0.05)]
    settler.may_go_on.clear()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(lines.settle, first, settle)]
        assert settler.is_at_work.wait(WAIT_SECONDS)
        calls += [pool.submit(lines.settle, one, settle) for one in taken]
        wait_until(lambda: len(lines._lines[first.line]) == 2)
        settler.may_go_on.set()
        wait_until(lambda: len(settler.batches) == 2)
        time.sleep(0.1)
        assert not calls[2].done(), "its time is over, but somebody is at work on it"
        slow.set()
        assert calls[2].result(WAIT_SECONDS) == {"of": id(taken[1])}


def test_who_gets_nothing_is_told_to_go_alone() -> None:
    with pytest.raises(Alone):
        Lines().settle(waiting("a"), lambda batch: None)


def test_a_leader_that_dies_leaves_nobody_behind() -> None:
    lines, settler = Lines(), Settler()

    def die(batch: list[Waiting]) -> None:
        settler(batch)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(lines.settle, waiting("a"), die)]
        assert settler.is_at_work.wait(WAIT_SECONDS)
        next_one = waiting("b")
        calls.append(pool.submit(lines.settle, next_one, settler))
        wait_until(lambda: next_one in lines._lines[next_one.line])
        settler.may_go_on.set()
        with pytest.raises(KeyboardInterrupt):
            calls[0].result(WAIT_SECONDS)
        assert calls[1].result(WAIT_SECONDS) == {"of": id(next_one)}
