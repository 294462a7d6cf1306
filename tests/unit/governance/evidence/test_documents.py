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
    assert len(rows) == 17
    alerts = (ROOT / "deploy" / "prometheus" / "valdrix.rules.yml").read_text()
    metrics = (ROOT / "valdrix" / "kernel" / "metrics.py").read_text()
    for number, row in enumerate(rows, start=1):
        place, failure, noticed, behaviour, shown = (part.strip() for part in row.split("|")[1:-1])
        assert (int(place), bool(failure), bool(behaviour)) == (number, True, True), row
        tests = re.findall(r"`(tests/[^`]+)`", shown)
        assert tests or "drill" in shown, row
        for test in tests:
            assert REPOSITORY.has_test(test), test
        detections = re.findall(r"`([^`]+)`", noticed)
        assert detections, row
        for one in detections:
            known = one.startswith("/health") or f"alert: {one}\n" in alerts
            assert known or f'"{one.removesuffix("_total")}"' in metrics, one


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
