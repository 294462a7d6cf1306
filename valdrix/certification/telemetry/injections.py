"""The C1 matrix: 22 injections, how each is done and what has to be seen of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from valdrix.certification.telemetry import breakings as b
from valdrix.certification.telemetry import expectations as e
from valdrix.certification.telemetry.breakings import Breaking, by_statement
from valdrix.certification.telemetry.judging import ALL, I1, I2, I3, I4, I5
from valdrix.certification.telemetry.under_way import Run

BEFORE: Final = "before"
DURING: Final = "during"
AFTER: Final = "after"
_READER: Final = (I1, I2, I3, I4, I5)
_REPLAY: Final = (I1, I2, I3, I4)


@dataclass(frozen=True, slots=True)
class Injection:
    """One row of the matrix.

    :ivar breaking: a context: broken inside, mended after.
    :ivar expect: raises ``NotSeen`` unless what was expected is seen.
    :ivar slowest_ms: what one gate may take meanwhile.
    """

    id: str
    name: str
    timing: str
    method: str
    expected: str
    breaking: Breaking
    expect: Callable[[Run], str]
    invariants: Sequence[str] = ALL
    slowest_ms: int = 1_500


MATRIX: Final = (
    Injection("W1", "Insert failure before - revoke INSERT", BEFORE, b.REVOKE,
              "execution continues", by_statement(b.REVOKE, b.GRANT), e.nothing_new),
    Injection("W2", "Insert failure during - kill writer processes", DURING,
              "pg_terminate_backend, kill -9 of the workers", "partial telemetry",
              b.killed_writers, e.partial, slowest_ms=10_000),
    Injection("W3", "Insert failure after - drop table", AFTER, b.DROP,
              "no telemetry", b.without_table, e.table_missing),
    Injection("W4", "Slow writer during - sleep 10 s", DURING,
              "BEFORE INSERT trigger: pg_sleep(10)", "latency unaffected",
              b.slow_writes, e.nothing_new),
    Injection("W5", "Payload oversize during", DURING, "events of 1 MB; a row of 5 kB",
              "rejected alone", b.oversized, e.oversized),
    Injection("W6", "Duplicate spam after", AFTER, "5,000 times the same event",
              "truth unchanged", b.duplicates, e.duplicates),
    Injection("R1", "Read timeout - delay query", BEFORE, b.SLEEPY, "empty metrics",
              by_statement(b.SLEEPY, b.MEND_POLICY, rows=20), e.reason("timeout"), _READER),
    Injection("R2", "Table missing - drop table", BEFORE, b.DROP, "O1 works",
              b.without_table, e.table_missing, _READER),
    Injection("R3", "Corrupt rows - bad JSON", DURING, "UPDATE telemetry_event SET attributes",
              "skipped rows", b.corrupt_rows, e.skipped, _READER),
    Injection("R4", "Cardinality blow-up - 10M rows", BEFORE, "INSERT 10,000,000 rows",
              "metrics slow only", b.blown_up, e.slow_only, _READER, slowest_ms=2_000),
    Injection("C1", "TTL job crash after - kill job", AFTER, "kill -9 of clean_telemetry",
              "old telemetry remains", b.killed_cleaning, e.old_remains),
    Injection("C2", "TTL deletes active during - bad WHERE", DURING,
              "clean_telemetry --days 0, again and again", "telemetry loss only",
              b.cleans_everything, e.less),
    Injection("C3", "Lock contention during - long transaction", DURING,
              "LOCK TABLE telemetry_event IN ACCESS EXCLUSIVE MODE", "cleanup delayed",
              b.held_lock, e.delayed),
    Injection("A1", "Metrics API error - throw error", BEFORE, b.THROWING, "empty state",
              by_statement(b.THROWING, b.MEND_POLICY, rows=20), e.reason("store_failed"), _READER),
    Injection("A2", "Partial data - limit rows", BEFORE, b.SPARSE, "partial figures",
              by_statement(b.SPARSE, b.MEND_POLICY, rows=200), e.some, _READER),
    Injection("A3", "Schema mismatch - rename column", BEFORE, b.RENAME, "metrics off",
              by_statement(b.RENAME, b.RENAME_BACK), e.reason("schema_mismatch"), _READER),
    Injection("P1", "Telemetry present during replay - prefill rows", AFTER,
              "INSERT 5,000 rows", "replay ignores them", b.prefilled, e.present, _REPLAY),
    Injection("P2", "Telemetry hints during replay - correlated data", AFTER,
              "a contradicting event for each decision", "no effect", b.hints, e.hints, _REPLAY),
    Injection("P3", "Telemetry removed during replay - drop table", AFTER, b.DROP,
              "replay works", b.without_table, e.table_missing, _REPLAY),
    Injection("X1", "Writer down and reader slow", DURING, f"{b.REVOKE}; {b.SLEEPY}",
              "truth intact", b.writer_down_reader_slow, e.down_and_slow),
    Injection("X2", "Cleanup deletes all", DURING, f"clean_telemetry --days 0; {b.REVOKE}",
              "metrics empty", b.cleaned_out, e.empty),
    Injection("X3", "Database restart mid-run", DURING, "stop and start of PostgreSQL",
              "decisions correct", b.restarted, e.restart, slowest_ms=10_000),
)  # fmt: skip
MINIMAL: Final = ("W1", "W3", "R2", "C2", "A1", "P1", "P3", "X1", "X3")
assert {*MINIMAL} <= {one.id for one in MATRIX}
