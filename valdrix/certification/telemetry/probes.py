"""The fifteen probes: each is one property that has to hold however telemetry is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import psycopg
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from enforcement.gate.failsafe import REASONS
from telemetry.events.domain import Fate
from telemetry.events.writer import Writer, WriterLimits
from telemetry.readings.queries import READINGS
from telemetry.store.connection import WRITING, open_store
from valdrix.certification.telemetry import truth
from valdrix.certification.telemetry.calling import Answer, call
from valdrix.certification.telemetry.subject import Subject, probe_question
from valdrix.kernel.db import platform_transaction
from valdrix.kernel.emitter import GATE_DECIDED, Observation
from valdrix.kernel.ids import new_id

SLOWEST_MS: Final = 1_500
_TABLES: Final = ("telemetry_event", "telemetry_switch")
_PAGES: Final = (
    "enforcement_decision", "enforcement_ledgerentry", "governance_approval", "governance_incident",
)  # fmt: skip


class ProbeFailed(Exception):
    """A property does not hold; the text says what shows it."""


@dataclass(frozen=True, slots=True)
class Probed:
    """One probe's result: what it found, or what shows that it failed."""

    name: str
    passed: bool
    said: str

    def to_document(self) -> dict[str, Any]:
        """Return the result as evidence carries it."""
        return {"probe": self.name, "passed": self.passed, "said": self.said}


@dataclass(frozen=True, slots=True)
class Setting:
    """What probes work with.

    :ivar slowest_ms: what one gate may take.
    :ivar unavailable: what of truth was found not to answer, where that was just looked at.
    """

    subject: Subject
    at: datetime
    slowest_ms: int = SLOWEST_MS
    unavailable: tuple[str, ...] | None = None


def run_probe(name: str, setting: Setting) -> Probed:
    """Run one probe; whatever it raises is a failure."""
    try:
        return Probed(name, passed=True, said=PROBES[name](setting))
    except Exception as error:  # noqa: BLE001 - a probe that cannot be made has not passed
        return Probed(name, passed=False, said=f"{type(error).__name__}: {error}"[:500])


def find_unavailable(subject: Subject) -> tuple[str, ...]:
    """Return the endpoints and pages of truth (O1) that do not answer 200."""
    paths = ["decisions", "ledger?limit=5", "incidents", "approvals/queue"]
    if subject.asked.decision_ids:
        paths.append(f"decisions/{subject.asked.decision_ids[-1]}")
    missing = [path for path in paths if subject.get(path).status != 200]
    for name in _PAGES:
        app, _, model = name.partition("_")
        path = f"/admin/{app}/{model}/"
        if _page(subject, path).status != 200:
            missing.append(path)
    if _page(subject, "/admin/").status != 200:
        missing.append("/admin/")
    return tuple(missing)


def _truth_is_independent(setting: Setting) -> str:
    """No object of the database ties truth to telemetry, and a gate makes its truth now."""
    before = truth.count_decisions(setting.subject.tenant_id)
    setting.subject.ask(probe_question("independence"))
    after = truth.count_decisions(setting.subject.tenant_id)
    _demand(after == before + 1, f"{after - before} decisions for one question")
    tied = _fetch(
        "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint"
        " WHERE contype = 'f' AND (conrelid::regclass::text LIKE 'telemetry%'"
        "                       <> (confrelid::regclass::text LIKE 'telemetry%'))"
        " UNION ALL SELECT proname::text, '' FROM pg_proc"
        "   WHERE pronamespace = 'public'::regnamespace AND prosrc ILIKE '%telemetry%'"
        "     AND proname NOT LIKE 'certification%'"
        " UNION ALL SELECT relname::text, '' FROM pg_class"
        "   WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace"
        "     AND pg_get_viewdef(oid) ILIKE '%telemetry%'"
    )
    _demand(not tied, f"tied to telemetry: {tied}")
    return "a decision was made, and no constraint, function or view ties it to telemetry"


def _write_failures_are_safe(setting: Setting) -> str:
    """Gates answer and persist, whatever becomes of the events."""
    for number in range(4):
        body = setting.subject.ask(probe_question(f"write-{number}"))
        _demand(body["persisted"], "an answer was not persisted")
        _demand(
            not set(body["reason_codes"]) & set(REASONS), f"failed safe: {body['reason_codes']}"
        )
    return "4 gates answered and persisted"


def _replay_reads_no_telemetry(setting: Setting) -> str:
    """Replay gives the stored bytes, and none of its statements names telemetry."""
    with CaptureQueriesContext(connection) as captured:
        done = truth.replay(setting.subject.tenant_id)
    _demand(done.count > 0, "nothing to replay")
    _demand(done.differing == 0, f"{done.differing} of {done.count} differ")
    named = [one["sql"] for one in captured.captured_queries if "telemetry" in one["sql"].lower()]
    _demand(not named, f"read telemetry: {named}")
    return f"{done.count} decisions, the same bytes, {len(captured)} statements"


def _truth_is_shown(setting: Setting) -> str:
    """O1 answers: decisions, ledger, approvals, incidents, over HTTP and in the console."""
    missing = setting.unavailable
    if missing is None:
        missing = find_unavailable(setting.subject)
    _demand(not missing, f"not available: {missing}")
    return "decisions, ledger, approvals and incidents answer, and their pages"


def _gate_does_not_wait(setting: Setting) -> str:
    """No gate takes longer than a bound far below any of telemetry's time-outs."""
    before = setting.subject.asked.timed_out
    slowest = 0
    for number in range(4):
        setting.subject.asked.slowest_ms = 0
        setting.subject.ask(probe_question(f"wait-{number}"))
        slowest = max(slowest, setting.subject.asked.slowest_ms)
    _demand(setting.subject.asked.timed_out == before, "a gate ran out of its time budget")
    _demand(slowest <= setting.slowest_ms, f"a gate took {slowest} ms")
    return f"the slowest of 4 gates took {slowest} ms"


def _ledger_verifies(setting: Setting) -> str:
    fault = truth.find_ledger_fault(setting.subject.tenant_id)
    _demand(fault is None, str(fault))
    return "the chain is intact"


def _books_balance(setting: Setting) -> str:
    fault = truth.find_books_fault(setting.subject.tenant_id)
    _demand(fault is None, str(fault))
    return "every invariant of money holds"


def _no_incidents(setting: Setting) -> str:
    incidents, of_telemetry = truth.count_incidents(setting.subject.tenant_id)
    _demand(incidents == 0, f"{incidents} incidents, {of_telemetry} of telemetry")
    return "no incident was opened"


def _nothing_is_shared(setting: Setting) -> str:
    """No session of the application holds a lock on telemetry, nor telemetry's on truth."""
    setting.subject.ask(probe_question("sharing"))
    held = _fetch(
        "SELECT a.usename::text, l.relation::regclass::text FROM pg_locks l"
        "  JOIN pg_stat_activity a ON a.pid = l.pid"
        "  JOIN pg_class c ON c.oid = l.relation AND c.relnamespace = 'public'::regnamespace"
        " WHERE l.locktype = 'relation' AND l.database ="
        "       (SELECT oid FROM pg_database WHERE datname = current_database())"
        "   AND ((a.usename = %s AND c.relname LIKE 'telemetry%%')"
        "     OR (a.usename = %s AND c.relname NOT LIKE 'telemetry%%'))",
        [connection.settings_dict["USER"], _telemetry_role()],
    )
    _demand(not held, f"locks across: {held}")
    return "no lock of the one role is on a table of the other"


def _telemetry_is_confined(_setting: Setting) -> str:
    reach = _fetch(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        "   AND relkind IN ('r', 'p', 'v', 'm') AND NOT relname = ANY(%s)"
        "   AND has_table_privilege(%s, oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')"
        " UNION ALL SELECT proname::text FROM pg_proc WHERE prosecdef"
        "   AND pronamespace = 'public'::regnamespace AND has_function_privilege(%s, oid, 'EXECUTE')"
        " UNION ALL SELECT 'superuser' FROM pg_roles"
        "   WHERE rolname = %s AND (rolsuper OR rolbypassrls OR rolcreaterole)",
        [list(_TABLES), _telemetry_role(), _telemetry_role(), _telemetry_role()],
    )
    _demand(not reach, f"telemetry's role may use {reach}")
    return "telemetry's role may use telemetry's tables and nothing else"


def _truth_cannot_read_telemetry(_setting: Setting) -> str:
    readable = _fetch(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        "   AND relkind IN ('r', 'p') AND relname LIKE 'telemetry%%'"
        "   AND has_table_privilege(%s, oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')",
        [connection.settings_dict["USER"]],
    )
    _demand(not readable, f"the application may use {readable}")
    return "the application's role cannot read telemetry"


def _queue_is_bounded(setting: Setting) -> str:
    limits = WriterLimits(queue_events=100, flush_seconds=30, stop_seconds=0.2)
    writer = Writer(connect=_refuse, limits=limits)
    for _ in range(350):
        writer(_observe(setting))
    tally = writer.tally()
    _demand(tally.waiting == 100, f"{tally.waiting} wait where 100 may")
    _demand(tally.fates[Fate.QUEUE_FULL] == 250, f"{tally.fates[Fate.QUEUE_FULL]} were refused")
    writer.stop()
    _demand(writer.tally().lost == 350, "a loss was not counted")
    return "of 350 events into a dead store 100 waited, and all 350 are counted as lost"


def _losses_are_counted(setting: Setting) -> str:
    """Every event offered to a writer on the store as it is now is accounted for."""
    writer = _writer()
    for _ in range(40):
        writer(_observe(setting))
    writer.stop()
    tally = writer.tally()
    _demand(tally.offered == 40, f"{tally.offered} offered")
    _demand(tally.waiting == 0, f"{tally.waiting} are unaccounted for")
    written = tally.fates[Fate.WRITTEN]
    _demand(written + tally.lost + tally.fates[Fate.SWITCHED_OFF] == 40, str(tally))
    return f"40 offered, {written} written, {tally.lost} lost"


def _oversized_is_refused(setting: Setting) -> str:
    writer = _writer()
    writer(_observe(setting))
    writer(replace_attributes(_observe(setting), {"project": "x" * 100_000}))
    writer(_observe(setting))
    writer.stop()
    tally = writer.tally()
    _demand(tally.fates[Fate.OVERSIZED] == 1, str(tally))
    _demand(tally.waiting == 0, f"{tally.waiting} are unaccounted for")
    return "the oversized event alone was refused"


def _readings_degrade(setting: Setting) -> str:
    """Every reading answers 200 with data or with a reason, and their page is a page."""
    said = []
    for name in READINGS:
        answer = setting.subject.get(f"/api/v1/telemetry/{name}")
        _demand(answer.status == 200, f"{name} answered {answer.status}")
        _demand(
            answer.body["available"] == (answer.body["data"] is not None)
            and answer.body["available"] == (answer.body["reason"] is None),
            f"{name}: {answer.body}",
        )
        said.append(f"{name} {answer.body['reason'] or 'available'}")
    page = _page(setting.subject, "/admin/telemetry/")
    _demand(page.status == 200, f"the page answered {page.status}")
    return ", ".join(said)


PROBES: Final[dict[str, Callable[[Setting], str]]] = {
    "truth-independence": _truth_is_independent,
    "telemetry-write-failure-safe": _write_failures_are_safe,
    "replay-does-not-read-telemetry": _replay_reads_no_telemetry,
    "o1-survives-telemetry-outage": _truth_is_shown,
    "gate-does-not-wait": _gate_does_not_wait,
    "ledger-verifies": _ledger_verifies,
    "books-balance": _books_balance,
    "no-telemetry-incidents": _no_incidents,
    "no-shared-transaction": _nothing_is_shared,
    "telemetry-role-is-confined": _telemetry_is_confined,
    "truth-cannot-read-telemetry": _truth_cannot_read_telemetry,
    "queue-is-bounded": _queue_is_bounded,
    "losses-are-counted": _losses_are_counted,
    "oversized-event-is-refused": _oversized_is_refused,
    "readings-degrade-to-empty-states": _readings_degrade,
}


def replace_attributes(seen: Observation, attributes: dict[str, str | int | None]) -> Observation:
    """Return an observation with other attributes."""
    return Observation(**{**{name: getattr(seen, name) for name in seen.__struct_fields__},
                          "attributes": attributes})  # fmt: skip


def _observe(setting: Setting) -> Observation:
    return Observation(
        id=new_id(),
        tenant_id=setting.subject.tenant_id,
        kind=GATE_DECIDED,
        at=setting.at,
        outcome="ALLOW",
        source="terraform",
        environment="nonprod",
        duration_ms=1,
        attributes={"project": "probe", "mode": "hard"},
    )


def _writer() -> Writer:
    limits = WriterLimits(flush_seconds=0.02, stop_seconds=1.0)
    return Writer(connect=partial(open_store, WRITING), limits=limits)


def _refuse() -> psycopg.Connection[tuple[Any, ...]]:
    raise psycopg.OperationalError("a store that is dead")


def _page(subject: Subject, path: str) -> Answer:
    return call(subject.console, "GET", path)


def _fetch(statement: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
    with platform_transaction(), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


def _telemetry_role() -> str:
    return str((settings.TELEMETRY_STORE or {"user": "valdrix_telemetry"})["user"])


def _demand(holds: bool, evidence: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise ProbeFailed(evidence)
