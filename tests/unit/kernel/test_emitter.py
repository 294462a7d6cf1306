"""The emitter port does nothing by itself, and never raises into the path that uses it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from valdrix.kernel.emitter import GATE_DECIDED, Observation, bind, emit, failures


@pytest.fixture(autouse=True)
def _unbound() -> Iterator[None]:
    bind(None)
    yield
    bind(None)


def build() -> Observation:
    return Observation(
        id=uuid.UUID(int=1),
        tenant_id=uuid.UUID(int=2),
        kind=GATE_DECIDED,
        at=datetime(2026, 11, 1, tzinfo=UTC),
        outcome="ALLOW",
    )


def test_without_an_emitter_nothing_is_even_built() -> None:
    built: list[Observation] = []
    emit(lambda: built.append(build()) or build())
    assert built == []


def test_what_is_emitted_arrives_once() -> None:
    got: list[Observation] = []
    bind(got.append)
    emit(build)
    assert got == [build()]
    assert failures() == 0


def test_an_emitter_that_raises_is_not_noticed_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def raising(seen: Observation) -> None:
        raise RuntimeError("no")

    bind(raising)
    with caplog.at_level(logging.WARNING, "valdrix.emitter"):
        for _ in range(3):
            emit(build)
    assert failures() == 3
    assert len(caplog.records) == 1


def test_an_observation_that_cannot_be_built_is_not_noticed() -> None:
    got: list[Observation] = []
    bind(got.append)
    emit(lambda: Observation(id=1))
    assert got == []
    assert failures() == 1
