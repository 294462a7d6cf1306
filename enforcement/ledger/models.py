"""Tables of ledger entries and of each chain's head."""

from __future__ import annotations

from typing import Any, NoReturn

from django.contrib.postgres.fields import ArrayField
from django.db import models


class AppendOnlyError(RuntimeError):
    """Somebody tried to change or delete what may only be appended."""


class AppendOnlyQuerySet(models.QuerySet["LedgerEntry"]):
    """Refuses, in Python already, what the database's triggers refuse anyway."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError("the ledger is append-only; use enforcement.ledger.operations.append")

    update = delete = create = bulk_create = bulk_update = _refuse
    get_or_create = update_or_create = _refuse


class LedgerEntry(models.Model):
    """One state that a decision, approval or account passed through.

    Every column but the hashes is filled by the insert trigger from ``canonical``, so that no
    column can differ from what was hashed.
    """

    id = models.BigAutoField(primary_key=True)
    tenant_id = models.UUIDField()
    sequence = models.BigIntegerField()
    canonical = models.TextField(help_text="RFC 8785 form: the exact bytes that were hashed.")
    prev_hash = models.BinaryField(max_length=32)
    entry_hash = models.BinaryField(max_length=32)

    event = models.CharField(max_length=40)
    at = models.DateTimeField()
    principal = models.CharField(max_length=60)
    source = models.CharField(max_length=20, null=True)
    project_id = models.CharField(max_length=200, null=True)
    environment = models.CharField(max_length=10, null=True)
    decision_id = models.UUIDField(null=True)
    decision = models.CharField(max_length=20, null=True)
    would_have_been = models.CharField(max_length=20, null=True)
    mode = models.CharField(max_length=10, null=True)
    cost_state = models.CharField(max_length=10, null=True)
    approval_request_id = models.UUIDField(null=True)
    approval_status = models.CharField(max_length=10, null=True)
    subject_type = models.CharField(max_length=60, null=True)
    subject_id = models.CharField(max_length=60, null=True)
    amount_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True)
    monthly_delta_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True)
    hourly_delta_usd = models.DecimalField(max_digits=19, decimal_places=6, null=True)
    reserved_allocation_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True)
    reserved_reserved_credit_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True)
    reserved_emergency_credit_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True)
    reason_codes = ArrayField(models.CharField(max_length=60))
    entitlement_reason_code = models.CharField(max_length=60, null=True)
    burn_rate_daily_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True)
    forecast_eom_usd = models.DecimalField(max_digits=17, decimal_places=4, null=True)
    risk_class = models.CharField(max_length=10, null=True)
    risk_score = models.IntegerField(null=True)
    anomaly_signal = models.CharField(max_length=40, null=True)
    policy_version = models.PositiveIntegerField(null=True)
    policy_document_schema_version = models.CharField(max_length=60, null=True)
    policy_document_sha256 = models.CharField(max_length=64, null=True)
    request_sha256 = models.CharField(max_length=64, null=True)
    response_sha256 = models.CharField(max_length=64, null=True)
    details_sha256 = models.CharField(max_length=64, null=True)

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        db_table = "enforcement_ledger_entry"
        verbose_name_plural = "ledger entries"
        constraints = (
            models.UniqueConstraint(
                fields=["tenant_id", "sequence"], name="enforcement_ledger_sequence_once"
            ),
        )
        indexes = (
            models.Index(
                fields=["tenant_id", "decision_id", "sequence"], name="enforcement_ledger_decision"
            ),
            models.Index(
                fields=["tenant_id", "project_id", "sequence"], name="enforcement_ledger_project"
            ),
            # Exports find a window's part of the chain by it alone.
            models.Index(
                fields=["tenant_id", "at"], include=["sequence"], name="enforcement_ledger_moment"
            ),
        )

    def __str__(self) -> str:
        return f"{self.sequence} {self.event}"

    def save(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: entries are written by ``enforcement.ledger.operations.append`` only."""
        raise AppendOnlyError("the ledger is append-only")

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: entries are kept for ever."""
        raise AppendOnlyError("the ledger is append-only")


class LedgerHead(models.Model):
    """The newest place of one tenant's chain. Written by the database's functions only."""

    tenant_id = models.UUIDField(primary_key=True)
    sequence = models.BigIntegerField()
    entry_hash = models.BinaryField(max_length=32)

    class Meta:
        db_table = "enforcement_ledger_head"

    def __str__(self) -> str:
        return f"head at {self.sequence}"
