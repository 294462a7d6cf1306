"""OIDC tokens of workloads: what is read of one, which keys may verify it, which claims it needs.

Tokens are read strictly before anything is believed: no duplicate members, one asymmetric
algorithm that fits the key, one audience. Pure but for the cryptography.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import jwt

from valdrix.kernel import strict_json
from valdrix.kernel.fields import Fields
from valdrix.kernel.signing import SigningKeyError, decode

AUDIENCE_PREFIX: Final = "valdrix:"
LEEWAY_SECONDS: Final = 10
LONGEST_LIFE_SECONDS: Final = 24 * 3600
IMMUTABLE_CLAIMS: Final = ("repository_id", "project_id", "/kubernetes.io/serviceaccount/uid")
"""Names can be given away and taken by others; one of these numbers must be demanded."""

_KEY_TYPE: Final = {
    "RS256": "RSA", "RS384": "RSA", "RS512": "RSA", "PS256": "RSA", "PS384": "RSA",
    "PS512": "RSA", "ES256": "EC", "ES384": "EC", "ES512": "EC", "EdDSA": "OKP",
}  # fmt: skip
_CURVE: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "k", "oth"})
_MEMBERS: Final = ("kty", "kid", "use", "alg", "crv", "n", "e", "x", "y")
_LONGEST_MEMBER: Final = 3000
_SMALLEST_RSA_BYTES: Final = 256
_MOST_KEYS: Final = 50
_MOST_CONDITIONS: Final = 20
_MOST_VALUES: Final = 50
_LATEST: Final = 2**53
"""Seconds beyond which a number of them is no time: whole ones that a float holds exactly."""
_LONGEST_TOKEN: Final = 16_384
_CLAIM: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}|(?:/[A-Za-z0-9_.:-]{1,100}){2,5}", re.ASCII)


class TokenRefused(Exception):
    """A token speaks for nobody. The reason is for tests and logs, never for the caller."""


class TokenExpired(TokenRefused):
    """A token verifies, and its time is over."""


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """What a token says of itself; only good for finding out who could verify it.

    :ivar key_id: None when it names no key.
    """

    text: str
    algorithm: str
    key_id: str | None
    issuer: str
    tenant_id: uuid.UUID


def audience_of(tenant_id: uuid.UUID) -> str:
    """Return a tenant's own audience: a token that was made for another tenant is none here."""
    return f"{AUDIENCE_PREFIX}{tenant_id}"


def looks_like_token(text: str) -> bool:
    """Tell whether a credential has the shape of a JWT."""
    return text.count(".") == 2


def read_unverified(text: str) -> UnverifiedToken:
    """Return what a token says of itself.

    :raises TokenRefused: when it is not well formed, or of a kind that is never taken.
    """
    if len(text) > _LONGEST_TOKEN or not text.isascii():
        raise TokenRefused("too long, or not ASCII")
    header_text, claims_text, _ = text.split(".")
    header, claims = _read_part(header_text), _read_part(claims_text)
    algorithm, key_id, issuer = header.get("alg"), header.get("kid"), claims.get("iss")
    if not isinstance(algorithm, str) or algorithm not in _KEY_TYPE:
        raise TokenRefused("the algorithm is not taken")
    if "crit" in header or "b64" in header:
        raise TokenRefused("the header demands what is not understood")
    if not isinstance(key_id, str | None) or not isinstance(issuer, str):
        raise TokenRefused("the key id or the issuer is no text")
    return UnverifiedToken(text, algorithm, key_id, issuer, _tenant_of(claims.get("aud")))


def find_key(keys: list[dict[str, Any]], token: UnverifiedToken) -> dict[str, Any] | None:
    """Return the one key that a token names and that fits its algorithm, or None.

    :raises TokenRefused: when several do: which one was meant is not for us to try out.
    """
    fitting = [
        key
        for key in keys
        if (token.key_id is None or key.get("kid") == token.key_id)
        and key.get("kty") == _KEY_TYPE[token.algorithm]
        and key.get("crv") == _CURVE.get(token.algorithm)
        and key.get("use", "sig") == "sig"
        and key.get("alg", token.algorithm) == token.algorithm
    ]
    if len(fitting) > 1:
        raise TokenRefused("several keys fit")
    return fitting[0] if fitting else None


def verify(token: UnverifiedToken, key: dict[str, Any], *, now: datetime) -> dict[str, Any]:
    """Return a token's claims when its signature, issuer, audience and times are right.

    :raises TokenExpired: when only its time is over, by more than ten seconds.
    :raises TokenRefused: for anything else.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token.text,
            key=jwt.PyJWK(key, algorithm=token.algorithm).key,
            algorithms=[token.algorithm],
            options={
                "require": ["exp", "iat", "iss", "aud"],
                # Times are checked below, by the caller's clock; the audience was read strictly.
                "verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False,
            },
        )  # fmt: skip
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise TokenRefused(type(error).__name__) from None
    if claims["iss"] != token.issuer or _tenant_of(claims["aud"]) != token.tenant_id:
        raise TokenRefused("the claims read differently")
    _check_times(claims, now.timestamp())
    return claims


def is_over(token_text: str, *, now: datetime) -> bool:
    """Tell whether the time of a token is over that verified before."""
    claims = _read_part(token_text.split(".")[1])
    return bool(claims["exp"] < now.timestamp() - LEEWAY_SECONDS)


def has_claims(claims: dict[str, Any], conditions: Mapping[str, list[str]]) -> bool:
    """Tell whether claims meet every condition: equal to one of its values, as text."""
    return bool(conditions) and all(
        _claim_text(claims, name) in values for name, values in conditions.items()
    )


def read_conditions(fields: Fields, name: str) -> dict[str, list[str]]:
    """Return the claims that tokens must have, each with the values that are taken."""
    value = fields.raw(name, required=True)
    if value is None:
        return {}
    if not isinstance(value, dict) or not 1 <= len(value) <= _MOST_CONDITIONS:
        fields.refuse(name, f"must be an object of 1 to {_MOST_CONDITIONS} claims")
        return {}
    conditions: dict[str, list[str]] = {}
    for claim, wanted in value.items():
        values = [wanted] if isinstance(wanted, str) else wanted
        if not _CLAIM.fullmatch(claim):
            fields.refuse(name, "holds what cannot be a claim's name")
        elif not _are_texts(values):
            fields.refuse(name, f"{claim} must be a text, or a list of 1 to {_MOST_VALUES} texts")
        else:
            conditions[claim] = list(values)
    if not any(claim in conditions for claim in IMMUTABLE_CLAIMS):
        fields.refuse(
            name,
            "must demand one of " + ", ".join(IMMUTABLE_CLAIMS),
            code="immutable_claim_missing",
        )
    return conditions


def read_keys(document: object) -> list[dict[str, Any]]:
    """Return the public keys of a JWKS that may verify tokens; keys of other kinds are left out.

    :raises ValueError: when it is no JWKS, holds private or symmetric keys, or none that fits.
    """
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= _MOST_KEYS:
        raise ValueError(f"must be a JWKS of 1 to {_MOST_KEYS} keys")
    found = []
    for key in keys:
        if not isinstance(key, dict):
            raise ValueError("holds what is no key")  # noqa: TRY004 - the document is wrong, not the call
        if _PRIVATE_MEMBERS & key.keys():
            raise ValueError("holds a private or a symmetric key; give public keys only")
        kept = _kept(key)
        if kept is not None:
            found.append(kept)
    if not found:
        raise ValueError("holds no RSA, EC or Ed25519 key that is strong enough")
    return found


def _kept(key: dict[str, Any]) -> dict[str, Any] | None:
    """Return the members of a key that matter, or None when it may not verify tokens."""
    kept: dict[str, Any] = {name: key[name] for name in _MEMBERS if name in key}
    if not all(isinstance(one, str) and len(one) <= _LONGEST_MEMBER for one in kept.values()):
        return None
    algorithm = _algorithm_of(kept)
    if algorithm is None or kept.get("use", "sig") != "sig":
        return None
    try:
        jwt.PyJWK(kept, algorithm=algorithm)
        is_weak = (
            kept["kty"] == "RSA" and len(decode(kept["n"]).lstrip(b"\0")) < _SMALLEST_RSA_BYTES
        )
    except (jwt.PyJWTError, SigningKeyError, ValueError, KeyError, NotImplementedError):
        return None
    return None if is_weak else kept


def _algorithm_of(key: dict[str, Any]) -> str | None:
    """Return an algorithm that a key is for, or None when that is none that is taken."""
    for algorithm, kind in _KEY_TYPE.items():
        if (key.get("kty"), key.get("crv")) == (kind, _CURVE.get(algorithm)) and (
            key.get("alg", algorithm) == algorithm
        ):
            return algorithm
    return None


def _read_part(text: str) -> dict[str, Any]:
    try:
        part = strict_json.loads(decode(text))
    except (SigningKeyError, strict_json.StrictJsonError):
        raise TokenRefused("a part is not strict JSON") from None
    if not isinstance(part, dict):
        raise TokenRefused("a part is no object")
    return part


def _tenant_of(audience: object) -> uuid.UUID:
    """Return the tenant of the one audience; a token for several could be shown to the others."""
    only = audience[0] if isinstance(audience, list) and len(audience) == 1 else audience
    if isinstance(only, str) and only.startswith(AUDIENCE_PREFIX):
        try:
            tenant_id = uuid.UUID(only.removeprefix(AUDIENCE_PREFIX))
        except ValueError:
            raise TokenRefused("the audience names no tenant") from None
        if only == audience_of(tenant_id):
            return tenant_id
    raise TokenRefused("the audience is not one tenant's own")


def _check_times(claims: dict[str, Any], now: float) -> None:
    moments = {name: claims[name] for name in ("iat", "nbf", "exp") if name in claims}
    if any(isinstance(at, bool) or not isinstance(at, int | float) for at in moments.values()):
        raise TokenRefused("a time is no number")
    if not all(abs(at) < _LATEST for at in moments.values()):
        raise TokenRefused("a time is out of range")
    if not 0 < moments["exp"] - moments["iat"] <= LONGEST_LIFE_SECONDS:
        raise TokenRefused("it lives too long")
    if max(moments["iat"], moments.get("nbf", 0)) > now + LEEWAY_SECONDS:
        raise TokenRefused("it is not valid yet")
    if moments["exp"] < now - LEEWAY_SECONDS:
        raise TokenExpired("its time is over")


def _claim_text(claims: dict[str, Any], name: str) -> str | None:
    value: Any = claims
    for step in name.removeprefix("/").split("/") if name.startswith("/") else (name,):
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _are_texts(values: object) -> bool:
    return (
        isinstance(values, list)
        and 1 <= len(values) <= _MOST_VALUES
        and all(
            isinstance(one, str) and one.strip() and one.isprintable() and len(one) <= 500
            for one in values
        )
    )
