"""The fuzzing's short form: a few examples of every operation, all checks."""

from __future__ import annotations

import pytest

from tests.fuzz.running import fuzz


@pytest.mark.slow
def test_every_operation_keeps_what_the_description_says() -> None:
    code, said = fuzz(examples=2, phases="fuzzing")

    assert code == 0, said[-20_000:]
    assert "Operations:" in said
