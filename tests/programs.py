"""Programs that some tests drive and that not every machine has."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRE = "VALDRIX_REQUIRE_SYSTEM_PROGRAMS"


def require_program(*names: str) -> str:
    """Return the path of the first of these programs that is installed.

    Without any of them the test is skipped, and fails where VALDRIX_REQUIRE_SYSTEM_PROGRAMS=1.
    """
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    reason = f"not installed: {' or '.join(names)}"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{reason}, and {REQUIRE}=1")
    pytest.skip(reason)
