"""Capturing ``ci_green`` evidence: the whole check, run on a commit, with its report and log."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from governance.evidence.ci_green import COMMAND, PROFILE
from governance.evidence.junit import Counts, JunitError, count_cases
from governance.evidence.load_results import rounded
from valdrix.certification.commit import is_clean, read_commit
from valdrix.certification.suite import build_test_environment

_NOTHING: Final = Counts(0, 0, 0)


@dataclass(frozen=True, slots=True)
class CheckOrder:
    """What is run where, and where its report and log go, beside the evidence.

    :ivar root: the clone that is checked.
    """

    root: Path
    junit: Path
    log: Path
    command: Sequence[str] = (COMMAND,)


def capture_ci_green(
    order: CheckOrder, *, clock: Callable[[], datetime], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Run the whole check and return the evidence, good or bad.

    :param tell: called with each line of the run.
    :raises NoCommit: when there is no commit to say it of.
    """
    commit, was_clean = read_commit(order.root), is_clean(order.root)
    order.junit.unlink(missing_ok=True)
    began = time.monotonic()
    exit_code = _run(order, tell)
    duration = rounded(Decimal(str(time.monotonic() - began)))
    same = read_commit(order.root) == commit
    try:
        counts = count_cases(order.junit.read_bytes()) if order.junit.exists() else _NOTHING
    except JunitError as error:
        tell(f"the report is refused: {error}")
        counts = _NOTHING
    if not order.junit.exists():
        order.junit.write_bytes(b"")
    return {
        "profile": PROFILE,
        "command": COMMAND,
        "commit": commit.id,
        "is_clean": was_clean and same and is_clean(order.root),
        "captured_at": clock().isoformat(),
        "duration_seconds": duration,
        "exit_code": exit_code,
        "tests": {"passed": counts.passed, "failed": counts.failed, "skipped": counts.skipped},
        "junit": _bind(order.junit),
        "log": _bind(order.log),
    }


def is_green(document: dict[str, Any]) -> bool:
    """Tell whether a captured run is worth showing."""
    tests = document["tests"]
    ended_well = document["exit_code"] == 0 and document["is_clean"]
    return bool(ended_well and tests["passed"] and not tests["failed"] + tests["skipped"])


def _run(order: CheckOrder, tell: Callable[[str], None]) -> int:
    # The report is asked for beside what the run itself asks of pytest.
    report = {"PYTEST_ADDOPTS": f"--junit-xml={order.junit.absolute()}"}
    with (
        order.log.open("w") as log,
        subprocess.Popen(  # noqa: S603 - the project's own check
            list(order.command),
            cwd=order.root,
            env={**build_test_environment(os.environ), **report},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # What it starts is ended with it.
            start_new_session=True,
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                log.write(line)
                tell(line.rstrip())
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
    return process.returncode


def _bind(path: Path) -> dict[str, str]:
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
