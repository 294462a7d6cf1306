"""Reads of integrations, among them the one that is made before the tenant is known."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.db import connection

from governance.identity.domain import MEMBER, Principal
from governance.integrations.domain import secret_context
from governance.integrations.models import ClusterBinding, Integration
from valdrix.kernel.sealing import unseal


@dataclass(frozen=True, slots=True)
class Caller:
    """An integration that an address names, before anything has been proven.

    :ivar principal: whom it speaks for once its secret has been proven.
    """

    integration_id: uuid.UUID
    kind: str
    principal: Principal


def find_caller(integration_id: uuid.UUID, kind: str) -> Caller | None:
    """Return the active integration of an id, or None; needs no tenant.

    The database function behind it sees every tenant and answers with tenant and principal of
    this one only. An integration whose responsible person has left is none.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tenant_id, person_id, project_id FROM governance_find_integration(%s, %s)",
            [integration_id, kind],
        )
        row = cursor.fetchone()
    if row is None:
        return None
    tenant_id, person_id, project_id = row
    principal = Principal(
        tenant_id=tenant_id,
        principal_id=f"integration:{integration_id}",
        person_id=person_id,
        role=MEMBER,
        projects=None if project_id is None else frozenset({project_id}),
    )
    return Caller(integration_id, kind, principal)


def find_integration(tenant_id: uuid.UUID, integration_id: uuid.UUID) -> Integration | None:
    """Return one integration of a tenant, revoked or not."""
    return Integration.objects.filter(tenant_id=tenant_id, pk=integration_id).first()


def find_active_integration(tenant_id: uuid.UUID, integration_id: uuid.UUID) -> Integration | None:
    """Return one integration of a tenant that is in use."""
    return Integration.objects.filter(
        tenant_id=tenant_id, pk=integration_id, revoked_at__isnull=True
    ).first()


def find_integrations(
    tenant_id: uuid.UUID,
    *,
    kind: str | None = None,
    before_id: uuid.UUID | None = None,
    limit: int,
) -> list[Integration]:
    """Return up to ``limit`` integrations, newest first, revoked ones included.

    :param before_id: the one after which, in that order, they start.
    """
    rows = Integration.objects.filter(tenant_id=tenant_id)
    if kind is not None:
        rows = rows.filter(kind=kind)
    if before_id is not None:
        rows = rows.filter(pk__lt=before_id)
    return list(rows.order_by("-pk")[:limit])


def find_active_of_kind(tenant_id: uuid.UUID, kind: str) -> list[Integration]:
    """Return a tenant's integrations of one kind that are in use, oldest first."""
    return list(
        Integration.objects.filter(
            tenant_id=tenant_id, kind=kind, revoked_at__isnull=True
        ).order_by("pk")
    )


def find_binding(
    tenant_id: uuid.UUID, integration_id: uuid.UUID, binding_id: uuid.UUID
) -> ClusterBinding | None:
    """Return one binding of a cluster."""
    return ClusterBinding.objects.filter(
        tenant_id=tenant_id, integration_id=integration_id, pk=binding_id
    ).first()


def find_bindings(
    tenant_id: uuid.UUID,
    integration_id: uuid.UUID,
    *,
    before_id: uuid.UUID | None = None,
    limit: int,
) -> list[ClusterBinding]:
    """Return up to ``limit`` bindings of a cluster, newest first.

    :param before_id: the one after which, in that order, they start.
    """
    rows = ClusterBinding.objects.filter(tenant_id=tenant_id, integration_id=integration_id)
    if before_id is not None:
        rows = rows.filter(pk__lt=before_id)
    return list(rows.order_by("-pk")[:limit])


CLUSTER_PLACE: Final = """
SELECT json_build_array(coalesce(i.settings->>'cluster', i.name),
           coalesce(b.project_id, i.project_id),
           coalesce(b.environment, i.settings->>'environment'))
  FROM (SELECT %s::uuid AS id, %s AS key_id, %s AS namespace) named
  JOIN governance_integration i
    ON i.id = named.id OR (named.id IS NULL AND i.settings->>'api_key_id' = named.key_id)
  LEFT JOIN LATERAL (
        SELECT project_id, environment FROM governance_cluster_binding
         WHERE integration_id = i.id AND namespace IN (named.namespace, '*')
         ORDER BY namespace = '*' LIMIT 1) b ON true
 WHERE i.tenant_id = valdrix_current_tenant() AND i.kind = 'cluster' AND i.revoked_at IS NULL
 ORDER BY i.id LIMIT 1
"""
"""The cluster that an address names, or else an API key's, and where a namespace belongs: as JSON,
with NULL for a project or an environment of which nothing is said.

Its parameters are the address's integration, the key and the namespace.
"""


def read_secret(integration: Integration) -> str:
    """Return the secret of an integration that is in use.

    :raises SealingError: when no configured key opens it, or it is revoked.
    """
    return unseal(
        bytes(integration.sealed_secret),
        context=secret_context(integration.pk),
        keys=settings.SECRET_SEALING_KEYS,
    ).decode()
