"""Every management command has a test that names it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tests.architecture.source import PACKAGES, ROOT


def find_commands(root: Path) -> set[str]:
    """Return the names of the project's own commands."""
    return {
        path.stem
        for package in PACKAGES
        for path in (root / package).glob("management/commands/*.py")
        if not path.stem.startswith("_")
    }


def find_untested(commands: Iterable[str], tests: str) -> set[str]:
    """Return the commands that no test names as a word inside quotes."""
    return {
        name for name in commands if not re.search(rf"[\"'](?:[^\"'\n]*\s)?{name}[\s\"']", tests)
    }


def read_tests() -> str:
    here = Path(__file__)
    return "\n".join(
        path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")) if path != here
    )


def test_every_command_has_a_test() -> None:
    commands = find_commands(ROOT)
    assert "migrate" in commands
    assert find_untested(commands, read_tests()) == set()


def test_a_command_without_a_test_is_found() -> None:
    assert find_untested(["verify"], 'call_command("verify_ledger")  # verify') == {"verify"}
    assert find_untested(["verify"], 'call_command("verify", "--all")') == set()
    assert find_untested(["verify"], 'run("manage.py verify --all")') == set()
