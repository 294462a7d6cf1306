"""Reads of approvals together with the decisions that wait for them."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from django.db import connection
from django.db.models import F

from enforcement.decisions.models import REQUIRE_APPROVAL, Decision
from governance.approvals.authority import Reviewer, Terms, find_refusal
from governance.approvals.models import APPROVES, Approval, Review
from governance.approvals.reviewers import Person, find_people
from governance.identity.hands import Use, find_hands

_ASKED: Final = """
SELECT approval_request_id, person_id, actor, min(created_at), max(created_at)
  FROM enforcement_decision
 WHERE tenant_id = %s AND approval_request_id = ANY(%s) AND decision = %s
 GROUP BY approval_request_id, person_id, actor
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


def find_terms(tenant_id: uuid.UUID, approvals: Sequence[Approval]) -> dict[uuid.UUID, Terms]:
    """Return whom each approval demands, as it was routed, and who can be none of its reviewers."""
    asked = _find_asked(tenant_id, approvals)
    terms = {
        approval.pk: build_terms(approval, {person_id for person_id, _ in asked[approval.pk]})
        for approval in approvals
    }
    separate = [approval for approval in approvals if terms[approval.pk].is_separate]
    hands = find_hands(tenant_id, {use for one in separate for _, use in asked[one.pk]})
    for approval in separate:
        holders = {one for _, use in asked[approval.pk] for one in hands[use]}
        terms[approval.pk] = build_terms(approval, terms[approval.pk].requesters, holders)
    return terms


def build_terms(
    approval: Approval, requesters: Collection[int], holders: Collection[int] = ()
) -> Terms:
    """Return whom an approval demands, as it was routed when it was opened.

    :param holders: who was shown the secret of a credential that asked.
    """
    return Terms(
        environment=approval.environment,
        has_rule=approval.routing_rule_id is not None,
        required=approval.required,
        roles=tuple(approval.reviewer_roles),
        groups=tuple(approval.reviewer_groups_all),
        separate_requester=approval.separate_requester,
        requesters=frozenset({*requesters, approval.requester_person_id}),
        holders=frozenset(holders),
    )


def find_requesters_of(tenant_id: uuid.UUID, approval: Approval) -> frozenset[int]:
    """Return everybody who asked for an approval's change, also by joining it."""
    asked = _find_asked(tenant_id, [approval])[approval.pk]
    return frozenset({approval.requester_person_id, *(person_id for person_id, _ in asked)})


def _find_asked(
    tenant_id: uuid.UUID, approvals: Sequence[Approval]
) -> dict[uuid.UUID, list[tuple[int, Use]]]:
    """Return for each approval who asked for its change, and by which credentials."""
    found: dict[uuid.UUID, list[tuple[int, Use]]] = {approval.pk: [] for approval in approvals}
    with connection.cursor() as cursor:
        cursor.execute(_ASKED, [tenant_id, list(found), REQUIRE_APPROVAL])
        for approval_id, person_id, *use in cursor.fetchall():
            found[approval_id].append((person_id, Use(*use)))
    return found


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

    Role and permission are today's. A group is one that they were in then and are in today: who
    left it stands for it no more, and who came to it later did not speak for it.
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
            groups=person.reviewer.groups.intersection(review.groups),
        )
        if find_refusal(terms, reviewer) is None:
            kept.append(reviewer)
    return kept


def find_eligible(tenant_id: uuid.UUID, terms: Terms) -> list[Person]:
    """Return everybody who may judge, by name."""
    people = find_people(tenant_id).values()
    return [person for person in people if find_refusal(terms, person.reviewer) is None]
