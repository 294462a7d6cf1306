"""The table of registered issuers."""

from __future__ import annotations

from django.db import models

from governance.identity.models import User
from governance.tenants.models import Tenant


class WorkloadIssuer(models.Model):
    """Whose tokens speak for which project of a tenant.

    ::

        active ──> revoked

    :ivar jwks: the issuer's public keys as they were uploaded; NULL means by discovery.
    :ivar conditions: claims that a token must have, each with the values that are taken.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=200)
    issuer = models.CharField(max_length=500)
    jwks = models.JSONField(null=True, blank=True)
    conditions = models.JSONField()
    project_id = models.CharField(max_length=200)
    person = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_by = models.CharField(max_length=60)
    created_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "governance_workload_issuer"
        indexes = (models.Index(fields=["tenant", "issuer"], name="governance_workload_by_issuer"),)

    def __str__(self) -> str:
        return f"{self.name} ({self.issuer})"
