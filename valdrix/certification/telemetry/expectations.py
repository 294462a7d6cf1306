"""What has to be seen of each injection: without it, nothing was shown."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from valdrix.certification.telemetry.under_way import NotSeen, Run


def reason(wanted: str, name: str = "decisions") -> Callable[[Run], str]:
    """Return the expectation that a reading is not available for one reason."""

    def expect(run: Run) -> str:
        found = run.reading(name)["reason"]
        if found != wanted:
            raise NotSeen(f"the reading {name} says {found}, not {wanted}")
        return f"the reading {name} says {wanted}"

    return expect


def nothing_new(run: Run) -> str:
    """Of what was asked since the breaking nothing is in the store."""
    time.sleep(0.4)
    since = run.subject.asked.decision_ids[run.figures["asked_when_broken"] :]
    found = run.bench.fetch("SELECT count(*) FROM telemetry_event WHERE id = ANY(%s)", since)
    if found:
        raise NotSeen(f"{found} events were written all the same")
    return f"none of the {len(since)} events since the breaking is in the store"


def table_missing(run: Run) -> str:
    """Expect no table, and a reading that says so."""
    if run.bench.fetch("SELECT to_regclass('telemetry_event')") is not None:
        raise NotSeen("the table is there")
    return reason("table_missing")(run)


def partial(run: Run) -> str:
    """Expect killed workers, and no more events than decisions."""
    asked, stored = len(run.subject.asked.decision_ids), run.stored()
    if not run.figures["workers_killed"]:
        raise NotSeen("no worker was killed")
    if stored > asked:
        raise NotSeen(f"{stored} events of {asked} decisions")
    run.figures["stored"] = stored
    return f"{run.figures['workers_killed']} workers killed; {stored} events of {asked} decisions"


def oversized(run: Run) -> str:
    """Expect only the oversized events to be refused, by the writer and by the table."""
    wanted = {"oversized": 10, "written": 10, "refused_by_table": True}
    found = {name: run.figures.get(name) for name in wanted}
    if found != wanted:
        raise NotSeen(str(found))
    return "10 of 20 events were oversized and refused, the others written; the table refuses too"


def duplicates(run: Run) -> str:
    """Expect the event once, and every other offer accounted for."""
    figures = run.figures
    if (figures["written"], figures["written"] + figures["known"] + figures["lost"]) != (1, 5_000):
        raise NotSeen(str(figures))
    return f"1 of 5,000 written, {figures['known']} known already, {figures['lost']} lost"


def skipped(run: Run) -> str:
    """Expect readings of the good rows that count the corrupt ones."""
    reading = run.reading()
    latency = run.reading("latency")
    if not reading["available"] or not reading["skipped_rows"] or not latency["skipped_rows"]:
        raise NotSeen(f"{reading['available']}, {reading['skipped_rows']} rows skipped")
    return f"{reading['skipped_rows']} corrupt rows are skipped, the others are read"


def slow_only(run: Run) -> str:
    """Expect as many rows as wanted, and an answer of the readings."""
    if run.figures["rows"] < run.rows:
        raise NotSeen(f"{run.figures['rows']} rows")
    reading = run.reading()
    return f"{run.figures['rows']:,} rows; the reading says {reading['reason'] or 'available'}"


def old_remains(run: Run) -> str:
    """Expect a killed cleaning that left old events."""
    figures = run.figures
    if figures["exit_code"] != -signal.SIGKILL or not 0 < figures["left"] < figures["before"]:
        raise NotSeen(str(figures))
    return f"killed with {figures['left']} of {figures['before']} old events left"


def less(run: Run) -> str:
    """Expect fewer events than decisions."""
    asked, stored = len(run.subject.asked.decision_ids), run.stored()
    if stored >= asked:
        raise NotSeen(f"{stored} events of {asked} decisions: nothing was lost")
    return f"{stored} events of {asked} decisions are left"


def delayed(run: Run) -> str:
    """Expect a cleaning that gave way."""
    if run.figures["delayed_exit_code"] != 1:
        raise NotSeen(f"the cleaning ended with {run.figures['delayed_exit_code']}")
    return "the cleaning gave way to the lock and said so"


def some(run: Run) -> str:
    """Expect a reading of some of the events."""
    reading = run.reading()
    everything = run.stored()
    seen = reading["data"]["total"] if reading["available"] else None
    if seen is None or not 0 < seen < everything:
        raise NotSeen(f"the reading shows {seen} of {everything}")
    return f"the reading shows {seen} of {everything}"


def present(run: Run) -> str:
    """Expect the events to be there."""
    stored = run.stored()
    if stored < 5_000:
        raise NotSeen(f"{stored} events")
    return f"{stored} events are there"


def hints(run: Run) -> str:
    """Expect events that contradict decisions."""
    wrong = run.bench.fetch(
        "SELECT count(*) FROM telemetry_event e JOIN enforcement_decision d ON d.id = e.id"
        " WHERE d.tenant_id = %s AND d.decision <> e.outcome",
        run.subject.tenant_id,
    )
    if not wrong:
        raise NotSeen("no hint contradicts a decision")
    return f"{wrong} hints contradict decisions, and nothing follows from them"


def down_and_slow(run: Run) -> str:
    """Expect a reading that timed out, and no event of the time since the breaking."""
    said = reason("timeout")(run)
    since = run.subject.asked.decision_ids[run.figures["asked_when_broken"] :]
    found = run.bench.fetch("SELECT count(*) FROM telemetry_event WHERE id = ANY(%s)", since)
    if found:
        raise NotSeen(f"{found} events were written all the same")
    return f"{said}, and nothing is written"


def empty(run: Run) -> str:
    """Expect empty readings."""
    reading = run.reading()
    if run.figures["left"] or not reading["available"] or reading["data"]["total"]:
        raise NotSeen(f"{run.figures}, {reading['data']}")
    return "everything was deleted; the readings are empty"


def restart(run: Run) -> str:
    """Expect another start of the server, and calls that met it."""
    after = str(run.bench.fetch("SELECT pg_postmaster_start_time()"))
    if after == run.figures["started_before"] or not run.subject.asked.retries:
        raise NotSeen(f"started {after}, {run.subject.asked.retries} calls sent again")
    return f"the server was restarted; {run.subject.asked.retries} calls were sent again"
