"""Writes of what makes people reviewers: their groups, and permissions beyond their role.

Owners set them; a directory that maps its groups names itself as ``source``, and touches only
what it set.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Final

from django.db import IntegrityError

from governance.audit.operations import Actor, record_change
from governance.identity.domain import APPROVAL_PERMISSIONS
from governance.identity.models import (
    ApprovalPermission,
    Membership,
    ReviewerGroup,
    ReviewerGroupMember,
)
from valdrix.kernel.db import savepoint, transaction, transaction_required
from valdrix.kernel.edits import check_unmoved
from valdrix.kernel.problems import FieldError, InvalidRequest, NotFound, Refused

OWNER_SOURCE: Final = "owner"
_BIGGEST_PERSON_ID: Final = 2**63 - 1


class GroupExists(Refused):
    """There is a reviewer group of this name (409)."""

    code = "reviewer_group_exists"


def create_group(*, actor: Actor, group_id: uuid.UUID, name: str) -> ReviewerGroup:
    """Create a reviewer group; routing rules name it.

    :raises GroupExists: when the tenant has one of this name.
    """
    with transaction(actor.tenant_id):
        try:
            with savepoint():
                group = ReviewerGroup.objects.create(
                    id=group_id,
                    tenant_id=actor.tenant_id,
                    name=name,
                    created_by=actor.principal_id,
                    created_at=actor.at,
                )
        except IntegrityError:
            raise GroupExists("There is a reviewer group of this name.") from None
        _audit(actor, "reviewer-group.create", group, before=None, after=[])
    return group


def delete_group(*, actor: Actor, group_id: uuid.UUID) -> None:
    """Delete a reviewer group; a rule that names it then finds nobody.

    :raises NotFound: when the tenant has no such group.
    """
    with transaction(actor.tenant_id):
        group = lock_group(actor.tenant_id, group_id)
        _audit(actor, "reviewer-group.delete", group, before=find_members(group), after=None)
        group.delete()


def set_group_members(
    *,
    actor: Actor,
    group_id: uuid.UUID,
    person_ids: Collection[int],
    source: str = OWNER_SOURCE,
    shown: str | None = None,
) -> list[int]:
    """Make exactly these people members of a group, as far as one source says.

    :param shown: the mark of what the editor was shown; None when it was not kept.
    :return: everybody who is in the group then, whoever said so.
    :raises NotFound: when the tenant has no such group.
    :raises StaleEdit: when it is another group by now than was shown.
    :raises InvalidRequest: when somebody is no member of the tenant.
    """
    with transaction(actor.tenant_id):
        wanted = set(person_ids)
        # People before the group, as whoever takes a person out of the tenant locks them.
        _check_members(actor.tenant_id, wanted)
        group = lock_group(actor.tenant_id, group_id)
        before = find_members(group)
        rows = ReviewerGroupMember.objects.filter(
            tenant_id=actor.tenant_id, group=group, source=source
        )
        known = set(rows.values_list("user_id", flat=True))
        check_unmoved(shown, sorted(known))
        rows.exclude(user_id__in=wanted).delete()
        for person_id in sorted(wanted - known):
            ReviewerGroupMember.objects.create(
                tenant_id=actor.tenant_id,
                group=group,
                user_id=person_id,
                source=source,
                added_at=actor.at,
            )
        after = find_members(group)
        if after != before:
            _audit(actor, "reviewer-group.set-members", group, before=before, after=after)
    return after


def set_permissions(
    *,
    actor: Actor,
    person_id: int,
    permissions: Collection[str],
    source: str = OWNER_SOURCE,
    shown: str | None = None,
) -> list[str]:
    """Give a person exactly these permissions beyond their role, as far as one source says.

    :param shown: the mark of what the editor was shown; None when it was not kept.
    :return: everything the person was given then, whoever gave it.
    :raises NotFound: when the person is no member of the tenant.
    :raises StaleEdit: when they have others by now than was shown.
    :raises InvalidRequest: for a permission that there is not.
    """
    wanted = set(permissions)
    if not wanted <= set(APPROVAL_PERMISSIONS):
        raise _invalid("/permissions", "may hold " + ", ".join(APPROVAL_PERMISSIONS))
    with transaction(actor.tenant_id):
        if person_id not in lock_people(actor.tenant_id, {person_id}):
            raise NotFound
        before = find_permissions(actor.tenant_id, person_id)
        rows = ApprovalPermission.objects.filter(
            tenant_id=actor.tenant_id, user_id=person_id, source=source
        )
        known = set(rows.values_list("permission", flat=True))
        check_unmoved(shown, sorted(known))
        rows.exclude(permission__in=wanted).delete()
        for permission in sorted(wanted - known):
            ApprovalPermission.objects.create(
                tenant_id=actor.tenant_id,
                user_id=person_id,
                permission=permission,
                source=source,
                granted_at=actor.at,
            )
        after = find_permissions(actor.tenant_id, person_id)
        if after != before:
            record_change(
                actor=actor,
                action="member.set-approval-permissions",
                subject=("member", str(person_id)),
                before={"permissions": before},
                after={"permissions": after},
            )
    return after


def drop_reviewer(*, tenant_id: uuid.UUID, person_id: int) -> None:
    """Take a person who leaves the tenant out of its groups, and their permissions away.

    :raises NotInTransaction: outside the transaction of the leaving.
    """
    transaction_required()
    ReviewerGroupMember.objects.filter(tenant_id=tenant_id, user_id=person_id).delete()
    ApprovalPermission.objects.filter(tenant_id=tenant_id, user_id=person_id).delete()


def get_group(tenant_id: uuid.UUID, group_id: uuid.UUID) -> ReviewerGroup:
    """Return a reviewer group.

    :raises NotFound: when the tenant has no such group.
    """
    group = ReviewerGroup.objects.filter(tenant_id=tenant_id, pk=group_id).first()
    if group is None:
        raise NotFound("No such reviewer group.")
    return group


def lock_group(tenant_id: uuid.UUID, group_id: uuid.UUID) -> ReviewerGroup:
    """Lock and return a reviewer group.

    :raises NotFound: when the tenant has no such group.
    """
    transaction_required()
    rows = ReviewerGroup.objects.filter(tenant_id=tenant_id, pk=group_id)
    group = rows.select_for_update(of=("self",)).first()
    if group is None:
        raise NotFound("No such reviewer group.")
    return group


def lock_people(tenant_id: uuid.UUID, person_ids: Collection[int]) -> set[int]:
    """Lock the memberships of these people, in primary-key order; return who is a member."""
    transaction_required()
    possible = [one for one in person_ids if 0 <= one <= _BIGGEST_PERSON_ID]
    rows = Membership.objects.filter(tenant_id=tenant_id, user_id__in=possible)
    locked = rows.order_by("pk").select_for_update(of=("self",))
    return set(locked.values_list("user_id", flat=True))


def find_groups(
    tenant_id: uuid.UUID, *, after_id: uuid.UUID | None, limit: int
) -> list[tuple[ReviewerGroup, list[int]]]:
    """Return up to ``limit`` reviewer groups with their members, oldest first."""
    rows = ReviewerGroup.objects.filter(tenant_id=tenant_id)
    if after_id is not None:
        rows = rows.filter(pk__gt=after_id)
    return [(group, find_members(group)) for group in rows.order_by("pk")[:limit]]


def find_members(group: ReviewerGroup) -> list[int]:
    """Return the ids of the people in a group."""
    rows = ReviewerGroupMember.objects.filter(tenant_id=group.tenant_id, group=group)
    return sorted(set(rows.values_list("user_id", flat=True)))


def find_own_members(group: ReviewerGroup) -> list[int]:
    """Return the ids of the people whom owners put into a group."""
    rows = ReviewerGroupMember.objects.filter(
        tenant_id=group.tenant_id, group=group, source=OWNER_SOURCE
    )
    return sorted(rows.values_list("user_id", flat=True))


def find_permissions(tenant_id: uuid.UUID, person_id: int) -> list[str]:
    """Return what a person may approve beyond their role."""
    rows = ApprovalPermission.objects.filter(tenant_id=tenant_id, user_id=person_id)
    return sorted(set(rows.values_list("permission", flat=True)))


def _check_members(tenant_id: uuid.UUID, person_ids: set[int]) -> None:
    members = lock_people(tenant_id, person_ids)
    for place, person_id in enumerate(sorted(person_ids)):
        if person_id not in members:
            raise _invalid(f"/person_ids/{place}", "is not a member of the tenant")


def _invalid(pointer: str, detail: str) -> InvalidRequest:
    error = FieldError(pointer, "invalid_value", detail)
    return InvalidRequest("The request has invalid fields.", errors=(error,))


def _audit(
    actor: Actor,
    action: str,
    group: ReviewerGroup,
    *,
    before: list[int] | None,
    after: list[int] | None,
) -> None:
    record_change(
        actor=actor,
        action=action,
        subject=("reviewer-group", str(group.pk)),
        before=None if before is None else {"name": group.name, "person_ids": before},
        after=None if after is None else {"name": group.name, "person_ids": after},
    )
