"""The core is pure: no framework, no network, no clock, no chance, no environment (SPEC 3.3)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PURE = (
    "enforcement.gate.context",
    "enforcement.gate.decision",
    "enforcement.gate.explanation",
    "enforcement.gate.failsafe",
    "enforcement.gate.inputs",
    "enforcement.gate.response",
    "enforcement.gate.rules",
    "enforcement.gate.waterfall",
    "billing.accounts.domain",
    "billing.reservations.domain",
    "enforcement.ledger.domain",
)
FORBIDDEN_PACKAGES = {
    "django",
    "rest_framework",
    "celery",
    "redis",
    "psycopg",
    "requests",
    "httpx",
    "aiohttp",
    "urllib3",
    "socket",
    "openai",
    "anthropic",
    "litellm",
    "langchain",
}
IMPURE_MODULES = {
    "asyncio",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "time",
}
IMPURE_CALLS = {
    "fromtimestamp",
    "getenv",
    "input",
    "localtime",
    "now",
    "open",
    "print",
    "today",
    "utcnow",
    "uuid1",
    "uuid4",
}
CALLS_OF_BUILTINS = {"eval", "exec", "globals", "hash", "id", "input", "open", "print"}
"""``hash`` and ``id`` differ from process to process."""

_PROGRAM = """
import importlib, sys
importlib.import_module(sys.argv[1])
print("\\n".join(sys.modules))
"""


def loaded_by(module: str) -> set[str]:
    """Return every module that a fresh process without settings has after one import."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, module],
        capture_output=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        text=True,
        timeout=60,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", PURE)
def test_it_imports_without_django_configured_and_loads_nothing_forbidden(module: str) -> None:
    loaded = loaded_by(module)
    assert module in loaded
    assert not {name.partition(".")[0] for name in loaded} & FORBIDDEN_PACKAGES


def own_sources() -> dict[str, Path]:
    """Return the files of the house that the pure modules load, however indirectly."""
    loaded = set().union(*(loaded_by(module) for module in PURE[:8]), PURE)
    own = {name for name in loaded if name.partition(".")[0] in {"enforcement", "billing"}}
    own |= {name for name in loaded if name.startswith(("governance", "valdrix"))}
    paths = {name: ROOT / Path(*name.split(".")) for name in own}
    return {
        name: path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for name, path in paths.items()
    }


def impurities(source: str) -> list[str]:
    """Return what in a source asks the world anything."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr in IMPURE_CALLS:
                found.append(called.attr)
            # A set of node identities inside one call is no output of it.
            if isinstance(called, ast.Name) and called.id in CALLS_OF_BUILTINS - {"id"}:
                found.append(called.id)
            continue
        else:
            continue
        roots = {name.partition(".")[0] for name in names}
        found.extend(roots & (IMPURE_MODULES | FORBIDDEN_PACKAGES))
    return found


def test_no_source_that_the_core_loads_asks_the_world_anything() -> None:
    sources = own_sources()
    assert len(sources) > len(PURE)
    assert {
        name: found for name, path in sources.items() if (found := impurities(path.read_text()))
    } == {}


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import django.db",
        "from time import monotonic",
        "from datetime import datetime\nnow = datetime.now()",
        "import datetime\nday = datetime.date.today()",
        "def f(path):\n    return open(path)",
        "def f():\n    import random\n    return random.random()",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert impurities(source)
