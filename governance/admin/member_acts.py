"""What owners do about people: admit, change a role, permissions and groups, let go."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.urls import reverse

from governance.admin.people import actor_of
from governance.approvals.reviewers import find_people
from governance.identity import reviewing
from governance.identity.domain import APPROVAL_PERMISSIONS, MEMBER, OWNER, ROLES
from governance.identity.models import ApprovalPermission, ReviewerGroup
from governance.identity.operations import (
    USERNAME_LIMIT,
    admit_member,
    change_role,
    remove_member,
)
from governance.identity.queries import find_memberships
from valdrix.kernel.admin_acts import Act, ActForm, Doing, Done, EditForm
from valdrix.kernel.db import reading
from valdrix.kernel.edits import edit_mark
from valdrix.kernel.ids import new_id

_OWNERS: Final = (OWNER,)
_OFFERED_PEOPLE: Final = 500
_MEMBERS_URL: Final = "admin:governance_membership_changelist"
_GROUPS_URL: Final = "admin:governance_reviewergroup_changelist"
_CHOICES: Final = forms.CheckboxSelectMultiple


class AdmitForm(ActForm):
    """Who comes in, and as what."""

    username = forms.CharField(
        max_length=USERNAME_LIMIT, help_text="A new name makes a person without a password yet."
    )
    role = forms.ChoiceField(choices=[(role, role) for role in ROLES], initial=MEMBER)


class RoleForm(ActForm):
    """A role."""

    role = forms.ChoiceField(choices=[(role, role) for role in ROLES])


class PermissionsForm(EditForm):
    """What a person may approve beyond their role."""

    permissions = forms.MultipleChoiceField(
        choices=[(one, one) for one in APPROVAL_PERMISSIONS],
        required=False,
        widget=_CHOICES,
        help_text="Beyond what the role has; members review only what a routing rule names them for.",
    )


class GroupForm(ActForm):
    """A group's name."""

    name = forms.CharField(max_length=200, help_text="As routing rules name it.")


class PeopleForm(EditForm):
    """Who is in a group."""

    person_ids = forms.TypedMultipleChoiceField(
        label="People", coerce=int, required=False, widget=_CHOICES
    )

    def offer(self, people: list[tuple[str, str]]) -> None:
        """Offer the tenant's people."""
        self.fields["person_ids"].choices = people  # type: ignore[attr-defined]  # a choice field


def _admit(doing: Doing, form: ActForm) -> Done:
    given = form.given()
    made = admit_member(actor=actor_of(doing), username=given["username"], role=given["role"])
    return Done(f"{made.user.get_username()} is {made.role}.", page_of_person(made.user_id))


def _change_role(doing: Doing, form: ActForm) -> Done:
    row = change_role(actor=actor_of(doing), person_id=doing.row.user_id, role=form.given()["role"])
    return Done(f"{row.user.get_username()} is {row.role} now.", page_of_person(row.user_id))


def _set_permissions(doing: Doing, form: Any) -> Done:
    person_id = doing.row.user_id
    reviewing.set_permissions(
        actor=actor_of(doing),
        person_id=person_id,
        permissions=form.given().get("permissions", ()),
        shown=form.mark,
    )
    return Done("What they may approve is set.", page_of_person(person_id))


def _remove(doing: Doing, form: ActForm) -> Done:
    name = doing.row.user.get_username()
    remove_member(actor=actor_of(doing), person_id=doing.row.user_id)
    return Done(f"{name} is out; the keys they answered for stopped.", reverse(_MEMBERS_URL))


def _create_group(doing: Doing, form: ActForm) -> Done:
    group = reviewing.create_group(
        actor=actor_of(doing), group_id=new_id(), name=form.given()["name"]
    )
    return Done(f"The group {group.name} is there; say who is in it.", page_of_group(group))


def _set_members(doing: Doing, form: Any) -> Done:
    reviewing.set_group_members(
        actor=actor_of(doing),
        group_id=doing.row.pk,
        person_ids=form.given().get("person_ids", ()),
        shown=form.mark,
    )
    return Done("Who is in it is set.", page_of_group(doing.row))


def _delete_group(doing: Doing, form: ActForm) -> Done:
    reviewing.delete_group(actor=actor_of(doing), group_id=doing.row.pk)
    return Done(f"The group {doing.row.name} is gone.", reverse(_GROUPS_URL))


def page_of_person(person_id: int) -> str:
    """Return the address of a person's page."""
    return reverse("admin:governance_membership_change", args=[str(person_id)])


def page_of_group(group: ReviewerGroup) -> str:
    """Return the address of a group's page."""
    return reverse("admin:governance_reviewergroup_change", args=[str(group.pk)])


def _given_by_owners(doing: Doing) -> dict[str, Any]:
    with reading(doing.tenant_id):
        rows = ApprovalPermission.objects.filter(
            tenant_id=doing.tenant_id,
            user_id=doing.row.user_id,
            source=reviewing.OWNER_SOURCE,
        )
        held = sorted(rows.values_list("permission", flat=True))
    return {"permissions": held, "shown": edit_mark(held)}


def _put_by_owners(doing: Doing) -> dict[str, Any]:
    with reading(doing.tenant_id):
        people = reviewing.find_own_members(doing.row)
    return {"person_ids": people, "shown": edit_mark(people)}


def _offer(doing: Doing, form: PeopleForm) -> None:
    """Offer the tenant's first people, and whoever is in the group: nobody is dropped unseen."""
    with reading(doing.tenant_id):
        rows = find_memberships(doing.tenant_id, limit=_OFFERED_PEOPLE)
        members = find_people(doing.tenant_id, reviewing.find_own_members(doing.row))
    names = {row.user_id: f"{row.user.get_username()} ({row.role})" for row in rows}
    for person_id, person in members.items():
        names.setdefault(person_id, f"{person.username} ({person.reviewer.role})")
    by_name = sorted(names.items(), key=lambda one: one[1].casefold())
    form.offer([(str(person_id), name) for person_id, name in by_name])


ADMIT: Final = Act(
    name="admit",
    label="Admit a person",
    roles=_OWNERS,
    form=AdmitForm,
    perform=_admit,
    intro="Passwords are set at the machine (manage.py changepassword), never here.",
)
CHANGE_ROLE: Final = Act(
    name="role",
    label="Change the role",
    roles=_OWNERS,
    form=RoleForm,
    initial=lambda doing: {"role": doing.row.role},
    perform=_change_role,
    intro="It holds at once, also for what they have open and for their keys.",
)
SET_PERMISSIONS: Final = Act(
    name="permissions",
    label="Set permissions",
    title="What they may approve beyond their role",
    roles=_OWNERS,
    form=PermissionsForm,
    initial=_given_by_owners,
    perform=_set_permissions,
    intro="What a directory gave stays: it is taken back there.",
)
REMOVE: Final = Act(
    name="remove",
    label="Remove",
    title="Remove the person from the tenant",
    roles=_OWNERS,
    perform=_remove,
    tone="bad",
    intro="Their keys stop for ever, their groups and permissions go. What they did stays on record.",
)
CREATE_GROUP: Final = Act(
    name="create",
    label="New group",
    title="New reviewer group",
    roles=_OWNERS,
    form=GroupForm,
    perform=_create_group,
    intro="Routing rules can demand one person of each of several groups.",
)
SET_MEMBERS: Final = Act(
    name="members",
    label="Say who is in it",
    roles=_OWNERS,
    form=PeopleForm,
    initial=_put_by_owners,
    prepare=_offer,
    perform=_set_members,
    intro="Exactly those that are ticked; whom a directory put in stays in.",
)
DELETE_GROUP: Final = Act(
    name="delete",
    label="Delete",
    title="Delete the group",
    roles=_OWNERS,
    perform=_delete_group,
    tone="bad",
    intro="A rule that names it then finds nobody, and what it routes waits for ever.",
)
