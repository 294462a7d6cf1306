"""A crew that has no hand free says what it left, and takes nothing."""

from __future__ import annotations

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
