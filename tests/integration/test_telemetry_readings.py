"""Readings over HTTP and in the console, and what they say when the store cannot be read."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from governance.identity.domain import MEMBER
from telemetry.readings import board
from telemetry.store.connection import WRITING, open_store
from tests.client import Api
from tests.factories.telemetry import build_observation, running_writer
from tests.factories.tenants import World, issue_key
from tests.integration.test_admin import sign_in
from valdrix.kernel.emitter import APPROVAL_ENDED, Observation

NAMES = ("decisions", "latency", "spend-avoided", "approval-time")
PAGE = "/admin/telemetry/"


def store_events(*seen: Observation) -> None:
    with running_writer() as writer:
        for one in seen:
            writer(one)


def read(world: World, name: str, **query: str) -> dict[str, Any]:
    response = Api().get(f"/api/v1/telemetry/{name}", key=world.admin.key, query=query)
    assert response.status_code == 200, response.content
    document: dict[str, Any] = response.json()
    return document


@pytest.fixture
def observed(tenant: World) -> World:
    """Give a tenant with decisions and approvals of today, and one decision of last week."""
    now = datetime.now(UTC)
    ended = {"kind": APPROVAL_ENDED, "duration_ms": 90_000}
    store_events(
        *(build_observation(tenant.id, duration_ms=number) for number in range(1, 101)),
        build_observation(tenant.id, outcome="DENY", amount_usd=Decimal("120.25")),
        build_observation(
            tenant.id,
            outcome="DENY",
            amount_usd=Decimal("0.0001"),
            environment="nonprod",
            attributes={"mode": "soft", "project": "lab"},
        ),
        build_observation(tenant.id, outcome="DENY", amount_usd=Decimal(-7)),
        build_observation(tenant.id, outcome="denied", amount_usd=Decimal(50), **ended),
        build_observation(tenant.id, outcome="approved", amount_usd=Decimal(900), **ended),
        build_observation(tenant.id, at=now - timedelta(days=6)),
    )
    return tenant


def test_every_reading_gives_its_figures(observed: World, other_tenant: World) -> None:
    decisions = read(observed, "decisions")
    assert decisions["available"] is True
    assert decisions["data"]["by_outcome"] == {
        "ALLOW": 100, "ALLOW_WITH_CREDITS": 0, "REQUIRE_APPROVAL": 0, "DENY": 3,
    }  # fmt: skip
    assert decisions["data"]["by_project"] == {"shop": 102, "lab": 1}
    assert decisions["data"]["by_mode"] == {"hard": 102, "soft": 1}
    assert sum(step["ALLOW"] for step in decisions["data"]["series"]) == 100
    latency = read(observed, "latency")["data"]
    assert latency == {"count": 103, "p50_ms": 49, "p95_ms": 95, "p99_ms": 99, "max_ms": 100}
    spend = read(observed, "spend-avoided")["data"]
    assert spend["total_monthly_usd"] == "170.2501"
    assert spend["refused_by_people_monthly_usd"] == "50.0000"
    assert (spend["refused_by_gate"], spend["refused_by_people"]) == (2, 1)
    approvals = read(observed, "approval-time")["data"]
    assert approvals["by_ending"]["approved"] == {
        "count": 1, "p50_seconds": 90, "p95_seconds": 90,
    }  # fmt: skip
    assert read(observed, "decisions", window="7d")["data"]["total"] == 104
    whole = read(observed, "readings")
    assert set(whole) == set(NAMES)
    assert whole["latency"]["data"] == latency
    # Another tenant has seen nothing of it.
    assert read(other_tenant, "decisions")["data"]["total"] == 0


def test_who_may_read(observed: World) -> None:
    for name in (*NAMES, "readings"):
        path = f"/api/v1/telemetry/{name}"
        assert Api().get(path).status_code == 401
        refused = Api().get(path, key=observed.member.key)
        assert (refused.status_code, refused.json()["code"]) == (403, "role_missing")
    bound = issue_key(
        observed.id, name="bound", role="admin", person_id=observed.admin.user_id,
        projects=("shop",),
    )[1]  # fmt: skip
    refused = Api().get("/api/v1/telemetry/decisions", key=bound)
    assert (refused.status_code, refused.json()["code"]) == (403, "project_not_allowed")


@pytest.mark.parametrize("query", [{"window": "1y"}, {"window": ""}, {"windows": "24h"}])
def test_a_window_that_there_is_not_is_refused(tenant: World, query: dict[str, str]) -> None:
    response = Api().get("/api/v1/telemetry/decisions", key=tenant.admin.key, query=query)
    assert response.status_code == 422


def test_corrupt_rows_are_skipped_and_counted(
    observed: World, owner_cursor: psycopg.Cursor
) -> None:
    plant(owner_cursor, observed.id, attributes='{"mode":')
    plant(owner_cursor, observed.id, outcome="'; DROP TABLE", attributes="{}")
    plant(owner_cursor, observed.id, duration_ms=-5, amount_usd="NaN", outcome="DENY")
    decisions = read(observed, "decisions")
    assert (decisions["data"]["total"], decisions["skipped_rows"]) == (104, 2)
    assert read(observed, "latency")["skipped_rows"] == 1
    spend = read(observed, "spend-avoided")
    assert (spend["data"]["total_monthly_usd"], spend["skipped_rows"]) == ("170.2501", 1)


def plant(cursor: psycopg.Cursor, tenant_id: uuid.UUID, **members: Any) -> None:
    row = {
        "id": uuid.uuid4(), "tenant_id": tenant_id, "kind": "gate_decided", "outcome": "ALLOW",
        "at": datetime.now(UTC), "duration_ms": 7, "amount_usd": "1.00", "attributes": "{}",
        **members,
    }  # fmt: skip
    names = ", ".join(row)
    places = ", ".join(f"%({name})s" for name in row)
    cursor.execute(f"INSERT INTO telemetry_event ({names}) VALUES ({places})", row)


@contextmanager
def broken(cursor: psycopg.Cursor, breaking: str, mending: str) -> Iterator[None]:
    cursor.execute(breaking)
    try:
        yield
    finally:
        cursor.execute(mending)


POLICY = "ALTER POLICY tenant_isolation ON telemetry_event USING"
MENDED_POLICY = f"{POLICY} (tenant_id = valdrix_current_tenant())"
BREAKS = {
    "not_permitted": (
        "REVOKE SELECT ON telemetry_event FROM valdrix_telemetry",
        "GRANT SELECT ON telemetry_event TO valdrix_telemetry",
    ),
    "table_missing": (
        "ALTER TABLE telemetry_event RENAME TO telemetry_elsewhere",
        "ALTER TABLE telemetry_elsewhere RENAME TO telemetry_event",
    ),
    "schema_mismatch": (
        "ALTER TABLE telemetry_event RENAME COLUMN outcome TO ending",
        "ALTER TABLE telemetry_event RENAME COLUMN ending TO outcome",
    ),
    "store_failed": (
        f"{POLICY} (1 / (position('' in kind) - 1) = 1)",
        MENDED_POLICY,
    ),
    "timeout": (
        f"{POLICY} (pg_sleep(0.05) IS NOT NULL AND tenant_id = valdrix_current_tenant())",
        MENDED_POLICY,
    ),
}


@pytest.mark.parametrize("reason", BREAKS)
def test_a_store_that_fails_is_an_empty_state(
    reason: str, observed: World, owner_cursor: psycopg.Cursor, settings: Any
) -> None:
    settings.TELEMETRY_READ_TIMEOUT_MS = 300
    client = sign_in(observed.admin)
    with broken(owner_cursor, *BREAKS[reason]):
        for name, reading in read(observed, "readings").items():
            if reason == "schema_mismatch" and reading["available"]:
                assert name == "latency"  # It needs no outcome, and is as good as ever.
                continue
            assert reading["available"] is False
            assert reading["data"] is None
            assert reading["reason"] in {reason, "timeout"}
        page = client.get(PAGE)
        assert page.status_code == 200
        assert "vx-empty" in page.content.decode()
        # Truth is where it was.
        assert Api().get("decisions", key=observed.admin.key).status_code == 200
        assert client.get("/admin/").status_code == 200
    assert read(observed, "decisions")["data"]["total"] == 103


def test_a_locked_table_is_an_empty_state(observed: World, owner_cursor: psycopg.Cursor) -> None:
    with owner_cursor.connection.transaction():
        owner_cursor.execute("LOCK TABLE telemetry_event IN ACCESS EXCLUSIVE MODE")
        assert read(observed, "decisions")["reason"] == "timeout"
    assert read(observed, "decisions")["available"] is True


@pytest.mark.parametrize("kind", ["refuses", "is silent"])
def test_a_store_that_is_away_is_an_empty_state(kind: str, tenant: World, settings: Any) -> None:
    settings.TELEMETRY_READ_TIMEOUT_MS = 200
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "is silent":
            listener.listen(8)
        port = str(listener.getsockname()[1])
        settings.TELEMETRY_STORE = {"user": "nobody", "password": "x", "port": port}
        expected = "store_unreachable" if kind == "refuses" else "timeout"
        assert {one["reason"] for one in read(tenant, "readings").values()} == {expected}
        assert sign_in(tenant.admin).get(PAGE).status_code == 200


def test_without_a_store_the_readings_say_so(tenant: World, settings: Any) -> None:
    settings.TELEMETRY_STORE = None
    assert read(tenant, "latency")["reason"] == "not_configured"
    assert "not set up here" in sign_in(tenant.admin).get(PAGE).content.decode()


def test_only_a_few_read_at_once(tenant: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "_slots", threading.BoundedSemaphore(1))
    with board._slots:
        assert {one["reason"] for one in read(tenant, "readings").values()} == {"busy"}
    assert read(tenant, "latency")["available"] is True


def test_readings_ask_the_database_of_truth_for_the_caller_only(observed: World) -> None:
    with CaptureQueriesContext(connection) as captured:
        read(observed, "readings")
    assert all("telemetry" not in query["sql"] for query in captured.captured_queries)
    assert len(captured) == 1


def test_the_page_shows_the_figures_to_those_who_may_see_them(observed: World) -> None:
    text = sign_in(observed.owner).get(PAGE).content.decode()
    for shown in ("103", "170.2501", "90 s", "99 ms", "shop"):
        assert shown in text
    assert "1.5 min" not in text
    assert sign_in(observed.member).get(PAGE).status_code == 403
    assert PAGE not in sign_in(observed.member).get("/admin/").content.decode()
    assert PAGE in sign_in(observed.admin).get("/admin/").content.decode()
    assert sign_in(observed.admin).get(PAGE, {"window": "1y"}).status_code == 400
    assert sign_in(observed.admin).post(PAGE).status_code == 405
    assert observed.member.role == MEMBER


def test_the_page_of_nothing_is_honest(tenant: World) -> None:
    text = sign_in(tenant.admin).get(PAGE).content.decode()
    assert "No decision was observed in this window." in text
    assert "No approval ended in this window." in text


def test_a_window_is_read_by_an_index(observed: World) -> None:
    with open_store(WRITING) as store, store.transaction():
        store.execute("SELECT set_config('valdrix.tenant', %s, true)", [str(observed.id)])
        store.execute("SET LOCAL enable_seqscan = off")
        plan = store.execute(
            "EXPLAIN SELECT count(*) FROM telemetry_event"
            " WHERE tenant_id = %s AND kind = 'gate_decided' AND at >= now() - interval '1 hour'",
            [observed.id],
        ).fetchall()
    assert "Index" in str(plan)
    assert "telemetry_event_" in str(plan)
