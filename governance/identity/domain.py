"""Who is asking: roles, scopes, and the text form of an API key. Pure."""

from __future__ import annotations

import hashlib
import re
import uuid
import zlib
from dataclasses import dataclass
from typing import Final

OWNER: Final = "owner"
ADMIN: Final = "admin"
MEMBER: Final = "member"
ROLES: Final = (MEMBER, ADMIN, OWNER)
"""Roles from the weakest to the strongest (SPEC 12)."""

SCOPE_APPROVE: Final = "approve"
SCOPES: Final = (SCOPE_APPROVE,)

APPROVE_PROD: Final = "enforcement.approve.prod"
APPROVE_NONPROD: Final = "enforcement.approve.nonprod"
APPROVAL_PERMISSIONS: Final = (APPROVE_NONPROD, APPROVE_PROD)
PERMISSIONS_BY_ROLE: Final[dict[str, frozenset[str]]] = {
    OWNER: frozenset(APPROVAL_PERMISSIONS),
    ADMIN: frozenset({APPROVE_NONPROD}),
    MEMBER: frozenset(),
}
"""What each role may approve without a further grant (SPEC 6)."""

KEY_PREFIX: Final = "vdx_"
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LOOKUP_LENGTH: Final = 12
SECRET_LENGTH: Final = 32
RANDOM_BYTES: Final = LOOKUP_LENGTH + SECRET_LENGTH
_CHECKSUM_LENGTH: Final = 6
_KEY_FORM: Final = re.compile(
    rf"vdx_([0-9A-Za-z]{{{LOOKUP_LENGTH}}})_([0-9A-Za-z]{{{SECRET_LENGTH}}})"
    rf"([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever a request is made by: one credential of one responsible person in one tenant.

    :ivar principal_id: ``key:<uuid>`` or ``user:<id>``: what the ledger keeps.
    :ivar person_id: the responsible person; separation of duties compares persons.
    :ivar role: the weaker of the credential's own role and the person's membership.
    :ivar projects: the projects the credential is bound to; None means all of the tenant.
    :ivar plan: what the tenant's plan is called by whoever sells it; None where nobody said.
    :ivar has_second_factor: whether a person proved one in the session they act in; no key does.
    """

    tenant_id: uuid.UUID
    principal_id: str
    person_id: int
    role: str
    scopes: frozenset[str] = frozenset()
    projects: frozenset[str] | None = None
    has_second_factor: bool = False
    plan: str | None = None

    @property
    def is_authenticated(self) -> bool:
        """Return True: a principal exists only after authentication (DRF asks)."""
        return True

    def has_role(self, role: str) -> bool:
        """Tell whether the principal is at least of this role."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def can_use_project(self, project_id: str) -> bool:
        """Tell whether the credential's binding covers a project."""
        return self.projects is None or project_id in self.projects


def weaker_role(first: str, second: str) -> str:
    """Return the role of the two that may do less."""
    return min(first, second, key=ROLES.index)


@dataclass(frozen=True, slots=True)
class Rights:
    """What a credential may do: what it is given, or what its giver has to give.

    :ivar projects: the projects it is bound to; None means all of the tenant.
    """

    role: str
    scopes: frozenset[str] = frozenset()
    projects: frozenset[str] | None = None

    def excess_over(self, holder: Rights) -> str | None:
        """Return the code of the first right here that a holder does not have, or None."""
        if ROLES.index(self.role) > ROLES.index(holder.role):
            return "role_missing"
        if not self.scopes <= holder.scopes:
            return "scope_missing"
        if holder.projects is None:
            return None
        if self.projects is None or not self.projects <= holder.projects:
            return "project_not_allowed"
        return None


EVERYTHING: Final = Rights(role=OWNER, scopes=frozenset(SCOPES))
"""The rights of an owner in person, and of a command at the machine."""


@dataclass(frozen=True, slots=True)
class ApiKeyText:
    """An API key as its holder has it: ``vdx_<lookup>_<secret><checksum>``.

    The checksum lets a scanner and this reader tell a key from a typo without a database.
    """

    lookup: str
    text: str

    @property
    def digest(self) -> bytes:
        """Return the SHA-256 of the whole text: the only form that is stored.

        The secret holds 190 random bits, so a plain digest cannot be searched.
        """
        return hashlib.sha256(self.text.encode()).digest()


def build_key_text(random_bytes: bytes) -> ApiKeyText:
    """Return a key made of random bytes.

    :param random_bytes: at least 44 bytes from a cryptographic source.
    :raises ValueError: for fewer.
    """
    if len(random_bytes) < RANDOM_BYTES:
        raise ValueError(f"a key takes {RANDOM_BYTES} random bytes")
    letters = "".join(_ALPHABET[byte % 62] for byte in random_bytes[:RANDOM_BYTES])
    lookup, secret = letters[:LOOKUP_LENGTH], letters[LOOKUP_LENGTH:]
    return ApiKeyText(
        lookup=lookup, text=f"{KEY_PREFIX}{lookup}_{secret}{_checksum(lookup, secret)}"
    )


def read_key_text(text: str) -> ApiKeyText | None:
    """Return the key that a credential's text spells, or None when it is not one."""
    match = _KEY_FORM.fullmatch(text)
    if match is None or _checksum(match[1], match[2]) != match[3]:
        return None
    return ApiKeyText(lookup=match[1], text=text)


def _checksum(lookup: str, secret: str) -> str:
    number = zlib.crc32(f"{lookup}_{secret}".encode())
    letters = []
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        letters.append(_ALPHABET[digit])
    return "".join(letters)
