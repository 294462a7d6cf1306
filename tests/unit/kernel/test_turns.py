"""A crew takes turns a few at once, waits for none that lasts, and says what it left."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from valdrix.jobs import turns
from valdrix.jobs.turns import Crew, Turn

ROOT = Path(__file__).resolve().parents[3]


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
    monkeypatch.setattr(turns, "WAITED_SECONDS", 1.0)
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
    monkeypatch.setattr(turns, "WAITED_SECONDS", 1.0)
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


def test_a_turn_under_way_is_brought_to_its_end_when_the_program_ends_and_no_other_begins() -> None:
    code = """
import threading, time, uuid, django
from django.conf import settings
settings.configure(DATABASES={})
from valdrix.jobs import turns
turns._AT_ONCE = 1
begun = threading.Event()

def work(tenant_id):
    begun.set()
    threading.main_thread().join()
    time.sleep(0.2)
    print("ended", flush=True)
    return {}

crew = turns.Crew()
calls = [turns.Turn("any", work, uuid.uuid4()) for _ in range(3)]
threading.Thread(target=crew.take, args=(calls,), daemon=True).start()
begun.wait(30)
print("main ends", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("main ends\nended\n", "", 0)


def test_nobody_s_turn_is_nothing_left() -> None:
    assert Crew().take([]) == [{"unfinished": 0}]
