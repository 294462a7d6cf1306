"""Writes of run tasks: take a call, take it up, note what became of it.

Every write after the first is guarded by the state that it expects, so that of two workers who
hold one call after a lease ran out only one moves it on.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from django.conf import settings
from django.db import IntegrityError

from enforcement.adapters.run_task import RunTaskCall, Verdict, decode_call
from enforcement.run_tasks.models import DECIDED, GIVEN_UP, RECEIVED, REPORTED, RunTask
from enforcement.run_tasks.queries import lock_next_due
from governance.audit.operations import Actor
from governance.integrations.operations import note_use
from valdrix.kernel.db import savepoint, transaction
from valdrix.kernel.problems import Refused
from valdrix.kernel.sealing import seal, unseal

LEASE: Final = timedelta(minutes=3)
"""Longer than one taking-up can last: a fetch of three tries, an evaluation, a callback."""
KEPT: Final = timedelta(days=90)


class RunTaskHostNotAllowed(Refused):
    """The call names an address that this server may not call (422)."""

    code = "run_task_host_not_allowed"


@dataclass(frozen=True, slots=True)
class Receipt:
    """One call and the names that its door made for it."""

    row_id: uuid.UUID
    decision_id: uuid.UUID
    integration_id: uuid.UUID
    person_id: int
    call: RunTaskCall


def receive(*, actor: Actor, receipt: Receipt) -> bool:
    """Store a call, once, and tell whether it is new.

    :raises SealingError: when its token cannot be stored.
    """
    call = receipt.call
    sealed = seal(
        call.access_token.encode(),
        context=token_context(receipt.row_id),
        keys=settings.SECRET_SEALING_KEYS,
    )
    with transaction(actor.tenant_id):
        note_use(actor=actor, integration_id=receipt.integration_id)
        try:
            with savepoint():
                RunTask.objects.create(
                    id=receipt.row_id,
                    tenant_id=actor.tenant_id,
                    integration_id=receipt.integration_id,
                    task_result_id=call.task_result_id,
                    run_id=call.run_id,
                    stage=call.stage,
                    call_json=encode_call(call),
                    person_id=receipt.person_id,
                    sealed_token=sealed,
                    decision_id=receipt.decision_id,
                    received_at=actor.at,
                    due_at=actor.at,
                )
        except IntegrityError:
            return False  # The platform repeats what it got no answer to.
    return True


def claim_next(*, tenant_id: uuid.UUID, now: datetime) -> RunTask | None:
    """Take the call that is due longest, for the time of a lease, or None."""
    with transaction(tenant_id):
        row = lock_next_due(tenant_id, now)
        if row is None:
            return None
        row.attempts += 1
        row.due_at = now + LEASE
        row.save(update_fields=["attempts", "due_at"])
        return row


def note_plan(*, row: RunTask, plan_digest: str) -> None:
    """Note which plan a call is decided on, before it is."""
    with transaction(row.tenant_id):
        _of(row, RECEIVED).update(plan_digest=plan_digest)


def note_verdict(*, row: RunTask, verdict: Verdict) -> bool:
    """Note what has to be told, and tell whether this worker did."""
    text = msgspec.json.encode(verdict).decode()
    with transaction(row.tenant_id):
        changed: int = _of(row, RECEIVED).update(state=DECIDED, verdict_json=text, failures=0)
    row.state, row.verdict_json = DECIDED, text
    return changed == 1


def note_told(*, row: RunTask, now: datetime) -> None:
    """Note that the platform heard that the call is being worked on."""
    with transaction(row.tenant_id):
        _of(row, row.state).update(told_at=now)
    row.told_at = now


def postpone(*, row: RunTask, now: datetime, seconds: float, error: str) -> None:
    """Give a call back, to be taken up again after a while."""
    with transaction(row.tenant_id):
        _of(row, row.state).update(
            due_at=now + timedelta(seconds=seconds), failures=row.failures + 1, last_error=error
        )


def finish(*, row: RunTask, now: datetime, error: str | None) -> None:
    """End a call, told or given up, and forget the platform's token."""
    values: dict[str, Any] = {
        "state": REPORTED if error is None else GIVEN_UP,
        "finished_at": now,
        "sealed_token": None,
        "last_error": error,
    }
    if error is None:
        values["told_at"] = now
    with transaction(row.tenant_id):
        _of(row, row.state).update(**values)
    row.state = values["state"]


def forget_old(*, tenant_id: uuid.UUID, now: datetime) -> int:
    """Delete calls that ended long ago, and return how many; their decisions stay."""
    with transaction(tenant_id):
        old = RunTask.objects.filter(tenant_id=tenant_id, finished_at__lt=now - KEPT)
        return old.delete()[0]


def read_call_of(row: RunTask) -> RunTaskCall:
    """Return a stored call with the platform's token.

    :raises SealingError: when no configured key opens it.
    """
    call = decode_call(row.call_json)
    token = unseal(
        bytes(row.sealed_token or b""),
        context=token_context(row.pk),
        keys=settings.SECRET_SEALING_KEYS,
    )
    return msgspec.structs.replace(call, access_token=token.decode())


def encode_call(call: RunTaskCall) -> str:
    """Return a call as it is stored: without its token."""
    return msgspec.json.encode(msgspec.structs.replace(call, access_token="")).decode()


def token_context(row_id: uuid.UUID) -> str:
    """Return what a sealed token is bound to."""
    return f"enforcement_run_task:{row_id}"


def _of(row: RunTask, state: str) -> Any:
    return RunTask.objects.filter(tenant_id=row.tenant_id, pk=row.pk, state=state)
