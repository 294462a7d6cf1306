"""What a token says, how it is signed, and everything that makes a text no token. Pure.

One algorithm, Ed25519. The text is checked before the library sees it: three parts of base64url
in their one spelling, a header with three members and no others, no member twice. Then the
library verifies the signature, the audience and the issuer; times are judged by the clock that
is passed in.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from valdrix.kernel import strict_json
from valdrix.kernel.problems import Refused
from valdrix.kernel.signing import SigningKey, SigningKeyError, decode, encode

ALGORITHM: Final = "EdDSA"
TOKEN_TYPE: Final = "enforcement_approval"  # noqa: S105 - a type's name
AUDIENCE: Final = "valdrix:enforcement:approvals"
LEEWAY_SECONDS: Final = 10
MAX_TEXT: Final = 8192

CLAIMS: Final = (
    "iss", "aud", "token_type", "jti", "iat", "nbf", "exp", "tenant_id", "project_id",
    "environment", "source", "decision_id", "approval_id", "request_fingerprint",
    "change_fingerprint", "resource_reference", "max_monthly_delta_usd", "max_hourly_delta_usd",
)  # fmt: skip
_HEADER: Final = {"alg", "kid", "typ"}
_PART: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_KID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_TIMES: Final = ("iat", "nbf", "exp")
_MOST_SECONDS: Final = 2**40

FindKey = Callable[[str], bytes | None]
"""Returns the raw public key of a key id that is not retired."""


class TokenInvalid(Refused):
    """The text is no token of this tenant: forged, foreign, or of a retired key (401)."""

    code = "approval_token_invalid"

    def __init__(self) -> None:
        # One sentence for every fault: whoever forges learns nothing from it.
        super().__init__("The approval token is not valid here.")


class TokenExpired(Refused):
    """The token verifies and is past its end by more than the leeway (401)."""

    code = "token_expired"


@dataclass(frozen=True, slots=True)
class Token:
    """A token whose signature, type, issuer, audience and form were verified.

    :ivar claims: as they were signed.
    :ivar is_expired: past its end by more than the leeway; nothing else is wrong with it.
    """

    kid: str
    claims: dict[str, Any]
    jti: uuid.UUID
    tenant_id: uuid.UUID
    is_expired: bool


def sign(claims: dict[str, Any], *, key: SigningKey) -> str:
    """Return the text of a token; the same claims and key give the same text."""
    return jwt.encode(
        claims,
        key.private,
        algorithm=ALGORITHM,
        headers={"kid": key.key_id, "typ": TOKEN_TYPE},
    )


def verify(text: str, *, find_key: FindKey, issuer: str, at: datetime) -> Token:
    """Return a token whose text, signature and claims hold.

    :raises TokenInvalid: for everything else, whatever it is.
    """
    header = _read_header(text)
    public = find_key(header["kid"])
    if public is None:
        raise TokenInvalid
    claims = _read_part(text.split(".")[1])
    try:
        jwt.decode(
            text,
            Ed25519PublicKey.from_public_bytes(public),
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=issuer,
            options={
                "require": list(CLAIMS),
                "strict_aud": True,
                # By the library's own clock; ours is passed in.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError):
        raise TokenInvalid from None
    return _build_token(header["kid"], claims, at)


def _read_header(text: str) -> dict[str, str]:
    """Return a token's header, of which every member is known and none is obeyed."""
    parts = text.split(".")
    if len(text) > MAX_TEXT or len(parts) != 3 or not all(map(_PART.fullmatch, parts)):
        raise TokenInvalid
    if any(encode(_decode(part)) != part for part in parts):
        raise TokenInvalid  # Another spelling of the same bytes.
    header = _read_part(parts[0])
    if set(header) != _HEADER or header["alg"] != ALGORITHM or header["typ"] != TOKEN_TYPE:
        raise TokenInvalid
    if not isinstance(header["kid"], str) or not _KID.fullmatch(header["kid"]):
        raise TokenInvalid
    return header


def _read_part(part: str) -> dict[str, Any]:
    try:
        document = strict_json.loads(_decode(part))
    except strict_json.StrictJsonError:
        raise TokenInvalid from None
    if not isinstance(document, dict):
        raise TokenInvalid
    return document


def _decode(part: str) -> bytes:
    try:
        return decode(part)
    except SigningKeyError:
        raise TokenInvalid from None


def _build_token(kid: str, claims: dict[str, Any], at: datetime) -> Token:
    if set(claims) != set(CLAIMS) or claims["token_type"] != TOKEN_TYPE:
        raise TokenInvalid
    times = [claims[name] for name in _TIMES]
    if not all(type(time) is int and 0 <= time < _MOST_SECONDS for time in times):
        raise TokenInvalid
    issued_at, not_before, ends_at = times
    now = at.astimezone(UTC).timestamp()
    if max(issued_at, not_before) > now + LEEWAY_SECONDS or ends_at <= issued_at:
        raise TokenInvalid
    try:
        jti, tenant_id = uuid.UUID(claims["jti"]), uuid.UUID(claims["tenant_id"])
    except (ValueError, AttributeError, TypeError):
        raise TokenInvalid from None
    return Token(
        kid=kid,
        claims=claims,
        jti=jti,
        tenant_id=tenant_id,
        is_expired=now > ends_at + LEEWAY_SECONDS,
    )
