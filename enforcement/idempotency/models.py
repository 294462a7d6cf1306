"""The table of claimed keys."""

from __future__ import annotations

from django.db import models


class IdempotencyKey(models.Model):
    """One attempt's name, and the decision that it got.

    :ivar stored_key: the namespace and its parts, length-prefixed, so that no two different
        names are stored alike and callers cannot write into a surface's namespace.
    :ivar sent_sha256: digest of the question as it was sent, before policy classified it: a retry
        of the same bytes stays the same attempt whatever was published since.
    """

    id = models.BigAutoField(primary_key=True)
    tenant_id = models.UUIDField()
    source = models.CharField(max_length=20)
    stored_key = models.CharField(max_length=600)
    request_fingerprint = models.CharField(max_length=64)
    sent_sha256 = models.CharField(max_length=64)
    decision_id = models.UUIDField()
    claimed_at = models.DateTimeField()

    class Meta:
        db_table = "enforcement_idempotency_key"
        constraints = (
            models.UniqueConstraint(
                fields=["tenant_id", "source", "stored_key"],
                name="enforcement_idempotency_key_once",
            ),
        )

    def __str__(self) -> str:
        return self.stored_key
