"""The verifier as one file: its modules one after the other, without what they import of it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "verifier"
_MODULES: Final = ("layout", "files", "rows", "checks", "program")
_HERE: Final = "enforcement.exports.verifier"
TARGET: Final = Path(__file__).parents[2] / "deploy" / "auditors" / "verify_export.py"
"""Where the file is kept; a test holds it to what :func:`build_single_file` returns."""


def build_single_file() -> str:
    """Return the source of the verifier as one program."""
    program = (_FOLDER / "program.py").read_text()
    docstring = ast.get_docstring(ast.parse(program), clean=False)
    parts = [f'"""{docstring}"""\n', "from __future__ import annotations\n"]
    parts.extend(_body((_FOLDER / f"{name}.py").read_text()) for name in _MODULES)
    return "\n".join(parts)


def _body(source: str) -> str:
    """Return a module without its docstring and without imports of its siblings."""
    lines, dropped = source.splitlines(), set[int]()
    for place, node in enumerate(ast.parse(source).body):
        is_docstring = place == 0 and isinstance(node, ast.Expr)
        is_sibling = isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            (_HERE, "__future__")
        )
        if is_docstring or is_sibling:
            assert node.end_lineno is not None
            dropped.update(range(node.lineno - 1, node.end_lineno))
    kept = [line for number, line in enumerate(lines) if number not in dropped]
    return "\n".join(kept).strip("\n") + "\n"


if __name__ == "__main__":
    TARGET.write_text(build_single_file())
