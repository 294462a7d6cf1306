"""Structs: read in many threads at once from the first time on, and what is not of a type is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.unit.kernel import first_reading
from valdrix.kernel.structs import converter, json_reader

ROOT = Path(__file__).parents[3]


class Pair(msgspec.Struct):
    first: int
    second: str = ""


read_pairs = json_reader(list[Pair])
make_pair = converter(Pair)


@pytest.mark.parametrize("process", range(3))
def test_the_first_to_read_may_be_many(process: int) -> None:
    """Types that are looked at when they are first read ended three of four such processes."""
    done = subprocess.run(
        [sys.executable, "-m", first_reading.__name__],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, str(first_reading.THREADS)), done.stderr


def test_json_is_read_as_its_type() -> None:
    assert read_pairs(b'[{"first": 1}]') == [Pair(1)]
    assert read_pairs('[{"first": 1, "second": "a"}]') == [Pair(1, "a")]


def test_values_are_made_their_type() -> None:
    assert make_pair({"first": 1, "second": "a"}) == Pair(1, "a")


def test_what_is_not_of_the_type_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
        read_pairs(b'[{"first": "1"}]')
    with pytest.raises(msgspec.ValidationError, match="missing required field"):
        make_pair({"second": "a"})
    with pytest.raises(msgspec.DecodeError, match="truncated"):
        read_pairs(b"[")
