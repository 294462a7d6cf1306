"""Capturing ``failure_injection`` evidence: the scenarios' tests are really run (BSAFE-010)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from governance.evidence.failure_injection import (
    EXECUTION_CLASS,
    FAILED,
    PASSED,
    PROFILE,
    RUNNER,
    SCENARIOS,
)
from valdrix.certification.recording import RECORD_TO
from valdrix.certification.suite import run_pytest
from valdrix.kernel.strict_json import loads

_WITHIN_SECONDS: Final = 900


class NothingRan(Exception):
    """The tests could not be run at all; the message says why."""


def capture_failure_injection(
    *,
    executed_by: str,
    approved_by: str,
    clock: Callable[[], datetime],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Run every scenario's tests and return the evidence, good or bad.

    :param tell: called with a line of progress.
    :raises NothingRan: when the test runner is not installed, or found none of the tests.
    """
    tell("running the scenarios' tests ...")
    ran = run_tests([test for tests in SCENARIOS.values() for test in tests])
    rows = []
    for name, tests in SCENARIOS.items():
        checks = [check for check in ran if check.test.split("[")[0] in tests]
        status = PASSED if checks and all(one.outcome == PASSED for one in checks) else FAILED
        seconds = sum((check.seconds for check in checks), Decimal(0))
        tell(f"{name}: {status}: {len(checks)} tests in {seconds} s")
        rows.append(
            {
                "id": name,
                "status": status,
                "duration_seconds": seconds,
                "checks": [{"test": one.test, "outcome": one.outcome} for one in checks],
                "evidence_refs": list(tests),
            }
        )
    passed_rows = sum(row["status"] == PASSED for row in rows)
    return {
        "profile": PROFILE,
        "runner": RUNNER,
        "execution_class": EXECUTION_CLASS,
        "captured_at": clock().isoformat(),
        "executed_by": executed_by,
        "approved_by": approved_by,
        "scenarios": rows,
        "summary": {
            "total_scenarios": len(rows),
            "passed_scenarios": passed_rows,
            "failed_scenarios": len(rows) - passed_rows,
            "overall_passed": passed_rows == len(SCENARIOS),
        },
    }


@dataclass(frozen=True, slots=True)
class Check:
    """One test that ran: its id with its parameters, how it ended, and the seconds it took."""

    test: str
    outcome: str
    seconds: Decimal


def run_tests(tests: Sequence[str]) -> list[Check]:
    """Run tests by their ids and return what ran, in the order of their ids.

    :raises NothingRan: when one of them was not found, or none ran.
    """
    with tempfile.TemporaryDirectory() as directory:
        record = Path(directory) / "record"
        finished = run_pytest(
            [
                "-q", "-p", "no:randomly", "-p", "no:cacheprovider",
                "-p", "valdrix.certification.recording", *tests,
            ],
            environment={RECORD_TO: str(record)},
            within_seconds=_WITHIN_SECONDS,
        )  # fmt: skip
        lines = record.read_text().splitlines() if record.exists() else []
    if finished.exit_code not in {0, 1} or not lines:
        raise NothingRan("\n".join(finished.tail)[-2000:])
    checks: dict[str, Check] = {}
    for line in lines:
        entry = loads(line.encode())
        phase = Check(entry["test"], entry["outcome"], Decimal(entry["seconds"]))
        checks[phase.test] = _join(checks.get(phase.test), phase)
    return [checks[test] for test in sorted(checks)]


def _join(check: Check | None, phase: Check) -> Check:
    """Return a test with one more of its phases: the first that did not pass is its outcome."""
    if check is None:
        return phase
    outcome = check.outcome if check.outcome != PASSED else phase.outcome
    return Check(check.test, outcome, check.seconds + phase.seconds)


def to_json(document: dict[str, Any]) -> str:
    """Return evidence as its file has it: figures as numbers, exactly as they were computed."""
    return json.dumps(document, indent=1, default=_number) + "\n"


def _number(value: object) -> float:
    if isinstance(value, Decimal) and Decimal(repr(float(value))) == value:
        return float(value)
    raise TypeError(f"{value!r} is not exact as a JSON number")
