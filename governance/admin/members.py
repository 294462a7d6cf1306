"""The console's people and reviewer groups: who may review what, and who says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.contrib.admin import display
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from governance.admin.member_acts import (
    ADMIT,
    CHANGE_ROLE,
    CREATE_GROUP,
    DELETE_GROUP,
    REMOVE,
    SET_MEMBERS,
    SET_PERMISSIONS,
)
from governance.admin.standing import find_rulings, say
from governance.approvals.reviewers import Person, find_people
from governance.identity.domain import (
    ADMIN,
    APPROVAL_PERMISSIONS,
    OWNER,
    PERMISSIONS_BY_ROLE,
    ROLES,
)
from governance.models import ApiKey, ApprovalPermission, Membership, ReviewerGroup
from governance.policies.queries import read_live_policy
from valdrix.kernel.admin import ConsoleChangeList, TenantModelAdmin, column_filter
from valdrix.kernel.admin_display import BAD, GOOD, Panel, badge, mono, utc

_MOST_ID_DIGITS: Final = 18


class MemberChangeList(ConsoleChangeList):
    """A page of people, each with what they may approve and their groups."""

    result_list: Sequence[Membership]

    def get_results(self, request: HttpRequest) -> None:
        """Read the page, and what makes its people reviewers, in a few statements."""
        super().get_results(request)
        rows = list(self.result_list)
        if rows:
            people = find_people(rows[0].tenant_id, [row.user_id for row in rows])
            for row in rows:
                row.reviewer_person = people.get(row.user_id)  # type: ignore[attr-defined]
        self.result_list = rows


class MembershipAdmin(TenantModelAdmin):
    """Who belongs to the tenant, as what, and what they may review."""

    roles = (ADMIN, OWNER)
    list_title = "People"
    url_field = "user_id"
    ordering = ("user__username",)
    search_fields = ("user__username",)
    search_help_text = "Part of a user name"
    list_display = ("person", "role_shown", "may_approve", "groups", "state", "since")
    list_display_links = ("person",)
    list_filter = (column_filter("role", "role", ROLES),)
    list_acts = (ADMIT,)
    row_acts = (CHANGE_ROLE, SET_PERMISSIONS, REMOVE)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the tenant's memberships with their people."""
        return super().get_queryset(request).select_related("user")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ConsoleChangeList]:
        """Return the list's class."""
        return MemberChangeList

    def search(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Return the people whose name holds the term."""
        return rows.filter(user__username__icontains=term)

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        """Return the membership of this person, or None."""
        if not (object_id.isascii() and object_id.isdigit() and len(object_id) <= _MOST_ID_DIGITS):
            return None
        return self.get_queryset(request).filter(user_id=int(object_id)).first()

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a person's page."""
        return str(row.user.get_username())

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return what the person is here, what they may review by the policy in force, and why."""
        person = find_people(row.tenant_id, [row.user_id]).get(row.user_id)
        granted = ApprovalPermission.objects.filter(tenant_id=row.tenant_id, user_id=row.user_id)
        keys = ApiKey.objects.filter(
            tenant_id=row.tenant_id, person_id=row.user_id, revoked_at__isnull=True
        )
        standing = [
            ("Role", row.role),
            ("Approves by role", _listed(PERMISSIONS_BY_ROLE[row.role])),
            (
                "Approves by grant",
                _listed(f"{one.permission} (by {one.source})" for one in granted),
            ),
            ("Groups", _groups(person)),
            ("State", _state(row)),
            ("Member since", utc(row.created_at)),
            ("Live API keys they answer for", keys.count()),
            ("Person id", mono(str(row.user_id))),
        ]
        policy = read_live_policy(row.tenant_id).policy
        rules = [
            (ruling.name, "no: deactivated" if person is None else say(ruling, person.reviewer))
            for ruling in find_rulings(policy)
        ]
        note = (
            "By the policy in force, for what somebody else asked for. An approval that waits"
            " already keeps the rule that it was routed by."
        )
        return [Panel("Who they are here", standing), Panel("May review", rules, note=note)]

    @display(description="Person")
    def person(self, row: Membership) -> str:
        """Return the user name."""
        return row.user.get_username()

    @display(description="Role")
    def role_shown(self, row: Membership) -> str:
        """Return the role."""
        return row.role

    @display(description="May approve")
    def may_approve(self, row: Any) -> str:
        """Return the environments whose permission they have."""
        person: Person | None = row.reviewer_person
        held = frozenset() if person is None else person.reviewer.permissions
        return _listed(one.rpartition(".")[2] for one in APPROVAL_PERMISSIONS if one in held)

    @display(description="Groups")
    def groups(self, row: Any) -> str:
        """Return the reviewer groups that they are in."""
        return _groups(row.reviewer_person)

    @display(description="State")
    def state(self, row: Membership) -> SafeString:
        """Return whether the person can act."""
        return _state(row)

    @display(description="Since")
    def since(self, row: Membership) -> str:
        """Return since when they belong to the tenant."""
        return utc(row.created_at)


class GroupChangeList(ConsoleChangeList):
    """A page of groups, each with the rules of the policy in force that demand it."""

    result_list: Sequence[ReviewerGroup]

    def get_results(self, request: HttpRequest) -> None:
        """Read the page, and the policy once for all of it."""
        super().get_results(request)
        rows = list(self.result_list)
        policy = read_live_policy(rows[0].tenant_id).policy if rows else None
        for row in rows:
            row.rule_ids = [  # type: ignore[attr-defined]
                one.id
                for one in (policy.routing_rules if policy else ())
                if row.name in one.reviewer_groups_all
            ]
        self.result_list = rows


class ReviewerGroupAdmin(TenantModelAdmin):
    """Groups of which routing rules demand a person each."""

    roles = (ADMIN, OWNER)
    list_title = "Reviewer groups"
    empty_text = "No group yet. A routing rule's reviewer_groups_all demands a person of each."
    ordering = ("name",)
    list_display = ("named", "people", "rules")
    list_display_links = ("named",)
    list_acts = (CREATE_GROUP,)
    row_acts = (SET_MEMBERS, DELETE_GROUP)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the tenant's groups with who is in them."""
        return super().get_queryset(request).prefetch_related("members__user")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ConsoleChangeList]:
        """Return the list's class."""
        return GroupChangeList

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a group's page."""
        return f"Reviewer group {row.name}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return who is in the group, who put them there, and which rules demand it."""
        people = [
            (one.user.get_username(), f"by {one.source}, {utc(one.added_at)}")
            for one in sorted(row.members.all(), key=lambda one: str(one.user.get_username()))
        ]
        policy = read_live_policy(row.tenant_id).policy
        rules = [
            (ruling.name, ruling.demand)
            for ruling in find_rulings(policy)
            if row.name in ruling.terms.groups
        ]
        return [
            Panel("Who is in it", people, note="" if people else "Nobody."),
            Panel(
                "Rules that demand it",
                rules,
                note="" if rules else "No rule of the policy in force.",
            ),
        ]

    @display(description="Group")
    def named(self, row: ReviewerGroup) -> str:
        """Return the group's name."""
        return row.name

    @display(description="People")
    def people(self, row: ReviewerGroup) -> str:
        """Return who is in it."""
        return _listed({one.user.get_username() for one in row.members.all()})

    @display(description="Rules")
    def rules(self, row: Any) -> str:
        """Return the rules of the policy in force that demand it."""
        return _listed(row.rule_ids)


def _groups(person: Person | None) -> str:
    return _listed(() if person is None else person.reviewer.groups)


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"


def _state(row: Membership) -> SafeString:
    return badge("active", GOOD) if row.user.is_active else badge("deactivated", BAD)
