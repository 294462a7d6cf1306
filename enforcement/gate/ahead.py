"""Reading ahead: what one evaluation claims, locks and reads, in a single round trip.

It locks and reads as the steps do, in the same order and each on what was committed before it
began; what comes back is handed to the step that would have asked. The question is put under the
policy that the process saw last, and the first thing read is whether that policy still governs.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import msgspec

from billing.accounts.domain import EXPOSURE, month_of
from billing.accounts.locking import AccountScope
from billing.reservations import queries as charges
from billing.reservations.domain import Change
from enforcement.gate import retrying, snapshot, spending
from enforcement.gate.ask import Ask
from enforcement.gate.decision import Outcome
from enforcement.gate.inputs import GateInput, normalise, sent_sha256
from enforcement.gate.lastknown import last_known
from enforcement.gate.sharing import build_change
from enforcement.idempotency.domain import stored_key
from enforcement.idempotency.operations import Claim
from governance.identity.assuming import NotAsAssumed
from governance.policies.governing import GoverningPolicy
from governance.policies.queries import take_policy
from valdrix.kernel.db import Call, Rows
from valdrix.kernel.problems import Refused


class RequestFingerprintMismatch(Refused):
    """The request is not the one that the caller expected to send."""

    code = "request_fingerprint_mismatch"


class KeysChanged(NotAsAssumed):
    """The credentials of some questions are not what they were taken for; nothing is locked.

    :ivar places: of those questions; the other ones' credentials are confirmed.
    """

    def __init__(self, places: Sequence[int]) -> None:
        super().__init__()
        self.places = places


@dataclass(frozen=True, slots=True)
class Question:
    """One question as it is worked on: as asked, under which policy, and normalised.

    :ivar change: what is being changed, as charges know it.
    :ivar scope: which accounts it touches.
    :ivar claim: the claim of its key; None for a question without one.
    """

    ask: Ask
    governing: GoverningPolicy
    gate_input: GateInput
    change: Change
    scope: AccountScope
    claim: Claim | None


@dataclass(frozen=True, slots=True)
class Ahead:
    """What was read ahead; None where a step has to ask by itself.

    :ivar at: the moment for which the accounts were chosen.
    :ivar is_without_past: no answer is kept and no approval given for what is asked.
    """

    charges: Rows | None = None
    accounts: Rows | None = None
    snapshot: tuple[Any, ...] | None = None
    at: datetime | None = None
    is_without_past: bool = False

    @property
    def account_ids(self) -> list[uuid.UUID]:
        """Return the accounts that were locked."""
        return [account_id for account_id, _ in self.accounts or []]

    @property
    def is_whole(self) -> bool:
        """Tell whether the very accounts were read that were locked, the exposure among them."""
        if self.accounts is None or self.snapshot is None:
            return False
        is_opened = any(kind == EXPOSURE for _, kind in self.accounts)
        return is_opened and self.accounts == snapshot.accounts_of(self.snapshot)

    def snapshot_of(self, now: datetime) -> tuple[Any, ...] | None:
        """Return what was read for the accounts, or None where a day has ended since."""
        is_same_day = self.at is not None and self.at.date() == now.date()
        return self.snapshot if is_same_day else None

    def after(self, outcome: Outcome) -> Ahead:
        """Return what would have been read behind an outcome that the same transaction writes.

        The outcome may be of another scope, which shares some of the accounts.
        """
        assert self.snapshot is not None
        row = snapshot.after_holds(self.snapshot, outcome.holds, is_shadow=outcome.is_shadow)
        return replace(self, snapshot=row, accounts=snapshot.accounts_of(row))


NOTHING = Ahead()

ScopeName = tuple[str, str, str | None]


@dataclass(frozen=True, slots=True)
class Reads:
    """What was read ahead for the scopes of one or more questions."""

    by_scope: dict[ScopeName, Ahead]

    def of(self, question: Question) -> Ahead:
        """Return what was read for a question."""
        return self.by_scope[question.scope.name]

    @property
    def is_whole(self) -> bool:
        """Tell whether the accounts of every scope were locked and read."""
        return all(read.is_whole for read in self.by_scope.values())

    def after(self, outcome: Outcome) -> Reads:
        """Return what would have been read behind an outcome that the same transaction writes."""
        return Reads({name: read.after(outcome) for name, read in self.by_scope.items()})


_BEGIN: Final = "SELECT enforcement_gate_begin(%s::jsonb)"


def question_ahead(ask: Ask) -> Question | None:
    """Return the question under the policy that this process saw last, to be checked soon after.

    None where nothing was seen yet, and where the fingerprints do not agree: whose fault that is,
    only the policy in force can tell.
    """
    known = last_known.find(ask.tenant_id)
    if known is None:
        return None
    try:
        return put_question(ask, known)
    except RequestFingerprintMismatch:
        return None


def put_question(ask: Ask, governing: GoverningPolicy) -> Question:
    """Return a question under a policy.

    :raises RequestFingerprintMismatch: when it is not the question that its caller expects.
    """
    environment = governing.policy.classify_environment(ask.request.environment)
    gate_input = normalise(ask.request, environment=environment)
    expected = ask.request.expected_request_fingerprint
    if expected is not None and expected != gate_input.request_fingerprint:
        raise RequestFingerprintMismatch(
            "The request's fingerprint is not the expected one; nothing was evaluated."
        )
    return Question(
        ask=ask,
        governing=governing,
        gate_input=gate_input,
        change=build_change(ask.tenant_id, gate_input, governing),
        scope=AccountScope(
            tenant_id=ask.tenant_id,
            project_id=gate_input.project_id,
            environment=gate_input.environment,
            team=gate_input.team,
        ),
        claim=_build_claim(ask, gate_input),
    )


def _build_claim(ask: Ask, gate_input: GateInput) -> Claim | None:
    request = ask.request
    if request.idempotency_key is None or request.retry_seconds is not None:
        return None
    return Claim(
        tenant_id=ask.tenant_id,
        source=request.source,
        stored_key=stored_key(namespace=request.idempotency_namespace, key=request.idempotency_key),
        request_fingerprint=gate_input.request_fingerprint,
        sent_sha256=sent_sha256(request),
        decision_id=ask.decision_id,
        claimed_at=ask.clock(),
    )


def build_call(questions: Sequence[Question], now: datetime) -> Call:
    """Return the call that confirms, claims, locks and reads for questions of one tenant.

    Before all else it confirms the credentials that are assumed so far, each once. Each lock is
    taken once, in their order: keys first, sorted, then the names of all changes, then the accounts.
    """
    first = questions[0]
    claims = [(place, one.claim) for place, one in enumerate(questions) if one.claim is not None]
    changes = [one.change for one in questions]
    described = [_describe(one, now) for one in questions]
    document = {
        "keys": [msgspec.Raw(told.encode()) for told in _assumed(questions)],
        "now": now,
        "known": first.governing.sha256,
        "claims": sorted(claims, key=lambda one: (one[1].source, one[1].stored_key)),
        "locks": charges.lock_literal(changes),
        "changes": described,
        "looks_back": any("retry" in one or "spends" in one for one in described),
        "parent": first.gate_input.parent_decision_id,
        "scopes": [
            {"project": project, "environment": environment, "team": team}
            for project, environment, team in _scope_names(questions)
        ],
        "month": month_of(now),
    }
    return _BEGIN, msgspec.json.encode(document).decode()


def _describe(question: Question, now: datetime) -> dict[str, Any]:
    """Return a question's change, and what of the past would have it decided step by step."""
    ask, gate_input = question.ask, question.gate_input
    described = charges.describe(question.change)
    retry = retrying.describe(
        ask.request, request_fingerprint=gate_input.request_fingerprint, now=now
    )
    spends = None
    if ask.may_spend_approval and not question.change.is_shadow:
        spends = spending.describe(gate_input)
    past = {"retry": retry, "spends": spends}
    return described | {name: value for name, value in past.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Begun:
    """What came back from the call that began one or more evaluations.

    :ivar charged: places of the questions, of several, whose change has a charge already.
    :ivar taken: places of those, of several, whose key was used before, and of those that the past
        has decided step by step.
    """

    governing: GoverningPolicy
    reads: Reads
    charged: list[int]
    taken: list[int]


def take(questions: Sequence[Question], now: datetime, answer: Sequence[Any]) -> Begun:
    """Return what the database answered to :func:`build_call`.

    :raises KeysChanged: when credentials are not what they were taken for.
    """
    # A database that says nothing about the keys has not been asked: that is no answer.
    policy, found, scopes, taken, changed = answer
    _note_confirmed(questions, changed)
    first = questions[0]
    is_alone = len(questions) == 1
    reads = {
        name: Ahead(
            charges=charges.take_rows(found) if is_alone else [],
            accounts=snapshot.take_accounts(accounts),
            snapshot=tuple(read),
            at=now,
            is_without_past=True,
        )
        for name, (accounts, read) in zip(_scope_names(questions), scopes, strict=True)
    }
    return Begun(
        governing=take_policy(first.scope.tenant_id, policy, known=first.governing),
        reads=Reads(reads),
        charged=[] if is_alone else found or [],
        taken=taken,
    )


def _assumed(questions: Sequence[Question]) -> dict[str, list[int]]:
    """Return what is assumed of credentials and not confirmed, each with its questions' places."""
    places: dict[str, list[int]] = {}
    for place, one in enumerate(questions):
        assumption = one.ask.assumption
        if assumption is not None and not assumption.is_confirmed:
            places.setdefault(assumption.told, []).append(place)
    return places


def _note_confirmed(questions: Sequence[Question], changed: Sequence[int]) -> None:
    """Note what the database confirmed.

    :param changed: which of the credentials, in the order in which they were sent, it did not.
    :raises KeysChanged: when there are such.
    """
    fallen: list[int] = []
    for number, places in enumerate(_assumed(questions).values()):
        if number in changed:
            fallen += places
            continue
        for place in places:
            assumption = questions[place].ask.assumption
            assert assumption is not None
            assumption.note()
    if fallen:
        raise KeysChanged(fallen)


def _scope_names(questions: Sequence[Question]) -> list[ScopeName]:
    """Return the scopes of questions, each once, in the order in which they come."""
    return list(dict.fromkeys(one.scope.name for one in questions))
