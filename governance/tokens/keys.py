"""Signing keys: made, rotated with an overlap, retired (SPEC 6).

The private half is sealed with the configured sealing keys, bound to its key id. A verifier asks
the database each time, so that a retired key is refused by every process at once.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.db.models import Q, QuerySet

from governance.tokens.models import TokenKey
from governance.tokens.queries import lock_key
from valdrix.kernel.db import platform_transaction
from valdrix.kernel.problems import NotFound, Refused
from valdrix.kernel.sealing import SealingError, seal, unseal
from valdrix.kernel.signing import SigningKey, encode

log = logging.getLogger("valdrix.tokens")

_CONTEXT: Final = "governance_token_key:"


class TokenKeyMissing(Refused):
    """No key can sign: none is active, or its private half cannot be opened (503)."""

    code = "signing_key_missing"


class LastTokenKey(Refused):
    """Without this key nothing could be signed any more (409)."""

    code = "last_signing_key"


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key as operators see it."""

    kid: str
    status: str
    created_at: datetime
    active_from: datetime
    retired_at: datetime | None


def create_key(*, kid: str, now: datetime, active_from: datetime) -> TokenKey:
    """Insert a new key; it is published at once and signs from a moment on.

    :raises TokenKeyMissing: when no sealing key is configured.
    """
    private = Ed25519PrivateKey.generate()
    try:
        sealed = seal(
            private.private_bytes_raw(), context=_CONTEXT + kid, keys=settings.SECRET_SEALING_KEYS
        )
    except SealingError:
        raise TokenKeyMissing("No key can be stored: SECRET_SEALING_KEYS is not set.") from None
    return TokenKey.objects.create(
        kid=kid,
        public=private.public_key().public_bytes_raw(),
        sealed_private=sealed,
        created_at=now,
        active_from=active_from,
    )


def rotate_keys(
    *, kid: str, now: datetime, active_from: datetime, old_retire_at: datetime | None
) -> TokenKey:
    """Make a new key, and say from when on the older ones are not accepted any more.

    :param old_retire_at: None leaves them until they are retired by hand.
    """
    with platform_transaction():
        if old_retire_at is not None:
            _usable(now).filter(
                Q(retired_at__isnull=True) | Q(retired_at__gt=old_retire_at)
            ).update(retired_at=old_retire_at)
        key = create_key(kid=kid, now=now, active_from=active_from)
    log.warning("token keys rotated: kid=%s signs from %s", kid, active_from.isoformat())
    return key


def retire_key(*, kid: str, now: datetime, force: bool = False) -> TokenKey:
    """Refuse a key's tokens from now on.

    :param force: also when no other key can sign: a key that was lost is worse than none.
    :raises NotFound: when there is no such key.
    :raises LastTokenKey: when no other key signs.
    """
    with platform_transaction():
        key = lock_key(kid)
        if key is None:
            raise NotFound("No such key.")
        others = _usable(now).filter(active_from__lte=now).exclude(pk=kid)
        if not force and not others.exists():
            raise LastTokenKey("No other key signs; rotate first, or force it.")
        if key.retired_at is None or key.retired_at > now:
            key.retired_at = now
            key.save(update_fields=["retired_at"])
    log.warning("token key retired: kid=%s", kid)
    return key


def list_keys(now: datetime) -> list[KeyState]:
    """Return every key, the newest first, with what it does now."""
    signing = _find_signing(now)
    return [
        KeyState(
            key.kid, _status(key, signing, now), key.created_at, key.active_from, key.retired_at
        )
        for key in TokenKey.objects.order_by("-created_at", "-kid")
    ]


def find_public_key(kid: str, *, at: datetime) -> bytes | None:
    """Return a key's raw public half unless it is unknown or retired."""
    key = _usable(at).filter(pk=kid).values_list("public", flat=True).first()
    return None if key is None else bytes(key)


def get_signing_key(*, new_kid: str, at: datetime) -> SigningKey:
    """Return the key that signs now; the very first one is made when it is needed.

    :param new_kid: what that first one is called.
    :raises TokenKeyMissing: when none can sign or be made.
    """
    key = _find_signing(at)
    if key is None:
        if TokenKey.objects.exists():
            raise TokenKeyMissing("No token key signs at this time; rotate the keys.")
        key = create_key(kid=new_kid, now=at, active_from=at)
    return open_key(key)


def open_key(key: TokenKey) -> SigningKey:
    """Return a key whose private half is opened.

    :raises TokenKeyMissing: when it was sealed by a key that is not configured any more.
    """
    try:
        raw = unseal(
            bytes(key.sealed_private),
            context=_CONTEXT + key.kid,
            keys=settings.SECRET_SEALING_KEYS,
        )
    except SealingError:
        raise TokenKeyMissing("The signing key cannot be opened; rotate the keys.") from None
    return SigningKey(key.kid, Ed25519PrivateKey.from_private_bytes(raw))


def build_key_set(at: datetime) -> dict[str, list[dict[str, str]]]:
    """Return the public keys that verify, as a JSON Web Key Set (RFC 7517, RFC 8037)."""
    return {
        "keys": [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "x": encode(bytes(key.public)),
                "kid": key.kid,
                "use": "sig",
                "alg": "EdDSA",
            }
            for key in _usable(at).order_by("-created_at", "-kid")
        ]
    }


def _usable(at: datetime) -> QuerySet[TokenKey]:
    return TokenKey.objects.filter(Q(retired_at__isnull=True) | Q(retired_at__gt=at))


def _find_signing(at: datetime) -> TokenKey | None:
    return _usable(at).filter(active_from__lte=at).order_by("-active_from", "-kid").first()


def _status(key: TokenKey, signing: TokenKey | None, now: datetime) -> str:
    if key.retired_at is not None and key.retired_at <= now:
        return "retired"
    if signing is not None and key.kid == signing.kid:
        return "signing"
    return "published" if key.active_from > now else "verifying"
