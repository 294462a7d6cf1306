"""The storms: short ones in every test run, in full by ``make storm``, which keeps the figures."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from enforcement.gate import evaluate
from enforcement.gate.joint import Lines, Settle, Waiting
from tests.factories.tenants import World
from tests.storms import key_storm, report, settlement_storm, thread_storm
from tests.storms.senders import InProcess, Sender, gunicorn

FULL = os.environ.get("VALDRIX_STORM") == "1"
SEED = int(os.environ.get("VALDRIX_STORM_SEED", "20260301"))
WORKERS = 2


class TwoLines:
    """Lines as two processes have them: who leads in the one waits for the other's locks."""

    def __init__(self) -> None:
        self._lines = (Lines(), Lines())

    def settle(self, waiting: Waiting, settle: Settle) -> dict[str, Any]:
        """Have a question settled in its thread's line."""
        return self._lines[threading.get_native_id() % 2].settle(waiting, settle)


@pytest.fixture
def sender(database: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sender]:
    """Give gunicorn with the product's own time limits to a full storm.

    A short one shares a process, and maybe a busy machine, with other tests: its gates get more
    time, so that it is about money and not about speed, and two lines, so that they meet.
    """
    if FULL:
        with gunicorn(workers=WORKERS) as served:
            yield served
    else:
        settings.GATE_TIME_BUDGET_MS = 30_000
        settings.GATE_LOCK_TIMEOUT_MS = 30_000
        monkeypatch.setattr(evaluate, "_LINES", TwoLines())
        yield InProcess()


def keep(name: str, title: str, figures: dict[str, Any]) -> None:
    """Keep a full storm's figures."""
    if FULL:
        report.record(name, title, figures)


def test_thread_storm(tenant: World, sender: Sender) -> None:
    scale = (
        thread_storm.Scale(calls=10_000, threads=64, seed=SEED)
        if FULL
        else thread_storm.Scale(calls=400, threads=16, seed=SEED)
    )
    keep("threads", "Gates at once", thread_storm.run(tenant, sender, scale))


def test_key_storm(tenant: World, sender: Sender) -> None:
    scale = (
        key_storm.Scale(sends=30_000, keys=500, threads=64, burst=24, seed=SEED)
        if FULL
        else key_storm.Scale(sends=360, keys=12, threads=16, burst=16, seed=SEED)
    )
    keep("keys", "Keys sent again", key_storm.run(tenant, sender, scale))


def test_settlement_storm(tenant: World, sender: Sender) -> None:
    scale = (
        settlement_storm.Scale(reservations=1_000, wave=25, threads=64, seed=SEED)
        if FULL
        else settlement_storm.Scale(reservations=30, wave=10, threads=8, seed=SEED)
    )
    keep("settlements", "Settled by everybody", settlement_storm.run(tenant, sender, scale))


@contextmanager
def planted_without_locks(owner_cursor: Any) -> Iterator[None]:
    """Let the database's functions choose a gate's accounts without locking them."""
    originals = []
    for name in ("billing_lock_accounts", "billing_gate_accounts", "billing_lock_scopes"):
        owner_cursor.execute("SELECT pg_get_functiondef(%s::regproc)", [name])
        originals.append(owner_cursor.fetchone()[0])
    planted = [re.sub(r" FOR UPDATE( OF a)?(?=[;)])", "", original) for original in originals]
    assert all(one != original for one, original in zip(planted, originals, strict=True))
    try:
        for one in planted:
            owner_cursor.execute(one)
        yield
    finally:
        for original in originals:
            owner_cursor.execute(original)


def test_the_thread_storm_notices_gates_that_take_no_lock(
    tenant: World, settings: Any, monkeypatch: pytest.MonkeyPatch, owner_cursor: Any
) -> None:
    settings.GATE_TIME_BUDGET_MS = settings.GATE_LOCK_TIMEOUT_MS = 30_000
    # Questions that stand in line cannot come in each other's way.
    monkeypatch.setattr(evaluate, "_settle_in_line", evaluate._evaluate_ahead)

    with (
        planted_without_locks(owner_cursor),
        pytest.raises(AssertionError, match=r"over a limit|no longer so"),
    ):
        thread_storm.run(tenant, InProcess(), thread_storm.Scale(calls=120, threads=16, seed=SEED))
