"""How guesses lock, one-time codes (RFC 6238) and recovery codes. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
import struct
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote, urlencode

ACCOUNT: Final = "account"
ADDRESS: Final = "address"
FACTOR: Final = "factor"
_KINDS: Final = (ACCOUNT, ADDRESS, FACTOR)
SLOTS_A_KIND: Final = 2**20
"""What an attacker who invents names can fill: a million rows of a few bytes, and no more."""

STEP_SECONDS: Final = 30
DIGITS: Final = 6
SECRET_BYTES: Final = 20
"""As RFC 4226 recommends for HMAC-SHA-1."""
_STEPS_AROUND: Final = (0, -1, 1)
_ISSUER: Final = "Valdrix"

RECOVERY_CODES: Final = 10
RECOVERY_BYTES: Final = 10
_RECOVERY_FORM: Final = re.compile(r"[A-Z2-7]{16}", re.ASCII)
_CODE_FORM: Final = re.compile(rf"[0-9]{{{DIGITS}}}", re.ASCII)
_IPV6_NETWORK: Final = 64
_MOST_FAILURES: Final = 30_000


@dataclass(frozen=True, slots=True)
class Limits:
    """When guesses of one kind lock, and for how long.

    :ivar free: how many failures in a row lock nothing.
    :ivar first_lock: what the next failure locks for; each one after it doubles that.
    :ivar longest_lock: no lock is longer.
    :ivar memory: after this long without a failure all are forgotten.
    """

    free: int
    first_lock: timedelta
    longest_lock: timedelta
    memory: timedelta


LIMITS: Final = {
    ACCOUNT: Limits(5, timedelta(minutes=1), timedelta(minutes=15), timedelta(hours=12)),
    # Many people can sit behind one address.
    ADDRESS: Limits(50, timedelta(minutes=1), timedelta(minutes=15), timedelta(hours=12)),
    # Whoever guesses codes has the password already.
    FACTOR: Limits(5, timedelta(minutes=1), timedelta(hours=1), timedelta(hours=24)),
}


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the guesses at one name or from one address are counted."""

    kind: str
    number: int

    @property
    def key(self) -> int:
        """Return the slot's place in the table."""
        return _KINDS.index(self.kind) * SLOTS_A_KIND + self.number


@dataclass(frozen=True, slots=True)
class Count:
    """How many guesses in a row failed, when the last did, and until when others wait."""

    failures: int
    last_at: datetime
    locked_until: datetime | None = None

    def wait(self, now: datetime) -> timedelta | None:
        """Return how much longer a guess has to wait, or None when it need not."""
        if self.locked_until is None or self.locked_until <= now:
            return None
        return self.locked_until - now


def count_guess(count: Count | None, *, limits: Limits, now: datetime) -> Count:
    """Return the count after one more guess, which counts as failed until it proves right."""
    is_fresh = count is not None and now - count.last_at < limits.memory
    failures = min((count.failures if count and is_fresh else 0) + 1, _MOST_FAILURES)
    if failures < limits.free:
        return Count(failures, now)
    doubled = min(failures - limits.free, 20)
    lock = min(limits.first_lock * 2**doubled, limits.longest_lock)
    return Count(failures, now, now + lock)


def slot_of(kind: str, name: str, *, secret: bytes) -> Slot:
    """Return the slot of a name; which names share one cannot be told without the secret."""
    digest = hmac.digest(secret, f"{kind}\x00{name}".encode(), "sha256")
    return Slot(kind, int.from_bytes(digest[:8], "big") % SLOTS_A_KIND)


def account_name(username: str) -> str:
    """Return what user names that look the same have in common."""
    return unicodedata.normalize("NFKC", username).casefold()


def address_name(address: str | None) -> str:
    """Return whom an address stands for: an IPv4 address, or the network of an IPv6 one."""
    if address is None:
        return "local"
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _IPV6_NETWORK), strict=False))


def one_time_code(secret: bytes, step: int) -> str:
    """Return the code of a time step (RFC 4226, section 5.3)."""
    digest = hmac.digest(secret, struct.pack(">Q", step), hashlib.sha1)
    place = digest[-1] & 0xF
    number = struct.unpack(">I", digest[place : place + 4])[0] & 0x7FFF_FFFF
    return f"{number % 10**DIGITS:0{DIGITS}d}"


def step_of(moment: datetime) -> int:
    """Return the time step of a moment (RFC 6238, section 4)."""
    return int(moment.timestamp()) // STEP_SECONDS


def find_step(secret: bytes, code: str, *, now: datetime) -> int | None:
    """Return the step whose code this is: the current one, or one before or after; else None."""
    text = code.replace(" ", "")
    if not _CODE_FORM.fullmatch(text):
        return None
    current = step_of(now)
    for around in _STEPS_AROUND:
        if hmac.compare_digest(one_time_code(secret, current + around), text):
            return current + around
    return None


def secret_text(secret: bytes) -> str:
    """Return a secret as authenticator apps take it typed in."""
    return base64.b32encode(secret).decode().rstrip("=")


def provisioning_uri(secret: bytes, *, username: str) -> str:
    """Return what a QR code tells an authenticator app."""
    label = quote(f"{_ISSUER}:{username}", safe="")
    query = urlencode(
        {
            "secret": secret_text(secret),
            "issuer": _ISSUER,
            "algorithm": "SHA1",
            "digits": DIGITS,
            "period": STEP_SECONDS,
        }
    )
    return f"otpauth://totp/{label}?{query}"


def build_recovery_codes(random_bytes: bytes) -> tuple[str, ...]:
    """Return ten recovery codes of 80 bits each, made of 100 random bytes.

    :raises ValueError: for fewer.
    """
    if len(random_bytes) < RECOVERY_CODES * RECOVERY_BYTES:
        raise ValueError("recovery codes take 100 random bytes")
    codes = []
    for number in range(RECOVERY_CODES):
        part = random_bytes[number * RECOVERY_BYTES : (number + 1) * RECOVERY_BYTES]
        text = base64.b32encode(part).decode().lower()
        codes.append("-".join(text[at : at + 4] for at in range(0, len(text), 4)))
    return tuple(codes)


def recovery_digest(code: str) -> bytes | None:
    """Return the SHA-256 of a recovery code, or None for what is none.

    It holds 80 random bits, so a plain digest cannot be searched.
    """
    text = code.replace("-", "").replace(" ", "").upper()
    if not _RECOVERY_FORM.fullmatch(text):
        return None
    return hashlib.sha256(text.encode()).digest()
