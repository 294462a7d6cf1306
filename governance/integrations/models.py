"""The table of integrations."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from governance.identity.models import User
from governance.integrations.domain import KINDS
from governance.tenants.models import Tenant


class Integration(models.Model):
    """Another system that a tenant has connected.

    ::

        active ──> revoked

    :ivar project_id: the project that whatever comes through it belongs to; NULL means that
        what comes says it, or a binding does.
    :ivar sealed_secret: encrypted, bound to this row's id; emptied when the integration ends.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=20, choices=[(kind, kind) for kind in KINDS])
    name = models.CharField(max_length=200)
    project_id = models.CharField(max_length=200, null=True, blank=True)
    settings = models.JSONField(default=dict)
    sealed_secret = models.BinaryField()
    person = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_by = models.CharField(max_length=60)
    created_at = models.DateTimeField()
    rotated_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "governance_integration"
        constraints = (
            models.CheckConstraint(
                condition=Q(kind__in=KINDS), name="governance_integration_kind_is_known"
            ),
            models.UniqueConstraint(
                fields=["tenant", "kind", "name"],
                condition=Q(revoked_at__isnull=True),
                name="governance_integration_name_once",
            ),
        )
        indexes = (
            models.Index(fields=["tenant", "created_at"], name="governance_integration_list"),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


class ClusterBinding(models.Model):
    """Where one namespace of a cluster belongs.

    :ivar namespace: its name, or ``*`` for every one that is not bound itself.
    :ivar environment: free text, classified by the policy.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    integration = models.ForeignKey(Integration, on_delete=models.PROTECT, related_name="+")
    namespace = models.CharField(max_length=63)
    project_id = models.CharField(max_length=200)
    environment = models.CharField(max_length=200)
    created_by = models.CharField(max_length=60)
    created_at = models.DateTimeField()

    class Meta:
        db_table = "governance_cluster_binding"
        constraints = (
            models.UniqueConstraint(
                fields=["integration", "namespace"], name="governance_cluster_binding_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.namespace} -> {self.project_id}"
