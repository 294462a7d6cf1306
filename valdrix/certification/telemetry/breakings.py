"""How each injection breaks telemetry: contexts, broken inside and mended after.

Every one is done for real, by the superuser, a signal, or a process of its own.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import partial
from typing import Final

import psycopg
from django.db import connections

from telemetry.events.domain import Fate
from telemetry.events.writer import Writer, WriterLimits
from telemetry.store.connection import WRITING, open_store
from valdrix.certification.telemetry.bench import wait_for
from valdrix.certification.telemetry.under_way import Run
from valdrix.kernel.emitter import GATE_DECIDED, Observation
from valdrix.kernel.ids import new_id

Breaking = Callable[[Run], AbstractContextManager[None]]

ROLE: Final = "valdrix_telemetry"
POLICY: Final = "ALTER POLICY tenant_isolation ON telemetry_event USING"
OWN: Final = "tenant_id = valdrix_current_tenant()"
MEND_POLICY: Final = f"{POLICY} ({OWN})"
REVOKE: Final = f"REVOKE INSERT ON telemetry_event FROM {ROLE}"
GRANT: Final = f"GRANT INSERT ON telemetry_event TO {ROLE}"
SLEEPY: Final = f"{POLICY} (pg_sleep(0.2) IS NOT NULL AND {OWN})"
DROP: Final = "DROP TABLE telemetry_event"
SPARSE: Final = f"{POLICY} (hashtext(id::text) % 2 = 0 AND {OWN})"
THROWING: Final = f"{POLICY} (1 / (length(kind) - length(kind)) = 1 AND {OWN})"
RENAME: Final = "ALTER TABLE telemetry_event RENAME COLUMN outcome TO ending"
RENAME_BACK: Final = "ALTER TABLE telemetry_event RENAME COLUMN ending TO outcome"


def by_statement(breaking: str, mending: str, *, rows: int = 0) -> Breaking:
    """Return a breaking by statements; ``rows`` events are there first, for what looks at each."""

    @contextmanager
    def broken(run: Run) -> Iterator[None]:
        if rows:
            run.fill(rows)
        run.bench.execute(breaking)
        try:
            yield
        finally:
            run.bench.execute(mending)

    return broken


_ANSWERS_OF_ALL_WORKERS: Final = 20
"""So many good answers in a row that no worker is likely to have given none of them."""


@contextmanager
def without_table(run: Run) -> Iterator[None]:
    """Drop the table of events; its migrations are applied again."""
    run.bench.execute(DROP)
    try:
        yield
    finally:
        run.bench.make_tables_anew()


@contextmanager
def killed_writers(run: Run) -> Iterator[None]:
    """End the writers' sessions, and kill the processes that they are threads of."""
    run.figures["sessions_ended"] = run.bench.end_writers()
    run.figures["workers_killed"] = run.bench.kill_workers()
    yield
    run.bench.wait_until_ready()


@contextmanager
def slow_writes(run: Run) -> Iterator[None]:
    """Make every insert take ten seconds."""
    run.bench.execute(
        "CREATE FUNCTION certification_sleep() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(10); RETURN NEW; END'",
        "CREATE TRIGGER certification_sleep BEFORE INSERT ON telemetry_event"
        " FOR EACH ROW EXECUTE FUNCTION certification_sleep()",
    )
    try:
        yield
    finally:
        run.bench.execute(
            "DROP TRIGGER certification_sleep ON telemetry_event",
            "DROP FUNCTION certification_sleep()",
        )


@contextmanager
def oversized(run: Run) -> Iterator[None]:
    """Offer events beyond every limit among good ones, and one past the writer's own check."""
    writer = _writer()
    for number in range(20):
        attributes: dict[str, str | int | None] = {"project": "shop"}
        if number % 2:
            attributes = {"project": "x" * 1_000_000}
        writer(_observe(run, attributes))
    writer.stop()
    tally = writer.tally()
    run.figures.update(oversized=tally.fates[Fate.OVERSIZED], written=tally.fates[Fate.WRITTEN])
    try:
        with open_store(WRITING) as store, store.transaction():
            store.execute(
                "SELECT set_config('valdrix.tenant', %s, true)", [str(run.subject.tenant_id)]
            )
            store.execute(
                "INSERT INTO telemetry_event (id, tenant_id, kind, at, outcome, attributes)"
                " VALUES (%s, %s, 'gate_decided', %s, 'ALLOW', %s)",
                [new_id(), run.subject.tenant_id, run.at, '{"project":"' + "x" * 5_000 + '"}'],
            )
    except psycopg.errors.CheckViolation:
        run.figures["refused_by_table"] = True
    yield


@contextmanager
def duplicates(run: Run) -> Iterator[None]:
    """Offer one event five thousand times, as fast as it is taken."""
    writer = _writer()
    seen = _observe(run, {"project": "shop"})
    for _ in range(5_000):
        writer(seen)
        if writer.tally().waiting > 4_000:
            time.sleep(0.05)
    wait_for(lambda: writer.tally().waiting == 0, "the duplicates are not through", seconds=30)
    writer.stop()
    tally = writer.tally()
    run.figures.update(offered=tally.offered, written=tally.fates[Fate.WRITTEN],
                       known=tally.fates[Fate.KNOWN], lost=tally.lost)  # fmt: skip
    yield


@contextmanager
def corrupt_rows(run: Run) -> Iterator[None]:
    """Put rows into the store that are no JSON, and amounts and durations that are none."""
    run.fill(50)
    run.bench.execute(
        "UPDATE telemetry_event SET attributes = '{\"mode\":' WHERE duration_ms % 5 = 0"
        f" AND tenant_id = '{run.subject.tenant_id}'",
        "UPDATE telemetry_event SET duration_ms = -1, amount_usd = 'NaN' WHERE duration_ms % 7 = 0"
        f" AND tenant_id = '{run.subject.tenant_id}'",
    )
    yield


@contextmanager
def blown_up(run: Run) -> Iterator[None]:
    """Fill the table with rows of one tenant, a million at a time."""
    began = time.monotonic()
    step = 1_000_000
    for start in range(0, run.rows, step):
        run.fill(min(step, run.rows - start))
        run.bench.progress(f"    {min(start + step, run.rows):,} of {run.rows:,} rows")
    run.figures["rows"] = run.stored()
    run.figures["filled_in_seconds"] = round(time.monotonic() - began)
    try:
        yield
    finally:
        run.bench.execute("TRUNCATE telemetry_event")


@contextmanager
def killed_cleaning(run: Run) -> Iterator[None]:
    """Kill the command with SIGKILL after its first batch and before its last."""
    run.fill(3_000, age=timedelta(days=400))
    before = run.stored()
    run.bench.execute(
        "CREATE FUNCTION certification_drag() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.001); RETURN OLD; END'",
        "CREATE TRIGGER certification_drag BEFORE DELETE ON telemetry_event"
        " FOR EACH ROW EXECUTE FUNCTION certification_drag()",
    )
    try:
        command = run.bench.manage("clean_telemetry")
        wait_for(lambda: run.stored() < before, "the cleaning does not begin")
        command.send_signal(signal.SIGKILL)
        command.communicate()
        run.figures.update(before=before, left=run.stored(), exit_code=command.returncode)
        yield
    finally:
        run.bench.execute(
            "DROP TRIGGER certification_drag ON telemetry_event",
            "DROP FUNCTION certification_drag()",
        )
    run.figures["cleaned_after"] = _finish(run.bench.manage("clean_telemetry"))


@contextmanager
def cleans_everything(run: Run) -> Iterator[None]:
    """Clean with a condition that spares nothing, again and again while the gates go on."""
    stop = threading.Event()
    run.figures.update(runs=0, failed=0)

    def clean() -> None:
        while not stop.is_set():
            run.figures["failed"] += (
                _finish(run.bench.manage("clean_telemetry", "--days", "0")) != 0
            )
            run.figures["runs"] += 1

    def wait_for_one() -> None:
        wait_for(lambda: run.figures["runs"] > 0, "the cleaning does not end")

    run.settle = wait_for_one
    thread = threading.Thread(target=clean)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def cleaned_out(run: Run) -> Iterator[None]:
    """Clean everything away once, whole, while the table was just filled."""
    run.fill(2_000)
    run.figures["exit_code"] = _finish(run.bench.manage("clean_telemetry", "--days", "0"))
    run.figures["left"] = run.stored()
    # What the gates observe from now on goes as well: the writers find no right to insert.
    with by_statement(REVOKE, GRANT)(run):
        yield


@contextmanager
def held_lock(run: Run) -> Iterator[None]:
    """Hold the whole table in a long transaction, and try to clean it."""
    run.fill(1_500, age=timedelta(days=400))
    with run.bench.admin() as holder, holder.transaction():
        holder.execute("LOCK TABLE telemetry_event IN ACCESS EXCLUSIVE MODE")
        run.figures["delayed_exit_code"] = _finish(run.bench.manage("clean_telemetry"))
        yield
    run.figures["cleaned_after"] = _finish(run.bench.manage("clean_telemetry"))
    run.figures["left"] = int(
        run.bench.fetch(
            "SELECT count(*) FROM telemetry_event WHERE tenant_id = %s AND at < %s",
            run.subject.tenant_id,
            run.at - timedelta(days=100),
        )
    )


@contextmanager
def hints(run: Run) -> Iterator[None]:
    """Say of every decision the contrary, under its own id, and more beside it."""
    with run.bench.admin() as admin:
        for decision_id in run.subject.asked.decision_ids:
            admin.execute(
                "INSERT INTO telemetry_event (id, tenant_id, kind, at, outcome, amount_usd,"
                " attributes) VALUES (%s, %s, 'gate_decided', %s, 'DENY', 0,"
                ' \'{"replay":"DENY","reason":"telemetry says so"}\')'
                " ON CONFLICT (id) DO UPDATE SET outcome = 'DENY', amount_usd = 0",
                [decision_id, run.subject.tenant_id, run.at],
            )
    run.figures["hints"] = len(run.subject.asked.decision_ids)
    yield


@contextmanager
def prefilled(run: Run) -> Iterator[None]:
    """Put five thousand events into the store."""
    run.fill(5_000)
    yield


@contextmanager
def writer_down_reader_slow(run: Run) -> Iterator[None]:
    """Refuse inserts, and make every row take its time to be read."""
    with by_statement(REVOKE, GRANT)(run), by_statement(SLEEPY, MEND_POLICY, rows=20)(run):
        yield


@contextmanager
def restarted(run: Run) -> Iterator[None]:
    """Restart the server while the gates are being asked."""
    run.figures["started_before"] = str(run.bench.fetch("SELECT pg_postmaster_start_time()"))
    thread = threading.Thread(target=run.bench.restart_database)

    def settle() -> None:
        thread.join()
        # Each worker finds out for itself that the server is back: one answer speaks for one of them.
        for _ in range(_ANSWERS_OF_ALL_WORKERS):
            run.bench.wait_until_ready()
        connections.close_all()

    run.settle = settle
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _observe(run: Run, attributes: dict[str, str | int | None]) -> Observation:
    return Observation(
        id=new_id(),
        tenant_id=run.subject.tenant_id,
        kind=GATE_DECIDED,
        at=run.at,
        outcome="ALLOW",
        attributes=attributes,
    )


def _writer() -> Writer:
    limits = WriterLimits(flush_seconds=0.02)
    return Writer(connect=partial(open_store, WRITING), limits=limits)


def _finish(command: subprocess.Popen[str]) -> int:
    command.communicate(timeout=60)
    return int(command.returncode)
