"""Who is told: those who may judge, whoever asked, who answers for budgets, and webhooks."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from enforcement.notifications import domain
from enforcement.review.queries import (
    find_approvals_given,
    find_eligible,
    find_requesters_of,
    find_terms,
)
from governance.approvals.models import Approval
from governance.identity.domain import ADMIN, OWNER
from governance.identity.models import Membership
from governance.integrations.domain import WEBHOOK
from governance.integrations.queries import find_active_of_kind


def find_recipients(
    tenant_id: uuid.UUID, kind: str, *, approval: Approval | None, project_id: str
) -> Iterator[tuple[str, str]]:
    """Give the channel and the destination of each who is told."""
    people = _people(tenant_id, kind, approval)
    rows = Membership.objects.filter(
        tenant_id=tenant_id, user_id__in=people, user__is_active=True
    ).order_by("user_id")
    for address in rows.values_list("user__email", flat=True):
        if address:
            yield domain.EMAIL, address
    for integration in find_active_of_kind(tenant_id, WEBHOOK):
        if integration.project_id in (None, project_id):
            yield domain.WEBHOOK, str(integration.pk)


def _people(tenant_id: uuid.UUID, kind: str, approval: Approval | None) -> set[int]:
    if approval is None:
        answering = Membership.objects.filter(tenant_id=tenant_id, role__in=(ADMIN, OWNER))
        return set(answering.values_list("user_id", flat=True))
    if kind in domain.TO_REQUESTERS:
        return set(find_requesters_of(tenant_id, approval))
    said_yes = {one.person_id for one in find_approvals_given(tenant_id, [approval])[approval.pk]}
    terms = find_terms(tenant_id, [approval])[approval.pk]
    judges = {one.reviewer.person_id for one in find_eligible(tenant_id, terms)}
    return judges - said_yes
