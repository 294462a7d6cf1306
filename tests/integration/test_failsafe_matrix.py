"""Three modes and six kinds of bad luck: each cell answers as documented, none is a 500."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection
from prometheus_client import REGISTRY

from enforcement.gate.lastknown import last_known
from governance.api.remembered import remembered
from tests.client import Api
from tests.conftest import owner_dsn
from tests.crash.proxy import SWALLOWED, Cut, proxied
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World

DECISIONS = {"shadow": "ALLOW", "soft": "REQUIRE_APPROVAL", "hard": "DENY"}
BUDGET_MS = 400
SLACK_SECONDS = 3.0
"""Judging the key, the budget, recording the outcome, and a machine busy with other tests."""
BACK_WITHIN_SECONDS = 5.0


@contextmanager
def database_down() -> Iterator[None]:
    """Point this process at a port where nothing listens, as after the server's death."""
    connection.close()
    real = dict(connection.settings_dict)
    connection.settings_dict.update(HOST="127.0.0.1", PORT="1")
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict.update(real)


@contextmanager
def connections_used_up() -> Iterator[None]:
    """Let the database take no further connection, which is what an empty pool comes to."""
    connection.close()
    with psycopg.connect(owner_dsn(), autocommit=True) as owner:
        name = psycopg.sql.Identifier(connection.settings_dict["NAME"])
        limit = psycopg.sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}")
        owner.execute(limit.format(name, psycopg.sql.Literal(0)))
        try:
            yield
        finally:
            owner.execute(limit.format(name, psycopg.sql.Literal(-1)))
            connection.close()


@contextmanager
def table_locked(table: str) -> Iterator[None]:
    """Hold a table exclusively, as a careless migration would."""
    with psycopg.connect(owner_dsn()) as holder:
        holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        holder.rollback()


@contextmanager
def accounts_locked(world: World) -> Iterator[None]:
    """Hold the tenant's accounts in another transaction."""
    with psycopg.connect(owner_dsn()) as holder:
        holder.execute("SELECT 1 FROM billing_account WHERE tenant_id = %s FOR UPDATE", [world.id])
        yield
        holder.rollback()


@pytest.fixture(params=DECISIONS)
def shop(request: pytest.FixtureRequest, tenant: World, settings: Any) -> Shop:
    settings.GATE_TIME_BUDGET_MS = BUDGET_MS
    settings.GATE_LOCK_TIMEOUT_MS = 100
    made = Shop(tenant, modes={"terraform": {"default": request.param}})
    made.mode = request.param  # type: ignore[attr-defined]
    made.budget("1000.00")
    made.ask("1.00", key="seen")
    return made


def ask_quickly(shop: Shop) -> dict[str, Any]:
    """Ask within the time budget (and the machine's slack) and return the decision."""
    started = time.monotonic()
    answer = shop.ask("10.00", key="unlucky")
    assert time.monotonic() - started < SLACK_SECONDS
    assert answer["decision"] == DECISIONS[answer["mode"]]
    assert answer["approval_request_id"] is None
    assert answer["reserved_allocation_usd"] == "0.0000"
    assert answer["computed_context"] == {}
    return answer


def wait_for_service() -> None:
    """Wait until this process has found out that its database is back; five seconds at most."""
    deadline = time.monotonic() + BACK_WITHIN_SECONDS
    while True:
        connection.close()
        try:
            connection.ensure_connection()
        except OperationalError:
            assert time.monotonic() < deadline, "the database is back, and nobody noticed"
            time.sleep(0.05)
        else:
            return


def check_afterwards(shop: Shop) -> None:
    """With luck back, the same key is evaluated and the books are right."""
    wait_for_service()
    retried = shop.ask("10.00", key="unlucky")
    assert (retried["decision"], retried["replayed"]) == ("ALLOW", False)
    assert find_differences(shop.world.id) == []
    check_chain(shop.world.id)


def test_database_down(shop: Shop) -> None:
    with database_down():
        answer = ask_quickly(shop)

    assert answer["reason_codes"] == ["gate_evaluation_error"]
    assert (answer["persisted"], answer["decision_id"]) == (False, None)
    check_afterwards(shop)


def test_connections_used_up(shop: Shop) -> None:
    with connections_used_up():
        answer = ask_quickly(shop)

    assert answer["persisted"] is False
    check_afterwards(shop)


def test_a_stall_in_the_middle(shop: Shop) -> None:
    """Packets are swallowed and no connection breaks: the budget ends the wait, not the network."""
    with proxied(connection) as proxy:
        shop.ask("1.00", key="seen")
        cut = proxy.arm(Cut(b"billing_hold_all", SWALLOWED))

        answer = ask_quickly(shop)

        assert cut.happened.is_set()
    assert (answer["reason_codes"], answer["persisted"]) == (["gate_timeout"], False)
    check_afterwards(shop)


def test_a_stall_before_the_call(shop: Shop) -> None:
    """The open connection and every new one are silent; only the first call waits for them."""
    with proxied(connection) as proxy:
        shop.ask("1.00", key="seen")
        proxy.stall()

        first = ask_quickly(shop)
        refused = sample("refused")
        second = ask_quickly(shop)

        assert first["reason_codes"] == ["gate_timeout"]
        assert second["reason_codes"] == ["gate_evaluation_error"]
        assert (second["persisted"], second["mode"]) == (False, shop.mode)  # type: ignore[attr-defined]
        assert sample("refused") > refused, "the second call was answered without asking"
        proxy.flow()
        wait_for_service()
        assert shop.ask("1.00", key="back")["persisted"] is True
    check_afterwards(shop)


def sample(event: str) -> float:
    value = REGISTRY.get_sample_value("valdrix_ops_database_circuit_events_total", {"event": event})
    return value or 0.0


def test_a_dead_database_is_not_asked_by_every_call(shop: Shop) -> None:
    with database_down():
        before = sample("opened")
        for _ in range(3):
            ask_quickly(shop)
        refused = sample("refused")
        ask_quickly(shop)

        assert sample("opened") >= before
        assert sample("refused") >= refused + 2, "neither for the key nor for the gate"
    check_afterwards(shop)


def test_lock_held(shop: Shop) -> None:
    with accounts_locked(shop.world):
        answer = ask_quickly(shop)

    assert (answer["reason_codes"], answer["persisted"]) == (["gate_lock_timeout"], True)
    check_afterwards(shop)


def test_database_slow(shop: Shop, owner_cursor: Any) -> None:
    """The statement that reads the snapshot is slow for this tenant alone."""
    slow = f"slow_{uuid.uuid4().hex}"
    owner_cursor.execute(
        f"CREATE FUNCTION {slow}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF NEW.tenant_id = '{shop.world.id}' THEN PERFORM pg_sleep(5); END IF; RETURN NEW;"
        " END $$"
    )
    owner_cursor.execute(
        f"CREATE TRIGGER {slow} BEFORE INSERT ON billing_charge FOR EACH ROW"
        f" EXECUTE FUNCTION {slow}()"
    )
    try:
        answer = ask_quickly(shop)
    finally:
        owner_cursor.execute(f"DROP TRIGGER {slow} ON billing_charge")
        owner_cursor.execute(f"DROP FUNCTION {slow}()")

    assert (answer["reason_codes"], answer["persisted"]) == (["gate_timeout"], True)
    check_afterwards(shop)


def test_a_failing_cost_store_never_blocks_a_gate(shop: Shop, owner_cursor: Any) -> None:
    """Costs are context: without them the gate decides, and says what it did not know."""
    owner_cursor.execute("SELECT pg_get_functiondef('billing_cost_days'::regproc)")
    real = owner_cursor.fetchone()[0]
    failing = real.replace("RETURN coalesce(", "PERFORM 1/0; RETURN coalesce(", 1)
    assert failing != real
    owner_cursor.execute(failing)
    try:
        answer = shop.ask("10.00", key="unlucky")
    finally:
        owner_cursor.execute(real)

    assert answer["decision"] == "ALLOW"
    assert answer["computed_context"]["data_source_mode"] == "unavailable"
    assert answer["computed_context"]["mtd_spend_usd"] == "0.0000"


def test_a_process_that_never_saw_the_tenant_fails_closed(tenant: World) -> None:
    shop = Shop(tenant, modes={"terraform": {"default": "shadow"}})
    shop.ask("1.00")
    last_known.forget(tenant.id)

    with database_down():
        answer = shop.ask("10.00")

    assert (answer["decision"], answer["mode_scope"]) == ("DENY", "fail_closed")


def test_a_credential_that_cannot_be_judged_gets_a_503(tenant: World, api: Api) -> None:
    with database_down():
        response = api.get("budgets", key=tenant.admin.key)

    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    assert response["Retry-After"].isdigit()


def test_a_revoked_key_is_not_remembered(tenant: World, api: Api) -> None:
    assert api.get("budgets", key=tenant.member.key).status_code == 200
    revoked = api.post(f"api-keys/{tenant.member.key_id}/revoke", {}, key=tenant.owner.key)
    assert revoked.status_code == 200
    assert api.get("budgets", key=tenant.member.key).status_code == 401

    with database_down():
        assert api.get("budgets", key=tenant.member.key).status_code == 503


def test_what_is_remembered_is_forgotten_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    principal: Any = object()
    remembered.keep(b"digest", principal)
    assert remembered.find(b"digest") is principal

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert remembered.find(b"digest") is None


def test_a_locked_cost_table_is_waited_for_no_longer_than_a_lock(
    tenant: World, settings: Any
) -> None:
    settings.GATE_LOCK_TIMEOUT_MS = 100
    shop = Shop(tenant)
    shop.budget("1000.00")

    with table_locked("billing_cost_history"):
        answer = shop.ask("10.00", key="k")

    assert answer["decision"] == "ALLOW"
    assert answer["computed_context"]["data_source_mode"] == "unavailable"
