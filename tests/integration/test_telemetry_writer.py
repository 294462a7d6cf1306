"""The writer: bounded, never in the way, exact about its losses, alone with its own rights."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest

from enforcement.reconciliation.expiry import expire_approvals
from governance.audit.operations import Actor
from telemetry.events.domain import Fate, Row
from telemetry.events.operations import Written, write_batch
from telemetry.events.writer import Writer, WriterLimits
from telemetry.store.connection import WRITING, Connection, open_store
from tests.conftest import owner_dsn
from tests.factories.headroom import Shop
from tests.factories.telemetry import (
    build_observation,
    running_writer,
    stored_events,
)
from tests.factories.tenants import World
from tests.reviews import act, approve, open_shop
from tests.waiting import wait_until
from valdrix.kernel import emitter

ROOT = Path(__file__).parent.parent.parent


def refusing() -> Connection:
    raise psycopg.OperationalError("nobody answers")


def settled(writer: Writer) -> bool:
    return writer.tally().waiting == 0


def test_events_are_written_with_every_member(tenant: World) -> None:
    seen = build_observation(tenant.id, outcome="DENY", amount_usd=Decimal("-12.3456"))
    with running_writer() as writer:
        writer(seen)
        wait_until(lambda: settled(writer))
        assert writer.tally().fates[Fate.WRITTEN] == 1
    (row,) = stored_events(tenant.id)
    assert row == {
        "id": seen.id,
        "tenant_id": tenant.id,
        "kind": "gate_decided",
        "at": seen.at,
        "outcome": "DENY",
        "source": "terraform",
        "environment": "prod",
        "duration_ms": 7,
        "amount_usd": Decimal("-12.3456"),
        "attributes": '{"mode":"hard","project":"shop"}',
    }


def test_what_waits_is_written_when_the_process_ends(tenant: World) -> None:
    with running_writer(limits=WriterLimits(flush_seconds=30)) as writer:
        for _ in range(1_200):
            writer(build_observation(tenant.id))
    assert len(stored_events(tenant.id)) == 1_200
    assert writer.tally().lost == 0


def test_the_same_event_is_kept_once(tenant: World, other_tenant: World) -> None:
    seen = build_observation(tenant.id)
    with running_writer() as writer:
        for _ in range(50):
            writer(seen)
        # An id of another tenant's event tells nothing and takes nothing.
        writer(build_observation(other_tenant.id, id=seen.id))
        writer(build_observation(other_tenant.id))
        wait_until(lambda: settled(writer))
        fates = writer.tally().fates
    assert (fates[Fate.WRITTEN], fates[Fate.KNOWN]) == (2, 50)
    assert len(stored_events(tenant.id)) == 1
    assert len(stored_events(other_tenant.id)) == 1


def test_one_spoilt_row_is_rejected_alone(tenant: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # The door lets it pass, as after a change of the table that this process does not know.
    monkeypatch.setattr("telemetry.events.writer.check", lambda seen: None)
    with running_writer() as writer:
        writer(build_observation(tenant.id))
        writer(build_observation(tenant.id, outcome="x" * 41))
        writer(build_observation(tenant.id))
        wait_until(lambda: settled(writer))
        fates = writer.tally().fates
    assert (fates[Fate.WRITTEN], fates[Fate.REJECTED]) == (2, 1)
    assert len(stored_events(tenant.id)) == 2


def test_malformed_and_oversized_events_are_counted_by_name(tenant: World) -> None:
    with running_writer() as writer:
        writer(build_observation(tenant.id, kind="unheard of"))
        writer(build_observation(tenant.id, attributes=None))
        writer(build_observation(tenant.id, attributes={"project": "x" * 5_000_000}))
        wait_until(lambda: settled(writer))
        tally = writer.tally()
    assert tally.fates[Fate.INVALID] == 2
    assert tally.fates[Fate.OVERSIZED] == 1
    assert tally.lost == tally.offered == 3
    assert stored_events(tenant.id) == []


def test_a_dead_store_costs_only_the_events(tenant: World) -> None:
    limits = WriterLimits(queue_events=100, flush_seconds=0.01)
    with running_writer(connect=refusing, limits=limits) as writer:
        for _ in range(1_000):
            writer(build_observation(tenant.id))
        assert writer.tally().waiting <= 100
        assert writer.tally().fates[Fate.QUEUE_FULL] >= 900
    tally = writer.tally()
    assert tally.waiting == 0
    assert tally.lost == tally.offered == 1_000


def test_the_store_s_return_is_noticed(tenant: World) -> None:
    answers = iter([psycopg.OperationalError("away"), psycopg.OperationalError("away")])

    def connect() -> Connection:
        error = next(answers, None)
        if error is not None:
            raise error
        return open_store(WRITING)

    with running_writer(connect=connect) as writer:
        writer(build_observation(tenant.id))
        wait_until(lambda: settled(writer))
        assert writer.tally().fates[Fate.WRITTEN] == 1


def test_a_fork_starts_anew_and_leaves_the_parent_its_events(tenant: World) -> None:
    reader, answer = os.pipe()
    with running_writer(limits=WriterLimits(flush_seconds=0.01)) as writer:
        writer(build_observation(tenant.id))
        wait_until(lambda: settled(writer))
        # As if another thread held it at the moment of the fork.
        writer._lock.acquire()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                writer(build_observation(tenant.id, outcome="DENY"))
                wait_until(lambda: settled(writer), seconds=10)
                fates = writer.tally().fates
                writer.stop()
                os.write(answer, b"%d of %d" % (fates[Fate.WRITTEN], writer.tally().offered))
                status = 0
            finally:
                os._exit(status)
        writer._lock.release()
        os.close(answer)
        assert os.waitpid(child, 0)[1] == 0
        assert os.read(reader, 100) == b"1 of 1"
        os.close(reader)
        writer(build_observation(tenant.id, outcome="DENY"))
        wait_until(lambda: settled(writer))
        assert writer.tally().fates[Fate.WRITTEN] == 2
    assert [row["outcome"] for row in stored_events(tenant.id)].count("DENY") == 2


def test_many_threads_lose_no_count(tenant: World) -> None:
    limits = WriterLimits(queue_events=100, flush_seconds=0.001)
    with running_writer(limits=limits) as writer:
        threads = [
            threading.Thread(
                target=lambda: [writer(build_observation(tenant.id)) for _ in range(500)]
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    tally = writer.tally()
    assert (tally.offered, tally.waiting) == (4_000, 0)
    assert tally.fates[Fate.WRITTEN] + tally.fates[Fate.QUEUE_FULL] == 4_000
    assert len(stored_events(tenant.id)) == tally.fates[Fate.WRITTEN] > 0


def test_what_comes_while_others_are_written_waits_for_the_next_flush(
    tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, written_at = WriterLimits(flush_seconds=0.05), []
    with running_writer(limits=limits) as writer:

        def write(*, store: Connection, rows: Sequence[Row]) -> Written:
            written_at.append(time.monotonic())
            if len(written_at) < 4:
                writer(build_observation(tenant.id))
            return write_batch(store=store, rows=rows)

        monkeypatch.setattr("telemetry.events.writer.write_batch", write)
        writer(build_observation(tenant.id))
        wait_until(lambda: len(written_at) == 4 and settled(writer))
    assert len(stored_events(tenant.id)) == 4
    assert all(later - one >= limits.flush_seconds for one, later in pairwise(written_at))


@pytest.fixture
def switch(database: None) -> Iterator[None]:
    yield
    set_switch(is_on=True)


def set_switch(*, is_on: bool) -> None:
    with open_store(WRITING) as store:
        store.execute("UPDATE telemetry_switch SET is_on = %s", [is_on])


def test_the_switch_works_on_a_running_writer(tenant: World, switch: None) -> None:
    with running_writer() as writer:
        writer(build_observation(tenant.id))
        wait_until(lambda: settled(writer))
        set_switch(is_on=False)
        # While nothing comes nobody looks; the first events after it find it.
        for _ in range(20):
            writer(build_observation(tenant.id))
            time.sleep(0.02)
        wait_until(lambda: not writer._is_on)
        before = len(stored_events(tenant.id))
        writer(build_observation(tenant.id))
        tally = writer.tally()
        assert tally.fates[Fate.SWITCHED_OFF] > 0
        assert tally.lost == 0
        assert len(stored_events(tenant.id)) == before < 21
        set_switch(is_on=True)
        wait_until(lambda: writer._is_on)
        writer(build_observation(tenant.id))
        wait_until(lambda: settled(writer))
        assert len(stored_events(tenant.id)) == before + 1


def test_a_gate_emits_after_its_commit_and_a_replay_emits_nothing(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")
    with running_writer() as writer:
        emitter.bind(writer)
        try:
            allowed = shop.ask("100.00", key="a")
            denied = shop.ask("9000.00", key="b")
            shop.ask("100.00", key="a")
            shop.ask("100.00", dry_run=True)
        finally:
            emitter.bind(None)
        wait_until(lambda: settled(writer))
    rows = {str(row["id"]): row for row in stored_events(tenant.id)}
    assert set(rows) == {allowed["decision_id"], denied["decision_id"]}
    one = rows[denied["decision_id"]]
    assert (one["kind"], one["outcome"]) == ("gate_decided", "DENY")
    assert one["amount_usd"] == Decimal("9000.0000")
    assert one["attributes"] == (
        '{"mode":"hard","project":"shop",'
        f'"reason":"{denied["reason_codes"][0]}","would_have_been":null}}'
    )


def test_approvals_emit_how_they_ended_and_how_long_that_took(tenant: World) -> None:
    shop = open_shop(tenant)
    asked = [
        shop.ask("300.00", resource_reference=f"module.m{number}")["approval_request_id"]
        for number in range(4)
    ]
    assert None not in asked
    with running_writer() as writer:
        emitter.bind(writer)
        try:
            approve(tenant.owner, asked[0])
            assert act(tenant.owner, asked[1], "deny", reason="no").status_code == 200
            assert act(tenant.member, asked[2], "withdraw").status_code == 200
            assert act(tenant.owner, asked[2], "approve").status_code == 409
            at = datetime.now(UTC) + timedelta(days=60)
            expire_approvals(
                actor=Actor(tenant_id=tenant.id, principal_id="system:x", address=None, at=at)
            )
        finally:
            emitter.bind(None)
        wait_until(lambda: settled(writer))
    rows = {str(row["id"]): row for row in stored_events(tenant.id)}
    assert {one: rows[one]["outcome"] for one in rows} == dict(
        zip(asked, ["approved", "denied", "withdrawn", "expired"], strict=True)
    )
    assert {row["kind"] for row in rows.values()} == {"approval_ended"}
    assert {row["amount_usd"] for row in rows.values()} == {Decimal(300)}
    # What was given and not spent ends once more, and the first end is the one that is kept.
    assert rows[asked[0]]["duration_ms"] < 600_000 < rows[asked[3]]["duration_ms"]


def test_the_role_may_use_its_own_tables_only(tenant: World, owner_cursor: psycopg.Cursor) -> None:
    owner_cursor.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p', 'v', 'm', 'S') AND CASE relkind WHEN 'S'"
        "   THEN has_sequence_privilege('valdrix_telemetry', oid, 'USAGE, SELECT, UPDATE')"
        "   ELSE has_table_privilege('valdrix_telemetry', oid,"
        "        'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') END"
    )
    assert {name for (name,) in owner_cursor.fetchall()} == {"telemetry_event", "telemetry_switch"}
    owner_cursor.execute(
        "SELECT proname FROM pg_proc WHERE prosecdef"
        " AND has_function_privilege('valdrix_telemetry', oid, 'EXECUTE')"
        " AND pronamespace = 'public'::regnamespace"
    )
    assert owner_cursor.fetchall() == []
    owner_cursor.execute(
        "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb, rolconnlimit"
        " FROM pg_roles WHERE rolname = 'valdrix_telemetry'"
    )
    assert owner_cursor.fetchone() == (False, 40)


def test_the_application_s_role_cannot_read_telemetry(owner_cursor: psycopg.Cursor) -> None:
    owner_cursor.execute(
        "SELECT t FROM unnest(ARRAY['telemetry_event', 'telemetry_switch']) AS t"
        " WHERE has_any_column_privilege('valdrix_app', t, 'SELECT, INSERT, UPDATE')"
        "    OR has_table_privilege('valdrix_app', t, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')"
    )
    assert owner_cursor.fetchall() == []


def test_telemetry_sees_one_tenant_at_a_time(tenant: World, other_tenant: World) -> None:
    with running_writer() as writer:
        writer(build_observation(tenant.id))
        writer(build_observation(other_tenant.id))
    with open_store(WRITING) as store:
        with pytest.raises(psycopg.Error, match="no tenant is set"):
            store.execute("SELECT count(*) FROM telemetry_event")
        with store.transaction():
            store.execute("SELECT set_config('valdrix.tenant', %s, true)", [str(tenant.id)])
            assert store.execute("SELECT DISTINCT tenant_id FROM telemetry_event").fetchall() == [
                (tenant.id,)
            ]
            assert store.execute("DELETE FROM telemetry_event").rowcount == 1
    assert len(stored_events(other_tenant.id)) == 1


@pytest.mark.parametrize("store", ["refuses", "hangs"])
def test_a_process_with_a_dead_store_ends_and_accounts_for_every_event(store: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if store == "hangs":
            listener.listen(16)  # Connections are made, and nobody ever says a word.
        process = start_spamming(listener.getsockname()[1], events=20_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "emitted\n"
        process.send_signal(signal.SIGTERM)
        # How long this takes is measured by tests/benchmarks/telemetry_dead_store.py.
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    # Every single one is accounted for, and the queue never held more than it may.
    assert output.split() == ["offered=20000", "lost=20000", "waiting=0", "most=500"]


def start_spamming(port: int, *, events: int) -> subprocess.Popen[str]:
    """Start a process that emits into a store at a port, then waits for its end."""
    program = textwrap.dedent(f"""
        import signal, sys, time
        import django
        django.setup()
        from functools import partial
        from telemetry.events.writer import Writer, WriterLimits
        from telemetry.store.connection import WRITING, open_store
        from tests.factories.telemetry import build_observation
        from valdrix.kernel.ids import new_id

        writer = Writer(
            connect=partial(open_store, WRITING), limits=WriterLimits(queue_events=500)
        )
        def leave(*_):
            sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
        tenant_id, most = new_id(), 0
        for number in range({events}):
            writer(build_observation(tenant_id))
            most = max(most, len(writer._queue))
        try:
            print("emitted", flush=True)
            time.sleep(60)
        finally:
            writer.stop()
            tally = writer.tally()
            print(f"offered={{tally.offered}} lost={{tally.lost}}"
                  f" waiting={{tally.waiting}} most={{most}}", flush=True)
    """)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={
            **os.environ,
            "TELEMETRY_DATABASE_URL": f"postgresql://valdrix_telemetry:x@127.0.0.1:{port}/none",
            "TELEMETRY_ENABLED": "false",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_a_write_leaves_the_gate_s_connection_alone(tenant: World) -> None:
    """The writer's session is another one, of another role, with time-outs of its own."""
    with running_writer() as writer:
        writer(build_observation(tenant.id))
        wait_until(lambda: settled(writer))
        with psycopg.connect(owner_dsn()) as owner:
            (roles,) = owner.execute(
                "SELECT array_agg(DISTINCT usename::text) FROM pg_stat_activity"
                " WHERE application_name = 'valdrix-telemetry' AND datname = current_database()"
            ).fetchone()
        assert roles == ["valdrix_telemetry"]
    with open_store(WRITING) as store:
        shown = [
            store.execute(f"SHOW {name}").fetchone()[0]
            for name in ("statement_timeout", "lock_timeout", "synchronous_commit")
        ]
    assert shown == ["2s", "300ms", "off"]
