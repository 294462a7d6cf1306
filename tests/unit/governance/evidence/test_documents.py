"""What the operations' documents point to exists: tests by their ids, files by their links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from governance.evidence.checklists import Repository

ROOT = Path(__file__).parents[4]
REPOSITORY = Repository(
    has=lambda name: (ROOT / name).exists(), read=lambda name: (ROOT / name).read_text()
)


def test_every_failure_mode_is_shown_by_what_exists() -> None:
    text = (ROOT / "docs" / "operations" / "failure-modes.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == 16
    for row in rows:
        shown = row.split("|")[-2]
        tests = re.findall(r"`(tests/[^`]+)`", shown)
        assert tests or "drill" in shown, row
        for test in tests:
            exists = REPOSITORY.has_test if "::" in test else REPOSITORY.has
            assert exists(test), test


def list_documents() -> list[str]:
    folders = ("docs", "enforcement", "billing", "governance", "deploy")
    found = [*ROOT.glob("*.md"), *(one for name in folders for one in (ROOT / name).rglob("*.md"))]
    return sorted(str(one.relative_to(ROOT)) for one in found)


@pytest.mark.parametrize("name", list_documents())
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not link.startswith(("http:", "https:", "mailto:")):
            assert ((ROOT / name).parent / link).exists(), link
