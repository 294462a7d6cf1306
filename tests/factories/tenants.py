"""A tenant with people and API keys."""

from __future__ import annotations

import os
import uuid
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Unpack

from django.db.models.base import ModelState

from billing.plans.models import Subscription
from governance.audit.operations import Actor
from governance.identity.domain import (
    ADMIN,
    MEMBER,
    OWNER,
    RANDOM_BYTES,
    ROLES,
    SCOPE_APPROVE,
    Principal,
    build_key_text,
)
from governance.identity.operations import KeyTerms, admit_member, found_tenant, issue_api_key
from governance.models import ApiKey, AuditEntry, Membership, Tenant, User
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id


@dataclass(frozen=True, slots=True)
class Person:
    """A member of a tenant, with one API key of the same role."""

    user_id: int
    username: str
    role: str
    key_id: uuid.UUID
    key: str
    tenant_id: uuid.UUID
    scopes: frozenset[str]

    @property
    def principal(self) -> Principal:
        """The principal that a request with the person's API key is made by."""
        return Principal(
            tenant_id=self.tenant_id,
            principal_id=f"key:{self.key_id}",
            person_id=self.user_id,
            role=self.role,
            scopes=self.scopes,
        )


@dataclass(frozen=True, slots=True)
class World:
    """One tenant and its people."""

    id: uuid.UUID
    slug: str
    owner: Person
    admin: Person
    member: Person

    @property
    def key(self) -> str:
        """The member's API key, with which gates are called."""
        return self.member.key


def create_world() -> World:
    """Commit a fresh tenant with an owner, an admin and a member, each with an API key.

    Its rows are those that the use cases made for the first one, under names of its own: thousands
    of tests begin so.
    """
    return _stamp(*_first_world())


def found_world() -> World:
    """Commit what :func:`create_world` does, by the use cases themselves."""
    tenant_id = new_id()
    slug = _slug(tenant_id)
    founder = system_actor(tenant_id)
    found_tenant(actor=founder, slug=slug, name=f"Tenant {slug}", owner=_username(OWNER, slug))
    people = {}
    for role in ROLES:
        username = _username(role, slug)
        if role != OWNER:
            admit_member(actor=founder, username=username, role=role)
        people[role] = _give_key(founder, username, role)
    return World(
        id=tenant_id, slug=slug, owner=people[OWNER], admin=people[ADMIN], member=people[MEMBER]
    )


@dataclass(frozen=True)
class _Rows:
    """What a tenant is made of; read once."""

    tenant: Tenant
    users: list[User]
    memberships: list[Membership]
    keys: list[ApiKey]
    entries: list[AuditEntry]


@cache
def _first_world() -> tuple[World, _Rows]:
    world = found_world()
    people = [person.user_id for person in (world.owner, world.admin, world.member)]
    with reading(world.id):
        rows = _Rows(
            tenant=Tenant.objects.get(pk=world.id),
            users=list(User.objects.filter(pk__in=people).order_by("pk")),
            memberships=list(Membership.objects.filter(tenant_id=world.id).order_by("pk")),
            keys=list(ApiKey.objects.filter(tenant_id=world.id).order_by("pk")),
            entries=list(AuditEntry.objects.filter(tenant_id=world.id).order_by("pk")),
        )
    return world, rows


def _stamp(first: World, rows: _Rows) -> World:
    """Commit the rows of the first world again, as those of another tenant."""
    tenant_id, now = new_id(), datetime.now(UTC)
    slug = _slug(tenant_id)
    texts = [build_key_text(os.urandom(RANDOM_BYTES)) for _ in rows.keys]
    key_ids = [new_id() for _ in rows.keys]
    users = [
        _copy(one, pk=None, username=one.username.replace(first.slug, slug), date_joined=now)
        for one in rows.users
    ]
    with transaction(tenant_id):
        User.objects.bulk_create(users)
        people = {one.pk: made.pk for one, made in zip(rows.users, users, strict=True)}
        names = {str(first.id): str(tenant_id)}
        for one, text, key_id in zip(rows.keys, texts, key_ids, strict=True):
            names |= {str(one.pk): str(key_id), one.lookup: text.lookup}
        rename = partial(_rename, names=names, people=people, slugs=(first.slug, slug))
        mine = {"tenant_id": tenant_id, "created_at": now}
        named = {"slug": slug, "name": rename(rows.tenant.name)}
        _copy(rows.tenant, pk=tenant_id, created_at=now, **named).save(force_insert=True)
        Membership.objects.bulk_create(
            _copy(one, pk=None, user_id=people[one.user_id], **mine) for one in rows.memberships
        )
        ApiKey.objects.bulk_create(
            _copy(
                one,
                **mine,
                pk=key_id,
                lookup=text.lookup,
                digest=text.digest,
                person_id=people[one.person_id],
            )
            for one, text, key_id in zip(rows.keys, texts, key_ids, strict=True)
        )
        AuditEntry.objects.bulk_create(
            _copy(
                one,
                pk=new_id(),
                tenant_id=tenant_id,
                at=now,
                object_id=str(people[int(one.object_id)])
                if one.object_type == "member"
                else rename(one.object_id),
                after=rename(one.after),
            )
            for one in rows.entries
        )
    made_keys = {
        people[one.person_id]: (key_id, text.text)
        for one, key_id, text in zip(rows.keys, key_ids, texts, strict=True)
    }

    def person(old: Person) -> Person:
        user_id = people[old.user_id]
        key_id, text = made_keys[user_id]
        return replace(
            old,
            user_id=user_id,
            username=rename(old.username),
            key_id=key_id,
            key=text,
            tenant_id=tenant_id,
        )

    return World(
        id=tenant_id,
        slug=slug,
        owner=person(first.owner),
        admin=person(first.admin),
        member=person(first.member),
    )


def _copy(row: Any, **values: Any) -> Any:
    made = copy(row)
    made._state = ModelState()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _rename(
    value: Any, *, names: dict[str, str], people: dict[int, int], slugs: tuple[str, str]
) -> Any:
    """Return a value with the names of another tenant."""
    again = partial(_rename, names=names, people=people, slugs=slugs)
    if isinstance(value, dict):
        return {
            name: people[item] if name == "person_id" else again(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [again(item) for item in value]
    if isinstance(value, str):
        return names.get(value, value.replace(*slugs))
    return value


def _slug(tenant_id: uuid.UUID) -> str:
    return f"t-{tenant_id.hex[-20:]}"


def system_actor(tenant_id: uuid.UUID) -> Actor:
    """Return an actor who may do everything in a tenant, for tests' arrangements."""
    return Actor(
        tenant_id=tenant_id, principal_id="system:tests", address=None, at=datetime.now(UTC)
    )


def issue_key(tenant_id: uuid.UUID, **terms: Unpack[KeyTerms]) -> tuple[uuid.UUID, str]:
    """Commit one more API key of a tenant; return its id and its text."""
    key, text = issue_api_key(
        actor=system_actor(tenant_id),
        key_id=new_id(),
        random_bytes=os.urandom(RANDOM_BYTES),
        **terms,
    )
    return key.pk, text


def put_on_tier(world: World, tier: str) -> None:
    """Commit the tier that a tenant is on."""
    with transaction(world.id):
        Subscription.objects.update_or_create(
            tenant_id=world.id, defaults={"tier": tier, "since_at": datetime.now(UTC)}
        )


def _username(role: str, slug: str) -> str:
    return f"{role}@{slug}.test"


def _give_key(founder: Actor, username: str, role: str) -> Person:
    user = User.objects.get(username=username)
    scopes = frozenset() if role == MEMBER else frozenset({SCOPE_APPROVE})
    key_id, text = issue_key(
        founder.tenant_id, name=f"{role} key", role=role, person_id=user.pk, scopes=scopes
    )
    return Person(
        user_id=user.pk,
        username=username,
        role=role,
        key_id=key_id,
        key=text,
        tenant_id=founder.tenant_id,
        scopes=scopes,
    )
