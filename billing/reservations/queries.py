"""Reads of the charges that a change may share."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from django.db import DatabaseError, connection

from billing.accounts.locking import GateLockContended
from billing.reservations.domain import Change, ChargeState
from valdrix.kernel.db import Rows, sqlstate_of, transaction_required
from valdrix.kernel.locks import LockClass, lock_keys, lock_numbers

_CHANGE: Final = ", ".join(["%s"] * 12)
_FIND: Final = f"SELECT * FROM billing_find_charges({_CHANGE})"  # noqa: S608 - a constant
_LOCK: Final = f"SELECT * FROM billing_lock_charges(%s::bigint[], {_CHANGE})"  # noqa: S608
_CONTENDED: Final = "VX005"


def lock_change(change: Change) -> None:
    """Wait for the locks of a change's own names, which :func:`lock_charges` also takes first."""
    lock_keys(LockClass.CHANGE_KEY, change.tenant_id, change.lock_names())


def lock_literal(changes: Sequence[Change]) -> str:
    """Return the locks of all names of several changes of one tenant, each once, in their order."""
    return f"{{{','.join(map(str, _lock_numbers(changes)))}}}"


def describe(change: Change) -> dict[str, Any]:
    """Return a change as the database's functions that begin a gate read it."""
    return {
        "shadow": change.is_shadow,
        "computed": change.is_computed,
        "fingerprint": change.fingerprint,
        "run": change.run_id,
        "project": change.project_id,
        "environment": change.environment,
        "action": change.action,
        "reference": change.resource_reference,
        "digest": change.digest,
        "closes": change.closes_run,
    }


def take_rows(found: Sequence[Sequence[Any]] | None) -> Rows:
    """Return the rows of charges as they came from the database, amounts as texts."""
    return [
        (is_parent, uuid.UUID(charge), uuid.UUID(family), *map(Decimal, amounts), is_computed)
        for is_parent, charge, family, *amounts, is_computed in found or []
    ]


def _lock_numbers(changes: Sequence[Change]) -> list[int]:
    names = [name for change in changes for name in change.lock_names()]
    return lock_numbers(LockClass.CHANGE_KEY, changes[0].tenant_id, names)


def lock_charges(
    change: Change, parent_decision_id: uuid.UUID | None, *, rows: Rows | None = None
) -> tuple[ChargeState | None, ChargeState | None]:
    """Lock a change's own names, then the active charges of it and of a named earlier decision.

    The names' locks make sure that a charge is found or opened once. First charges of families are
    locked before all others, as settlement does it, so that the two can wait for one another but
    never in a circle.

    :param rows: what a call sent ahead has locked.
    :raises GateLockContended: when other charges take their place again and again.
    """
    transaction_required()
    if rows is not None:
        return _states(rows)
    try:
        return _read(_LOCK, (_lock_numbers([change]), *_parameters(change, parent_decision_id)))
    except DatabaseError as error:
        refuse_contended(error)
        raise


def refuse_contended(error: DatabaseError) -> None:
    """Refuse a lock whose charges were replaced again and again; any other error passes.

    :raises GateLockContended: when it was that.
    """
    if sqlstate_of(error) == _CONTENDED:
        raise GateLockContended("The change's reservations are contended.") from error


def find_charges(
    change: Change, parent_decision_id: uuid.UUID | None
) -> tuple[ChargeState | None, ChargeState | None]:
    """Return what :func:`lock_charges` would, without locking: for dry runs.

    The second is None unless the decision is of the same tenant, project and environment and
    still active.
    """
    if parent_decision_id is None and not change.lock_names():
        return None, None  # A change that nothing can name again, and that names nothing.
    return _read(_FIND, _parameters(change, parent_decision_id))


def _parameters(change: Change, parent_decision_id: uuid.UUID | None) -> tuple[Any, ...]:
    return (
        change.tenant_id,
        change.is_shadow,
        change.is_computed,
        change.fingerprint,
        change.run_id,
        change.project_id,
        change.environment,
        change.action,
        change.resource_reference,
        change.digest,
        change.closes_run,
        parent_decision_id,
    )


def _read(sql: str, parameters: Sequence[Any]) -> tuple[ChargeState | None, ChargeState | None]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return _states(cursor.fetchall())


def _states(rows: Rows) -> tuple[ChargeState | None, ChargeState | None]:
    found = {is_parent: ChargeState(*row) for is_parent, *row in rows}
    return found.get(False), found.get(True)
