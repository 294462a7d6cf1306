"""Sealed secrets: they open where they lie, with their key, and nowhere else."""

from __future__ import annotations

import pytest

from valdrix.kernel.sealing import SealingError, read_sealing_keys, seal, unseal
from valdrix.kernel.signing import encode

FIRST = encode(bytes(range(32)))
SECOND = encode(bytes(range(1, 33)))
KEYS = read_sealing_keys([FIRST])


def test_what_is_sealed_opens_and_shows_nothing() -> None:
    sealed = seal(b"a secret", context="row 1", keys=KEYS)
    assert unseal(sealed, context="row 1", keys=KEYS) == b"a secret"
    assert b"secret" not in sealed
    assert seal(b"a secret", context="row 1", keys=KEYS) != sealed
    assert FIRST not in repr(KEYS)


def test_a_sealed_secret_opens_in_its_own_row_only() -> None:
    sealed = seal(b"a secret", context="row 1", keys=KEYS)
    with pytest.raises(SealingError):
        unseal(sealed, context="row 2", keys=KEYS)


def test_every_changed_byte_is_found() -> None:
    sealed = seal(b"a secret", context="row", keys=KEYS)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(SealingError):
            unseal(bytes(changed), context="row", keys=KEYS)
    for size in range(len(sealed)):
        with pytest.raises(SealingError):
            unseal(sealed[:size], context="row", keys=KEYS)


def test_a_new_key_seals_and_the_old_one_still_opens() -> None:
    old = seal(b"a secret", context="row", keys=KEYS)
    both = read_sealing_keys([SECOND, FIRST])
    assert unseal(old, context="row", keys=both) == b"a secret"
    new = seal(b"a secret", context="row", keys=both)
    assert unseal(new, context="row", keys=read_sealing_keys([SECOND])) == b"a secret"
    with pytest.raises(SealingError):
        unseal(new, context="row", keys=KEYS)


def test_without_a_key_nothing_is_sealed() -> None:
    with pytest.raises(SealingError):
        seal(b"a secret", context="row", keys=())


@pytest.mark.parametrize("text", ["", "short", "ä" * 43, encode(bytes(31)), encode(bytes(33))])
def test_a_text_that_is_no_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(SealingError) as refused:
        read_sealing_keys([FIRST, text])
    assert "key 2" in str(refused.value)
    assert FIRST not in str(refused.value)
