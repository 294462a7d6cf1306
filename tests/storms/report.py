"""The report of the full storms: docs/ops/storms.json, and the same as Markdown."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Final

import orjson
from django.db import connection

OPS: Final = Path(__file__).parents[2] / "docs" / "ops"
COMMAND: Final = "make storm"
_OPTIONS: Final = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE

_HEAD: Final = """\
# Storms

Figures of the last full run of each storm, written by `{command}` and repeated in
[storms.json](storms.json). A storm fails when a check fails, and also when the hard things did not
happen: no refusal, no credit, no replay, nobody who waited for a lock. Short forms of all of them
run in `make test`. Another order of calls and amounts: `VALDRIX_STORM_SEED=7 {command}`.

Measured on {machine}.
"""


def record(name: str, title: str, figures: dict[str, Any], *, folder: Path = OPS) -> None:
    """Keep a storm's figures, in the place of those of its last run, and write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "storms.json"
    report = orjson.loads(path.read_bytes()) if path.exists() else {"storms": {}}
    report["command"] = COMMAND
    report["machine"] = _machine()
    report["storms"][name] = {"title": title, "figures": figures}
    path.write_bytes(orjson.dumps(report, option=_OPTIONS))
    (folder / "storms.md").write_text(render(report))


def render(report: dict[str, Any]) -> str:
    """Return the report as Markdown: one table a storm."""
    parts = [_HEAD.format(command=report["command"], machine=report["machine"])]
    for storm in report["storms"].values():
        rows = [f"| {name} | {_text(name, value)} |" for name, value in storm["figures"].items()]
        parts.append(
            "\n".join([f"## {storm['title']}\n", "| figure | value |", "| --- | ---: |", *rows, ""])
        )
    return "\n".join(parts)


def _text(name: str, value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and name != "seed" else str(value)


def _machine() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        (server,) = cursor.fetchone()
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        f"PostgreSQL {server.split()[0]}, client, server and database on the same machine"
    )
