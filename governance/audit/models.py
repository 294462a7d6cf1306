"""The table of administrative changes."""

from __future__ import annotations

from django.db import models


class AuditEntry(models.Model):
    """One administrative change. Append-only, by trigger."""

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    at = models.DateTimeField()
    actor = models.CharField(max_length=60, help_text="Principal id, such as user:7.")
    address = models.GenericIPAddressField(null=True)
    action = models.CharField(max_length=60)
    object_type = models.CharField(max_length=60)
    object_id = models.CharField(max_length=60)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)

    class Meta:
        db_table = "governance_audit_entry"
        indexes = (
            models.Index(fields=["tenant_id", "-at"], name="governance_audit_newest"),
            models.Index(
                fields=["tenant_id", "object_type", "object_id"], name="governance_audit_object"
            ),
        )
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.action} {self.object_type} {self.object_id}"
