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
BROKEN = ("vector(1)", "vector(1) > 2")
"""What an alert asks that always fires, and one that never does."""

RESPOND_WITHIN = {"critical": "5m", "high": "15m", "warning": "1h", "medium": "1h", "low": "1d"}
"""How soon somebody looks, by severity; docs/runbooks/README.md has who."""


def read_rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in read_rules() if "alert" in rule}
each_alert = pytest.mark.parametrize("name", sorted(ALERTS))


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = require_program("promtool")
    # One stream: what holds is told on the one, what fails on the other.
    return subprocess.run(
        [program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_rules_are_well_formed() -> None:
    checked = promtool("check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stdout


def verdicts(files: list[Path]) -> dict[Path, str]:
    """Test all files in one run of the tool; return what it says of each."""
    tested = promtool("test", "rules", *map(str, files))
    _, *parts = tested.stdout.split("Unit Testing:")
    said = dict(part.strip().split("\n", 1) for part in parts)
    assert set(said) == {str(file) for file in files}, tested.stdout
    return {file: said[str(file)].strip() for file in files}


@pytest.fixture(scope="module")
def of_the_rules() -> dict[Path, str]:
    """Return what the tool says of every alert's cases."""
    return verdicts([DEPLOY / "tests" / f"{name}.yml" for name in ALERTS])


@pytest.fixture(scope="module")
def of_broken_rules(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """Return what the tool says of every alert's cases when that alert asks something else."""
    files = {}
    for number, expression in enumerate(BROKEN):
        for name, rule in ALERTS.items():
            directory = tmp_path_factory.mktemp(f"{name}-{number}-")
            group = {"name": "broken", "rules": [rule | {"expr": expression}]}
            (directory / RULES.name).write_text(yaml.safe_dump({"groups": [group]}))
            (directory / "tests").mkdir()
            file = files[name, expression] = directory / "tests" / f"{name}.yml"
            file.write_text((DEPLOY / "tests" / f"{name}.yml").read_text())
    said = verdicts(list(files.values()))
    return {key: said[file] for key, file in files.items()}


@each_alert
def test_every_alert_has_its_cases_and_they_hold(name: str, of_the_rules: dict[Path, str]) -> None:
    file = DEPLOY / "tests" / f"{name}.yml"
    document = yaml.safe_load(file.read_text())
    assert document["rule_files"] == [f"../{RULES.name}"]
    tests = document["tests"]
    assert {test["name"] for test in tests} >= CASES
    for test in tests:
        (asked,) = test["alert_rule_test"]
        assert asked["alertname"] == name
        # An alert about nothing being there fires when nothing is there.
        if test["name"] != "missing series":
            assert bool(asked["exp_alerts"]) == (test["name"] == "fires"), test["name"]
    assert of_the_rules[file] == "SUCCESS"


@each_alert
@pytest.mark.parametrize("expression", BROKEN)
def test_the_cases_notice_an_alert_that_always_or_never_fires(
    name: str, expression: str, of_broken_rules: dict[tuple[str, str], str]
) -> None:
    assert of_broken_rules[name, expression].startswith("FAILED:")


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
