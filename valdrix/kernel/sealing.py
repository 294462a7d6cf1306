"""Sealing: secrets of others, encrypted at rest by AES-256-GCM and bound to where they lie.

The context (such as the row's table and id) is authenticated with the text: a sealed secret that
is moved to another row does not open there. A key can be replaced: the first one seals, every
configured one opens.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from valdrix.kernel.signing import SigningKeyError, decode

KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
_NAME_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_HEAD: Final = len(_VERSION) + _NAME_BYTES


class SealingError(ValueError):
    """A text is no key, or something sealed cannot be opened; the message holds no secret."""


@dataclass(frozen=True, slots=True)
class SealingKey:
    """One key, known by the first bytes of its digest."""

    secret: bytes = field(repr=False)

    @property
    def name(self) -> bytes:
        """Return what tells sealed texts of this key from those of others; reveals nothing."""
        return hashlib.sha256(b"valdrix sealing key" + self.secret).digest()[:_NAME_BYTES]


def read_sealing_keys(texts: list[str]) -> tuple[SealingKey, ...]:
    """Return the keys that a configuration lists, the one that seals first.

    :param texts: 32 bytes each, in base64url.
    :raises SealingError: for a text that is none.
    """
    keys = []
    for number, text in enumerate(texts, start=1):
        try:
            raw = decode(text)
        except SigningKeyError:
            raw = b""
        if len(raw) != KEY_BYTES:
            raise SealingError(f"key {number} must be {KEY_BYTES} bytes in base64url")
        keys.append(SealingKey(raw))
    return tuple(keys)


def seal(secret: bytes, *, context: str, keys: tuple[SealingKey, ...]) -> bytes:
    """Return a secret encrypted with the first key, for this context only.

    :raises SealingError: when there is no key.
    """
    if not keys:
        raise SealingError("no key is configured")
    nonce = os.urandom(_NONCE_BYTES)
    head = _VERSION + keys[0].name
    sealed = AESGCM(keys[0].secret).encrypt(nonce, secret, head + context.encode())
    return head + nonce + sealed


def unseal(sealed: bytes, *, context: str, keys: tuple[SealingKey, ...]) -> bytes:
    """Return the secret that was sealed for this context.

    :raises SealingError: when no key opens it, or it was changed or moved.
    """
    head, nonce = sealed[:_HEAD], sealed[_HEAD : _HEAD + _NONCE_BYTES]
    for key in keys:
        if head != _VERSION + key.name or len(nonce) != _NONCE_BYTES:
            continue
        try:
            return AESGCM(key.secret).decrypt(
                nonce, sealed[_HEAD + _NONCE_BYTES :], head + context.encode()
            )
        except InvalidTag:
            break
    raise SealingError("the secret cannot be opened: another key, or it was changed")
