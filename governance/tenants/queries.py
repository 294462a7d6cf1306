"""Reads of tenants."""

from __future__ import annotations

import uuid

from django.db import connection

from governance.tenants.models import Tenant
from valdrix.kernel.db import transaction_required


def find_tenant_id(slug: str) -> uuid.UUID | None:
    """Return the id of the tenant with this slug, or None.

    Needs no tenant: it asks a named function of the database that returns nothing but the id.
    """
    if "\x00" in slug:  # PostgreSQL's text cannot hold it, so no slug does.
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT governance_find_tenant(%s)", [slug])
        found: uuid.UUID | None = cursor.fetchone()[0]
    return found


def lock_tenant(tenant_id: uuid.UUID) -> Tenant:
    """Lock one tenant's row and return it as it is under the lock.

    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    return Tenant.objects.select_for_update(of=("self",)).get(id=tenant_id)
