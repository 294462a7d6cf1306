"""Planted violations: truth broken on purpose, so that a certification is seen to notice.

Each lives in the bench's own database, is mended afterwards, and must be caught under the name of
the invariant that it breaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from valdrix.certification.telemetry.judging import I1, I2, I3, I4, I5, I6
from valdrix.certification.telemetry.under_way import Run
from valdrix.kernel.ids import new_id

PLANTED_SLOWEST_MS: Final = 500
"""What a gate may take where one is made to wait 600 ms."""
_INCIDENT: Final = (
    "INSERT INTO governance_incident"
    " (id, tenant_id, kind, subject, detail, state, occurrences, opened_at, last_seen_at)"
    " VALUES ('{id}', '{tenant}', 'telemetry_failure', 'planted', '', 'open', 1, now(), now())"
)


def _lose_a_decision(run: Run) -> Iterator[None]:
    """Remove a decision that was answered, as if its transaction had been telemetry's."""
    last = run.subject.asked.decision_ids[-1]
    with _without_triggers(run, "enforcement_decision"):
        run.bench.execute(f"DELETE FROM enforcement_decision WHERE id = '{last}'")
    yield


def _change_an_outcome(run: Run) -> Iterator[None]:
    """Make a decision's stored outcome another than replay gives."""
    first = run.subject.asked.decision_ids[0]
    with _without_triggers(run, "enforcement_decision"):
        changed = 'replace(outcome_json, \'"mode":"hard"\', \'"mode":"soft"\')'
        run.bench.execute(
            f"UPDATE enforcement_decision SET outcome_json = {changed}, outcome_sha256 ="
            f" encode(sha256(convert_to({changed}, 'UTF8')), 'hex') WHERE id = '{first}'"
        )
    yield


def _open_an_incident(run: Run) -> Iterator[None]:
    run.bench.execute(_INCIDENT.format(id=new_id(), tenant=run.subject.tenant_id))
    yield


def _make_gates_wait(run: Run) -> Iterator[None]:
    run.bench.execute(
        "CREATE FUNCTION certification_wait() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.6); RETURN NEW; END'",
        "CREATE TRIGGER certification_wait BEFORE INSERT ON enforcement_decision"
        " FOR EACH ROW EXECUTE FUNCTION certification_wait()",
    )
    try:
        yield
    finally:
        run.bench.execute("DROP FUNCTION certification_wait() CASCADE")


def _close_the_console(run: Run) -> Iterator[None]:
    run.bench.execute("REVOKE SELECT ON django_session FROM valdrix_app")
    try:
        yield
    finally:
        run.bench.execute("GRANT SELECT ON django_session TO valdrix_app")


def _tie_truth_to_telemetry(run: Run) -> Iterator[None]:
    """Whoever takes telemetry away changes truth with it."""
    incident = _INCIDENT.format(id=new_id(), tenant=run.subject.tenant_id).replace("'", "''")
    run.bench.execute(
        "CREATE FUNCTION certification_tie() RETURNS trigger LANGUAGE plpgsql AS"
        f" 'BEGIN {incident}; RETURN NULL; END'",
        "CREATE TRIGGER certification_tie AFTER TRUNCATE ON telemetry_event"
        " FOR EACH STATEMENT EXECUTE FUNCTION certification_tie()",
    )
    try:
        yield
    finally:
        run.bench.execute("DROP FUNCTION certification_tie() CASCADE")


PLANTS: Final = {
    I1: contextmanager(_lose_a_decision),
    I2: contextmanager(_change_an_outcome),
    I3: contextmanager(_open_an_incident),
    I4: contextmanager(_make_gates_wait),
    I5: contextmanager(_close_the_console),
    I6: contextmanager(_tie_truth_to_telemetry),
}


@contextmanager
def _without_triggers(run: Run, table: str) -> Iterator[None]:
    run.bench.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    try:
        yield
    finally:
        run.bench.execute(
            f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_no_change",
            f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_no_truncate",
        )
