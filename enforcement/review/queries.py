"""Reads of approvals together with the decisions that wait for them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Final

from django.db import connection
from django.db.models import F

from enforcement.decisions.models import REQUIRE_APPROVAL, Decision
from governance.approvals.authority import Reviewer, Terms, find_refusal
from governance.approvals.models import APPROVES, Approval, Review
from governance.approvals.reviewers import Person, find_people

_REQUESTERS: Final = """
SELECT DISTINCT approval_request_id, person_id FROM enforcement_decision
 WHERE tenant_id = %s AND approval_request_id = ANY(%s) AND decision = %s
"""


def find_waiting(approval: Approval) -> list[Decision]:
    """Return the decisions that wait for an approval, its own and those that joined it.

    The one that sets its amount comes first: an unknown cost, else the largest, else the oldest.
    """
    rows = Decision.objects.filter(
        tenant_id=approval.tenant_id,
        approval_request_id=approval.pk,
        decision=REQUIRE_APPROVAL,
    )
    return list(rows.order_by(F("monthly_delta_usd").desc(nulls_first=True), "pk"))


def build_terms(approval: Approval, requesters: frozenset[int]) -> Terms:
    """Return whom an approval demands, as it was routed when it was opened."""
    return Terms(
        environment=approval.environment,
        has_rule=approval.routing_rule_id is not None,
        required=approval.required,
        roles=tuple(approval.reviewer_roles),
        groups=tuple(approval.reviewer_groups_all),
        separate_requester=approval.separate_requester,
        requesters=requesters | {approval.requester_person_id},
    )


def find_requesters_of(
    tenant_id: uuid.UUID, approvals: Sequence[Approval]
) -> dict[uuid.UUID, frozenset[int]]:
    """Return for each approval everybody who asked for its change, also by joining it."""
    found = {approval.pk: {approval.requester_person_id} for approval in approvals}
    with connection.cursor() as cursor:
        cursor.execute(_REQUESTERS, [tenant_id, list(found), REQUIRE_APPROVAL])
        for approval_id, person_id in cursor.fetchall():
            found[approval_id].add(person_id)
    return {approval_id: frozenset(people) for approval_id, people in found.items()}


def find_approvals_given(
    tenant_id: uuid.UUID, approvals: Sequence[Approval]
) -> dict[uuid.UUID, list[Review]]:
    """Return for each approval who said yes, in its present round and to its present amount."""
    by_id = {approval.pk: approval for approval in approvals}
    found: dict[uuid.UUID, list[Review]] = {approval_id: [] for approval_id in by_id}
    rows = Review.objects.filter(
        tenant_id=tenant_id, approval_id__in=list(by_id), verdict=APPROVES
    ).order_by("pk")
    for review in rows:
        approval = by_id[review.approval_id]
        if (review.round, review.monthly_delta_usd) == (
            approval.round,
            approval.monthly_delta_usd,
        ):
            found[approval.pk].append(review)
    return found


def keep_authorised(
    terms: Terms, reviews: Sequence[Review], people: Mapping[int, Person]
) -> list[Reviewer]:
    """Return the reviewers whose verdicts count: those who may still judge today.

    A group is that of the moment of the verdict; role and permission are today's.
    """
    kept = []
    for review in reviews:
        person = people.get(review.person_id)
        if person is None:
            continue
        reviewer = Reviewer(
            person_id=review.person_id,
            role=person.reviewer.role,
            permissions=person.reviewer.permissions,
            groups=frozenset(review.groups),
        )
        if find_refusal(terms, reviewer) is None:
            kept.append(reviewer)
    return kept


def find_eligible(tenant_id: uuid.UUID, terms: Terms) -> list[Person]:
    """Return everybody who may judge, by name."""
    people = find_people(tenant_id).values()
    return [person for person in people if find_refusal(terms, person.reviewer) is None]
