"""The shell of a gate: claim, lock, read, decide, reserve, append (ARCHITECTURE 3).

One durable transaction with a time budget; the locks are taken in the order of
``valdrix.kernel.locks``. A refusal is a value and is recorded; only a conflict of keys or
fingerprints raises, and then nothing was written. What cannot be evaluated fails safe.
"""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta
from typing import Any, Final

import msgspec
from django.db import DatabaseError, InterfaceError

from billing.accounts.domain import month_of
from billing.accounts.locking import (
    AccountScope,
    GateLockContended,
    GateLockTimeout,
    find_accounts,
    lock_accounts,
)
from billing.reservations.domain import Change, HeldLine, HoldOrder
from billing.reservations.operations import hold
from enforcement.decisions.queries import find_response
from enforcement.gate import failsafe
from enforcement.gate.ask import Ask, OutOfTime, TimeBudget, Timer
from enforcement.gate.decision import (
    DENY,
    REQUIRE_APPROVAL,
    GateContext,
    GivenApproval,
    Outcome,
    decide,
    encode,
    is_spending,
)
from enforcement.gate.inputs import K8S_ADMISSION, GateInput, normalise, sent_sha256
from enforcement.gate.lastknown import last_known
from enforcement.gate.observing import observe_decision
from enforcement.gate.recording import Made, record_decision
from enforcement.gate.response import (
    Record,
    build_response,
    decode_response,
    encode_response,
    mark_replayed,
)
from enforcement.gate.retrying import find_retried
from enforcement.gate.sharing import (
    Sharers,
    build_change,
    find_sharers,
    lock_sharers,
    read_sharing,
)
from enforcement.gate.snapshot import read_snapshot
from enforcement.gate.spending import find_given, lock_given, spend_given
from enforcement.idempotency.domain import stored_key
from enforcement.idempotency.operations import Claim, claim_key
from governance.approvals.operations import ApprovalOrder, OpenedApproval, open_approval
from governance.policies.governing import GoverningPolicy
from governance.policies.queries import read_governing_policy
from valdrix.kernel.db import (
    TimeLimits,
    drop_lost_connection,
    is_database_down,
    reading,
    sqlstate_of,
    time_limit,
    transaction,
)
from valdrix.kernel.metrics import (
    DB_ERRORS,
    ENTITLEMENT_DENIALS,
    GATE_DECISIONS,
    GATE_FAILURES,
    GATE_LATENCY,
)
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


class RequestFingerprintMismatch(Refused):
    """The request is not the one that the caller expected to send."""

    code = "request_fingerprint_mismatch"


class _PolicyMoved(Exception):
    """A policy was published between reading the request and taking the locks."""


def evaluate(ask: Ask, *, budget: TimeBudget) -> dict[str, Any]:
    """Decide one question, make the decision true, and return the common response (SPEC 8).

    :raises IdempotencyKeyReused: the key names another request.
    :raises RequestFingerprintMismatch: before anything is evaluated.
    """
    timer = Timer(budget)
    response = _evaluate_or_fail_safe(ask, budget, timer)
    if not response["replayed"]:
        GATE_DECISIONS.labels(response["source"], response["decision"], response["mode"]).inc()
        GATE_LATENCY.observe(timer.elapsed_ms / 1000)
        exceeded = response["entitlement_reason_code"]
        if exceeded is not None and response["decision"] in {DENY, REQUIRE_APPROVAL}:
            ENTITLEMENT_DENIALS.labels(exceeded).inc()
        observe_decision(ask, response, elapsed_ms=timer.elapsed_ms)
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
    except Refused:
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
    GATE_FAILURES.labels(reason).inc()
    return _fail_safe(ask, reason, timer)


class _Question(msgspec.Struct, frozen=True):
    """One question as it is worked on: as asked, under which policy, and normalised."""

    ask: Ask
    governing: GoverningPolicy
    gate_input: GateInput

    @property
    def change(self) -> Change:
        """Return what is being changed, as charges know it."""
        return build_change(self.ask.tenant_id, self.gate_input, self.governing)

    @property
    def scope(self) -> AccountScope:
        """Return which accounts the question touches."""
        return AccountScope(
            tenant_id=self.ask.tenant_id,
            project_id=self.gate_input.project_id,
            environment=self.gate_input.environment,
            team=self.gate_input.team,
        )


def _evaluate_once(ask: Ask, budget: TimeBudget, timer: Timer) -> dict[str, Any]:
    if ask.request.dry_run:
        with reading(ask.tenant_id, limits=budget.limits()):
            return _rehearse(ask, timer)
    with transaction(ask.tenant_id, limits=budget.limits()):
        return _decide_and_record(ask, timer)


def _decide_and_record(ask: Ask, timer: Timer) -> dict[str, Any]:
    question = _read_question(ask)
    stored = _claim(question)
    if stored is not None:
        return mark_replayed(stored)
    sharers = lock_sharers(question.change, question.gate_input.parent_decision_id)
    account_ids = lock_accounts(question.scope, now=ask.clock())
    timer.check()
    given = None
    if ask.may_spend_approval and not sharers.change.is_shadow:
        given = lock_given(ask.tenant_id, question.gate_input, now=ask.clock())
    context = _read_context(question, sharers, account_ids, given)
    outcome = decide(context, question.governing.policy)
    if outcome.is_holding:
        hold(order=_hold_order(question, context, outcome, sharers))
    approval = _open_approval(ask, context, outcome)
    revoked = spend_given(ask, context) if is_spending(context, outcome) else ()
    timer.check()
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
    context = _read_context(question, sharers, account_ids, given)
    outcome = decide(context, question.governing.policy)
    return build_response(_build_record(ask, context, outcome, timer))


def _read_policy(ask: Ask) -> GoverningPolicy:
    governing = read_governing_policy(ask.tenant_id, ask.clock())
    last_known.keep(ask.tenant_id, governing)
    return governing


def _read_question(ask: Ask) -> _Question:
    governing = _read_policy(ask)
    environment = governing.policy.classify_environment(ask.request.environment)
    gate_input = normalise(ask.request, environment=environment)
    expected = ask.request.expected_request_fingerprint
    if expected is not None and expected != gate_input.request_fingerprint:
        raise RequestFingerprintMismatch(
            "The request's fingerprint is not the expected one; nothing was evaluated."
        )
    return _Question(ask, governing, gate_input)


def _claim(question: _Question) -> str | None:
    ask, request = question.ask, question.ask.request
    if request.idempotency_key is None:
        return None
    fingerprint = question.gate_input.request_fingerprint
    if request.retry_seconds is not None:
        return find_retried(
            question.change, request, request_fingerprint=fingerprint, now=ask.clock()
        )
    return claim_key(
        claim=Claim(
            tenant_id=ask.tenant_id,
            source=request.source,
            stored_key=stored_key(
                namespace=request.idempotency_namespace, key=request.idempotency_key
            ),
            request_fingerprint=fingerprint,
            sent_sha256=sent_sha256(request),
            decision_id=ask.decision_id,
            claimed_at=ask.clock(),
        )
    )


def _read_context(
    question: _Question,
    sharers: Sharers,
    account_ids: list[uuid.UUID],
    given: GivenApproval | None,
) -> GateContext:
    """Read what the decision depends on, by a clock that is read after the locks."""
    gate_input, governing = question.gate_input, question.governing
    now = question.ask.clock()
    snapshot = read_snapshot(
        tenant_id=question.ask.tenant_id,
        gate_input=gate_input,
        account_ids=account_ids,
        policy=governing.policy,
        now=now,
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
        given=given,
    )


def _hold_order(
    question: _Question, context: GateContext, outcome: Outcome, sharers: Sharers
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
            HeldLine(uuid.UUID(line.account_id), line.kind, line.amount_usd)
            for line in outcome.holds
        ),
        month=month_of(now),
        reserved_at=now,
        due_at=now + _held_for(question),
    )


def _held_for(question: _Question) -> timedelta:
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
