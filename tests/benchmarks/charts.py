"""Charts as SVG: horizontal bars with their figures, readable in light and dark pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

_WIDTH: Final = 860
_LABEL_WIDTH: Final = 330
_ROW: Final = 26
_TOP: Final = 44
_BAR: Final = 16


@dataclass(frozen=True)
class Bar:
    """One bar; ``mark`` is where a goal lies on the same scale."""

    label: str
    value: float
    text: str
    mark: float | None


def render_bars(title: str, bars: list[Bar]) -> str:
    """Return a chart of horizontal bars on one scale that begins at zero."""
    height = _TOP + _ROW * len(bars) + 14
    top = max([bar.value for bar in bars] + [bar.mark or 0 for bar in bars] + [1e-9])
    scale = (_WIDTH - _LABEL_WIDTH - 90) / top
    rows = "\n".join(_row(bar, _TOP + _ROW * place, scale) for place, bar in enumerate(bars))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' width="{_WIDTH}" height="{height}" role="img" aria-label="{escape(title)}"'
        ' font-family="system-ui, sans-serif" font-size="13">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="16" y="26" font-size="15" font-weight="600" fill="#0f172a">{escape(title)}</text>\n'
        f"{rows}\n</svg>\n"
    )


def _row(bar: Bar, y: int, scale: float) -> str:
    width = max(1.0, bar.value * scale)
    middle = y + _BAR - 4
    parts = [
        (
            f'<text x="{_LABEL_WIDTH - 8}" y="{middle}" text-anchor="end" fill="#334155">'
            f"{escape(bar.label)}</text>"
        ),
        (
            f'<rect x="{_LABEL_WIDTH}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"'
            f' fill="{_fill(bar)}"/>'
        ),
        (
            f'<text x="{_LABEL_WIDTH + max(width, (bar.mark or 0) * scale) + 8:.1f}" y="{middle}"'
            f' fill="#0f172a">{escape(bar.text)}</text>'
        ),
    ]
    if bar.mark is not None:
        at = _LABEL_WIDTH + bar.mark * scale
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y - 3}" y2="{y + _BAR + 3}"'
            ' stroke="#b91c1c" stroke-width="2"/>'
        )
    return "\n".join(parts)


def _fill(bar: Bar) -> str:
    if bar.mark is None:
        return "#64748b"
    return "#15803d" if bar.value >= bar.mark else "#2563eb"
