"""Sessions that are shared and lost while nobody has them cost one gate its time, not all of them.

A connection that a fail-over, a proxy or a network has ended looks open until it is used.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import close_old_connections, connection
from django.db import transaction as django_transaction

from tests.crash.proxy import BEFORE, SWALLOWED, Proxy, proxied
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from valdrix.kernel.postgresql import circuit
from valdrix.kernel.postgresql.sessions import IDLE

BUDGET_MS = 1000
SESSIONS = 8


@pytest.fixture(autouse=True)
def proxy(database: None, settings: Any) -> Iterator[Proxy]:
    """Share sessions that reach the database through a proxy."""
    settings.GATE_TIME_BUDGET_MS = BUDGET_MS
    circuit._circuits.clear()
    with proxied(connection) as made:
        IDLE.share()
        try:
            yield made
        finally:
            IDLE.stop_sharing()
            circuit._circuits.clear()


@pytest.fixture
def shop(tenant: World) -> Shop:
    """Return a tenant in hard mode with a budget, whose key and policy this process knows."""
    shop = Shop(tenant, modes={"terraform": {"default": "hard"}})
    shop.budget("1000.00")
    shop.ask("1.00", key="known")
    return shop


Run = Callable[..., Any]


def open_sessions(count: int, run_in_threads: Run) -> None:
    """Have so many sessions that nobody has, as behind a rush."""
    together = threading.Barrier(count)

    def open_one(number: int) -> None:
        with django_transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            together.wait(timeout=30)

    run_in_threads(count, open_one)


@pytest.fixture
def idle(shop: Shop, run_in_threads: Run) -> None:
    """Have sessions behind a rush in which the tenant was seen."""
    open_sessions(SESSIONS, run_in_threads)


def ask(shop: Shop, count: int) -> list[tuple[str, bool]]:
    """Ask some gates, one after the other, and return what they said and whether it was recorded."""
    said = []
    for number in range(count):
        answer = shop.ask("1.00", key=f"key-{number}")
        said.append((answer["decision"], answer["persisted"]))
        close_old_connections()
    return said


@pytest.mark.parametrize("kind", [BEFORE, SWALLOWED])
@pytest.mark.usefixtures("idle")
def test_lost_sessions_cost_one_caller_one_gate_which_is_recorded(
    shop: Shop, proxy: Proxy, kind: str
) -> None:
    proxy.spoil(kind)

    said = ask(shop, 4)

    assert said[0] == ("DENY", True), "it fails safe, on a session that was opened for it"
    # Silent ones stay with the others; whoever takes one has it cost a gate of its own.
    assert said[1:].count(("ALLOW", True)) == 3, said


@pytest.mark.usefixtures("idle")
def test_a_silent_server_costs_one_gate_its_time_and_the_circuit_opens(
    shop: Shop, proxy: Proxy
) -> None:
    proxy.stall()
    statuses, took = [], []
    for number in range(4):
        began = time.monotonic()
        statuses.append(shop.send("1.00", key=f"silent-{number}").status_code)
        took.append(time.monotonic() - began)
        close_old_connections()
        if number == 0:
            until = time.monotonic() + 10
            while not any(one.is_open for one in circuit._circuits.values()):
                assert time.monotonic() < until, "the circuit did not open"
                time.sleep(0.05)
    proxy.flow()

    assert statuses == [200] * 4
    assert max(took[1:]) < took[0]
    assert max(took[1:]) < BUDGET_MS / 1000, took


@pytest.mark.parametrize("count", [0, 2])
def test_a_gate_on_a_silent_server_fails_safe_whatever_sessions_there_are(
    shop: Shop, proxy: Proxy, count: int, run_in_threads: Run
) -> None:
    if count:
        open_sessions(count, run_in_threads)
    proxy.stall()
    answers = [shop.send("1.00", key=f"silent-{number}") for number in range(3)]
    proxy.flow()

    assert [answer.status_code for answer in answers] == [200] * 3
    said = [answer.json() for answer in answers]
    assert [(one["decision"], one["persisted"]) for one in said] == [("DENY", False)] * 3
