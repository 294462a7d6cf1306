"""The alert rules, by Prometheus's own tool: each fires, stays silent, and has a runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.client import Api
from tests.programs import require_program

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy" / "prometheus"
RULES = DEPLOY / "valdrix.rules.yml"
CASES = {"fires", "stays silent", "boundary", "missing series", "recovers"}
RESPOND_WITHIN = {"critical": "5m", "high": "15m", "warning": "1h", "medium": "1h", "low": "1d"}
"""How soon somebody looks, by severity; docs/runbooks/README.md has who."""


def read_rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in read_rules() if "alert" in rule}
each_alert = pytest.mark.parametrize("name", sorted(ALERTS))


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = require_program("promtool")
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_rules_are_well_formed() -> None:
    checked = promtool("check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stdout + checked.stderr


@each_alert
def test_every_alert_has_its_cases_and_they_hold(name: str) -> None:
    file = DEPLOY / "tests" / f"{name}.yml"
    tests = yaml.safe_load(file.read_text())["tests"]
    assert {test["name"] for test in tests} >= CASES
    for test in tests:
        (asked,) = test["alert_rule_test"]
        assert asked["alertname"] == name
        # An alert about nothing being there fires when nothing is there.
        if test["name"] != "missing series":
            assert bool(asked["exp_alerts"]) == (test["name"] == "fires"), test["name"]
    tested = promtool("test", "rules", str(file))
    assert tested.returncode == 0, tested.stdout + tested.stderr


@each_alert
def test_the_cases_notice_an_alert_that_always_or_never_fires(name: str, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    file = tmp_path / "tests" / f"{name}.yml"
    file.write_text((DEPLOY / "tests" / f"{name}.yml").read_text())
    document = yaml.safe_load(RULES.read_text())
    for expression in ("vector(1)", "vector(1) > 2"):
        for group in document["groups"]:
            for rule in group["rules"]:
                if rule.get("alert") == name:
                    rule["expr"] = expression
        (tmp_path / RULES.name).write_text(yaml.safe_dump(document))
        tested = promtool("test", "rules", str(file))
        assert "FAILED" in tested.stdout + tested.stderr, expression


@each_alert
def test_every_alert_has_a_severity_and_a_runbook(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["respond_within"] == RESPOND_WITHIN[rule["labels"]["severity"]]
    runbook = PROJECT / rule["annotations"]["runbook"]
    assert runbook == PROJECT / "docs" / "runbooks" / f"{name}.md"
    text = runbook.read_text()
    assert text.startswith(f"# {name}\n")
    for heading in ("## Means", "## Look", "## Mend"):
        assert heading in text


def test_a_burning_error_budget_holds_the_release() -> None:
    holding = {name for name, rule in ALERTS.items() if rule["labels"].get("holds_release")}
    assert holding == {
        "ValdrixEnforcementErrorBudgetBurnFast",
        "ValdrixEnforcementErrorBudgetBurnSlow",
    }


def exposed_series(api: Api) -> set[str]:
    """Return the names of series that a scrape can have, histograms' buckets included."""
    text = api.get("/metrics").content.decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    buckets = {f"{name}_bucket" for name, kind in kinds.items() if kind == "histogram"}
    return set(kinds) | buckets


def test_the_rules_ask_for_series_that_are_exposed(api: Api) -> None:
    expressions = " ".join(rule["expr"] for rule in read_rules())
    own = r"\b((?:valdrix_ops|request|db|auth|rate_limit)_[a-z_]+)\b"
    asked = set(re.findall(own, expressions))
    assert asked
    assert asked - exposed_series(api) == set()


def test_the_rules_select_by_labels_that_are_exposed() -> None:
    source = (PROJECT / "valdrix" / "kernel" / "metrics.py").read_text()
    declared = {
        name: set(re.findall(r'"(\w+)"', labels))
        for name, labels in re.findall(r'\(\s*"([a-z_]+)",\s*"[^"]*",\s*(?:\(([^)]*)\))?', source)
    }
    selected = re.findall(r"\b([a-z_]+?)(?:_total|_bucket|_count)?\{([^}]*)\}", RULES.read_text())
    own = [(name, labels) for name, labels in selected if name in declared]
    assert len(own) >= 5
    for name, labels in own:
        assert set(re.findall(r"(\w+)\s*=", labels)) <= declared[name], (name, labels)
