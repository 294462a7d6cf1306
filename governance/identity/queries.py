"""Reads of identity: who a credential speaks for, and what people and keys there are."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import orjson
from django.db import connection

from governance.audit.operations import Actor
from governance.identity.domain import (
    EVERYTHING,
    OWNER,
    SCOPES,
    ApiKeyText,
    Principal,
    Rights,
    weaker_role,
)
from governance.identity.models import ApiKey, Membership, User
from valdrix.kernel.db import answer_to, transaction_required


@dataclass(frozen=True, slots=True)
class TenantOfPerson:
    """One tenant that a person belongs to, and the role there."""

    tenant_id: uuid.UUID
    slug: str
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class Told:
    """What the database said of an API key.

    :ivar text: the same as JSON with the key's lookup and digest, as ``governance_changed_keys``
        takes it to say whether that is still so.
    """

    principal: Principal
    text: str


_AUTHENTICATE: Final = """
SELECT json_build_array(tenant_id, key_id, person_id, key_role, membership_role, scopes, projects,
                        plan)
  FROM governance_authenticate_key(%s, decode(%s, 'hex'))
"""


def find_key_principal(key: ApiKeyText) -> Principal | None:
    """Return whom an API key speaks for, as :func:`authenticate_key` does."""
    told = authenticate_key(key)
    return None if told is None else told.principal


def authenticate_key(key: ApiKeyText) -> Told | None:
    """Return whom an API key speaks for, or None when it speaks for nobody (any more).

    One statement outside any transaction; the database function behind it sees every tenant
    and answers with one credential only. It also notes, to the minute, that the key was used.
    """
    digest = key.digest.hex()
    row = answer_to(_AUTHENTICATE, key.lookup, digest)
    if row is None:
        return None
    tenant_id, key_id, person_id, key_role, membership_role, scopes, projects, plan = row
    principal = Principal(
        tenant_id=uuid.UUID(tenant_id),
        principal_id=f"key:{key_id}",
        person_id=person_id,
        role=weaker_role(key_role, membership_role),
        scopes=frozenset(scopes),
        projects=None if projects is None else frozenset(projects),
        plan=plan,
    )
    return Told(principal, orjson.dumps([key.lookup, digest, row]).decode())


def tenants_of(person_id: int) -> list[TenantOfPerson]:
    """Return the tenants that a person belongs to, by slug; needs no tenant."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tenant_id, tenant_slug, tenant_name, role FROM governance_memberships_of(%s)",
            [person_id],
        )
        return [TenantOfPerson(*row) for row in cursor.fetchall()]


def find_rights(actor: Actor) -> Rights | None:
    """Return what an actor has to give, as of now, or None for one who has nothing any more.

    A command at the machine (``system:…``) has everything; it has the database too.
    """
    kind, _, name = actor.principal_id.partition(":")
    if kind == "system":
        return EVERYTHING
    if kind == "user":
        membership = find_membership(actor.tenant_id, int(name))
        if membership is None or not membership.user.is_active:
            return None
        return Rights(role=membership.role, scopes=frozenset(SCOPES))
    if kind == "key":
        return _rights_of_key(actor, uuid.UUID(name))
    return None


def _rights_of_key(actor: Actor, key_id: uuid.UUID) -> Rights | None:
    key = find_api_key(actor.tenant_id, key_id)
    if key is None or key.revoked_at is not None:
        return None
    if key.expires_at is not None and key.expires_at <= actor.at:
        return None
    membership = find_membership(actor.tenant_id, key.person_id)
    if membership is None or not membership.user.is_active:
        return None
    return Rights(
        role=weaker_role(key.role, membership.role),
        scopes=frozenset(key.scopes),
        projects=None if key.projects is None else frozenset(key.projects),
    )


def find_person_id(actor: Actor) -> int | None:
    """Return the person that an actor is, or whose credential it is; None for a command."""
    kind, _, name = actor.principal_id.partition(":")
    if kind == "user":
        return int(name)
    key = find_api_key(actor.tenant_id, uuid.UUID(name)) if kind == "key" else None
    return None if key is None else key.person_id


def find_api_key(tenant_id: uuid.UUID, key_id: uuid.UUID) -> ApiKey | None:
    """Return one API key of a tenant."""
    return ApiKey.objects.filter(tenant_id=tenant_id, pk=key_id).first()


def find_api_keys(
    tenant_id: uuid.UUID, *, before_id: uuid.UUID | None = None, limit: int
) -> list[ApiKey]:
    """Return up to ``limit`` API keys, newest first, revoked and expired ones included.

    :param before_id: the key after which, in that order, they start.
    """
    rows = ApiKey.objects.filter(tenant_id=tenant_id)
    if before_id is not None:
        rows = rows.filter(pk__lt=before_id)
    return list(rows.order_by("-pk")[:limit])


def find_membership(tenant_id: uuid.UUID, person_id: int) -> Membership | None:
    """Return a person's membership in a tenant, with the person."""
    return (
        Membership.objects.select_related("user")
        .filter(tenant_id=tenant_id, user_id=person_id)
        .first()
    )


def find_memberships(
    tenant_id: uuid.UUID, *, after_id: int | None = None, limit: int
) -> list[Membership]:
    """Return up to ``limit`` memberships with their people, oldest person first.

    :param after_id: the person's id after which they start.
    """
    rows = Membership.objects.select_related("user").filter(tenant_id=tenant_id)
    if after_id is not None:
        rows = rows.filter(user_id__gt=after_id)
    return list(rows.order_by("user_id")[:limit])


def find_usernames(tenant_id: uuid.UUID, person_ids: Collection[int]) -> dict[int, str]:
    """Return the user names of a tenant's members, by person; who is none is left out."""
    rows = Membership.objects.filter(tenant_id=tenant_id, user_id__in=person_ids)
    return {row.user_id: row.user.get_username() for row in rows.select_related("user")}


def find_person(username: str) -> User | None:
    """Return the person with a user name; people belong to no tenant."""
    return User.objects.filter(username=username).first()


def lock_memberships(tenant_id: uuid.UUID, person_id: int) -> dict[int, Membership]:
    """Lock one person's membership and those of every active owner, by person's id.

    Whoever takes the owner's role from somebody must hold all of them: two owners who demote
    one another at once would otherwise leave none.
    """
    transaction_required()
    people = Membership.objects.select_related("user").filter(tenant_id=tenant_id)
    owners = people.filter(role=OWNER, user__is_active=True)
    rows = (owners | people.filter(user_id=person_id)).select_for_update(of=("self",))
    return {row.user_id: row for row in rows.order_by("pk")}


def lock_live_keys(tenant_id: uuid.UUID, person_id: int) -> list[ApiKey]:
    """Lock and return the keys of a person that are not revoked, in primary-key order."""
    transaction_required()
    rows = ApiKey.objects.filter(tenant_id=tenant_id, person_id=person_id, revoked_at__isnull=True)
    return list(rows.order_by("pk").select_for_update(of=("self",)))
