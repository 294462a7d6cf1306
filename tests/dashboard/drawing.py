"""Drawing a Grafana dashboard's panels as one page of HTML, from Prometheus's own answers.

It shows what the questions of the dashboard give, not how Grafana looks.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_SHORT_NAME = 24
COLUMNS, CELL_PIXELS, ROW_PIXELS = 24, 60, 38
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
_LEFT, _RIGHT, _TOP, _FOOT, _LEGEND = 52, 10, 8, 18, 15
_STYLE = """
body { margin: 0; padding: 16px; background: #f1f5f9; color: #0f172a; font: 13px system-ui, sans-serif }
h1 { font-size: 20px; margin: 0 0 2px } p { margin: 0 0 12px; color: #475569 }
main { position: relative } section, h2 { position: absolute; box-sizing: border-box }
section { background: #fff; border: 1px solid #cbd5e1; border-radius: 6px; padding: 8px 10px }
h2 { font-size: 15px; margin: 0; padding-top: 10px } h3 { font-size: 13px; margin: 0 0 2px }
strong { display: block; font-size: 40px; text-align: center; padding-top: 40px }
svg text { font: 10px system-ui, sans-serif; fill: #475569 }
"""


@dataclass(frozen=True)
class Line:
    """One series: what the legend calls it, and its points (Unix seconds, value)."""

    name: str
    points: tuple[tuple[float, float], ...]


Answers = Mapping[str, Sequence[Mapping[str, Any]]]
"""What ``query_range`` gave for each expression."""


def draw_page(dashboard: Mapping[str, Any], answers: Answers, *, says: str) -> str:
    """Return the page: each panel where the dashboard places it."""
    panels = dashboard["panels"]
    height = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in panels) * ROW_PIXELS
    drawn = "\n".join(_draw_panel(panel, answers) for panel in panels)
    title = html.escape(dashboard["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1><p>{html.escape(says)}</p>"
        f'<main style="width:{COLUMNS * CELL_PIXELS}px;height:{height}px">{drawn}</main></html>\n'
    )


def read_lines(panel: Mapping[str, Any], answers: Answers) -> list[Line]:
    """Return a panel's series, named by its legends."""
    lines = []
    for target in panel.get("targets", ()):
        for series in answers.get(target["expr"], ()):
            points = tuple(
                (float(at), float(value))
                for at, value in series["values"]
                if math.isfinite(float(value))
            )
            if points:
                lines.append(Line(_name(target, series["metric"]), points))
    return lines


def format_value(value: float, unit: str) -> str:
    """Return a figure as a reader wants it."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" + ("/s" if unit in {"reqps", "ops"} else "")


def _draw_panel(panel: Mapping[str, Any], answers: Answers) -> str:
    place = panel["gridPos"]
    width, height = place["w"] * CELL_PIXELS - 8, place["h"] * ROW_PIXELS - 8
    style = (
        f"left:{place['x'] * CELL_PIXELS}px;top:{place['y'] * ROW_PIXELS}px;"
        f"width:{width}px;height:{height}px"
    )
    title = html.escape(panel["title"])
    if panel["type"] == "row":
        return f'<h2 style="{style}">{title}</h2>'
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short")
    lines = read_lines(panel, answers)
    if not lines:
        inside = "<p>No data</p>"
    elif panel["type"] == "stat":
        inside = f"<strong>{format_value(lines[0].points[-1][1], unit)}</strong>"
    else:
        inside = _draw_chart(lines, unit, width - 22, height - 38)
    return f'<section style="{style}"><h3>{title}</h3>{inside}</section>'


def _draw_chart(lines: Sequence[Line], unit: str, width: int, height: int) -> str:
    in_a_row = 2 if all(len(line.name) <= _SHORT_NAME for line in lines) else 1
    legend_rows = -(-len(lines) // in_a_row)
    plot_height = height - _TOP - _FOOT - legend_rows * _LEGEND
    plot_width = width - _LEFT - _RIGHT
    begin = min(line.points[0][0] for line in lines)
    end = max(begin + 1, *(line.points[-1][0] for line in lines))
    most = max(value for line in lines for _, value in line.points) or 1.0

    def x(at: float) -> float:
        return _LEFT + (at - begin) / (end - begin) * plot_width

    def y(value: float) -> float:
        return _TOP + (1 - value / most) * plot_height

    parts = []
    for share in (0.0, 0.5, 1.0):
        level = y(share * most)
        parts.append(
            f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{level:.1f}" y2="{level:.1f}"'
            f' stroke="#e2e8f0"/><text x="{_LEFT - 5}" y="{level + 3:.1f}" text-anchor="end">'
            f"{html.escape(format_value(share * most, unit))}</text>"
        )
        at = begin + share * (end - begin)
        anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[share]
        clock = datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
        parts.append(
            f'<text x="{x(at):.1f}" y="{_TOP + plot_height + 13}" text-anchor="{anchor}">{clock}</text>'
        )
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line.points)
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{path}"/>'
        )
        left = _LEFT + (number % in_a_row) * plot_width / 2
        top = _TOP + plot_height + _FOOT + 10 + (number // in_a_row) * _LEGEND
        said = f"{line.name}: {format_value(line.points[-1][1], unit)}"
        parts.append(
            f'<rect x="{left:.1f}" y="{top - 7:.1f}" width="10" height="3" fill="{colour}"/>'
            f'<text x="{left + 15:.1f}" y="{top:.1f}">{html.escape(said)}</text>'
        )
    return f'<svg width="{width}" height="{height}">{"".join(parts)}</svg>'


def _name(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    legend = target.get("legendFormat") or ""
    named = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)
    return named.strip() or ", ".join(labels.values()) or "all"
