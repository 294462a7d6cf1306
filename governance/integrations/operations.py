"""Writes of integrations, each with its audit entry and in a transaction of its own."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any, Final, NotRequired, TypedDict, Unpack

from django.conf import settings
from django.db import IntegrityError
from django.db.models import Q

from governance.audit.operations import Actor, record_change
from governance.identity.domain import MEMBER
from governance.identity.operations import check_person
from governance.integrations.domain import (
    KINDS,
    build_secret,
    read_settings,
    secret_context,
)
from governance.integrations.models import Integration
from governance.integrations.queries import find_integration
from valdrix.kernel.db import savepoint, transaction, transaction_required
from valdrix.kernel.fields import Fields
from valdrix.kernel.problems import NotFound, Refused
from valdrix.kernel.sealing import seal

_USED_EVERY: Final = timedelta(minutes=1)


class IntegrationExists(Refused):
    """An integration of this kind in use has the name (409)."""

    code = "integration_exists"


class IntegrationNotActive(Refused):
    """The integration is revoked (409)."""

    code = "integration_not_active"


class SealingKeyMissing(Refused):
    """No key is configured to encrypt stored secrets with (503)."""

    code = "sealing_key_missing"


class IntegrationTerms(TypedDict):
    """What an integration is to be.

    ``project_id``: the project that whatever comes through it belongs to.
    ``person_id``: the member who answers for it.
    ``settings``: as its kind has them.
    """

    kind: str
    name: str
    person_id: int
    project_id: NotRequired[str | None]
    settings: NotRequired[object]


def create_integration(
    *,
    actor: Actor,
    integration_id: uuid.UUID,
    random_bytes: bytes,
    **terms: Unpack[IntegrationTerms],
) -> tuple[Integration, str]:
    """Create an integration and return it with its secret, which nothing shows again.

    :param random_bytes: 32 bytes from a cryptographic source.
    :raises InvalidRequest: when the terms are not well formed.
    :raises IntegrationExists: when one in use has the name.
    :raises SealingKeyMissing: when secrets cannot be stored.
    """
    stored = _check_terms(terms)
    secret = build_secret(random_bytes)
    sealed = _seal(integration_id, secret)
    with transaction(actor.tenant_id):
        check_person(tenant_id=actor.tenant_id, person_id=terms["person_id"], role=MEMBER)
        try:
            with savepoint():
                integration = Integration.objects.create(
                    id=integration_id,
                    tenant_id=actor.tenant_id,
                    kind=terms["kind"],
                    name=terms["name"],
                    project_id=terms.get("project_id"),
                    settings=stored,
                    sealed_secret=sealed,
                    person_id=terms["person_id"],
                    created_by=actor.principal_id,
                    created_at=actor.at,
                )
        except IntegrityError as error:
            raise IntegrationExists("An integration of this kind has the name.") from error
        _audit(actor, "integration.create", integration, before=None)
    return integration, secret


def rotate_secret(
    *, actor: Actor, integration_id: uuid.UUID, random_bytes: bytes
) -> tuple[Integration, str]:
    """Give an integration a new secret; the old one stops at once.

    :raises NotFound: when the tenant has no such integration.
    :raises IntegrationNotActive: when it is revoked.
    :raises SealingKeyMissing: when secrets cannot be stored.
    """
    secret = build_secret(random_bytes)
    sealed = _seal(integration_id, secret)
    with transaction(actor.tenant_id):
        integration = _get(actor.tenant_id, integration_id)
        before = shown(integration)
        active = Integration.objects.filter(
            tenant_id=actor.tenant_id, pk=integration_id, revoked_at__isnull=True
        )
        if active.update(sealed_secret=sealed, rotated_at=actor.at) != 1:
            raise IntegrationNotActive("The integration is revoked.")
        integration.sealed_secret, integration.rotated_at = sealed, actor.at
        _audit(actor, "integration.rotate", integration, before=before)
    return integration, secret


def revoke_integration(*, actor: Actor, integration_id: uuid.UUID) -> Integration:
    """End an integration for ever and forget its secret; once more changes nothing.

    :raises NotFound: when the tenant has no such integration.
    """
    with transaction(actor.tenant_id):
        integration = _get(actor.tenant_id, integration_id)
        before = shown(integration)
        active = Integration.objects.filter(
            tenant_id=actor.tenant_id, pk=integration_id, revoked_at__isnull=True
        )
        if active.update(revoked_at=actor.at, sealed_secret=b"") == 1:
            integration.revoked_at = actor.at
            _audit(actor, "integration.revoke", integration, before=before)
        else:
            integration.refresh_from_db(fields=["revoked_at"])
    return integration


def note_use(*, actor: Actor, integration_id: uuid.UUID) -> None:
    """Note, to the minute, that an integration was used: one write a minute, not one a call.

    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    due = Q(last_used_at__isnull=True) | Q(last_used_at__lt=actor.at - _USED_EVERY)
    Integration.objects.filter(due, tenant_id=actor.tenant_id, pk=integration_id).update(
        last_used_at=actor.at
    )


def shown(integration: Integration) -> dict[str, Any]:
    """Return what may be shown of an integration in the audit log."""
    return {
        "kind": integration.kind,
        "name": integration.name,
        "project_id": integration.project_id,
        "settings": integration.settings,
        "person_id": integration.person_id,
        "rotated_at": None if not integration.rotated_at else integration.rotated_at.isoformat(),
        "revoked_at": None if not integration.revoked_at else integration.revoked_at.isoformat(),
    }


def _check_terms(terms: IntegrationTerms) -> dict[str, Any]:
    fields = Fields(
        {"kind": terms["kind"], "name": terms["name"], "project_id": terms.get("project_id")}
    )
    fields.choice("kind", KINDS, required=True)
    fields.text("name", required=True)
    fields.text("project_id")
    fields.finish()
    return read_settings(terms["kind"], terms.get("settings"))


def _seal(integration_id: uuid.UUID, secret: str) -> bytes:
    if not settings.SECRET_SEALING_KEYS:
        raise SealingKeyMissing("SECRET_SEALING_KEYS is not configured.")
    return seal(
        secret.encode(), context=secret_context(integration_id), keys=settings.SECRET_SEALING_KEYS
    )


def _get(tenant_id: uuid.UUID, integration_id: uuid.UUID) -> Integration:
    integration = find_integration(tenant_id, integration_id)
    if integration is None:
        raise NotFound
    return integration


def _audit(
    actor: Actor, action: str, integration: Integration, *, before: dict[str, Any] | None
) -> None:
    record_change(
        actor=actor,
        action=action,
        subject=("integration", str(integration.pk)),
        before=before,
        after=shown(integration),
    )
