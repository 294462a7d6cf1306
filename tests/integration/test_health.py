"""Health: alive, ready, and what refuses to serve."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from tests.client import Api
from tests.crash.proxy import SWALLOWED, Cut, proxied
from tests.factories.tenants import World
from tests.integration.gunicorns import server_environment
from valdrix import health, metrics, serving
from valdrix.kernel import db
from valdrix.kernel.db import TimeLimits
from valdrix.serving import GuardedApplication

PROJECT = Path(__file__).parents[2]
READY = ("/health", "/health/ready")


@contextmanager
def pending_migration(cursor: psycopg.Cursor) -> Iterator[None]:
    cursor.execute(
        "DELETE FROM django_migrations WHERE app = 'enforcement' AND name = '0001_initial'"
        " RETURNING applied"
    )
    row = cursor.fetchone()
    assert row is not None
    try:
        yield
    finally:
        cursor.execute(
            "INSERT INTO django_migrations (app, name, applied)"
            " VALUES ('enforcement', '0001_initial', %s)",
            row,
        )


@contextmanager
def no_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    connection.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "PORT", "1")
        yield
        connection.close()


def test_health_says_what_runs(api: Api) -> None:
    response = api.get("/health")
    assert response.status_code == 200
    body = response.json()
    assert body["status"] == "ok"
    assert body["version"] == settings.SPECTACULAR_SETTINGS["VERSION"]
    assert body["runtime"]["database_engine"] == "postgresql"
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        assert cursor.fetchone() == (body["runtime"]["database_version"],)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_health_is_public_and_short(api: Api, path: str) -> None:
    response = api.get(path)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert api.send("HEAD", path).status_code == 200
    assert api.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 200


@pytest.mark.parametrize("path", [*READY, "/health/live"])
def test_health_takes_no_other_method(api: Api, path: str) -> None:
    response = api.post(path, {})
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in response["Allow"]


def test_without_a_database_it_lives_and_is_not_ready(
    api: Api, monkeypatch: pytest.MonkeyPatch, database: None
) -> None:
    with no_database(monkeypatch):
        assert api.get("/health/live").status_code == 200
        for path in READY:
            response = api.get(path)
            assert (response.status_code, response.json()["code"]) == (503, "not_ready")
            assert response["Content-Type"] == "application/problem+json"
    assert api.get("/health/ready").status_code == 200


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let health and metrics wait for a tenth of their time only."""
    monkeypatch.setattr(health, "_ANSWER_WITHIN_MS", "200")
    monkeypatch.setattr(health, "_WITHIN_SECONDS", 0.4)
    monkeypatch.setattr(metrics, "_WITHIN_SECONDS", 0.4)


def ask_all(api: Api) -> list[tuple[str, int]]:
    """Ask for all that says how the process is; who gets no answer would wait for ever."""
    metrics.state.forget()
    asked = (*READY, "/health/live", "/metrics")
    return [(path, api.get(path).status_code) for path in asked]


@pytest.mark.usefixtures("impatient")
def test_a_silent_database_is_not_ready_and_silences_nobody(api: Api, database: None) -> None:
    """Packets are swallowed and no connection breaks: the server's own time-outs never arrive."""
    told = [("/health", 503), ("/health/ready", 503), ("/health/live", 200), ("/metrics", 200)]
    with proxied(connection) as proxy:
        assert {status for _, status in ask_all(api)} == {200}
        proxy.stall()
        assert ask_all(api) == told
        assert b"valdrix_ops_database_up 0.0" in api.get("/metrics").content
        proxy.flow()
    metrics.state.forget()
    assert {status for _, status in ask_all(api)} == {200}


@pytest.mark.usefixtures("impatient")
def test_a_database_that_is_slow_is_not_ready_in_time(
    api: Api, owner_cursor: psycopg.Cursor
) -> None:
    """As while a migration holds its table."""
    with owner_cursor.connection.transaction():
        owner_cursor.execute("LOCK django_migrations IN ACCESS EXCLUSIVE MODE")
        for path in READY:
            response = api.get(path)
            assert (response.status_code, response.json()["code"]) == (503, "not_ready")
        assert api.get("/health/live").status_code == 200
    assert api.get("/health/ready").status_code == 200


def test_who_asks_while_others_wait_for_the_database_does_not_wait_with_them(
    api: Api, monkeypatch: pytest.MonkeyPatch, database: None
) -> None:
    """Every thread would hang in a question that anybody may ask."""
    taken = threading.BoundedSemaphore(1)
    taken.acquire()
    monkeypatch.setattr(health, "_places", taken)
    response = api.get("/health/ready")
    assert (response.status_code, response.json()["code"]) == (503, "not_ready")
    assert "asked before" in response.json()["detail"]
    taken.release()
    for _ in range(3):
        assert api.get("/health/ready").status_code == 200, "the place was given back"


def test_a_scrape_that_takes_long_holds_up_no_other(
    api: Api, monkeypatch: pytest.MonkeyPatch, database: None
) -> None:
    before = api.get("/metrics").content
    asked, goes_on = threading.Event(), threading.Event()

    def read_slowly() -> bytes:
        asked.set()
        assert goes_on.wait(30)
        return b"later 1.0\n"

    monkeypatch.setattr(metrics, "_read_state", read_slowly)
    metrics.state.forget()
    scrape = threading.Thread(target=metrics.state.render)
    scrape.start()
    assert asked.wait(30)
    assert b"valdrix_ops_database_up 1.0" in before
    assert b"valdrix_ops_database_up 1.0" in metrics.state.render(), "what was read before"
    goes_on.set()
    scrape.join()
    assert metrics.state.render() == b"later 1.0\n"
    metrics.state.forget()


def test_a_pending_migration_is_named(api: Api, owner_cursor: psycopg.Cursor) -> None:
    with pending_migration(owner_cursor):
        for path in READY:
            response = api.get(path)
            assert (response.status_code, response.json()["code"]) == (503, "not_ready")
            assert "enforcement.0001_initial" in response.json()["detail"]
    assert api.get("/health/ready").status_code == 200


def test_a_newer_schema_is_served(api: Api, owner_cursor: psycopg.Cursor) -> None:
    owner_cursor.execute(
        "INSERT INTO django_migrations (app, name, applied)"
        " VALUES ('enforcement', '9999_later', now())"
    )
    try:
        assert api.get("/health/ready").status_code == 200
    finally:
        owner_cursor.execute("DELETE FROM django_migrations WHERE name = '9999_later'")


def answered(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"served"]


def call(application: GuardedApplication, path: str) -> tuple[str, bytes]:
    statuses: list[str] = []
    body = application({"PATH_INFO": path}, lambda status, _headers: statuses.append(status))
    return statuses[0], b"".join(body)


def test_serving_starts_on_a_database_that_fits(database: None) -> None:
    application = GuardedApplication(answered)
    assert call(application, "/api/x") == ("200 OK", b"served")


def test_serving_does_not_start_with_a_pending_migration(owner_cursor: psycopg.Cursor) -> None:
    with (
        pending_migration(owner_cursor),
        pytest.raises(ImproperlyConfigured, match=r"enforcement\.0001_initial.*manage.py migrate"),
    ):
        GuardedApplication(answered)


def test_serving_does_not_start_as_the_tables_owner(
    monkeypatch: pytest.MonkeyPatch, database: None
) -> None:
    connection.close()
    with monkeypatch.context() as patch:
        owner = psycopg.conninfo.conninfo_to_dict(os.environ["DATABASE_OWNER_URL"])
        patch.setitem(connection.settings_dict, "USER", owner["user"])
        patch.setitem(connection.settings_dict, "PASSWORD", owner.get("password", ""))
        with pytest.raises(ImproperlyConfigured, match="owns the tables"):
            GuardedApplication(answered)
        connection.close()


def test_a_database_away_at_start_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, owner_cursor: psycopg.Cursor
) -> None:
    with no_database(monkeypatch):
        application = GuardedApplication(answered)
        assert call(application, "/api/x") == ("200 OK", b"served")
    with pending_migration(owner_cursor):
        status, body = call(application, "/api/x")
        assert status == "503 Service Unavailable"
        assert b'"code":"not_ready"' in body
        assert call(application, "/health/ready") == ("200 OK", b"served")
    assert call(application, "/api/x") == ("200 OK", b"served")
    monkeypatch.setattr(serving, "check_ready", lambda: pytest.fail("asked once too often"))
    assert call(application, "/api/x") == ("200 OK", b"served")


def test_gunicorn_does_not_boot_and_manage_does_with_a_pending_migration(
    owner_cursor: psycopg.Cursor,
) -> None:
    options = {"cwd": PROJECT, "env": server_environment(), "capture_output": True, "text": True}
    with pending_migration(owner_cursor):
        arguments = ["-m", "gunicorn", "valdrix.wsgi:application", "--bind=127.0.0.1:0"]
        web = subprocess.run([sys.executable, *arguments], timeout=60, check=False, **options)
        assert web.returncode == 3
        assert "Valdrix refuses to serve" in web.stderr
        assert "enforcement.0001_initial" in web.stderr
        command = [sys.executable, "manage.py", "check_api_auth"]
        assert subprocess.run(command, timeout=60, check=False, **options).returncode == 0


def test_all_doors_are_loaded_before_anybody_knocks(database: None) -> None:
    """It takes a second, which the first requests of a process would wait."""
    paths = (
        "/api/v1/enforcement/gate/terraform",
        "/api/v1/enforcement/gate/k8s/admission/review",
        "/api/v1/enforcement/exports/parity",
        "/admin/",
    )
    code = (
        "import sys, valdrix.wsgi\n"
        "from django.urls import resolve\n"
        "before = set(sys.modules)\n"
        f"for path in {paths}: resolve(path)\n"
        "print(sorted(set(sys.modules) - before), 'enforcement.api.gates' in before)\n"
    )
    options = {"cwd": PROJECT, "env": server_environment(), "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False, **options)
    assert (done.stdout, done.returncode) == ("[] True\n", 0), done.stderr


def test_a_read_that_waits_for_a_lock_in_vain_is_a_503_and_says_when_to_come_back(
    api: Api, tenant: World, owner_cursor: psycopg.Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same wait of somebody who changes something is a conflict."""
    limits = TimeLimits(lock_timeout_ms=100, statement_timeout_ms=30_000)
    binding = db._binding
    monkeypatch.setattr(db, "_binding", lambda tenant_id, _: binding(tenant_id, limits))
    body = {"project_id": "shop", "monthly_limit_usd": "1.00"}
    with owner_cursor.connection.transaction():
        owner_cursor.execute("LOCK billing_account IN ACCESS EXCLUSIVE MODE")
        for path in ("budgets", "credits"):
            read = api.get(path, key=tenant.admin.key)
            assert (read.status_code, read.json()["code"]) == (503, "database_busy"), path
            assert int(read.headers["Retry-After"]) > 0
        write = api.post("budgets", body, key=tenant.admin.key)
        assert (write.status_code, write.json()["code"]) == (409, "gate_lock_timeout")
    assert api.get("budgets", key=tenant.admin.key).json()["results"] == []


@pytest.mark.parametrize("swallowed", [b"billing_grants_page", b"INSERT INTO", b"COMMIT"])
def test_who_waits_for_a_database_that_went_silent_is_told_in_the_end(
    tenant: World, monkeypatch: pytest.MonkeyPatch, swallowed: bytes
) -> None:
    """The server's word that its time is over would come 30 seconds later, and never does."""
    monkeypatch.setattr(db, "patience_of", lambda limits: 0.3)
    body = {"project_id": "shop", "monthly_limit_usd": "1.00"}
    with proxied(connection) as proxy:
        assert Api().get("credits", key=tenant.admin.key).status_code == 200
        cut = proxy.arm(Cut(swallowed, SWALLOWED))
        if swallowed == b"billing_grants_page":
            answer = Api().get("credits", key=tenant.admin.key)
        else:
            answer = Api().post("budgets", body, key=tenant.admin.key)
        assert cut.happened.is_set()
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    connection.close()
    assert Api().get("budgets", key=tenant.admin.key).json()["results"] == []


def test_a_statement_that_takes_too_long_is_a_504_and_the_next_is_served(
    api: Api, tenant: World, superuser_dsn: str, run_in_threads: Any
) -> None:
    """The server ends it as it would after its 30 seconds, while something holds the table."""

    def ask_or_end(number: int) -> int | None:
        if number == 0:
            response = Api().get("budgets", key=tenant.admin.key)
            assert response.json()["code"] == "statement_timeout"
            return response.status_code
        for _ in range(2000):
            ended = looker.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ).fetchall()
            if ended:
                return None
            time.sleep(0.005)
        pytest.fail("nobody waited")

    with (
        psycopg.connect(superuser_dsn) as holder,
        psycopg.connect(superuser_dsn, autocommit=True) as looker,
    ):
        holder.execute("LOCK billing_account IN ACCESS EXCLUSIVE MODE")
        assert set(run_in_threads(2, ask_or_end)) == {504, None}
        assert api.get("/health/ready").status_code == 200, "what is slow is not the database"
        holder.rollback()
    assert api.get("budgets", key=tenant.admin.key).status_code == 200
