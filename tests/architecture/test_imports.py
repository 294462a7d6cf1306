"""The import contracts of pyproject.toml hold, and each of them can break."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

APPS = ("valdrix", "enforcement", "billing", "governance", "telemetry")

# One line appended to one file, and the contract that must then be broken.
VIOLATIONS = {
    "governance/policies/domain.py": ("import billing.accounts.domain", "Arrows point down"),
    "valdrix/kernel/money.py": ("import governance.tenants.models", "Arrows point down"),
    "billing/accounts/models.py": ("import governance.policies.models", "billing sees"),
    "valdrix/settings/logs.py": ("import valdrix.management", "Inside valdrix"),
    "valdrix/stray.py": ('"""A module without a place."""', "Inside valdrix"),
    "valdrix/embedded/record.py": ("import django", "The embedded servers"),
    "enforcement/ledger/domain.py": ("import enforcement.gate.inputs", "Inside enforcement"),
    "billing/costs/models.py": ("import billing.accounts.models", "Inside billing"),
    "governance/tenants/models.py": ("import governance.policies.models", "Inside governance"),
    "enforcement/ledger/models.py": ("import enforcement.ledger.queries", "Inside a room"),
    "enforcement/gate/inputs.py": ("import openai", "The pure core"),
    "enforcement/gate/evaluate.py": ("import telemetry.events.writer", "Nothing of truth knows"),
    "governance/incidents/queries.py": ("import telemetry.events.models", "Nothing of truth knows"),
    "telemetry/events/writer.py": ("import enforcement.ledger.models", "Telemetry knows nothing"),
    "telemetry/store/connection.py": ("import telemetry.events.models", "Inside telemetry"),
}


# Modules of the folders below that are not pure, and so not in the contract of the pure core.
SHELL = {
    "enforcement/gate": {
        "ahead",
        "ask",
        "batch",
        "evaluate",
        "joint",
        "observing",
        "recording",
        "schema",
        "settling",
        "sharing",
        "snapshot",
        "spending",
        "retrying",
    },
    "enforcement/adapters": set(),
    "governance/policies": {"models", "operations", "queries"},
    "valdrix/kernel": {
        "admin",
        "admin_acts",
        "admin_charts",
        "admin_display",
        "db",
        "isolation",
        "locks",
        "metrics",
        "outbound",
        "rows",
        "prompting",
        "warm_threads",
    },
}


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    command = "from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache", "--config", "pyproject.toml"],
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(directory), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def broken_contracts(output: str) -> set[str]:
    return set(re.findall(r"^(.+) BROKEN$", output, re.MULTILINE))


def kept_contracts(output: str) -> set[str]:
    return set(re.findall(r"^(.+) KEPT$", output, re.MULTILINE))


def test_the_contracts_are_kept() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(kept_contracts(result.stdout)) == 12, result.stdout


def pure_modules() -> set[str]:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = [
        one
        for one in configuration["tool"]["importlinter"]["contracts"]
        if one["id"] == "pure-core"
    ]
    return set(contract["source_modules"])


@pytest.mark.parametrize("folder", SHELL)
def test_a_module_of_the_core_is_pure_unless_it_is_named_here(folder: str) -> None:
    declared = pure_modules()
    package = folder.replace("/", ".")
    if package in declared:
        declared |= {f"{package}.{path.stem}" for path in (ROOT / folder).glob("*.py")}
    names = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__", "domain"}
    assert {name for name in names if f"{package}.{name}" not in declared} == SHELL[folder]


@pytest.fixture(scope="module")
def tampered_output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give what the linter says of a copy of the project with every violation in it."""
    copy = tmp_path_factory.mktemp("tampered")
    for app in APPS:
        shutil.copytree(ROOT / app, copy / app, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for path, (line, _) in VIOLATIONS.items():
        with (copy / path).open("a") as file:
            file.write(f"\n{line}\n")
    return lint_imports(copy).stdout


@pytest.mark.parametrize("path", VIOLATIONS)
def test_each_contract_can_break(path: str, tampered_output: str) -> None:
    line, contract = VIOLATIONS[path]
    broken = broken_contracts(tampered_output)
    assert any(name.startswith(contract) for name in broken), tampered_output
    module = path.removesuffix(".py").replace("/", ".")
    imported = line.removeprefix("import ") if line.startswith("import ") else ""
    assert re.search(
        rf"{re.escape(module)}( -> {re.escape(imported)}|$)", tampered_output, re.MULTILINE
    ), tampered_output
