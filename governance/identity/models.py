"""Tables of people, memberships and API keys."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils.crypto import salted_hmac

from governance.identity.domain import APPROVAL_PERMISSIONS, MEMBER, ROLES, SCOPES
from governance.tenants.models import Tenant

_ROLE_CHOICES = [(role, role) for role in ROLES]


class User(AbstractUser):
    """A person who can sign in to the console and answer for credentials.

    :ivar session_epoch: raised to end every session that was opened before.
    """

    session_epoch = models.PositiveIntegerField(default=0, db_default=0)

    class Meta:
        db_table = "governance_user"

    def _get_session_auth_hash(self, secret: str | None = None) -> str:
        """Return what a session must hold to go on: another password or epoch ends it."""
        value = f"{self.session_epoch} {self.password}"
        return salted_hmac(
            "governance.User.sessions", value, secret=secret, algorithm="sha256"
        ).hexdigest()


class Membership(models.Model):
    """A person's role in one tenant."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=10, choices=_ROLE_CHOICES, default=MEMBER)
    created_at = models.DateTimeField()

    class Meta:
        db_table = "governance_membership"
        constraints = (
            models.UniqueConstraint(fields=["tenant", "user"], name="governance_membership_once"),
            models.CheckConstraint(
                condition=Q(role__in=ROLES), name="governance_membership_role_is_known"
            ),
        )

    def __str__(self) -> str:
        return f"{self.user} ({self.role})"


class ApiKey(models.Model):
    """A machine's credential: a digest, a role, scopes, perhaps bound to projects.

    The key's text is shown once, when it is made or rotated, and never stored.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=200)
    lookup = models.CharField(max_length=12, unique=True)
    digest = models.BinaryField(max_length=32)
    role = models.CharField(max_length=10, choices=_ROLE_CHOICES, default=MEMBER)
    scopes = ArrayField(models.CharField(max_length=20), default=list, blank=True)
    projects = ArrayField(
        models.CharField(max_length=200),
        null=True,
        blank=True,
        help_text="Projects that the key is bound to; empty means none, NULL means all.",
    )
    person = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_by = models.CharField(max_length=60)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "governance_api_key"
        constraints = (
            models.CheckConstraint(
                condition=Q(role__in=ROLES), name="governance_api_key_role_is_known"
            ),
            models.CheckConstraint(
                condition=Q(scopes__contained_by=list(SCOPES)),
                name="governance_api_key_scopes_are_known",
            ),
        )
        indexes = (models.Index(fields=["tenant", "created_at"], name="governance_api_key_list"),)

    def __str__(self) -> str:
        return f"{self.name} (vdx_{self.lookup}_…)"


class ReviewerGroup(models.Model):
    """A named group of people, of whom a routing rule can demand one: finance, platform."""

    id = models.UUIDField(primary_key=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=200)
    created_by = models.CharField(max_length=60, help_text="Principal id.")
    created_at = models.DateTimeField()

    class Meta:
        db_table = "governance_reviewer_group"
        constraints = (
            models.UniqueConstraint(
                fields=["tenant", "name"], name="governance_reviewer_group_name_once"
            ),
        )

    def __str__(self) -> str:
        return self.name


class ReviewerGroupMember(models.Model):
    """A person in a reviewer group, and who put them there.

    :ivar source: ``owner`` for a person's own act; a directory that maps groups names itself.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    group = models.ForeignKey(ReviewerGroup, on_delete=models.CASCADE, related_name="members")
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    source = models.CharField(max_length=60, default="owner")
    added_at = models.DateTimeField()

    class Meta:
        db_table = "governance_reviewer_group_member"
        constraints = (
            models.UniqueConstraint(
                fields=["group", "user", "source"], name="governance_reviewer_group_member_once"
            ),
        )
        indexes = (models.Index(fields=["tenant", "user"], name="governance_reviewer_groups_of"),)

    def __str__(self) -> str:
        return f"{self.user} in {self.group}"


class ApprovalPermission(models.Model):
    """A permission to approve that a person was given beyond what their role has.

    :ivar source: as in ``ReviewerGroupMember``.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    permission = models.CharField(max_length=60)
    source = models.CharField(max_length=60, default="owner")
    granted_at = models.DateTimeField()

    class Meta:
        db_table = "governance_approval_permission"
        constraints = (
            models.UniqueConstraint(
                fields=["tenant", "user", "permission", "source"],
                name="governance_approval_permission_once",
            ),
            models.CheckConstraint(
                condition=Q(permission__in=APPROVAL_PERMISSIONS),
                name="governance_approval_permission_is_known",
            ),
        )

    def __str__(self) -> str:
        return f"{self.permission} of {self.user}"
