"""A pytest plugin that writes what ran, one JSON line a phase, to the file it is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

RECORD_TO: Final = "VALDRIX_TEST_RECORD"


def pytest_runtest_logreport(report: Any) -> None:
    """Append one phase of one test: its id, outcome and seconds."""
    entry = {
        "test": report.nodeid,
        "phase": report.when,
        "outcome": report.outcome,
        "seconds": f"{report.duration:.6f}",
    }
    with Path(os.environ[RECORD_TO]).open("a") as file:
        file.write(json.dumps(entry) + "\n")
