"""The queue: what a person may approve now, read in one round trip as a rule."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache, partial
from typing import Final

import msgspec

from enforcement.decisions.models import Decision
from enforcement.review.judging import Bench, has_scope, may_approve
from enforcement.review.queries import build_terms, keep_authorised
from enforcement.review.reading import Seen, takes_emergency
from enforcement.review.schema import APPROVALS, DECISIONS, REVIEWS
from governance.approvals.authority import Reviewer
from governance.approvals.models import PENDING, Approval, Review
from governance.approvals.reviewers import Person, build_reviewer, find_people
from governance.identity.domain import (
    APPROVE_NONPROD,
    APPROVE_PROD,
    MEMBER,
    PERMISSIONS_BY_ROLE,
    Principal,
)
from governance.identity.hands import Use, find_hands
from valdrix.kernel.db import read_at_once, read_within, reading, to_array, transaction_required
from valdrix.kernel.rows import REMEMBERED_ROWS, remembering

_PAGE: Final = "SELECT enforcement_approval_queue(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"


class _Page(msgspec.Struct):
    held: list[tuple[bool, str]]
    rows: list[msgspec.Raw]


_DECODER: Final = msgspec.json.Decoder(_Page)
_ROW: Final = msgspec.json.Decoder(
    tuple[
        APPROVALS.type,  # type: ignore[name-defined] # made at run time
        list[int] | None,
        list[tuple[str, datetime, datetime]] | None,
        list[REVIEWS.type] | None,  # type: ignore[name-defined] # made at run time
        DECISIONS.type | None,  # type: ignore[name-defined] # made at run time
        Decimal | None,
    ]
)


class _Waiting(msgspec.Struct, frozen=True, eq=False):
    """One approval of a page, with what its judgement depends on.

    :ivar uses: of credentials that asked and that somebody was shown.
    """

    approval: Approval
    requesters: frozenset[int]
    uses: frozenset[Use]
    reviews: list[Review]
    decision: Decision | None
    burnt_usd: Decimal | None


_Ask = Callable[..., bytes | None]
_People = Callable[[set[int]], Mapping[int, Person]]
_Hands = Callable[[set[Use]], Mapping[Use, frozenset[int]]]


def find_queue(
    principal: Principal, *, after_id: uuid.UUID | None = None, limit: int, now: datetime
) -> list[Approval]:
    """Return up to ``limit`` approvals that a person may approve now, the oldest first.

    :raises NotInTransaction: outside ``reading`` of the tenant.
    """
    transaction_required()
    tenant_id, page = principal.tenant_id, (after_id, limit, now)
    more = (partial(find_people, tenant_id), partial(find_hands, tenant_id))
    return [one.approval for one in _find(principal, page, ask=read_within, more=more)]


def see_queue(
    principal: Principal, *, after_id: uuid.UUID | None = None, limit: int, now: datetime
) -> list[Seen]:
    """Return what :func:`find_queue` does, as the person sees it, read at once."""

    def people(wanted: set[int]) -> Mapping[int, Person]:
        with reading(principal.tenant_id):
            return find_people(principal.tenant_id, wanted)

    def hands(uses: set[Use]) -> Mapping[Use, frozenset[int]]:
        with reading(principal.tenant_id):
            return find_hands(principal.tenant_id, uses)

    ask = partial(read_at_once, principal.tenant_id)
    return _find(principal, (after_id, limit, now), ask=ask, more=(people, hands))


def _find(
    principal: Principal,
    page: tuple[uuid.UUID | None, int, datetime],
    *,
    ask: _Ask,
    more: tuple[_People, _Hands],
) -> list[Seen]:
    (after_id, limit, now), (people, hands) = page, more
    found: list[Seen] = []
    # Most that are looked at are the person's to approve: more than are wanted are not read.
    while has_scope(principal) and len(found) < limit:
        answer = ask(_PAGE, *_parameters(principal, after_id, limit, now))
        assert answer is not None
        read = _DECODER.decode(answer)
        reviewer = build_reviewer(principal, read.held)
        rows = [_build(row) for row in read.rows]
        voters = {review.person_id for one in rows for review in one.reviews}
        known = people(voters) if voters else {}
        uses = {use for one in rows for use in one.uses}
        held = hands(uses) if uses else {}
        for one in rows:
            voted = tuple(known.get(review.person_id) for review in one.reviews)
            holders = frozenset(person_id for use in one.uses for person_id in held[use])
            seen = _see(one, reviewer, voted, holders)
            if seen is not None:
                found.append(seen)
        if len(rows) < limit:
            break
        after_id = uuid.UUID(str(rows[-1].approval.pk))
    return found[:limit]


def _parameters(
    principal: Principal, after_id: uuid.UUID | None, limit: int, now: datetime
) -> list[str | None]:
    permissions = PERMISSIONS_BY_ROLE[principal.role]
    return [
        str(principal.tenant_id),
        str(principal.person_id),
        now.isoformat(),
        principal.role,
        str(APPROVE_NONPROD in permissions),
        str(APPROVE_PROD in permissions),
        str(principal.role != MEMBER),
        to_array(principal.projects),
        str(after_id or uuid.UUID(int=0)),
        str(limit),
    ]


@remembering
def _build(row: bytes) -> _Waiting:
    approval, requesters, uses, reviews, decision, burnt_usd = _ROW.decode(row)
    return _Waiting(
        approval=approval,
        requesters=frozenset(requesters or ()) | {approval.requester_person_id},
        uses=frozenset(Use(*use) for use in uses or ()),
        reviews=reviews or [],
        decision=decision,
        burnt_usd=burnt_usd,
    )


@lru_cache(maxsize=REMEMBERED_ROWS)
def _see(
    waiting: _Waiting,
    reviewer: Reviewer,
    voted: tuple[Person | None, ...],
    holders: frozenset[int],
) -> Seen | None:
    """Return an approval as somebody sees it whose yes is allowed and needed; None to others.

    :param voted: who said yes, as they are today; None for those who left.
    :param holders: who was shown a credential that asked for it.
    """
    approval, decision = waiting.approval, waiting.decision
    terms = build_terms(approval, waiting.requesters, holders)
    people = {one.reviewer.person_id: one for one in voted if one is not None}
    given = keep_authorised(terms, waiting.reviews, people)
    bench = Bench(terms=terms, reviewer=reviewer, reviews=waiting.reviews, given=given)
    if not may_approve(bench):
        return None
    is_unknown = approval.monthly_delta_usd is None
    burns = decision is not None and takes_emergency(waiting.burnt_usd, decision.reason_codes)
    return Seen(
        approval=approval,
        status=PENDING,
        bench=bench,
        may_approve=True,
        reason_required=is_unknown or burns,
        ceiling_required=is_unknown,
        waiting=() if decision is None else (decision,),
        eligible=None,
        reviews=(),
    )
