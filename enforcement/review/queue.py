"""The queue: what a person may approve now, read in one round trip as a rule."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final

import msgspec

from enforcement.decisions.models import REQUIRE_APPROVAL, Decision
from enforcement.ledger.domain import DECISION_MADE
from enforcement.review.judging import Bench, has_scope, may_approve
from enforcement.review.queries import build_terms, keep_authorised
from enforcement.review.reading import Seen, takes_emergency
from governance.approvals.authority import Reviewer
from governance.approvals.models import APPROVES, PENDING, Approval, Review
from governance.approvals.reviewers import Person, build_reviewer, find_people
from governance.identity.domain import (
    APPROVE_NONPROD,
    APPROVE_PROD,
    MEMBER,
    PERMISSIONS_BY_ROLE,
    Principal,
)
from governance.policies.environments import NONPROD
from valdrix.kernel.db import read_at_once, read_within, reading, to_array, transaction_required
from valdrix.kernel.rows import RowsOf

_APPROVALS: Final = RowsOf(Approval, without=("routing_trace",))
_REVIEWS: Final = RowsOf(Review)
_DECISIONS: Final = RowsOf(
    Decision, only=("id", "resource_reference", "reason_codes", "cost_state")
)
"""What a queue shows of the decision behind an approval; anything else is not to be had there."""

_PAGE: Final = f"""
WITH held AS MATERIALIZED (
    SELECT false AS is_group, permission AS name FROM governance_approval_permission
     WHERE tenant_id = %s AND user_id = %s
    UNION ALL
    SELECT true, g.name FROM governance_reviewer_group_member m
      JOIN governance_reviewer_group g ON g.id = m.group_id AND g.tenant_id = m.tenant_id
     WHERE m.tenant_id = %s AND m.user_id = %s
)
SELECT json_build_object(
    'held', (SELECT coalesce(json_agg(json_build_array(is_group, name)), '[]') FROM held),
    'rows', (SELECT coalesce(json_agg(json_build_array(
        {_APPROVALS.sql("a")},
        (SELECT json_agg(DISTINCT d.person_id) FROM enforcement_decision d
          WHERE d.tenant_id = a.tenant_id AND d.approval_request_id = a.id
            AND d.decision = '{REQUIRE_APPROVAL}'),
        (SELECT json_agg({_REVIEWS.sql("v")} ORDER BY v.id) FROM governance_review v
          WHERE v.tenant_id = a.tenant_id AND v.approval_id = a.id AND v.verdict = '{APPROVES}'
            AND v.round = a.round
            AND v.monthly_delta_usd IS NOT DISTINCT FROM a.monthly_delta_usd),
        CASE WHEN o.id IS NOT NULL THEN {_DECISIONS.sql("o")} END,
        (SELECT l.reserved_emergency_credit_usd FROM enforcement_ledger_entry l
          WHERE l.tenant_id = a.tenant_id AND l.decision_id = a.decision_id
            AND l.event = '{DECISION_MADE}')
    ) ORDER BY a.id), '[]') FROM (
        SELECT * FROM governance_approval
         WHERE tenant_id = %s AND status = '{PENDING}' AND expires_at > %s
           AND reviewer_roles @> ARRAY[%s]::varchar[]
           AND CASE environment = '{NONPROD}'
               WHEN true THEN %s OR EXISTS (SELECT FROM held WHERE NOT is_group
                                               AND name = '{APPROVE_NONPROD}')
               ELSE %s OR EXISTS (SELECT FROM held WHERE NOT is_group
                                     AND name = '{APPROVE_PROD}') END
           AND (%s OR routing_rule_id IS NOT NULL)
           AND coalesce(project_id = ANY (%s::text[]), true)
           AND id > %s ORDER BY id LIMIT %s) AS a
        LEFT JOIN enforcement_decision o ON o.tenant_id = a.tenant_id AND o.id = a.decision_id))
"""  # noqa: S608 - of constants


class _Page(msgspec.Struct):
    held: list[tuple[bool, str]]
    rows: list[
        tuple[
            _APPROVALS.type,  # type: ignore[name-defined] # made at run time
            list[int] | None,
            list[_REVIEWS.type] | None,  # type: ignore[name-defined] # made at run time
            _DECISIONS.type | None,  # type: ignore[name-defined] # made at run time
            Decimal | None,
        ]
    ]


_DECODER: Final = msgspec.json.Decoder(_Page)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One approval of a page, with what its judgement depends on."""

    approval: Approval
    requesters: frozenset[int]
    reviews: list[Review]
    decision: Decision | None
    burnt_usd: Decimal | None


_Ask = Callable[..., bytes | None]
_People = Callable[[set[int]], Mapping[int, Person]]


def find_queue(
    principal: Principal, *, after_id: uuid.UUID | None = None, limit: int, now: datetime
) -> list[Approval]:
    """Return up to ``limit`` approvals that a person may approve now, the oldest first.

    :raises NotInTransaction: outside ``reading`` of the tenant.
    """
    transaction_required()
    people = partial(find_people, principal.tenant_id)
    page = (after_id, limit, now)
    return [one.approval for one, _ in _find(principal, page, ask=read_within, people=people)]


def see_queue(
    principal: Principal, *, after_id: uuid.UUID | None = None, limit: int, now: datetime
) -> list[Seen]:
    """Return what :func:`find_queue` does, as the person sees it, read at once."""

    def people(wanted: set[int]) -> Mapping[int, Person]:
        with reading(principal.tenant_id):
            return find_people(principal.tenant_id, wanted)

    ask = partial(read_at_once, principal.tenant_id)
    found = _find(principal, (after_id, limit, now), ask=ask, people=people)
    return [_see(one, bench) for one, bench in found]


def _find(
    principal: Principal,
    page: tuple[uuid.UUID | None, int, datetime],
    *,
    ask: _Ask,
    people: _People,
) -> list[tuple[_Waiting, Bench]]:
    after_id, limit, now = page
    found: list[tuple[_Waiting, Bench]] = []
    # Most that are looked at are the person's to approve: more than are wanted are not read.
    while has_scope(principal) and len(found) < limit:
        answer = ask(_PAGE, *_parameters(principal, after_id, limit, now))
        assert answer is not None
        read = _DECODER.decode(answer)
        reviewer = build_reviewer(principal, read.held)
        rows = [_build(row) for row in read.rows]
        voters = {review.person_id for one in rows for review in one.reviews}
        known = people(voters) if voters else {}
        judged = ((one, _judge(one, reviewer, known)) for one in rows)
        found.extend((one, bench) for one, bench in judged if may_approve(bench))
        if len(rows) < limit:
            break
        after_id = rows[-1].approval.pk
    return found[:limit]


def _parameters(
    principal: Principal, after_id: uuid.UUID | None, limit: int, now: datetime
) -> list[str | None]:
    tenant, person = str(principal.tenant_id), str(principal.person_id)
    permissions = PERMISSIONS_BY_ROLE[principal.role]
    return [
        *(tenant, person, tenant, person, tenant, now.isoformat(), principal.role),
        str(APPROVE_NONPROD in permissions),
        str(APPROVE_PROD in permissions),
        str(principal.role != MEMBER),
        to_array(principal.projects),
        str(after_id or uuid.UUID(int=0)),
        str(limit),
    ]


def _build(row: tuple[Any, ...]) -> _Waiting:
    approval, requesters, reviews, decision, burnt_usd = row
    return _Waiting(
        approval=approval,
        requesters=frozenset(requesters or ()) | {approval.requester_person_id},
        reviews=reviews or [],
        decision=decision,
        burnt_usd=burnt_usd,
    )


def _judge(waiting: _Waiting, reviewer: Reviewer, people: Mapping[int, Person]) -> Bench:
    terms = build_terms(waiting.approval, waiting.requesters)
    given = keep_authorised(terms, waiting.reviews, people) if waiting.reviews else []
    return Bench(terms=terms, reviewer=reviewer, reviews=waiting.reviews, given=given)


def _see(waiting: _Waiting, bench: Bench) -> Seen:
    approval, decision = waiting.approval, waiting.decision
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
