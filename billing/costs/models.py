"""The tables of ingested costs."""

from __future__ import annotations

from django.db import models

from billing.costs.domain import (
    ACCOUNT_LIMIT,
    FORMATS,
    PROJECT_LIMIT,
    PROVIDER_LIMIT,
    UNIT_PLACES,
)

_UNIT_DIGITS = 13 + UNIT_PLACES


class DailyCost(models.Model):
    """What one project spent on one UTC day, in US dollars; below zero after credits.

    The kept total of the day's units, rounded once; kept in the transaction that changes a unit.
    """

    tenant_id = models.UUIDField()
    project_id = models.CharField(max_length=200)
    date = models.DateField()
    amount_usd = models.DecimalField(max_digits=17, decimal_places=4)
    is_final = models.BooleanField()
    ingested_at = models.DateTimeField()

    class Meta:
        db_table = "billing_daily_cost"
        constraints = (
            models.UniqueConstraint(
                fields=["tenant_id", "project_id", "date"], name="billing_daily_cost_once_a_day"
            ),
            models.CheckConstraint(
                condition=models.Q(amount_usd__gt=-(10**13), amount_usd__lt=10**13),
                name="billing_daily_cost_is_a_number",
            ),
        )

    def __str__(self) -> str:
        return f"{self.project_id} {self.date}: {self.amount_usd}"


class CostHistory(models.Model):
    """The days of one project that a gate in one month can look at: all that it reads of costs.

    Kept in the transaction that changes a day; docs/operations/integrity.md checks it.
    """

    tenant_id = models.UUIDField()
    project_id = models.CharField(max_length=PROJECT_LIMIT)
    month = models.DateField(help_text="Its first day.")
    days = models.TextField(
        blank=True,
        help_text="In date order, such as 2026-11-01 12.3400 final,2026-11-02 9.0000 open.",
    )

    class Meta:
        db_table = "billing_cost_history"
        constraints = (
            models.UniqueConstraint(
                fields=["tenant_id", "project_id", "month"],
                name="billing_cost_history_once_a_month",
            ),
        )

    def __str__(self) -> str:
        return f"{self.project_id} {self.month:%Y-%m}"


class CostIngestion(models.Model):
    """One file that was taken, once. Append-only, by trigger."""

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.UUIDField()
    content_sha256 = models.CharField(max_length=64, help_text="Of the file's bytes, hex.")
    file_format = models.CharField(max_length=10, choices=[(one, one) for one in FORMATS])
    size_bytes = models.BigIntegerField()
    row_count = models.IntegerField()
    unit_count = models.IntegerField(help_text="Projects' days of bills that the file names.")
    first_date = models.DateField()
    last_date = models.DateField()
    total_usd = models.DecimalField(
        max_digits=_UNIT_DIGITS + 7, decimal_places=UNIT_PLACES, help_text="Exact sum of the file."
    )
    ingested_at = models.DateTimeField()
    ingested_by = models.CharField(max_length=60, help_text="Principal id, such as user:7.")

    class Meta:
        db_table = "billing_cost_ingestion"
        constraints = (
            models.UniqueConstraint(
                fields=["tenant_id", "content_sha256"], name="billing_cost_ingestion_once_a_file"
            ),
        )

    def __str__(self) -> str:
        return f"{self.content_sha256[:12]} of {self.first_date} to {self.last_date}"


class CostUnit(models.Model):
    """What one bill says of one project on one UTC day: the exact sum of its charges.

    A later file's unit of the same key takes its place.
    """

    tenant_id = models.UUIDField()
    provider = models.CharField(
        max_length=PROVIDER_LIMIT, blank=True, help_text="As the bill names it; blank: plain rows."
    )
    billing_account_id = models.CharField(max_length=ACCOUNT_LIMIT, blank=True)
    project_id = models.CharField(max_length=PROJECT_LIMIT)
    date = models.DateField()
    correction_month = models.DateField(
        null=True, help_text="The later billing month that corrects this day; null: its own bill."
    )
    amount_usd = models.DecimalField(max_digits=_UNIT_DIGITS, decimal_places=UNIT_PLACES)
    is_final = models.BooleanField()
    charge_count = models.IntegerField()
    ingestion_id = models.UUIDField(null=True, help_text="The file; null: not from a file.")
    ingested_at = models.DateTimeField()

    class Meta:
        db_table = "billing_cost_unit"
        indexes = (models.Index(fields=["tenant_id", "date"], name="billing_cost_unit_of_day"),)
        constraints = (
            models.UniqueConstraint(
                fields=[
                    "tenant_id",
                    "project_id",
                    "date",
                    "provider",
                    "billing_account_id",
                    "correction_month",
                ],
                name="billing_cost_unit_once",
                nulls_distinct=False,
            ),
            models.CheckConstraint(
                condition=models.Q(amount_usd__gt=-(10**13), amount_usd__lt=10**13),
                name="billing_cost_unit_is_a_number",
            ),
        )

    def __str__(self) -> str:
        return f"{self.provider} {self.project_id} {self.date}: {self.amount_usd}"


class SubAccountProject(models.Model):
    """Which project a provider's sub-account belongs to, where no tag says so."""

    tenant_id = models.UUIDField()
    sub_account_id = models.CharField(max_length=ACCOUNT_LIMIT)
    project_id = models.CharField(max_length=PROJECT_LIMIT)

    class Meta:
        db_table = "billing_sub_account_project"
        constraints = (
            models.UniqueConstraint(
                fields=["tenant_id", "sub_account_id"], name="billing_sub_account_one_project"
            ),
        )

    def __str__(self) -> str:
        return f"{self.sub_account_id}: {self.project_id}"
