"""Tables of signing keys and of the tokens that were issued."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from governance.approvals.models import Approval

LIVE = "live"
CONSUMED = "consumed"
REVOKED = "revoked"
TOKEN_STATUSES = (LIVE, CONSUMED, REVOKED)


class TokenKey(models.Model):
    """A key that signs tokens of every tenant; its private half is sealed.

    ::

        published ──> signing (from active_from) ──> retired (from retired_at)

    The newest key that is active signs; every key that is not retired verifies.
    """

    kid = models.CharField(primary_key=True, max_length=64, editable=False)
    public = models.BinaryField(max_length=32)
    sealed_private = models.BinaryField(max_length=200)
    created_at = models.DateTimeField()
    active_from = models.DateTimeField()
    retired_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "governance_token_key"

    def __str__(self) -> str:
        return self.kid


class ApprovalToken(models.Model):
    """One issued token: what it says, and whether it was spent. Its text is never stored.

    ::

        live ──> consumed | revoked   (exactly once)

    :ivar claims_json: what was signed, in its order: the same claims give the same text.
    :ivar consume_response: the first answer, which the same idempotency key gets again.
    """

    jti = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    approval = models.ForeignKey(Approval, on_delete=models.PROTECT, related_name="tokens")
    kid = models.CharField(max_length=64)
    claims_json = models.TextField()
    status = models.CharField(max_length=10, default=LIVE)
    issued_to = models.CharField(max_length=60, help_text="Principal id.")
    issued_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)
    closed_by = models.CharField(max_length=60, null=True, help_text="Principal id.")
    consume_key = models.CharField(max_length=200, null=True)
    consume_sha256 = models.CharField(max_length=64, null=True)
    consume_response = models.TextField(null=True)

    class Meta:
        db_table = "governance_approval_token"
        constraints = (
            models.CheckConstraint(
                condition=Q(status__in=TOKEN_STATUSES),
                name="governance_approval_token_status_is_known",
            ),
            models.UniqueConstraint(
                fields=["approval"],
                condition=Q(status=LIVE),
                name="governance_approval_token_one_live",
            ),
            models.UniqueConstraint(
                fields=["approval"],
                condition=Q(status=CONSUMED),
                name="governance_approval_token_one_consumed",
            ),
        )

    def __str__(self) -> str:
        return f"token {self.jti} ({self.status})"
