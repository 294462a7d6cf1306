"""Writes of registered issuers, each with its audit entry and in a transaction of its own."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any, Final, NotRequired, TypedDict, Unpack

from django.conf import settings
from django.db.models import Q

from governance.audit.operations import Actor, record_change
from governance.identity.domain import MEMBER
from governance.identity.operations import check_person
from governance.workloads.domain import read_conditions, read_keys
from governance.workloads.models import WorkloadIssuer
from governance.workloads.queries import find_issuer
from valdrix.kernel.addresses import AddressError, read_url
from valdrix.kernel.db import transaction
from valdrix.kernel.fields import Fields
from valdrix.kernel.problems import NotFound, Refused

ISSUER_LIMIT: Final = 500
_USED_EVERY: Final = timedelta(minutes=1)


class WorkloadIssuerNotActive(Refused):
    """The registration is revoked (409)."""

    code = "workload_issuer_not_active"


class IssuerTerms(TypedDict):
    """What a registration is to be.

    ``jwks``: the issuer's public keys; None, the default, means by discovery.
    """

    name: object
    issuer: object
    project_id: object
    conditions: object
    person_id: int
    jwks: NotRequired[object]


def register_issuer(
    *, actor: Actor, issuer_id: uuid.UUID, **terms: Unpack[IssuerTerms]
) -> WorkloadIssuer:
    """Register whose tokens speak for a project.

    :raises InvalidRequest: when the terms are not well formed.
    """
    values = _check_terms(terms)
    with transaction(actor.tenant_id):
        check_person(tenant_id=actor.tenant_id, person_id=terms["person_id"], role=MEMBER)
        row = WorkloadIssuer.objects.create(
            id=issuer_id,
            tenant_id=actor.tenant_id,
            person_id=terms["person_id"],
            created_by=actor.principal_id,
            created_at=actor.at,
            **values,
        )
        _audit(actor, "workload-issuer.register", row, before=None)
    return row


def replace_keys(*, actor: Actor, issuer_id: uuid.UUID, jwks: object) -> WorkloadIssuer:
    """Replace the uploaded keys of a registration; the old ones stop at once.

    :param jwks: None means by discovery from now on.
    :raises InvalidRequest: when they are no public keys.
    :raises NotFound: when the tenant has no such registration.
    :raises WorkloadIssuerNotActive: when it is revoked.
    """
    fields = Fields({"jwks": jwks})
    kept = _read_jwks(fields, "jwks")
    fields.finish()
    with transaction(actor.tenant_id):
        row = _get(actor.tenant_id, issuer_id)
        if kept is None:
            _check_discovery(row.issuer)
        before = shown(row)
        if _active(actor, issuer_id).update(jwks=kept) != 1:
            raise WorkloadIssuerNotActive("The registration is revoked.")
        row.jwks = kept
        _audit(actor, "workload-issuer.replace-keys", row, before=before)
    return row


def revoke_issuer(*, actor: Actor, issuer_id: uuid.UUID) -> WorkloadIssuer:
    """End a registration for ever; once more changes nothing.

    :raises NotFound: when the tenant has no such registration.
    """
    with transaction(actor.tenant_id):
        row = _get(actor.tenant_id, issuer_id)
        before = shown(row)
        if _active(actor, issuer_id).update(revoked_at=actor.at) == 1:
            row.revoked_at = actor.at
            _audit(actor, "workload-issuer.revoke", row, before=before)
        else:
            row.refresh_from_db(fields=["revoked_at"])
    return row


def note_use(*, actor: Actor, row: WorkloadIssuer) -> None:
    """Note, to the minute, that a registration was used: one write a minute, not one a call."""
    if row.last_used_at is not None and row.last_used_at > actor.at - _USED_EVERY:
        return
    due = Q(last_used_at__isnull=True) | Q(last_used_at__lt=actor.at - _USED_EVERY)
    with transaction(actor.tenant_id):
        WorkloadIssuer.objects.filter(due, tenant_id=actor.tenant_id, pk=row.pk).update(
            last_used_at=actor.at
        )


def shown(row: WorkloadIssuer) -> dict[str, Any]:
    """Return what is shown of a registration in the audit log."""
    return {
        "name": row.name,
        "issuer": row.issuer,
        "project_id": row.project_id,
        "conditions": row.conditions,
        "key_ids": None if row.jwks is None else [key.get("kid") for key in row.jwks["keys"]],
        "person_id": row.person_id,
        "revoked_at": None if row.revoked_at is None else row.revoked_at.isoformat(),
    }


def _check_terms(terms: IssuerTerms) -> dict[str, Any]:
    fields = Fields(
        {
            name: value
            for name, value in terms.items()
            if name in {"name", "issuer", "project_id", "conditions", "jwks"}
        }
    )
    values = {
        "name": fields.text("name", required=True),
        "issuer": fields.text("issuer", required=True, max_length=ISSUER_LIMIT),
        "project_id": fields.text("project_id", required=True),
        "conditions": read_conditions(fields, "conditions"),
        "jwks": _read_jwks(fields, "jwks"),
    }
    if terms.get("jwks") is None and isinstance(values["issuer"], str):
        refusal = find_discovery_fault(values["issuer"])
        if refusal is not None:
            fields.refuse("issuer", refusal)
    fields.finish()
    return values


def find_discovery_fault(issuer: str, /) -> str | None:
    """Return why an issuer's keys cannot be discovered, or None."""
    try:
        target = read_url(issuer)
    except AddressError as error:
        return f"{error}; upload its keys as jwks"
    if not settings.WORKLOAD_ISSUER_HOSTS.covers(target):
        return "is on no host of WORKLOAD_ISSUER_HOSTS; upload its keys as jwks"
    return None


def _check_discovery(issuer: str) -> None:
    fields = Fields({"jwks": None})
    fields.raw("jwks")
    refusal = find_discovery_fault(issuer)
    if refusal is not None:
        fields.refuse("jwks", f"the issuer {refusal}")
    fields.finish()


def _read_jwks(fields: Fields, name: str) -> dict[str, Any] | None:
    value = fields.raw(name)
    if value is None:
        return None
    try:
        return {"keys": read_keys(value)}
    except ValueError as error:
        fields.refuse(name, str(error))
        return None


def _get(tenant_id: uuid.UUID, issuer_id: uuid.UUID) -> WorkloadIssuer:
    row = find_issuer(tenant_id, issuer_id)
    if row is None:
        raise NotFound
    return row


def _active(actor: Actor, issuer_id: uuid.UUID) -> Any:
    return WorkloadIssuer.objects.filter(
        tenant_id=actor.tenant_id, pk=issuer_id, revoked_at__isnull=True
    )


def _audit(
    actor: Actor, action: str, row: WorkloadIssuer, *, before: dict[str, Any] | None
) -> None:
    record_change(
        actor=actor,
        action=action,
        subject=("workload-issuer", str(row.pk)),
        before=before,
        after=shown(row),
    )
