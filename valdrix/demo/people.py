"""The demo's people and their API keys: made once, and made good where they were lost."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace

from django.contrib.auth.hashers import check_password

from governance.audit.operations import Actor
from governance.identity.domain import (
    ADMIN,
    MEMBER,
    OWNER,
    RANDOM_BYTES,
    ROLES,
    SCOPE_APPROVE,
    read_key_text,
)
from governance.identity.models import ReviewerGroup, ReviewerGroupMember, User
from governance.identity.operations import (
    UserExists,
    add_member,
    create_user,
    found_tenant,
    issue_api_key,
    rotate_api_key,
)
from governance.identity.queries import (
    find_api_keys,
    find_key_principal,
    find_membership,
    find_person,
)
from governance.tenants.queries import find_tenant_id
from valdrix.demo.content import GROUPS
from valdrix.demo.secrets import DemoSecrets
from valdrix.kernel.db import platform_transaction, reading, transaction
from valdrix.kernel.ids import new_id

_SCOPES = {MEMBER: (), ADMIN: (SCOPE_APPROVE,), OWNER: (SCOPE_APPROVE,)}
_KEYS_LOOKED_AT = 1000


class NotOurs(Exception):
    """A user name of the demo belongs to somebody whom the demo did not make."""


def username_of(role: str, slug: str) -> str:
    """Return the user name of a demo tenant's person of a role."""
    return f"{slug}-{role}"


def found(actor: Actor, *, slug: str, name: str, has_console: bool, kept: DemoSecrets) -> Actor:
    """Return the actor for a demo tenant, which is made with its people where it is missing.

    :param actor: under the id that a new tenant gets.
    :raises NotOurs: when a user name is taken by somebody outside the tenant.
    """
    tenant_id = find_tenant_id(slug)
    if tenant_id is not None:
        actor = replace(actor, tenant_id=tenant_id)
    for role in reversed(ROLES):
        username = username_of(role, slug)
        person = _person(actor, username, has_console=has_console, kept=kept)
        if tenant_id is None and role == OWNER:
            found_tenant(actor=actor, slug=slug, name=name, owner=username)
        elif not _is_member(actor.tenant_id, person):
            add_member(actor=actor, person_id=person.pk, role=role)
    return actor


def put_in_groups(actor: Actor, *, slug: str) -> None:
    """Put the demo's people into reviewer groups and give them addresses, where they have none."""
    with transaction(actor.tenant_id):
        for role, names in GROUPS.items():
            person = find_person(username_of(role, slug))
            assert person is not None, "people are made before their groups"
            for name in names:
                group, _ = ReviewerGroup.objects.get_or_create(
                    tenant_id=actor.tenant_id,
                    name=name,
                    defaults={
                        "id": new_id(),
                        "created_by": actor.principal_id,
                        "created_at": actor.at,
                    },
                )
                ReviewerGroupMember.objects.get_or_create(
                    tenant_id=actor.tenant_id,
                    group=group,
                    user=person,
                    defaults={"added_at": actor.at},
                )
        for role in ROLES:
            username = username_of(role, slug)
            User.objects.filter(username=username, email="").update(email=f"{username}@demo.test")


def give_keys(actor: Actor, *, slug: str, kept: DemoSecrets) -> None:
    """Keep a working API key of each role, each of another person.

    A key whose text was lost is rotated, one that was revoked is issued anew.
    """
    keys = kept.api_keys.setdefault(slug, {})
    for role in ROLES:
        if not _works(actor.tenant_id, keys.get(role)):
            keys[role] = _new_key(actor, slug, role)
            kept.save()


def _person(actor: Actor, username: str, *, has_console: bool, kept: DemoSecrets) -> User:
    """Return a person who can sign in with the kept password, or at all, as the demo has it."""
    password = kept.password_of(username) if has_console else None
    person = find_person(username)
    if person is None:
        try:
            person = create_user(
                username=username, password=password, now=actor.at, is_staff=has_console
            )
        except UserExists:  # Somebody made the same person since we looked.
            return _person(actor, username, has_console=has_console, kept=kept)
    elif password is not None and person.password != kept.password_digests.get(username):
        _make_good(actor, person, password)
    if password is not None and person.password != kept.password_digests.get(username):
        kept.password_digests[username] = person.password
        kept.save()
    return person


def _make_good(actor: Actor, person: User, password: str) -> None:
    """Give a person of the demo the password that is kept, unless it is theirs already.

    :raises NotOurs: when they are not of the demo's tenant.
    """
    if check_password(password, person.password):
        return
    if not _is_member(actor.tenant_id, person):
        raise NotOurs(f"There is a user {person.username} who is not the demo's.")
    with platform_transaction():
        person.set_password(password)
        person.save(update_fields=["password"])


def _is_member(tenant_id: uuid.UUID, person: User) -> bool:
    with reading(tenant_id):
        return find_membership(tenant_id, person.pk) is not None


def _works(tenant_id: uuid.UUID, text: str | None) -> bool:
    # Whatever its role is by now: somebody may have given the person another one.
    key = None if text is None else read_key_text(text)
    principal = None if key is None else find_key_principal(key)
    return principal is not None and principal.tenant_id == tenant_id


def _new_key(actor: Actor, slug: str, role: str) -> str:
    name = f"make run, {role}"
    with reading(actor.tenant_id):
        keys = find_api_keys(actor.tenant_id, limit=_KEYS_LOOKED_AT)
        person = find_person(username_of(role, slug))
    assert person is not None, "people are made before their keys"
    for key in keys:
        if key.name == name and key.revoked_at is None and key.expires_at is None:
            return rotate_api_key(
                actor=actor, key_id=key.pk, random_bytes=os.urandom(RANDOM_BYTES)
            )[1]
    return issue_api_key(
        actor=actor,
        key_id=new_id(),
        random_bytes=os.urandom(RANDOM_BYTES),
        name=name,
        role=role,
        person_id=person.pk,
        scopes=_SCOPES[role],
    )[1]
