"""Writes of identity: people, memberships and API keys, each with its audit entry.

Each use case opens its own transaction. Nobody can give what they do not have: a key never
exceeds its issuer nor, in its role, the person who answers for it.
"""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Collection
from datetime import datetime
from typing import Any, NotRequired, TypedDict, Unpack

from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.db import IntegrityError

from governance.audit.operations import Actor, record_change
from governance.identity import queries
from governance.identity.domain import (
    OWNER,
    ROLES,
    SCOPE_APPROVE,
    SCOPES,
    ApiKeyText,
    Rights,
    build_key_text,
)
from governance.identity.models import ApiKey, Membership, User
from governance.identity.reviewing import drop_reviewer
from governance.tenants import operations as tenants
from valdrix.kernel.db import platform_transaction, savepoint, transaction
from valdrix.kernel.fields import TEXT_LIMIT, Fields
from valdrix.kernel.problems import FieldError, InvalidRequest, NotAllowed, NotFound, Refused

USERNAME_LIMIT = 150
_BIGGEST_PERSON_ID = 2**63 - 1


class UserExists(Refused):
    """Somebody has this user name (409)."""

    code = "user_exists"


class MemberExists(Refused):
    """The person is a member of the tenant already (409)."""

    code = "member_exists"


class LastOwner(Refused):
    """The change would leave the tenant without an active owner (409)."""

    code = "last_owner"


class ApiKeyNotActive(Refused):
    """The key is revoked or expired, or was rotated by somebody else meanwhile (409)."""

    code = "api_key_not_active"


class ReviewsForAnother(NotAllowed):
    """Whoever sees a key that may approve acts as its person, who has to take it themselves (403)."""

    code = "approve_scope_of_another"


class KeyTerms(TypedDict):
    """What an API key is to be.

    ``projects``: those it is bound to; None, the default, means all of the tenant.
    ``person_id``: the member who answers for it.
    ``expires_at``: None, the default, means when it is revoked.
    """

    name: str
    role: str
    person_id: int
    scopes: NotRequired[Collection[str]]
    projects: NotRequired[Collection[str] | None]
    expires_at: NotRequired[datetime | None]


def create_user(
    *, username: str, password: str | None, now: datetime, is_staff: bool = False
) -> User:
    """Create a person; without a password they cannot sign in until they are given one.

    :param is_staff: whether they may open the console.
    :raises InvalidRequest: when the name is not well formed or the password is weak.
    :raises UserExists: when somebody has the name.
    """
    name = _check_username(username)
    if password is not None:
        _check_password(password)
    try:
        with platform_transaction():
            return _insert_user(name, password, now, is_staff=is_staff)
    except IntegrityError as error:
        raise UserExists("This user name is taken.") from error


def add_member(*, actor: Actor, person_id: int, role: str) -> Membership:
    """Give a person a role in the actor's tenant.

    :raises InvalidRequest: when the role or the person is unknown.
    :raises NotAllowed: when the role is above the actor's.
    :raises MemberExists: when they are a member already.
    """
    _check_role(role)
    with transaction(actor.tenant_id):
        _refuse_excess(actor, Rights(role=role))
        person = User.objects.filter(pk=person_id).first()
        if person is None:
            raise _invalid("/person_id", "invalid_value", "is not a person")
        return _insert_member(actor, person, role)


def admit_member(*, actor: Actor, username: str, role: str) -> Membership:
    """Give the person of this user name a role; a new name makes a person without a password.

    :raises InvalidRequest: when the name or the role is not well formed.
    :raises NotAllowed: when the role is above the actor's.
    :raises MemberExists: when they are a member already.
    """
    name = _check_username(username)
    _check_role(role)
    with transaction(actor.tenant_id):
        _refuse_excess(actor, Rights(role=role))
        person = queries.find_person(name) or _insert_or_find_user(name, actor.at)
        return _insert_member(actor, person, role)


def found_tenant(*, actor: Actor, slug: str, name: str, owner: str) -> Membership:
    """Create a tenant together with its first owner, so that none is without one.

    :param actor: of the tenant that is to be, under its new id.
    :param owner: a user name; a new one makes a person without a password.
    :raises InvalidRequest: when a name is not well formed.
    :raises TenantExists: when another tenant has the slug.
    """
    tenants.check_terms(slug=slug, name=name)
    username = _check_username(owner)
    with transaction(actor.tenant_id):
        tenants.insert_tenant(actor=actor, slug=slug, name=name)
        person = queries.find_person(username) or _insert_or_find_user(username, actor.at)
        return _insert_member(actor, person, OWNER)


def change_role(*, actor: Actor, person_id: int, role: str) -> Membership:
    """Change a member's role.

    :raises InvalidRequest: when the role is unknown.
    :raises NotAllowed: when the old or the new role is above the actor's.
    :raises NotFound: when there is no such member.
    :raises LastOwner: when nobody else is an active owner.
    """
    _check_role(role)
    with transaction(actor.tenant_id):
        membership = _lock_member(actor, person_id, keeps_owner=role == OWNER)
        _refuse_excess(actor, Rights(role=role))
        before, membership.role = membership.role, role
        if before != role:
            membership.save(update_fields=["role"])
            _audit_member(actor, "member.change-role", membership, before=before, after=role)
    return membership


def remove_member(*, actor: Actor, person_id: int) -> None:
    """End a person's membership and revoke the keys they answer for, for ever.

    :raises NotAllowed: when their role is above the actor's.
    :raises NotFound: when there is no such member.
    :raises LastOwner: when nobody else is an active owner.
    """
    with transaction(actor.tenant_id):
        membership = _lock_member(actor, person_id, keeps_owner=False)
        _audit_member(actor, "member.remove", membership, before=membership.role, after=None)
        for key in queries.lock_live_keys(actor.tenant_id, person_id):
            before = _shown(key)
            key.revoked_at = actor.at
            key.save(update_fields=["revoked_at"])
            _audit_key(actor, "api-key.revoke", key, before=before)
        drop_reviewer(tenant_id=actor.tenant_id, person_id=person_id)
        membership.delete()


def issue_api_key(
    *, actor: Actor, key_id: uuid.UUID, random_bytes: bytes, **terms: Unpack[KeyTerms]
) -> tuple[ApiKey, str]:
    """Issue an API key and return it with its text, which nothing can show again.

    :param random_bytes: 44 bytes from a cryptographic source.
    :raises InvalidRequest: when the terms are not well formed, or exceed the person's role.
    :raises NotAllowed: when the terms exceed the actor's own rights.
    :raises ReviewsForAnother: when it may approve as another person than the actor's.
    """
    rights, projects = _check_terms(terms, actor.at)
    text = build_key_text(random_bytes)
    with transaction(actor.tenant_id):
        _refuse_excess(actor, rights)
        _refuse_reviewing_for_another(actor, rights, terms["person_id"])
        check_person(tenant_id=actor.tenant_id, person_id=terms["person_id"], role=rights.role)
        key = ApiKey.objects.create(
            id=key_id,
            tenant_id=actor.tenant_id,
            name=terms["name"],
            lookup=text.lookup,
            digest=text.digest,
            role=rights.role,
            scopes=sorted(rights.scopes),
            projects=projects,
            person_id=terms["person_id"],
            created_by=actor.principal_id,
            created_at=actor.at,
            expires_at=terms.get("expires_at"),
        )
        _audit_key(actor, "api-key.issue", key, before=None)
    return key, text.text


def rotate_api_key(*, actor: Actor, key_id: uuid.UUID, random_bytes: bytes) -> tuple[ApiKey, str]:
    """Give an API key a new text; the old one stops at once.

    :param random_bytes: 44 bytes from a cryptographic source.
    :raises NotFound: when the tenant has no such key.
    :raises ApiKeyNotActive: when it is revoked or expired, or was rotated meanwhile.
    :raises NotAllowed: when the key can do more than the actor.
    :raises ReviewsForAnother: when it may approve as another person than the actor's.
    """
    text = build_key_text(random_bytes)
    with transaction(actor.tenant_id):
        key = _get_key(actor.tenant_id, key_id)
        _refuse_excess(actor, _rights_of(key))
        _refuse_reviewing_for_another(actor, _rights_of(key), key.person_id)
        before = _shown(key)
        if key.expires_at is not None and key.expires_at <= actor.at:
            raise ApiKeyNotActive("The key has expired.")
        _replace_text(key, text)
        _audit_key(actor, "api-key.rotate", key, before=before)
    return key, text.text


def revoke_api_key(*, actor: Actor, key_id: uuid.UUID) -> ApiKey:
    """End an API key for ever; revoking it again changes nothing.

    :raises NotFound: when the tenant has no such key.
    """
    with transaction(actor.tenant_id):
        key = _get_key(actor.tenant_id, key_id)
        before = _shown(key)
        active = ApiKey.objects.filter(
            tenant_id=actor.tenant_id, pk=key_id, revoked_at__isnull=True
        )
        if active.update(revoked_at=actor.at) == 1:
            key.revoked_at = actor.at
            _audit_key(actor, "api-key.revoke", key, before=before)
        else:
            key.refresh_from_db(fields=["revoked_at"])
    return key


def check_person(*, tenant_id: uuid.UUID, person_id: int, role: str) -> None:
    """Refuse somebody who cannot answer for a credential of a role.

    :raises InvalidRequest: when they are no active member, or of a weaker role.
    """
    membership = queries.find_membership(tenant_id, person_id)
    if membership is None or not membership.user.is_active:
        # Somebody else's person and nobody at all look the same.
        raise _invalid("/person_id", "not_a_member", "is not an active member of the tenant")
    if Rights(role=role).excess_over(Rights(role=membership.role)):
        raise _invalid("/role", "above_person", f"the person is only {membership.role}")


def _invalid(pointer: str, code: str, detail: str) -> InvalidRequest:
    return InvalidRequest(
        "The request has invalid fields.", errors=(FieldError(pointer, code, detail),)
    )


def _check_username(username: str) -> str:
    fields = Fields({"username": username})
    name = fields.text("username", required=True, max_length=USERNAME_LIMIT)
    fields.finish()
    normal = unicodedata.normalize("NFKC", str(name))
    try:
        UnicodeUsernameValidator()(normal)
    except ValidationError:
        raise _invalid(
            "/username", "invalid_value", "may hold letters, digits and . @ + - _"
        ) from None
    if len(normal) > USERNAME_LIMIT:
        raise _invalid("/username", "too_long", f"must have at most {USERNAME_LIMIT} characters")
    return normal


def _check_password(password: str) -> None:
    try:
        validate_password(password)
    except ValidationError as error:
        raise _invalid("/password", "invalid_value", " ".join(error.messages)) from None


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise _invalid("/role", "invalid_choice", "must be one of " + ", ".join(ROLES))


def _check_terms(terms: KeyTerms, now: datetime) -> tuple[Rights, list[str] | None]:
    wanted = terms.get("projects")
    projects = None if wanted is None else sorted(set(wanted))
    scopes = sorted(set(terms.get("scopes", ())))
    fields = Fields({"name": terms["name"], "role": terms["role"]})
    fields.text("name", required=True)
    fields.choice("role", ROLES, required=True)
    for scope in scopes:
        if scope not in SCOPES:
            fields.refuse("scopes", "may hold " + ", ".join(SCOPES), code="invalid_choice")
    for project in projects or ():
        if not (project.strip() and project.isprintable() and len(project) <= TEXT_LIMIT):
            fields.refuse("projects", "holds what cannot be a project's name")
    expires_at = terms.get("expires_at")
    if expires_at is not None and expires_at <= now:
        fields.refuse("expires_at", "must be in the future", code="out_of_range")
    fields.finish()
    bound = None if projects is None else frozenset(projects)
    return Rights(role=terms["role"], scopes=frozenset(scopes), projects=bound), projects


def _refuse_excess(actor: Actor, wanted: Rights) -> None:
    """Refuse rights that the actor does not hold at this moment.

    :raises NotAllowed: with the code of the first right that is missing.
    """
    held = queries.find_rights(actor)
    if held is None:
        raise NotAllowed("Your credential may do nothing any more.")
    code = wanted.excess_over(held)
    if code is not None:
        raise NotAllowed("Nobody can give or take more than they have.", code=code)


def _refuse_reviewing_for_another(actor: Actor, rights: Rights, person_id: int) -> None:
    """Refuse to show somebody a key by which they could approve as another person.

    Without the scope a key reviews nothing, whoever answers for it. A command at the machine
    (``system:…``) may hand keys out: it has the database too.

    :raises ReviewsForAnother: when it could.
    """
    if SCOPE_APPROVE not in rights.scopes or actor.principal_id.startswith("system:"):
        return
    if queries.find_person_id(actor) != person_id:
        raise ReviewsForAnother(
            "A key with the scope approve approves as its person: only they may take it."
        )


def _insert_user(name: str, password: str | None, now: datetime, *, is_staff: bool) -> User:
    person = User(username=name, is_staff=is_staff, date_joined=now)
    person.set_password(password)
    person.save(force_insert=True)
    return person


def _insert_or_find_user(name: str, now: datetime) -> User:
    try:
        with savepoint():
            return _insert_user(name, None, now, is_staff=False)
    except IntegrityError:  # Somebody made the same person since we looked.
        return User.objects.get(username=name)


def _insert_member(actor: Actor, person: User, role: str) -> Membership:
    try:
        with savepoint():
            membership = Membership.objects.create(
                tenant_id=actor.tenant_id, user=person, role=role, created_at=actor.at
            )
    except IntegrityError as error:
        raise MemberExists("They are a member already.") from error
    _audit_member(actor, "member.add", membership, before=None, after=role)
    return membership


def _lock_member(actor: Actor, person_id: int, *, keeps_owner: bool) -> Membership:
    """Lock a member whose role is about to change, with the owners who are left.

    :raises NotFound: when there is no such member.
    :raises NotAllowed: when their role is above the actor's.
    :raises LastOwner: when they are the only active owner and shall be one no more.
    """
    if person_id > _BIGGEST_PERSON_ID:
        raise NotFound
    locked = queries.lock_memberships(actor.tenant_id, person_id)
    membership = locked.get(person_id)
    if membership is None:
        raise NotFound
    _refuse_excess(actor, Rights(role=membership.role))
    others = [row for row in locked.values() if row.role == OWNER and row.user_id != person_id]
    if membership.role == OWNER and not keeps_owner and not others:
        raise LastOwner("A tenant needs an owner; make somebody else one first.")
    return membership


def _get_key(tenant_id: uuid.UUID, key_id: uuid.UUID) -> ApiKey:
    key = queries.find_api_key(tenant_id, key_id)
    if key is None:
        raise NotFound
    return key


def _replace_text(key: ApiKey, text: ApiKeyText) -> None:
    """Store a new text's digest unless the key was revoked or rotated since it was read.

    :raises ApiKeyNotActive: when it was.
    """
    unchanged = ApiKey.objects.filter(
        tenant_id=key.tenant_id, pk=key.pk, lookup=key.lookup, revoked_at__isnull=True
    )
    if unchanged.update(lookup=text.lookup, digest=text.digest) != 1:
        raise ApiKeyNotActive("The key is revoked, or was rotated by somebody else.")
    key.lookup, key.digest = text.lookup, text.digest


def _rights_of(key: ApiKey) -> Rights:
    return Rights(
        role=key.role,
        scopes=frozenset(key.scopes),
        projects=None if key.projects is None else frozenset(key.projects),
    )


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "lookup": key.lookup,
        "role": key.role,
        "scopes": list(key.scopes),
        "projects": key.projects,
        "person_id": key.person_id,
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
        "revoked_at": None if key.revoked_at is None else key.revoked_at.isoformat(),
    }


def _audit_key(actor: Actor, action: str, key: ApiKey, *, before: dict[str, Any] | None) -> None:
    record_change(
        actor=actor,
        action=action,
        subject=("api-key", str(key.pk)),
        before=before,
        after=_shown(key),
    )


def _audit_member(
    actor: Actor, action: str, membership: Membership, *, before: str | None, after: str | None
) -> None:
    username = membership.user.username
    record_change(
        actor=actor,
        action=action,
        subject=("member", str(membership.user_id)),
        before=None if before is None else {"username": username, "role": before},
        after=None if after is None else {"username": username, "role": after},
    )
