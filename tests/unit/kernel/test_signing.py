"""Ed25519 signatures: what was signed verifies, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valdrix.kernel.signing import (
    SigningKeyError,
    decode,
    encode,
    is_signed,
    read_signing_key,
)

SEED = encode(bytes(range(32)))
KEY = read_signing_key(key_id="test-1", seed=SEED)


def test_the_public_key_is_that_of_the_seed() -> None:
    # RFC 8032, section 7.1, test 1.
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    key = read_signing_key(key_id="rfc8032", seed=encode(seed))

    assert decode(key.public_text).hex() == public
    assert decode(key.sign(b"")).hex().startswith("e5564300c360ac729086e2cc806e828a")


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=511))
def test_one_flipped_bit_of_a_signature_is_found(data: bytes, bit: int) -> None:
    signature = bytearray(decode(KEY.sign(data)))
    signature[bit // 8] ^= 1 << (bit % 8)

    assert is_signed(data, signature=KEY.sign(data), public_text=KEY.public_text)
    assert not is_signed(data, signature=encode(bytes(signature)), public_text=KEY.public_text)
    assert not is_signed(data + b"x", signature=KEY.sign(data), public_text=KEY.public_text)


def test_another_key_did_not_sign_it() -> None:
    other = read_signing_key(key_id="test-2", seed=encode(bytes(32)))

    assert not is_signed(b"data", signature=KEY.sign(b"data"), public_text=other.public_text)


@pytest.mark.parametrize(
    ("key_id", "seed"),
    [
        ("", SEED),
        ("a b", SEED),
        ("k" * 65, SEED),
        ("ok", ""),
        ("ok", "AAAA"),
        ("ok", "!!!"),
        ("ok", SEED + "AAAA"),
    ],
)
def test_a_malformed_key_is_refused_without_its_text(key_id: str, seed: str) -> None:
    with pytest.raises(SigningKeyError) as refusal:
        read_signing_key(key_id=key_id, seed=seed)

    assert not seed or seed not in str(refusal.value)


def test_a_key_does_not_show_its_secret() -> None:
    assert SEED not in repr(KEY)
