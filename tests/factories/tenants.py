"""A tenant with people and API keys."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Unpack

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
)
from governance.identity.operations import KeyTerms, admit_member, found_tenant, issue_api_key
from governance.models import User
from valdrix.kernel.db import transaction
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
    """Commit a fresh tenant with an owner, an admin and a member, each with an API key."""
    tenant_id = new_id()
    slug = f"t-{tenant_id.hex[-20:]}"
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
