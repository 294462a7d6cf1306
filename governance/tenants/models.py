"""The table of tenants."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class Tenant(models.Model):
    """One organisation.

    Row-level security shows a session its own tenant's row only.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=200)
    promotion_required = models.BooleanField(
        default=False,
        help_text="When on, publishing a policy that raises a mode needs a recorded promotion.",
    )
    created_at = models.DateTimeField()

    class Meta:
        db_table = "governance_tenant"
        constraints = (
            models.CheckConstraint(
                condition=Q(slug__regex=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"),
                name="governance_tenant_slug_is_lower_case",
            ),
        )

    def __str__(self) -> str:
        return self.slug
