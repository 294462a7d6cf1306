"""What the tests of this folder read the project's source with."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("valdrix", "enforcement", "billing", "governance", "telemetry")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the root, its text and its tree."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """The file's syntax tree."""
        return ast.parse(self.text)

    def functions(self) -> Iterator[Function]:
        """Give every function and method, nested ones included."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node

    def at(self, node: ast.AST) -> str:
        """Name a place in the file."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


def read_sources(*below: str) -> list[Source]:
    """Read every Python file of the applications, migrations apart, or those below some paths."""
    found = [
        path
        for package in below or PACKAGES
        for path in (
            [ROOT / package] if package.endswith(".py") else (ROOT / package).rglob("*.py")
        )
    ]
    sources = [
        Source(path.relative_to(ROOT).as_posix(), path.read_text())
        for path in sorted(found)
        if "migrations" not in path.parts
    ]
    assert sources, f"nothing to check below {below}"
    return sources
