"""Reads of guesses and second factors."""

from __future__ import annotations

from collections.abc import Iterable

from governance.signin.domain import Count
from governance.signin.models import RecoveryCode, SecondFactor, SignInSlot
from valdrix.kernel.db import transaction_required


def lock_slots(keys: Iterable[int]) -> dict[int, Count]:
    """Lock these slots, in the order of their keys, and return what is counted in them."""
    transaction_required()
    rows = SignInSlot.objects.select_for_update(of=("self",)).filter(key__in=sorted(keys))
    return {
        row.key: Count(row.failures, row.last_at, row.locked_until) for row in rows.order_by("key")
    }


def find_factor(person_id: int) -> SecondFactor | None:
    """Return a person's second factor, or None where they have enrolled none."""
    return SecondFactor.objects.filter(person_id=person_id).first()


def count_recovery_codes(person_id: int) -> int:
    """Return how many recovery codes a person has left."""
    return RecoveryCode.objects.filter(person_id=person_id, used_at__isnull=True).count()
