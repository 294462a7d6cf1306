"""Reads of people as reviewers: roles, permissions and groups as they are now."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from django.db import connection

from governance.approvals.authority import Reviewer
from governance.identity.domain import PERMISSIONS_BY_ROLE, Principal, weaker_role
from governance.identity.models import ApprovalPermission, Membership, ReviewerGroupMember

_ROLE: Final = "role"
_GROUP: Final = "group"
_OF_ONE: Final = """
SELECT 'role', m.role FROM governance_membership m JOIN governance_user u ON u.id = m.user_id
 WHERE m.tenant_id = %(tenant)s AND m.user_id = %(person)s AND u.is_active
UNION ALL
SELECT 'permission', permission FROM governance_approval_permission
 WHERE tenant_id = %(tenant)s AND user_id = %(person)s
UNION ALL
SELECT 'group', g.name FROM governance_reviewer_group_member m
  JOIN governance_reviewer_group g ON g.id = m.group_id AND g.tenant_id = m.tenant_id
 WHERE m.tenant_id = %(tenant)s AND m.user_id = %(person)s
"""


@dataclass(frozen=True, slots=True)
class Person:
    """A person who may be shown as a reviewer."""

    reviewer: Reviewer
    username: str


def find_reviewer(principal: Principal) -> Reviewer:
    """Return whoever acts as a reviewer, in the role that their credential and they have now.

    It was authenticated before any lock was waited for: a role that was taken away meanwhile, or a
    membership that ended, counts no more.
    """
    with connection.cursor() as cursor:
        cursor.execute(_OF_ONE, {"tenant": principal.tenant_id, "person": principal.person_id})
        held = cursor.fetchall()
    roles = [name for kind, name in held if kind == _ROLE]
    if not roles:
        return Reviewer(principal.person_id, "", frozenset(), frozenset())
    role = weaker_role(principal.role, roles[0])
    given = [(kind == _GROUP, name) for kind, name in held if kind != _ROLE]
    return build_reviewer(replace(principal, role=role), given)


def build_reviewer(principal: Principal, held: Iterable[tuple[bool, str]]) -> Reviewer:
    """Return a person as a reviewer.

    :param held: what they were given by name, and whether that is a group or a permission.
    """
    held = list(held)
    return Reviewer(
        person_id=principal.person_id,
        role=principal.role,
        permissions=PERMISSIONS_BY_ROLE[principal.role]
        | {name for is_group, name in held if not is_group},
        groups=frozenset(name for is_group, name in held if is_group),
    )


def find_people(
    tenant_id: uuid.UUID, person_ids: Collection[int] | None = None
) -> dict[int, Person]:
    """Return the tenant's active people as reviewers, by id, in the order of their names.

    :param person_ids: only these; None means all.
    """
    rows = Membership.objects.filter(tenant_id=tenant_id, user__is_active=True)
    if person_ids is not None:
        rows = rows.filter(user_id__in=person_ids)
    granted, groups = _permissions(tenant_id, person_ids), _groups(tenant_id, person_ids)
    return {
        person_id: Person(
            Reviewer(
                person_id=person_id,
                role=role,
                permissions=PERMISSIONS_BY_ROLE[role] | granted[person_id],
                groups=frozenset(groups[person_id]),
            ),
            username,
        )
        for person_id, username, role in rows.order_by("user__username").values_list(
            "user_id", "user__username", "role"
        )
    }


def _permissions(
    tenant_id: uuid.UUID, person_ids: Collection[int] | None
) -> defaultdict[int, set[str]]:
    rows = ApprovalPermission.objects.filter(tenant_id=tenant_id)
    if person_ids is not None:
        rows = rows.filter(user_id__in=person_ids)
    found: defaultdict[int, set[str]] = defaultdict(set)
    for person_id, permission in rows.values_list("user_id", "permission"):
        found[person_id].add(permission)
    return found


def _groups(tenant_id: uuid.UUID, person_ids: Collection[int] | None) -> defaultdict[int, set[str]]:
    rows = ReviewerGroupMember.objects.filter(tenant_id=tenant_id)
    if person_ids is not None:
        rows = rows.filter(user_id__in=person_ids)
    found: defaultdict[int, set[str]] = defaultdict(set)
    for person_id, name in rows.values_list("user_id", "group__name"):
        found[person_id].add(name)
    return found
