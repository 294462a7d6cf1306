"""A tenant with people and API keys."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from governance.identity.domain import (
    ADMIN,
    MEMBER,
    OWNER,
    SCOPE_APPROVE,
    Principal,
    build_key_text,
)
from governance.models import ApiKey, Membership, Tenant, User
from valdrix.kernel.db import transaction
from valdrix.kernel.ids import new_id

KEY_TEXT_RANDOM_BYTES = 44


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
    now = datetime.now(UTC)
    with transaction(tenant_id):
        Tenant.objects.create(id=tenant_id, slug=slug, name=f"Tenant {slug}", created_at=now)
        people = {
            role: _create_person(tenant_id, slug, role, now) for role in (OWNER, ADMIN, MEMBER)
        }
    return World(
        id=tenant_id, slug=slug, owner=people[OWNER], admin=people[ADMIN], member=people[MEMBER]
    )


def issue_key(
    tenant_id: uuid.UUID,
    user_id: int,
    role: str,
    *,
    scopes: frozenset[str] = frozenset(),
    projects: list[str] | None = None,
    expires_at: datetime | None = None,
) -> tuple[uuid.UUID, str]:
    """Insert an API key, inside a transaction of its tenant; return its id and its text."""
    text = build_key_text(os.urandom(KEY_TEXT_RANDOM_BYTES))
    key = ApiKey.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        name=f"{role} key",
        lookup=text.lookup,
        digest=text.digest,
        role=role,
        scopes=sorted(scopes),
        projects=projects,
        person_id=user_id,
        created_by=f"user:{user_id}",
        created_at=datetime.now(UTC),
        expires_at=expires_at,
    )
    return key.id, text.text


def _create_person(tenant_id: uuid.UUID, slug: str, role: str, now: datetime) -> Person:
    username = f"{role}@{slug}.test"
    # Sign-in by password is tested where it is wanted; hashing one here would cost every test.
    user = User(username=username, email=username)
    user.set_unusable_password()
    user.save()
    Membership.objects.create(tenant_id=tenant_id, user=user, role=role, created_at=now)
    scopes = frozenset() if role == MEMBER else frozenset({SCOPE_APPROVE})
    key_id, key = issue_key(tenant_id, user.pk, role, scopes=scopes)
    return Person(
        user_id=user.pk,
        username=username,
        role=role,
        key_id=key_id,
        key=key,
        tenant_id=tenant_id,
        scopes=scopes,
    )
