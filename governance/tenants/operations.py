"""Writes of tenants."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from typing import Final

from django.db import IntegrityError

from governance.audit.operations import Actor, record_change
from governance.tenants.models import Tenant
from governance.tenants.queries import lock_tenant
from valdrix.kernel.db import savepoint, transaction
from valdrix.kernel.fields import Fields
from valdrix.kernel.problems import Refused

SLUG_LIMIT: Final = 63
_SLUG: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)
_BY_COMMAND: Final = "system:create-tenant"


class TenantExists(Refused):
    """Another tenant has this slug (409)."""

    code = "tenant_exists"


def create_tenant(
    *, tenant_id: uuid.UUID, slug: str, name: str, now: datetime, created_by: str = _BY_COMMAND
) -> Tenant:
    """Create a tenant in a transaction of its own, and its first audit entry.

    :param slug: at most 63 of a-z, 0-9 and ``-``; neither begins nor ends with ``-``.
    :param created_by: the principal id that the audit log shall name.
    :raises InvalidRequest: when the slug or the name is not well formed.
    :raises TenantExists: when another tenant has the slug.
    """
    check_terms(slug=slug, name=name)
    actor = Actor(tenant_id=tenant_id, principal_id=created_by, address=None, at=now)
    with transaction(tenant_id):
        return insert_tenant(actor=actor, slug=slug, name=name)


def check_terms(*, slug: str, name: str) -> None:
    """Check what a tenant shall be called.

    :raises InvalidRequest: when the slug or the name is not well formed.
    """
    fields = Fields({"slug": slug, "name": name})
    fields.text("slug", required=True, max_length=SLUG_LIMIT, pattern=_SLUG)
    fields.text("name", required=True)
    fields.finish("The tenant cannot be created.")


def insert_tenant(*, actor: Actor, slug: str, name: str) -> Tenant:
    """Insert the actor's tenant, in the transaction of a use case, and its first audit entry.

    :raises TenantExists: when another tenant has the slug.
    """
    try:
        with savepoint():
            tenant = Tenant.objects.create(
                id=actor.tenant_id, slug=slug, name=name, created_at=actor.at
            )
    except IntegrityError as error:
        raise TenantExists(f"There is a tenant {slug} already.") from error
    record_change(
        actor=actor,
        action="tenant.create",
        subject=("tenant", str(actor.tenant_id)),
        before=None,
        after={"slug": slug, "name": name},
    )
    return tenant


def require_promotion(*, actor: Actor, is_required: bool) -> bool:
    """Say whether modes rise by promotion only (SPEC 4); return what it was before.

    Setting what is set already changes and records nothing.
    """
    with transaction(actor.tenant_id):
        tenant = lock_tenant(actor.tenant_id)
        before = tenant.promotion_required
        if before != is_required:
            Tenant.objects.filter(id=actor.tenant_id).update(promotion_required=is_required)
            record_change(
                actor=actor,
                action="tenant.require-promotion",
                subject=("tenant", str(actor.tenant_id)),
                before={"promotion_required": before},
                after={"promotion_required": is_required},
            )
        return before
