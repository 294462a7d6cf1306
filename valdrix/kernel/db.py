"""Transactions: the only place that opens one, and the tenant and time-outs it carries.

``ATOMIC_REQUESTS`` is off: the use case owns its transaction and says which kind it means.
Row-level security reads ``valdrix.tenant``, set for one transaction only, so that a pooled
connection never carries one tenant's name into another's request.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import orjson
import psycopg
from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    InterfaceError,
    OperationalError,
    connection,
    connections,
)
from django.db import transaction as _django

from valdrix.kernel.postgresql.deadline import be_patient, remaining_seconds, time_limit

__all__ = [
    "LONG_READ",
    "ORDINARY",
    "Condition",
    "NotInTransaction",
    "TimeLimits",
    "answer_to",
    "drop_lost_connection",
    "is_database_down",
    "platform_transaction",
    "read_at_once",
    "read_only_if",
    "read_within",
    "reading",
    "remaining_seconds",
    "savepoint",
    "snapshot_reading",
    "snapshot_together",
    "sqlstate_of",
    "tenant_ids_for_job",
    "time_limit",
    "to_array",
    "to_literal",
    "transaction",
    "transaction_required",
]


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long one transaction may wait for a lock and for a statement, in milliseconds."""

    lock_timeout_ms: int
    statement_timeout_ms: int


ORDINARY: Final = TimeLimits(lock_timeout_ms=5_000, statement_timeout_ms=30_000)
"""For everything but gates: who settles waits behind the others rather than be sent away."""
LONG_READ: Final = TimeLimits(lock_timeout_ms=2_000, statement_timeout_ms=0)
"""For exports and verifications, which read for as long as there are rows."""


_IDLE_TIMEOUT_MS: Final = 60_000
_ON_THE_WAY_SECONDS: Final = 5.0
"""By how much the server's word that a statement took too long may be late."""


def patience_of(limits: TimeLimits) -> float | None:
    """Return how long an answer is waited for, in seconds; None where the server has no limit."""
    if limits.statement_timeout_ms == 0:
        return None
    return limits.statement_timeout_ms / 1000 + _ON_THE_WAY_SECONDS


class NotInTransaction(RuntimeError):
    """A function that only makes sense inside a transaction was called outside one."""


@contextmanager
def transaction(tenant_id: uuid.UUID, *, limits: TimeLimits = ORDINARY) -> Iterator[None]:
    """Run a block as one durable transaction of one tenant; refuses to be nested.

    :raises RuntimeError: when a transaction is already open on this connection.
    """
    with _django.atomic(durable=True):
        _bind(tenant_id, limits)
        yield


Rows = list[tuple[Any, ...]]

Call = tuple[str, str]
"""A SELECT of one function whose one parameter is a JSON array, and one item of that as JSON."""


@dataclass(slots=True)
class Together:
    """What a transaction sends in two round trips: a call when it begins, writes with its COMMIT.

    :ivar answer: the JSON that the first call returned, parsed.
    """

    answer: Any
    _later: dict[str, list[str]] = field(default_factory=dict)

    def later(self, call: Call) -> None:
        """Keep a write until the transaction's end; only what nobody reads before may wait.

        Calls of one function become one call with all their items, in the order in which they came;
        the functions are called in the order in which they were first called, by one statement,
        each seeing what those before it wrote: the server evaluates a list from left to right.
        """
        text, item = call
        self._later.setdefault(text, []).append(item)

    def flush(self) -> None:
        """Send what waits now, because something is about to read it or be read after it."""
        if self._later:
            _exchange([self._statement()])
            self._later.clear()

    def commit(self) -> None:
        """Send what waits and COMMIT, in one round trip; a failure of either commits nothing."""
        _exchange([self._statement(), "COMMIT"] if self._later else ["COMMIT"])

    def _statement(self) -> str:
        calls = (
            _fill(text.removeprefix(_SELECT), f"[{','.join(items)}]")
            for text, items in self._later.items()
        )
        return f"{_SELECT}{', '.join(calls)}"


_SELECT: Final = "SELECT "


def call_now(call: Call) -> Rows:
    """Send one call by itself and return its rows.

    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    text, item = call
    with connection.cursor() as cursor:
        cursor.execute(text, [f"[{item}]"])
        rows: Rows = cursor.fetchall()
    return rows


def answer_to(text: str, *values: str) -> Any:
    """Return the JSON, parsed, that one statement gives; None where it gives no row.

    It is a transaction of its own unless one is open, and binds no tenant.
    """
    own: Any = connections[DEFAULT_DB_ALIAS]
    own.close_if_health_check_failed()
    own.ensure_connection()
    answer = _exchange([_fill(text, *values)])
    own.give_back()
    return None if answer is None else orjson.loads(answer)


@contextmanager
def transaction_together(
    tenant_id: uuid.UUID, *, limits: TimeLimits = ORDINARY, first: Call
) -> Iterator[Together]:
    """Run a block as :func:`transaction` does, with BEGIN and COMMIT in the company of statements.

    The server runs them one after the other, each on what was committed before it began; after
    one that fails, those behind it are not run.

    :param first: a statement with one JSON parameter that returns JSON, to be run before the block.
    :raises RuntimeError: when a transaction is already open on this connection.
    """
    with _sending_begin():
        text, values = _binding(tenant_id, limits)
        answer = _exchange(["BEGIN", _fill(text, *values), _fill(*first)])
        together = Together(None if answer is None else orjson.loads(answer))
        yield together
        together.commit()


def read_at_once(
    tenant_id: uuid.UUID, text: str, *values: str | None, limits: TimeLimits = ORDINARY
) -> bytes | None:
    """Read one tenant's rows by one statement, in a transaction that is one round trip.

    What comes in one message is one transaction to the server, which refuses writes in it. The
    statement's answer is one value, JSON as a rule; what it is made of was seen at one moment.

    :param text: a statement with ``%s`` where the texts in ``values`` come, None as NULL.
    :raises RuntimeError: when a transaction is already open on this connection.
    """
    own: Any = connections[DEFAULT_DB_ALIAS]
    if own.in_atomic_block:
        raise RuntimeError("read_at_once() is a transaction of its own")
    own.close_if_health_check_failed()
    own.ensure_connection()
    binding, bound = _binding(tenant_id, limits)
    statements = [_fill(f"{binding}, {_READ_ONLY}", *bound)]
    condition, _conditions.next = _conditions.next, None
    if condition is not None:
        statements.append(_fill(condition.text, *condition.values))
    answer = _exchange([*statements, _fill(text, *values)])
    if condition is not None:
        condition.held()
    own.give_back()
    return answer


def read_within(text: str, *values: str | None) -> bytes | None:
    """Read as :func:`read_at_once` does, within the transaction that is open.

    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    return _exchange([_fill(text, *values)])


@dataclass(frozen=True, slots=True)
class Condition:
    """A statement that raises where something does not hold, and what is called where it did."""

    text: str
    values: Sequence[str]
    held: Callable[[], None]


class _Conditions(threading.local):
    next: Condition | None = None


_conditions: Final = _Conditions()


@contextmanager
def read_only_if(condition: Condition) -> Iterator[None]:
    """Let the first :func:`read_at_once` of a block give nothing unless a condition holds then.

    The condition goes in the same message, in front of what is read. A block that reads nothing so
    leaves it unasked.
    """
    _conditions.next = condition
    try:
        yield
    finally:
        _conditions.next = None


_READ_ONLY: Final = "set_config('transaction_read_only', 'on', true)"


def to_literal(value: object) -> str | None:
    """Return a value as :func:`read_at_once` takes it: its text, or None."""
    return None if value is None else str(value)


def to_array(texts: Iterable[str] | None) -> str | None:
    """Return texts as the server reads an array of them, or None."""
    if texts is None:
        return None
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in escaped) + "}"


def _fill(text: str, *values: str | None) -> str:
    """Return a statement with texts in the place of its parameters, as literals."""
    escape = psycopg.pq.Escaping(connections[DEFAULT_DB_ALIAS].connection.pgconn).escape_literal
    parts = text.split("%s")
    assert len(parts) == len(values) + 1
    filled = [parts[0]]
    for value, part in zip(values, parts[1:], strict=True):
        if value is None:
            literal = "NULL"
        elif "\\" in value and _DOLLARS[:-1] not in value and "\0" not in value:
            # Escaped, each backslash would be doubled here and read one by one there.
            literal = f" {_DOLLARS}{value}{_DOLLARS}"
        else:
            literal = bytes(escape(value.encode())).decode()
        filled += (literal, part)
    return "".join(filled)


_DOLLARS: Final = "$v$"
"""What quotes a text as it is, unless the text has the beginning of it."""


def _exchange(statements: Sequence[str]) -> bytes | None:
    """Send statements in one message; return the first value that the last one gives.

    The driver's cursors would take longer to describe the results than the server to make them.

    :raises django.db.DatabaseError: as a cursor raises it.
    """
    # What stands for this thread's connection looks it up each time that it is asked anything.
    own = connections[DEFAULT_DB_ALIAS]
    execute = _execute_together
    for wrapper in reversed(own.execute_wrappers):
        execute = partial(wrapper, execute)
    context = {"connection": own, "cursor": None}
    began = time.monotonic()
    text = ";\n".join(statements)
    try:
        value: bytes | None = execute(text, None, False, context)  # noqa: FBT003 - Django's order
        return value
    finally:
        if own.queries_logged:
            took = f"{time.monotonic() - began:.3f}"
            own.queries_log.append({"sql": text, "time": took})


def _execute_together(sql: str, params: None, many: bool, context: Any) -> bytes | None:  # noqa: FBT001, ARG001
    own = context["connection"]
    with own.wrap_database_errors:
        pgconn = own.connection.pgconn
        result = pgconn.exec_(sql.encode())
        if pgconn.status == psycopg.pq.ConnStatus.OK:
            own.note_answer()
        if result.status == psycopg.pq.ExecStatus.TUPLES_OK:
            return result.get_value(0, 0) if result.ntuples else None
        if result.status == psycopg.pq.ExecStatus.COMMAND_OK:
            return None
        if pgconn.status != psycopg.pq.ConnStatus.OK:
            raise psycopg.OperationalError(pgconn.get_error_message())
        raise psycopg.errors.error_from_result(result)


Filled = tuple[str, Sequence[str | None]]


@contextmanager
def reading(tenant_id: uuid.UUID, *, limits: TimeLimits = ORDINARY) -> Iterator[None]:
    """Run a block that only reads one tenant's rows; the database refuses writes in it."""
    with _begun(tenant_id, limits, "BEGIN READ ONLY"):
        yield


@contextmanager
def snapshot_reading(tenant_id: uuid.UUID, *, limits: TimeLimits = LONG_READ) -> Iterator[None]:
    """Run a block whose every statement sees the same committed state of one tenant."""
    with _begun(tenant_id, limits, _SNAPSHOT):
        yield


@contextmanager
def snapshot_together(
    tenant_id: uuid.UUID, first: Filled, *, limits: TimeLimits = LONG_READ
) -> Iterator[bytes | None]:
    """Run a block as :func:`snapshot_reading` does; yield what a first statement gives.

    :param first: is sent together with the transaction's beginning.
    """
    with _begun(tenant_id, limits, _SNAPSHOT, first) as answer:
        yield answer


_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


@contextmanager
def _begun(
    tenant_id: uuid.UUID, limits: TimeLimits, begin: str, *more: Filled
) -> Iterator[bytes | None]:
    """Run a block in a transaction whose beginning and tenant are sent in one round trip."""
    with _sending_begin():
        text, values = _binding(tenant_id, limits)
        yield _exchange([begin, _fill(text, *values), *(_fill(one, *its) for one, its in more)])


@contextmanager
def platform_transaction() -> Iterator[None]:
    """Run a durable transaction over tables that belong to no tenant (people, sessions)."""
    with _django.atomic(durable=True):
        yield


@contextmanager
def _sending_begin() -> Iterator[None]:
    """Run a block as Django's durable transaction whose first statement is the block's own BEGIN."""
    own: Any = connections[DEFAULT_DB_ALIAS]
    own.sends_begin = True
    try:
        with _django.atomic(durable=True):
            yield
    finally:
        own.sends_begin = False


def bind_tenant(tenant_id: uuid.UUID) -> None:
    """Let the open platform transaction go on as one of a tenant's, or of the next tenant's.

    For what belongs to a person and has to be told to each of their tenants.

    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    _bind(tenant_id, ORDINARY)


@contextmanager
def savepoint() -> Iterator[None]:
    """Run a block that may fail without losing the transaction around it.

    :raises NotInTransaction: when there is no transaction to save a point of.
    """
    transaction_required()
    with _django.atomic():
        yield


def transaction_required() -> None:
    """Check that the caller opened a transaction.

    :raises NotInTransaction: when none is open.
    """
    if not connection.in_atomic_block:
        raise NotInTransaction("call this inside valdrix.kernel.db.transaction()")


def tenant_ids_for_job(job: str) -> list[uuid.UUID]:
    """Return every tenant, for a system job that then works through them one by one.

    :param job: the job's name; the database refuses the list to a session that gives none.
    """
    with _django.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('valdrix.system_job', %s, true)", [job])
        cursor.execute("SELECT tenant_id FROM governance_tenants_for_job()")
        return [row[0] for row in cursor.fetchall()]


def sqlstate_of(error: BaseException) -> str | None:
    """Return PostgreSQL's five-character code behind a Django database error, if it has one."""
    seen: BaseException | None = error
    while seen is not None:
        state = getattr(seen, "sqlstate", None)
        if isinstance(state, str):
            return state
        seen = seen.__cause__
    return None


def is_database_down(error: BaseException) -> bool:
    """Tell whether an error means that the database cannot be talked to at all."""
    if not isinstance(error, DatabaseError | InterfaceError):
        return False
    state = sqlstate_of(error)
    if state is None:
        return isinstance(error, OperationalError | InterfaceError)
    return state.startswith("08") or state in _SESSION_ENDED or state in {"57P03", "53300"}


_SESSION_ENDED: Final = frozenset({"57P01", "57P02", "57P05", "25P03"})
"""The server ended the session: told to, in a crash, or because it was idle for too long."""


def drop_lost_connection() -> None:
    """Drop this thread's connection where it is lost, so that the next statement opens another.

    Django does this between requests only; a fail-safe answer wants it within one.
    """
    own: Any = connections[DEFAULT_DB_ALIAS]
    own.drop_if_lost()


def _bind(tenant_id: uuid.UUID, limits: TimeLimits) -> None:
    with connection.cursor() as cursor:
        cursor.execute(*_binding(tenant_id, limits))


def _binding(tenant_id: uuid.UUID, limits: TimeLimits) -> tuple[str, tuple[str, ...]]:
    be_patient(patience_of(limits))
    text = (
        "SELECT set_config('valdrix.tenant', %s, true),"
        " set_config('lock_timeout', %s, true),"
        " set_config('statement_timeout', %s, true),"
        # Locks of a caller that went silent in the middle are not held for longer than that.
        " set_config('idle_in_transaction_session_timeout', %s, true)"
    )
    return text, (
        str(tenant_id),
        str(limits.lock_timeout_ms),
        str(limits.statement_timeout_ms),
        str(limits.statement_timeout_ms or _IDLE_TIMEOUT_MS),
    )
