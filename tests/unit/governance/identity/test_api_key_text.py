"""The text form of an API key: its checksum tells a key from a typo."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.identity.domain import RANDOM_BYTES, build_key_text, read_key_text

random_bytes = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)


@given(random_bytes)
def test_what_is_built_is_read_back(material: bytes) -> None:
    key = build_key_text(material)
    assert key.text.startswith(f"vdx_{key.lookup}_")
    assert read_key_text(key.text) == key
    assert len(key.digest) == 32


@given(random_bytes, st.integers(min_value=4, max_value=54), st.sampled_from("0Az_é-"))
def test_one_other_character_is_no_key(material: bytes, place: int, letter: str) -> None:
    text = build_key_text(material).text
    other = text[:place] + letter + text[place + 1 :]
    if other != text:
        assert read_key_text(other) is None


@pytest.mark.parametrize(
    "text",
    ["", "vdx_", "vdx_x", "x" * 100_000, "vdx_" + "0" * 51, "\x00", "vdx_\ud800", " vdx_"],
)
def test_what_is_not_a_key_is_none(text: str) -> None:
    assert read_key_text(text) is None


@pytest.mark.parametrize("wrap", ["{} ", " {}", "{}\n", "{}\x00", "Bearer {}", "{0}{0}", "{}x"])
def test_a_key_with_anything_beside_it_is_no_key(wrap: str) -> None:
    assert read_key_text(wrap.format(build_key_text(b"k" * RANDOM_BYTES).text)) is None


def test_a_digest_depends_on_the_secret_too() -> None:
    first = build_key_text(b"a" * RANDOM_BYTES)
    second = build_key_text(b"a" * (RANDOM_BYTES - 1) + b"b")
    assert first.lookup == second.lookup
    assert first.digest != second.digest


def test_too_little_randomness_is_refused() -> None:
    with pytest.raises(ValueError, match="44 random bytes"):
        build_key_text(b"k" * (RANDOM_BYTES - 1))
