"""The shell of a gate: claim, lock, read, decide, reserve, append (ARCHITECTURE 3).

One durable transaction with a time budget; the locks are taken in the order of
``valdrix.kernel.locks``. A refusal is a value and is recorded; only a conflict of keys or
fingerprints raises, and then nothing was written. What cannot be evaluated fails safe.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import msgspec
from django.db import DatabaseError, InterfaceError

from billing.accounts.domain import month_of
from billing.accounts.locking import (
    GateLockContended,
    GateLockTimeout,
    find_accounts,
    lock_accounts,
    refuse_lock,
)
from billing.reservations.domain import HeldLine, HoldOrder
from billing.reservations.operations import hold
from billing.reservations.queries import refuse_contended
from enforcement.decisions.queries import find_response
from enforcement.gate import ahead, failsafe
from enforcement.gate.ahead import (
    NOTHING,
    Ahead,
    Question,
    put_question,
    question_ahead,
)
from enforcement.gate.ask import Ask, OutOfTime, TimeBudget, Timer
from enforcement.gate.decision import (
    GateContext,
    Outcome,
    decide,
    encode,
    is_spending,
)
from enforcement.gate.inputs import K8S_ADMISSION, normalise
from enforcement.gate.joint import Alone, Lines, StepByStep, Waiting
from enforcement.gate.lastknown import last_known
from enforcement.gate.observing import observe
from enforcement.gate.recording import Made, record_decision
from enforcement.gate.response import (
    Record,
    build_response,
    decode_response,
    encode_response,
    mark_replayed,
)
from enforcement.gate.retrying import find_retried
from enforcement.gate.settling import Decided, Locked, Steps, settle
from enforcement.gate.sharing import (
    Sharers,
    find_sharers,
    lock_sharers,
    read_sharing,
)
from enforcement.gate.snapshot import read_snapshot
from enforcement.gate.spending import find_given, lock_given, spend_given
from enforcement.idempotency.operations import claim_key
from governance.approvals.operations import ApprovalOrder, OpenedApproval, open_approval
from governance.identity.assuming import NotAsAssumed
from governance.policies.governing import GoverningPolicy
from governance.policies.queries import read_governing_policy
from valdrix.kernel.db import (
    TimeLimits,
    Together,
    drop_lost_connection,
    is_database_down,
    reading,
    sqlstate_of,
    time_limit,
    transaction,
    transaction_together,
)
from valdrix.kernel.ids import id_of
from valdrix.kernel.metrics import DB_ERRORS, GATE_FAILURES
from valdrix.kernel.problems import Refused

log = logging.getLogger("valdrix.gate")

_POLICY_ATTEMPTS: Final = 3
_RECORDING_ATTEMPTS: Final = 2
"""A COMMIT that was still on its way may land during the first attempt; the second finds it."""
_RECORDING: Final = TimeLimits(lock_timeout_ms=200, statement_timeout_ms=500)
_RECORDING_MS: Final = 600
"""A fail-safe outcome is recorded quickly or not at all: the caller has waited already."""
_GRACE_MS: Final = 250
"""The server's own time-outs come first: they leave a connection that can be used again."""

_STEP_BY_STEP: Final = "VX006"
"""SQLSTATE of a call that begins an evaluation and finds that it cannot be made in one go."""

_LINES: Final = Lines()


class _PolicyMoved(Exception):
    """A policy was published between reading the request and taking the locks."""


def evaluate(ask: Ask, *, budget: TimeBudget) -> dict[str, Any]:
    """Decide one question, make the decision true, and return the common response (SPEC 8).

    :raises NotAsAssumed: when the credential is not what its door took it for.
    :raises IdempotencyKeyReused: the key names another request.
    :raises RequestFingerprintMismatch: before anything is evaluated.
    """
    timer = Timer(budget)
    response = _evaluate_or_fail_safe(ask, budget, timer)
    observe(ask, response, elapsed_ms=timer.elapsed_ms)
    return response


def _evaluate_or_fail_safe(ask: Ask, budget: TimeBudget, timer: Timer) -> dict[str, Any]:
    try:
        with time_limit((budget.total_ms + _GRACE_MS) / 1000):
            for _ in range(_POLICY_ATTEMPTS):
                try:
                    return _evaluate_once(ask, budget, timer)
                except _PolicyMoved:
                    timer.check()
        reason = failsafe.LOCK_CONTENDED
    except (GateLockTimeout, GateLockContended) as refusal:
        reason = refusal.problem_code
    except (Refused, NotAsAssumed):
        raise
    except OutOfTime:
        reason = failsafe.TIMEOUT
    except Exception as error:
        state = sqlstate_of(error)
        if isinstance(error, DatabaseError | InterfaceError):
            DB_ERRORS.labels((state or "none")[:2]).inc()
        # A connection that was cut because the time was over says nothing of its own.
        is_cut = state is None and timer.is_over
        reason = failsafe.TIMEOUT if is_cut else failsafe.reason_for_sqlstate(state)
        log.warning("gate fails safe: %s", reason, exc_info=error)
    ask.confirm()
    GATE_FAILURES.labels(reason).inc()
    return _fail_safe(ask, reason, timer)


def _evaluate_once(ask: Ask, budget: TimeBudget, timer: Timer) -> dict[str, Any]:
    if ask.request.dry_run:
        ask.confirm()
        with reading(ask.tenant_id, limits=budget.limits()):
            return _rehearse(ask, timer)
    question = question_ahead(ask)
    if question is not None:
        try:
            return _settle_in_line(question, budget, timer)
        except StepByStep:
            timer.check()
    ask.confirm()
    with transaction(ask.tenant_id, limits=budget.limits()):
        question = _read_question(ask)
        stored = _claim(question)
        if stored is not None:
            return mark_replayed(stored)
        return _decide_and_record(question, timer)


def _settle_in_line(question: Question, budget: TimeBudget, timer: Timer) -> dict[str, Any]:
    """Settle a question with those of its tenant that wait, or alone where it has to be.

    :raises StepByStep: when its key was claimed before, or the past has an answer or an approval.
    """
    try:
        return _LINES.settle(Waiting(question, budget, timer), _settle)
    except Alone:
        timer.check()
        return _evaluate_ahead(question, budget, timer)


def _evaluate_ahead(question: Question, budget: TimeBudget, timer: Timer) -> dict[str, Any]:
    """Evaluate in two round trips: claim, lock and read in the one, write and commit in the other.

    :raises StepByStep: when its key was claimed before, or the past has an answer or an approval;
        nothing is locked any more then.
    """
    ask = question.ask
    now = ask.clock()
    try:
        with transaction_together(
            ask.tenant_id, limits=budget.limits(timer), first=ahead.build_call([question], now)
        ) as together:
            begun = ahead.take([question], now, together.answer)
            last_known.keep(ask.tenant_id, begun.governing)
            if not begun.governing.governs_as(question.governing):
                raise _PolicyMoved
            return _decide_and_record(question, timer, begun.reads.of(question), together)
    except DatabaseError as error:
        if sqlstate_of(error) == _STEP_BY_STEP:
            raise StepByStep from error
        refuse_lock(error)
        refuse_contended(error)
        raise


def _settle(batch: list[Waiting]) -> None:
    """Give each question of a batch its response or its error; raises nothing."""
    settle(batch, alone=_evaluate_ahead, steps=Steps(decide=_decide, record=_record))


def settle_in_time(batch: list[Waiting], budget: TimeBudget) -> None:
    """Settle a batch of one caller, who waits for it no longer than a gate may take."""
    with time_limit((budget.total_ms + _GRACE_MS) / 1000):
        _settle(batch)


def _decide_and_record(
    question: Question, timer: Timer, read: Ahead = NOTHING, together: Together | None = None
) -> dict[str, Any]:
    decided = _decide(question, read)
    timer.check()
    response = _record(question, decided, timer, together)
    timer.check()
    return response


def _decide(question: Question, read: Ahead) -> Decided:
    ask = question.ask
    sharers = lock_sharers(
        question.change, question.gate_input.parent_decision_id, rows=read.charges
    )
    now = read.at or ask.clock()
    account_ids = lock_accounts(question.scope, now=now, rows=read.accounts)
    if read.account_ids != account_ids:
        # The locks were taken once more, and what was read before that may have changed since.
        read = replace(read, snapshot=None, is_without_past=False)
    given = None
    if ask.may_spend_approval and not sharers.change.is_shadow and not read.is_without_past:
        given = lock_given(ask.tenant_id, question.gate_input, now=ask.clock())
    context = _read_context(question, Locked(sharers, account_ids, given), read)
    return Decided(sharers, context, decide(context, question.governing.policy))


def _record(
    question: Question, decided: Decided, timer: Timer, together: Together | None
) -> dict[str, Any]:
    ask, context, outcome = question.ask, decided.context, decided.outcome
    if outcome.is_holding:
        order = _hold_order(question, context, outcome, decided.sharers)
        hold(order=order, together=together)
    if together is not None and (outcome.routing is not None or is_spending(context, outcome)):
        together.flush()  # What an approval is opened or spent for stands before it.
    approval = _open_approval(ask, context, outcome)
    revoked = spend_given(ask, context) if is_spending(context, outcome) else ()
    record = _build_record(ask, context, outcome, timer)
    if approval is not None:
        record = msgspec.structs.replace(record, approval_request_id=str(approval.approval_id))
    response = build_response(record)
    record_decision(
        ask=ask,
        made=Made(
            record=record,
            governing=question.governing,
            context_json=encode(context),
            response_json=encode_response(response),
            approval=approval,
            given=context.given if is_spending(context, outcome) else None,
            revoked=revoked,
            is_fail_safe=False,
        ),
        together=together,
    )
    return response


def _rehearse(ask: Ask, timer: Timer) -> dict[str, Any]:
    """Decide a dry run: the same reads without a lock, no key, and nothing written."""
    question = _read_question(ask)
    sharers = find_sharers(question.change, question.gate_input.parent_decision_id)
    account_ids = find_accounts(question.scope, now=ask.clock())
    given = None
    if ask.may_spend_approval and not sharers.change.is_shadow:
        given = find_given(ask.tenant_id, question.gate_input, now=ask.clock())
    context = _read_context(question, Locked(sharers, account_ids, given))
    outcome = decide(context, question.governing.policy)
    return build_response(_build_record(ask, context, outcome, timer))


def _read_policy(ask: Ask) -> GoverningPolicy:
    governing = read_governing_policy(ask.tenant_id, ask.clock())
    last_known.keep(ask.tenant_id, governing)
    return governing


def _read_question(ask: Ask) -> Question:
    return put_question(ask, _read_policy(ask))


def _claim(question: Question) -> str | None:
    """Return the stored response that a question repeats, or None once its key is claimed."""
    request = question.ask.request
    if request.retry_seconds is not None:
        return find_retried(
            question.change,
            request,
            request_fingerprint=question.gate_input.request_fingerprint,
            now=question.ask.clock(),
        )
    return None if question.claim is None else claim_key(claim=question.claim)


def _read_context(question: Question, locked: Locked, read: Ahead = NOTHING) -> GateContext:
    """Read what the decision depends on, by a clock that is read after the locks."""
    gate_input, governing, sharers = question.gate_input, question.governing, locked.sharers
    now = question.ask.clock()
    snapshot = read_snapshot(
        gate_input=gate_input,
        account_ids=locked.account_ids,
        policy=governing.policy,
        now=now,
        row=read.snapshot_of(now),
    )
    if snapshot.policy_version != governing.version:
        raise _PolicyMoved
    return GateContext(
        gate_input=gate_input,
        evaluated_at=now,
        policy_version=governing.version,
        policy_sha256=governing.sha256,
        policy_schema_version=governing.schema_version,
        forced_mode=governing.forced_mode(gate_input.source, gate_input.environment),
        accounts=snapshot.accounts,
        sharing=read_sharing(sharers, amount=gate_input.amount_usd),
        parent_is_applicable=sharers.parent_has_room,
        computed=snapshot.computed,
        given=locked.given,
    )


def _hold_order(
    question: Question, context: GateContext, outcome: Outcome, sharers: Sharers
) -> HoldOrder:
    ask, now = question.ask, context.evaluated_at
    taken = sharers.taken_usd(context.gate_input.amount_usd)
    return HoldOrder(
        decision_id=ask.decision_id,
        new_charge_id=ask.charge_id,
        change=sharers.change,
        charge=sharers.charge,
        parent=sharers.other_parent if taken > 0 else None,
        own_usd=outcome.increase_usd,
        taken_usd=taken,
        lines=tuple(
            HeldLine(id_of(line.account_id), line.kind, line.amount_usd) for line in outcome.holds
        ),
        month=month_of(now),
        reserved_at=now,
        due_at=now + _held_for(question),
    )


def _held_for(question: Question) -> timedelta:
    """Return after which time a reservation is due, unless it was confirmed.

    What an admission let through a later admission step may still have refused.
    """
    terms = question.governing.policy.reservations
    if question.gate_input.source == K8S_ADMISSION:
        return timedelta(seconds=terms.admission_ttl_seconds)
    return timedelta(hours=terms.sla_hours)


def _open_approval(ask: Ask, context: GateContext, outcome: Outcome) -> OpenedApproval | None:
    if outcome.routing is None:
        return None
    gate_input = context.gate_input
    return open_approval(
        order=ApprovalOrder(
            approval_id=ask.approval_id,
            tenant_id=ask.tenant_id,
            decision_id=ask.decision_id,
            source=gate_input.source,
            project_id=gate_input.project_id,
            environment=gate_input.environment,
            action=gate_input.action,
            change_fingerprint=gate_input.change_fingerprint,
            change_is_computed=gate_input.change_digest_is_computed,
            monthly_delta_usd=gate_input.cost.monthly_delta_usd,
            hourly_delta_usd=gate_input.cost.hourly_delta_usd,
            requested_by=gate_input.actor,
            requester_person_id=ask.person_id,
            routing=outcome.routing,
            requested_at=context.evaluated_at,
        )
    )


def _build_record(ask: Ask, context: GateContext, outcome: Outcome, timer: Timer) -> Record:
    is_dry_run = ask.request.dry_run
    given = context.given if is_spending(context, outcome) else None
    return Record(
        decision_id=None if is_dry_run else str(ask.decision_id),
        gate_input=context.gate_input,
        outcome=outcome,
        computed=context.computed,
        idempotency_key=ask.request.idempotency_key,
        approval_request_id=None if given is None else given.approval_id,
        policy_version=context.policy_version,
        policy_sha256=context.policy_sha256,
        persisted=not is_dry_run,
        evaluated_at=context.evaluated_at,
        latency_ms=timer.elapsed_ms,
    )


def _fail_safe(ask: Ask, reason: str, timer: Timer) -> dict[str, Any]:
    """Answer what cannot be evaluated, and record it when the database still answers."""
    with time_limit(_RECORDING_MS / 1000):
        recorded = _try_to_record(ask, reason, timer)
    if recorded is not None:
        return recorded
    governing_or_none = last_known.find(ask.tenant_id)
    return build_response(_fail_safe_record(ask, reason, governing_or_none, timer))


def _try_to_record(ask: Ask, reason: str, timer: Timer) -> dict[str, Any] | None:
    drop_lost_connection()
    for _ in range(0 if ask.request.dry_run else _RECORDING_ATTEMPTS):
        try:
            with transaction(ask.tenant_id, limits=_RECORDING):
                # A connection that broke at COMMIT leaves it open whether the decision stands;
                # where it does, it is the answer.
                stored = find_response(ask.tenant_id, ask.decision_id)
                if stored is not None:
                    return decode_response(stored)
                return _record_fail_safe(ask, reason, _read_policy(ask), timer)
        except Exception as error:
            log.warning("a fail-safe outcome could not be recorded", exc_info=error)
            if is_database_down(error):
                break
    return None


def _record_fail_safe(
    ask: Ask, reason: str, governing: GoverningPolicy, timer: Timer
) -> dict[str, Any]:
    record = msgspec.structs.replace(
        _fail_safe_record(ask, reason, governing, timer),
        decision_id=str(ask.decision_id),
        persisted=True,
    )
    response = build_response(record)
    record_decision(
        ask=ask,
        made=Made(
            record=record,
            governing=governing,
            context_json=msgspec.json.encode(record.gate_input, order="sorted").decode(),
            response_json=encode_response(response),
            approval=None,
            given=None,
            revoked=(),
            is_fail_safe=True,
        ),
    )
    return response


def _fail_safe_record(
    ask: Ask, reason: str, governing: GoverningPolicy | None, timer: Timer
) -> Record:
    """Return the record of a fail-safe outcome by the last mode that is known.

    A process that has never seen the tenant fails closed, and takes the environment for prod.
    """
    request = ask.request
    safe_mode = failsafe.CLOSED
    environment = "prod"
    if governing is not None:
        environment = governing.policy.classify_environment(request.environment)
        choice = governing.mode(request.source, environment)
        safe_mode = failsafe.SafeMode(mode=choice.mode, scope=choice.scope)
    return Record(
        decision_id=None,
        gate_input=normalise(request, environment=environment),
        outcome=failsafe.build_outcome(reason, safe_mode),
        computed=None,
        idempotency_key=request.idempotency_key,
        approval_request_id=None,
        policy_version=governing.version if governing else 0,
        policy_sha256=governing.sha256 if governing else "",
        persisted=False,
        evaluated_at=ask.clock(),
        latency_ms=timer.elapsed_ms,
    )
