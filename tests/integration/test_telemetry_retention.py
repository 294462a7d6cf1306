"""Retention deletes what is old, gives way to locks, and goes on where it was stopped."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command

from telemetry.retention import operations
from telemetry.retention.operations import delete_old
from telemetry.store.connection import CLEANING, Connection, open_store
from tests.conftest import owner_dsn
from tests.factories.telemetry import build_observation, running_writer, stored_events
from tests.factories.tenants import World
from valdrix.jobs.running import Outcome, run_job
from valdrix.schedule import find_job

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=400)


def plant(tenant_id: uuid.UUID, *, old: int, young: int) -> None:
    with running_writer() as writer:
        for number in range(old):
            writer(build_observation(tenant_id, at=LONG_AGO + timedelta(seconds=number)))
        for _ in range(young):
            writer(build_observation(tenant_id))


def test_what_is_old_goes_in_batches_and_what_is_young_stays(
    tenant: World, other_tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "BATCH", 10)
    plant(tenant.id, old=25, young=3)
    plant(other_tenant.id, old=2, young=0)
    done = delete_old(tenant_ids=[tenant.id], before=NOW - timedelta(days=30))
    assert (done.deleted, done.batches, done.delayed) == (25, 3, None)
    assert len(stored_events(tenant.id)) == 3
    assert len(stored_events(other_tenant.id)) == 2
    assert delete_old(tenant_ids=[tenant.id], before=NOW - timedelta(days=30)).deleted == 0


def test_rows_that_somebody_holds_are_left(tenant: World) -> None:
    plant(tenant.id, old=5, young=0)
    held = stored_events(tenant.id)[0]["id"]
    with psycopg.connect(owner_dsn()) as holder:
        holder.execute("SELECT 1 FROM telemetry_event WHERE id = %s FOR UPDATE", [held])
        assert delete_old(tenant_ids=[tenant.id], before=NOW).deleted == 4
    assert [row["id"] for row in stored_events(tenant.id)] == [held]
    assert delete_old(tenant_ids=[tenant.id], before=NOW).deleted == 1


def test_a_locked_table_delays_and_deletes_nothing(tenant: World) -> None:
    plant(tenant.id, old=5, young=0)
    with psycopg.connect(owner_dsn()) as holder:
        holder.execute("LOCK TABLE telemetry_event IN SHARE MODE")
        done = delete_old(tenant_ids=[tenant.id], before=NOW)
    assert (done.deleted, done.delayed) == (0, "timeout")
    assert delete_old(tenant_ids=[tenant.id], before=NOW).deleted == 5


class Killed(Exception):
    """The job's process ends here."""


def test_a_run_that_is_killed_leaves_the_rest_and_the_next_goes_on(
    tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "BATCH", 10)
    plant(tenant.id, old=35, young=1)

    def connect() -> Connection:
        store = open_store(CLEANING)
        execute, calls = store.execute, iter(range(100))

        def dying(*arguments: Any) -> Any:
            if next(calls) >= 5:  # In the middle of the third batch.
                raise Killed
            return execute(*arguments)

        store.execute = dying  # type: ignore[method-assign]
        return store

    with pytest.raises(Killed):
        delete_old(tenant_ids=[tenant.id], before=NOW - timedelta(days=1), connect=connect)
    assert len(stored_events(tenant.id)) == 16
    assert delete_old(tenant_ids=[tenant.id], before=NOW - timedelta(days=1)).deleted == 15


def test_a_run_can_be_bounded(tenant: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "BATCH", 10)
    plant(tenant.id, old=30, young=0)
    done = delete_old(tenant_ids=[tenant.id], before=NOW, most_batches=2)
    assert (done.deleted, done.delayed) == (20, "more_remains")


@pytest.mark.first
def test_the_job_and_the_command_do_the_same(
    tenant: World, capsys: pytest.CaptureFixture[str], settings: Any
) -> None:
    job = find_job("clean-telemetry")
    assert job is not None
    plant(tenant.id, old=3, young=2)
    assert run_job(job) is Outcome.DONE
    assert len(stored_events(tenant.id)) == 2
    plant(tenant.id, old=3, young=0)
    call_command("clean_telemetry")
    assert "events deleted in" in capsys.readouterr().out
    assert len(stored_events(tenant.id)) == 2
    call_command("clean_telemetry", "--days", "0")
    assert stored_events(tenant.id) == []
    with pytest.raises(CommandError, match="--days takes"):
        call_command("clean_telemetry", "--days", "-1")
    settings.TELEMETRY_STORE = None
    assert run_job(job) is Outcome.DONE
    with pytest.raises(CommandError, match="not_configured"):
        call_command("clean_telemetry")


def test_a_lock_delays_the_command_and_it_says_so(tenant: World) -> None:
    plant(tenant.id, old=1, young=0)
    with psycopg.connect(owner_dsn()) as holder:
        holder.execute("LOCK TABLE telemetry_event IN SHARE MODE")
        with pytest.raises(CommandError, match="left for the next run: timeout"):
            call_command("clean_telemetry")
    assert len(stored_events(tenant.id)) == 1


def test_the_switch_s_command(capsys: pytest.CaptureFixture[str], settings: Any) -> None:
    run = partial(call_command, "telemetry")
    try:
        with pytest.raises(CommandError, match="Say why"):
            run("off")
        with pytest.raises(CommandError, match="characters"):
            run("off", "--reason", "x" * 201)
        run("off", "--reason", "the disk is full")
        assert "telemetry is off since" in capsys.readouterr().out
        run("status")
        assert "the disk is full" in capsys.readouterr().out
    finally:
        run("on")
    assert "telemetry is on since" in capsys.readouterr().out
    settings.TELEMETRY_STORE = {"user": "nobody", "port": "1", "password": "x"}
    with pytest.raises(CommandError, match="store_unreachable"):
        run("status")
