"""Working: what the job does with a call: fetch its plan, ask the gate, tell the platform.

Nothing is held while another system is asked: a call is taken by a lease, and each step that was
done is noted in a transaction of its own.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from enforcement.adapters import run_task
from enforcement.adapters.run_task import Place, RunTaskCall, Verdict
from enforcement.adapters.terraform_plan import InvalidPlan, Plan, read_plan
from enforcement.decisions.queries import find_response
from enforcement.gate.ask import Ask, Clock, TimeBudget
from enforcement.gate.evaluate import evaluate
from enforcement.gate.inputs import UNESTIMATED, Cost, GateRequest
from enforcement.gate.response import decode_response
from enforcement.reconciliation.approval import ApprovalPending, ReservationNotActive
from enforcement.reconciliation.operations import confirm
from enforcement.run_tasks import operations, queries
from enforcement.run_tasks.models import RECEIVED, RunTask
from governance.audit.operations import Actor
from governance.integrations.queries import find_integration
from valdrix.kernel import strict_json
from valdrix.kernel.addresses import HostList
from valdrix.kernel.db import reading
from valdrix.kernel.ids import new_id
from valdrix.kernel.outbound import Answer, Call, OutboundError
from valdrix.kernel.problems import NotFound
from valdrix.kernel.sealing import SealingError

log = logging.getLogger("valdrix.run_tasks")

PLAN_BYTES: Final = 64 * 1024 * 1024
PLAN_VALUES: Final = 5_000_000
PATIENCE: Final = timedelta(minutes=45)
"""How long a plan is waited for before the run is decided on without it."""
END: Final = timedelta(minutes=60)
"""After that the platform listens no more."""
TELL_EVERY: Final = timedelta(minutes=4)
"""The platform gives up after ten minutes without a word; a worker may miss one turn."""
_LONGEST_PAUSE_SECONDS: Final = 120.0
_MOST_AT_ONCE: Final = 50
TURN: Final = timedelta(seconds=60)
"""Then it is other tenants' turn: a platform that is silent is waited for once a turn, not by each call."""
_FINAL_ANSWERS: Final = frozenset({400, 401, 403, 404, 405, 409, 410, 422})


class _Later(Exception):
    """Something is missing that may be there later."""


class _PlanUnreadable(Exception):
    """There is no plan to be had."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What working needs of the outside.

    :ivar hosts: the platform's hosts: those of callbacks, plans and their storage.
    :ivar base_url: where people reach this server; None when nobody said so.
    """

    clock: Clock
    send: Callable[[Call], Answer]
    hosts: HostList
    base_url: str | None
    budget: TimeBudget


def work_due(*, worker: Worker, tenant_id: uuid.UUID) -> dict[str, int]:
    """Work on calls of a tenant that are due, for a turn, and return how many there were."""
    worked = 0
    began = now = worker.clock()
    while worked < _MOST_AT_ONCE and now - began < TURN:
        row = operations.claim_next(tenant_id=tenant_id, now=now)
        if row is None:
            break
        worked += 1
        _work(worker, row)
        now = worker.clock()
    if worked:
        operations.forget_old(tenant_id=tenant_id, now=worker.clock())
    return {"calls": worked}


def _work(worker: Worker, row: RunTask) -> None:
    now = worker.clock()
    if now >= row.received_at + END:
        operations.finish(row=row, now=now, error="the platform listens no more")
        return
    try:
        call = operations.read_call_of(row)
    except SealingError as error:
        operations.finish(row=row, now=now, error=str(error))
        return
    try:
        if row.state == RECEIVED:
            verdict = _decide(worker, row, call)
            if not operations.note_verdict(row=row, verdict=verdict):
                return  # Another worker was faster after this one's lease ran out.
        _tell(worker, row, call)
    except _Later as reason:
        _postpone(worker, row, call, str(reason))
    except Exception as error:
        log.exception("run task %s fails", row.task_result_id)
        _postpone(worker, row, call, type(error).__name__)


def _decide(worker: Worker, row: RunTask, call: RunTaskCall) -> Verdict:
    """Return what the platform is to be told; a decision that was made already is found again."""
    if call.stage == run_task.POST_APPLY:
        return _confirm(worker, row, call)
    with reading(row.tenant_id):
        stored = find_response(row.tenant_id, row.decision_id)
    if stored is not None:
        return run_task.build_verdict(call, decode_response(stored), base_url=worker.base_url)
    place = _place_of(row)
    plan, is_readable = _plan_of(worker, row, call)
    rehearses = call.is_speculative or call.stage == run_task.PRE_PLAN
    request = run_task.to_gate_request(
        call,
        place=place,
        cost=_cost_of(row, call, place, plan, is_readable=is_readable),
        plan=plan,
        dry_run=rehearses,
    )
    if call.stage == run_task.PRE_APPLY and _is_other_plan(row, call, plan):
        asked = msgspec.structs.replace(request, dry_run=True, idempotency_key=None)
        mode = _ask(worker, row, asked)["mode"]
        return run_task.refuse_other_plan(is_shadow=mode == "shadow")
    response = _ask(worker, row, request)
    if not (response["persisted"] or rehearses):
        raise _Later("the database does not record decisions")
    return run_task.build_verdict(call, response, base_url=worker.base_url)


def _ask(worker: Worker, row: RunTask, request: GateRequest) -> dict[str, Any]:
    return evaluate(
        Ask(
            tenant_id=row.tenant_id,
            person_id=row.person_id,
            request=request,
            decision_id=row.decision_id,
            charge_id=new_id(),
            approval_id=new_id(),
            clock=worker.clock,
            may_spend_approval=not request.dry_run,
        ),
        budget=worker.budget,
    )


def _confirm(worker: Worker, row: RunTask, call: RunTaskCall) -> Verdict:
    """Confirm what the run reserved: its last stage says that it was applied."""
    with reading(row.tenant_id):
        decisions = queries.find_allowed_decisions(row.tenant_id, row.integration_id, call.run_id)
    actor = _actor_of(row, worker.clock())
    for decision_id in decisions:
        with contextlib.suppress(ReservationNotActive, ApprovalPending, NotFound):
            confirm(actor=actor, decision_id=decision_id, may_use=lambda project_id: None)
            return Verdict(status=run_task.PASSED, message="The reservation is confirmed.")
    return Verdict(status=run_task.PASSED, message="Nothing was reserved for this run.")


def _place_of(row: RunTask) -> Place:
    with reading(row.tenant_id):
        integration = find_integration(row.tenant_id, row.integration_id)
    assert integration is not None  # Integrations are revoked, never deleted.
    return Place(
        integration_id=str(row.integration_id),
        project_id=integration.project_id,
        environment=integration.settings.get("environment"),
        actor=f"integration:{row.integration_id}",
    )


def _plan_of(worker: Worker, row: RunTask, call: RunTaskCall) -> tuple[Plan | None, bool]:
    """Return the run's plan, and whether it could be read where there should be one.

    :raises _Later: when it may be there later.
    """
    if call.plan_url is None or call.stage == run_task.PRE_PLAN:
        return None, call.stage == run_task.PRE_PLAN
    try:
        plan = _fetch_plan(worker, call)
    except _Later:
        if worker.clock() < row.received_at + PATIENCE:
            raise
        return None, False
    except _PlanUnreadable as reason:
        log.warning("the plan of run task %s cannot be read: %s", row.task_result_id, reason)
        return None, False
    operations.note_plan(row=row, plan_digest=plan.change_digest)
    return plan, True


def _fetch_plan(worker: Worker, call: RunTaskCall) -> Plan:
    assert call.plan_url is not None
    try:
        answer = worker.send(
            Call(
                method="GET",
                url=call.plan_url,
                hosts=worker.hosts,
                headers={"Authorization": f"Bearer {call.access_token}", "Accept": "*/*"},
                max_bytes=PLAN_BYTES,
                max_redirects=3,
                tries=2,
            )
        )
    except OutboundError as error:
        raise (_PlanUnreadable if error.is_final else _Later)(str(error)) from None
    if answer.status in _FINAL_ANSWERS:
        raise _PlanUnreadable(f"the platform answered {answer.status}")
    if answer.status != 200:
        raise _Later(f"no plan yet: the platform answered {answer.status}")
    try:
        return read_plan(strict_json.loads(answer.body, max_values=PLAN_VALUES), pointer="")
    except (strict_json.StrictJsonError, InvalidPlan) as error:
        raise _PlanUnreadable(type(error).__name__) from None


def _cost_of(
    row: RunTask, call: RunTaskCall, place: Place, plan: Plan | None, *, is_readable: bool
) -> Cost:
    if not is_readable:
        return run_task.PLAN_UNREADABLE
    with reading(row.tenant_id):
        found = queries.find_cost(
            row.tenant_id,
            project_id=place.project_id or call.workspace_name,
            plan_digest=None if plan is None else plan.change_digest,
            run_id=call.run_id,
        )
    return found or UNESTIMATED


def _is_other_plan(row: RunTask, call: RunTaskCall, plan: Plan | None) -> bool:
    """Tell whether a run was decided on another plan than the one that it is about to apply."""
    with reading(row.tenant_id):
        decided = queries.find_planned_digest(row.tenant_id, row.integration_id, call.run_id)
    return decided is not None and (plan is None or plan.change_digest != decided)


def _tell(worker: Worker, row: RunTask, call: RunTaskCall) -> None:
    """Tell the platform the verdict, and end the call where it heard, or never will.

    :raises _Later: when it may hear later.
    """
    verdict = run_task.decode_verdict(row.verdict_json or "")
    body = run_task.build_callback(
        status=verdict.status,
        message=verdict.message,
        url=verdict.url,
        outcomes=verdict.outcomes if call.wants_outcomes else None,
    )
    try:
        answer = _patch(worker, call, body, tries=3)
    except OutboundError as error:
        if error.is_final:
            operations.finish(row=row, now=worker.clock(), error=str(error)[:200])
            return
        raise _Later(str(error)) from None
    if answer.status in _FINAL_ANSWERS:
        refusal = f"the platform refused the result: {answer.status}"
        operations.finish(row=row, now=worker.clock(), error=refusal)
    elif 200 <= answer.status < 300:
        operations.finish(row=row, now=worker.clock(), error=None)
    else:
        raise _Later(f"the platform answered {answer.status}")


def _postpone(worker: Worker, row: RunTask, call: RunTaskCall, reason: str) -> None:
    """Give the call back, after a word to the platform where it has heard none for a while."""
    now = worker.clock()
    if row.state == RECEIVED and now - (row.told_at or row.received_at) >= TELL_EVERY:
        body = run_task.build_callback(
            status=run_task.RUNNING, message="Still at it: waiting for the plan.", outcomes=None
        )
        with contextlib.suppress(OutboundError):
            if 200 <= _patch(worker, call, body, tries=1).status < 300:
                operations.note_told(row=row, now=worker.clock())
    seconds = min(5.0 * 2.0 ** min(row.failures, 10), _LONGEST_PAUSE_SECONDS)
    operations.postpone(row=row, now=now, seconds=seconds, error=reason[:200])


def _patch(worker: Worker, call: RunTaskCall, body: bytes, *, tries: int) -> Answer:
    return worker.send(
        Call(
            method="PATCH",
            url=call.callback_url,
            hosts=worker.hosts,
            headers={
                "Authorization": f"Bearer {call.access_token}",
                "Content-Type": run_task.CALLBACK_TYPE,
            },
            body=body,
            tries=tries,
        )
    )


def _actor_of(row: RunTask, at: datetime) -> Actor:
    return Actor(
        tenant_id=row.tenant_id,
        principal_id=f"integration:{row.integration_id}",
        address=None,
        at=at,
    )
