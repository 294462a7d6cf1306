"""The linter's rules that carry the architecture are on, where they should be, and can fail."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.architecture.source import ROOT

CLOCK = "from django.utils import timezone\n\nNOW = timezone.now()\n"
CLOCK_2 = "from datetime import UTC, datetime\n\nNOW = datetime.now(UTC)\n"
NEW_ID = "import uuid\n\nID = uuid.uuid4()\n"
ATOMIC = "from django.db import transaction\n\nBLOCK = transaction.atomic()\n"
LATE = "def load() -> None:\n    import billing\n\n    billing.load()\n"
MANY = "def load(a: int, b: int, *, c: int, d: int, e: int, f: int) -> int:\n    return a + b + c + d + e + f\n"
SIGNAL = "from django.db.models.signals import post_save\n\nprint(post_save)\n"


def lint(path: str, text: str) -> set[str]:
    """Return the codes of what the linter finds in a text as if it were that file."""
    result = subprocess.run(
        [
            sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=json",
            "--stdin-filename", path, "-",
        ],
        input='"""Text."""\n\n' + text,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert result.returncode in {0, 1}, result.stderr
    return {finding["code"] for finding in json.loads(result.stdout)}


@pytest.mark.parametrize("text", [CLOCK, CLOCK_2, NEW_ID])
@pytest.mark.parametrize(
    ("path", "is_door"),
    [
        ("billing/accounts/operations.py", False),
        ("enforcement/gate/rules.py", False),
        ("governance/policies/domain.py", False),
        ("valdrix/kernel/money.py", False),
        ("enforcement/api/gates.py", True),
        ("governance/admin/policies.py", True),
        ("valdrix/management/commands/verify_ledger.py", True),
        ("enforcement/tasks.py", True),
    ],
)
def test_only_doors_read_the_clock_and_make_ids(path: str, is_door: bool, text: str) -> None:
    assert ("TID251" in lint(path, text)) is not is_door


@pytest.mark.parametrize(
    ("path", "text", "code"),
    [
        ("billing/accounts/operations.py", ATOMIC, "TID251"),
        ("billing/accounts/operations.py", SIGNAL, "TID251"),
        ("billing/accounts/operations.py", LATE, "PLC0415"),
        ("billing/accounts/operations.py", MANY, "PLR0913"),
        ("billing/accounts/operations.py", "def load() -> None:\n    pass\n", "D103"),
        ("billing/accounts/operations.py", "from . import models\n\nmodels.a()\n", "TID252"),
    ],
)
def test_a_violation_is_found(path: str, text: str, code: str) -> None:
    assert code in lint(path, text)


def test_transactions_are_opened_in_one_file() -> None:
    assert "TID251" not in lint("valdrix/kernel/db.py", ATOMIC)
