"""A crew takes turns a few at once, waits for none that lasts, and says what it left."""

from __future__ import annotations

import threading
import uuid

import pytest

from valdrix.jobs import turns
from valdrix.jobs.turns import Crew, Turn


def test_a_crew_with_too_many_turns_in_progress_says_what_it_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "_MOST_IN_PROGRESS", 0)
    taken: list[uuid.UUID] = []

    def work(tenant_id: uuid.UUID) -> dict[str, int]:
        taken.append(tenant_id)
        return {}

    waiting = [Turn("work-run-tasks", work, uuid.uuid4()) for _ in range(3)]
    assert Crew().take(waiting) == [{"unfinished": 3}]
    assert taken == []


def test_turns_are_taken_a_few_at_once_and_each_once() -> None:
    everybody, together = [uuid.uuid4() for _ in range(40)], threading.Barrier(turns._AT_ONCE)
    taken: list[uuid.UUID] = []

    def work(tenant_id: uuid.UUID) -> dict[str, int]:
        if tenant_id in everybody[: turns._AT_ONCE]:
            together.wait(30)
        taken.append(tenant_id)
        return {"done": 1}

    found = Crew().take([Turn("any", work, one) for one in everybody])
    assert found == [{"done": 1}] * 40 + [{"unfinished": 0}]
    assert sorted(taken) == sorted(everybody)


def test_a_turn_that_lasts_holds_back_its_own_tenant_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "WAITED_SECONDS", 0.2)
    slow, other = uuid.uuid4(), uuid.uuid4()
    release, is_over, crew = threading.Event(), threading.Event(), Crew()

    def work(tenant_id: uuid.UUID) -> dict[str, int]:
        if tenant_id == slow:
            assert release.wait(60)
            is_over.set()
        return {"done": 1}

    def take() -> list[dict[str, int] | None]:
        return crew.take([Turn("any", work, one) for one in (slow, other)])

    try:
        assert take() == [{"done": 1}, {"unfinished": 1}]
        again = take()
        assert sorted(map(str, again)) == sorted(
            map(str, [{"unfinished": 1}, {"done": 1}, {"unfinished": 0}])
        )
    finally:
        release.set()
    assert is_over.wait(30)
    for hand in threading.enumerate():
        if hand.name == "turn":
            hand.join(30)
    assert take() == [{"done": 1}] * 2 + [{"unfinished": 0}]


def test_what_a_run_has_to_leave_comes_first_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the last of many tenants would never have a turn."""
    monkeypatch.setattr(turns, "WAITED_SECONDS", 0.2)
    everybody = [uuid.uuid4() for _ in range(turns._AT_ONCE + 3)]
    release, crew, taken = threading.Event(), Crew(), []

    def work(tenant_id: uuid.UUID) -> dict[str, int]:
        taken.append(tenant_id)
        assert release.wait(60)
        return {"done": 1}

    def take() -> list[dict[str, int] | None]:
        return crew.take([Turn("any", work, one) for one in everybody])

    assert take() == [{"unfinished": len(everybody)}]
    assert sorted(taken) == sorted(everybody[: turns._AT_ONCE])
    release.set()
    for hand in threading.enumerate():
        if hand.name == "turn":
            hand.join(30)
    taken.clear()
    monkeypatch.setattr(turns, "_AT_ONCE", 1)
    monkeypatch.setattr(turns, "WAITED_SECONDS", 60.0)
    assert take() == [{"done": 1}] * len(everybody) + [{"unfinished": 0}]
    assert taken == everybody[-3:] + everybody[:-3]
    taken.clear()
    take()
    assert taken == everybody


def test_nobody_s_turn_is_nothing_left() -> None:
    assert Crew().take([]) == [{"unfinished": 0}]
