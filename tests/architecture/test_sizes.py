"""Functions and files stay short enough to be read."""

from __future__ import annotations

import ast

from tests.architecture.source import Source, read_sources

FUNCTION_LINES = 70
FILE_LINES = 500

# Lists of declarations, which nobody reads from top to bottom.
DECLARATIVE: frozenset[str] = frozenset()


def find_long(source: Source) -> list[str]:
    """Return the functions and the file that are too long; docstrings count, they are read too."""
    found = [
        f"{source.at(function)} {function.name}: {length} lines"
        for function in source.functions()
        if (length := _length(function)) > FUNCTION_LINES
    ]
    lines = len(source.text.splitlines())
    if lines > FILE_LINES and source.path not in DECLARATIVE:
        found.append(f"{source.path}: {lines} lines")
    return found


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def test_functions_and_files_are_short() -> None:
    assert [line for source in read_sources() for line in find_long(source)] == []


def test_a_long_function_is_found() -> None:
    body = "    pass\n" * FUNCTION_LINES
    assert find_long(Source("a.py", f"class A:\n  def f(self):\n{body}")) == ["a.py:2 f: 71 lines"]
    assert find_long(Source("a.py", f"def f():\n{body[9:]}")) == []


def test_a_long_file_is_found() -> None:
    assert find_long(Source("a.py", "x = 1\n" * (FILE_LINES + 1))) == ["a.py: 501 lines"]
    assert find_long(Source("a.py", "x = 1\n" * FILE_LINES)) == []
