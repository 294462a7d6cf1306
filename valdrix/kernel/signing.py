"""Signing: Ed25519 over canonical bytes, so that an outsider verifies with a public key only."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALGORITHM: Final = "Ed25519"
SEED_BYTES: Final = 32
_KEY_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class SigningKeyError(ValueError):
    """A text is not a signing key, a public key or a key id; the message holds no secret."""

    code = "invalid_signing_key"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and the id under which its public half is known."""

    key_id: str
    private: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id!r})"

    def sign(self, data: bytes) -> str:
        """Return the signature of bytes, in base64url without padding."""
        return encode(self.private.sign(data))

    @property
    def public_text(self) -> str:
        """Return the raw public key, in base64url without padding."""
        return encode(self.private.public_key().public_bytes_raw())


def read_signing_key(*, key_id: str, seed: str) -> SigningKey:
    """Return the key that a configuration names.

    :param seed: 32 bytes in base64url, with or without padding.
    :raises SigningKeyError: when either is not well formed.
    """
    if not _KEY_ID.fullmatch(key_id):
        raise SigningKeyError("the key id must have 1 to 64 letters, digits, dots, - or _")
    raw = decode(seed)
    if len(raw) != SEED_BYTES:
        raise SigningKeyError(f"the key must have {SEED_BYTES} bytes in base64url")
    return SigningKey(key_id, Ed25519PrivateKey.from_private_bytes(raw))


def check_public_key(*, key_id: str, public_text: str) -> None:
    """Check that a key id and a public key are well formed.

    :param public_text: 32 bytes in base64url.
    :raises SigningKeyError: when either is not.
    """
    if not _KEY_ID.fullmatch(key_id):
        raise SigningKeyError("the key id must have 1 to 64 letters, digits, dots, - or _")
    if len(decode(public_text)) != SEED_BYTES:
        raise SigningKeyError(f"the public key must have {SEED_BYTES} bytes in base64url")


def is_signed(data: bytes, *, signature: str, public_text: str) -> bool:
    """Tell whether a signature of bytes was made with a public key's private half.

    :raises SigningKeyError: when the public key is none.
    """
    raw = decode(public_text)
    if len(raw) != SEED_BYTES:
        raise SigningKeyError("the public key must have 32 bytes in base64url")
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(decode(signature), data)
    except (InvalidSignature, SigningKeyError):
        return False
    return True


def encode(raw: bytes) -> str:
    """Return bytes in base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Return the bytes that base64url text stands for.

    :raises SigningKeyError: for any other text.
    """
    try:
        padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
        return base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise SigningKeyError("the text is not base64url") from None
