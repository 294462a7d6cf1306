"""Writes of sign-in: guesses counted, second factors enrolled, used and given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import F

from governance.audit.operations import Actor, record_change
from governance.identity.models import User
from governance.identity.queries import tenants_of
from governance.signin import queries
from governance.signin.domain import (
    LIMITS,
    RECOVERY_CODES,
    Slot,
    build_recovery_codes,
    count_guess,
    find_step,
    recovery_digest,
    slot_of,
)
from governance.signin.models import RecoveryCode, SecondFactor, SignInSlot
from valdrix.kernel.db import bind_tenant, platform_transaction, transaction_required
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import Refused
from valdrix.kernel.sealing import SealingError, seal, unseal


class GuessesLocked(Refused):
    """Too many guesses failed; others wait (429).

    :ivar wait: for how long.
    """

    code = "sign_in_locked"

    def __init__(self, wait: timedelta) -> None:
        super().__init__("Too many attempts failed. Wait before the next one.")
        self.wait = wait


class CodeRefused(Refused):
    """A code is wrong, was used before, or is no longer valid (422)."""

    code = "second_factor_code_refused"


class SealingKeyMissing(Refused):
    """No key is configured to encrypt stored secrets with (503)."""

    code = "sealing_key_missing"


class FactorEnrolled(Refused):
    """The person has a second factor already (409)."""

    code = "second_factor_enrolled"


@dataclass(frozen=True, slots=True)
class Person:
    """Who acts on their own second factor, from where and when."""

    person_id: int
    address: str | None
    at: datetime


def find_slot(kind: str, *, name: str) -> Slot:
    """Return the slot that guesses at a name are counted in."""
    return slot_of(kind, name, secret=settings.SECRET_KEY.encode())


def begin_guess(*, slots: Sequence[Slot], now: datetime) -> None:
    """Count a guess before it is judged, in a transaction of its own.

    :raises GuessesLocked: when any of the slots is locked; then nothing is counted.
    """
    by_key = {slot.key: slot for slot in slots}
    with platform_transaction():
        fresh = [SignInSlot(key=key, failures=0, last_at=now) for key in sorted(by_key)]
        SignInSlot.objects.bulk_create(fresh, ignore_conflicts=True)
        counts = queries.lock_slots(by_key)
        waits = [wait for count in counts.values() if (wait := count.wait(now)) is not None]
        if waits:
            raise GuessesLocked(max(waits))
        for key, slot in by_key.items():
            # A row may have been swept since it was seen.
            count = count_guess(counts.get(key), limits=LIMITS[slot.kind], now=now)
            SignInSlot.objects.filter(key=key).update(
                failures=count.failures, last_at=count.last_at, locked_until=count.locked_until
            )


def forgive_guess(*, cleared: Sequence[Slot], lessened: Sequence[Slot] = ()) -> None:
    """Take a guess that proved right off the counts, in a transaction of its own.

    :param cleared: slots of what was proved: all of their failures are forgotten.
    :param lessened: slots that others share: only this guess is taken off.
    """
    keys = {slot.key for slot in lessened}
    with platform_transaction():
        counts = queries.lock_slots([*keys, *(slot.key for slot in cleared)])
        for key, count in counts.items():
            failures = max(0, count.failures - 1) if key in keys else 0
            SignInSlot.objects.filter(key=key).update(failures=failures, locked_until=None)


def sweep_slots(*, now: datetime) -> int:
    """Delete the slots whose failures are forgotten; return how many there were."""
    oldest = now - max(limits.memory for limits in LIMITS.values())
    with platform_transaction():
        return SignInSlot.objects.filter(last_at__lt=oldest).delete()[0]


def seal_secret(*, person_id: int, secret: bytes) -> bytes:
    """Return an authenticator's secret as it may be kept.

    :raises SealingKeyMissing: when no key is configured.
    """
    try:
        return seal(secret, context=_context(person_id), keys=settings.SECRET_SEALING_KEYS)
    except SealingError:
        raise SealingKeyMissing("Second factors cannot be stored: no sealing key is set.") from None


def unseal_secret(*, person_id: int, sealed: bytes) -> bytes:
    """Return an authenticator's secret.

    :raises SealingError: when it was sealed for somebody else, or with a key that is gone.
    """
    return unseal(sealed, context=_context(person_id), keys=settings.SECRET_SEALING_KEYS)


def enrol_factor(
    *, person: Person, sealed_secret: bytes, code: str, random_bytes: bytes
) -> tuple[str, ...]:
    """Enrol an authenticator that proves itself by a code; return recovery codes, shown once.

    :param random_bytes: 100 bytes from a cryptographic source.
    :raises CodeRefused: when the code is not the authenticator's.
    :raises FactorEnrolled: when there is one already.
    """
    secret = unseal_secret(person_id=person.person_id, sealed=sealed_secret)
    step = find_step(secret, code, now=person.at)
    if step is None:
        raise CodeRefused("This is not the authenticator's current code.")
    with platform_transaction():
        _, is_new = SecondFactor.objects.get_or_create(
            person_id=person.person_id,
            defaults={
                "sealed_secret": sealed_secret,
                "enrolled_at": person.at,
                "last_step": step,
            },
        )
        if not is_new:
            raise FactorEnrolled("There is an authenticator already; remove it first.")
        codes = _replace_recovery_codes(person, random_bytes)
        _audit(person, "second-factor.enrol", before=None, after={"enrolled": True})
    return codes


def use_code(*, person: Person, code: str) -> None:
    """Take a one-time or a recovery code, which opens once, in a transaction of its own.

    :raises CodeRefused: when it is neither, or was used before.
    """
    with platform_transaction():
        _take_code(person, code)


def renew_recovery_codes(*, person: Person, code: str, random_bytes: bytes) -> tuple[str, ...]:
    """Replace the recovery codes, for who has a current code; return the new ones, shown once.

    :raises CodeRefused: when the code is wrong or was used before.
    """
    with platform_transaction():
        _take_code(person, code)
        codes = _replace_recovery_codes(person, random_bytes)
        _audit(person, "second-factor.renew-codes", before=None, after={"codes": RECOVERY_CODES})
    return codes


def remove_factor(*, person: Person, code: str) -> None:
    """Give up the second factor, for who has a current code; every session ends.

    The caller may keep the one it is in.

    :raises CodeRefused: when the code is wrong or was used before.
    """
    with platform_transaction():
        _take_code(person, code)
        _delete_factor(person.person_id)
        _audit(person, "second-factor.remove", before={"enrolled": True}, after=None)


def reset_factor(*, person: Person, by: str) -> bool:
    """Remove a lost second factor at the machine, and end its person's sessions.

    :param by: the principal id that the audit log names.
    :return: False when there was none.
    """
    with platform_transaction():
        if not _delete_factor(person.person_id):
            return False
        _audit(person, "second-factor.reset", before={"enrolled": True}, after=None, by=by)
    return True


def end_sessions(*, person: Person) -> None:
    """End every session of a person; the caller may keep the one it is in."""
    with platform_transaction():
        User.objects.filter(pk=person.person_id).update(session_epoch=F("session_epoch") + 1)
        _audit(person, "sessions.end", before=None, after={"ended": True})


def change_password(*, person: Person, password: str) -> None:
    """Give a person another password, which ends every session of theirs; the caller may keep one.

    :param password: as a validator let it pass.
    """
    with platform_transaction():
        user = User.objects.get(pk=person.person_id)
        user.set_password(password)
        user.save(update_fields=["password"])
        _audit(person, "password.change", before=None, after={"changed": True})


def _context(person_id: int) -> str:
    return f"governance_second_factor:{person_id}"


def _take_code(person: Person, code: str) -> None:
    """Use a code up.

    :raises CodeRefused: when it is wrong or was used before.
    """
    transaction_required()
    factor = queries.find_factor(person.person_id)
    if factor is None:
        raise CodeRefused("There is no authenticator.")
    digest = recovery_digest(code)
    if digest is not None:
        unused = RecoveryCode.objects.filter(
            person_id=person.person_id, digest=digest, used_at__isnull=True
        )
        if unused.update(used_at=person.at) == 1:
            left = queries.count_recovery_codes(person.person_id)
            _audit(person, "second-factor.recover", before=None, after={"codes_left": left})
            return
        raise CodeRefused("This recovery code is wrong or was used.")
    secret = unseal_secret(person_id=person.person_id, sealed=bytes(factor.sealed_secret))
    step = find_step(secret, code, now=person.at)
    # Of two requests with one code, one finds the step still unused.
    rows = SecondFactor.objects.filter(person_id=person.person_id)
    if step is None or rows.filter(last_step__lt=step).update(last_step=step) != 1:
        raise CodeRefused("This code is wrong, or was used. Wait for the next one.")


def _replace_recovery_codes(person: Person, random_bytes: bytes) -> tuple[str, ...]:
    codes = build_recovery_codes(random_bytes)
    RecoveryCode.objects.filter(person_id=person.person_id).delete()
    RecoveryCode.objects.bulk_create(
        RecoveryCode(id=new_id(), person_id=person.person_id, digest=recovery_digest(code))
        for code in codes
    )
    return codes


def _delete_factor(person_id: int) -> bool:
    """Delete a second factor; sessions that proved it, perhaps in other hands, end with it."""
    User.objects.filter(pk=person_id).update(session_epoch=F("session_epoch") + 1)
    RecoveryCode.objects.filter(person_id=person_id).delete()
    return SecondFactor.objects.filter(person_id=person_id).delete()[0] > 0


def _audit(
    person: Person,
    action: str,
    *,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    by: str | None = None,
) -> None:
    """Tell every tenant that the person belongs to: each relies on how they sign in."""
    for tenant in tenants_of(person.person_id):
        bind_tenant(tenant.tenant_id)
        principal = by or f"user:{person.person_id}"
        record_change(
            actor=Actor(tenant.tenant_id, principal, person.address, person.at),
            action=action,
            subject=("person", str(person.person_id)),
            before=before,
            after=after,
        )
