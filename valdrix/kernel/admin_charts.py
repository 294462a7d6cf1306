"""Charts of the console: lines over the days of a month, drawn as SVG on the server.

The drawing stretches to any width; its words stand outside of it, so that they never shrink. The
same figures are given as a table for who cannot see a drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from valdrix.kernel.admin_display import usd
from valdrix.kernel.money import ZERO

WIDTH: Final = 1000
HEIGHT: Final = 300
_HUNDREDTH: Final = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its kind names its colour, and it has a value for each day, or None.

    :ivar is_area: the space below it is filled.
    :ivar is_dashed: it is a wish or a forecast, not something that happened.
    """

    kind: str
    name: str
    values: Sequence[Decimal | None]
    is_area: bool = False
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class DrawnLine:
    """One line as the template draws it: its path, and that of the area below it."""

    kind: str
    name: str
    path: str
    area: str
    is_dashed: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as the template shows it.

    :ivar rows: the table: a day and the value of each line.
    """

    label: str
    lines: tuple[DrawnLine, ...]
    top: str
    days: tuple[str, ...]
    today_at: str | None
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def build_chart(
    lines: Sequence[Line], *, days: Sequence[str], label: str, today: int | None = None
) -> Chart:
    """Return the chart of some lines over the same days.

    :param label: the whole in one sentence.
    :param today: which of the days is today, counted from 0.
    """
    known = [value for line in lines for value in line.values if value is not None]
    top = max([*known, ZERO]) or Decimal(1)
    last = max(1, len(days) - 1)
    return Chart(
        label=label,
        lines=tuple(_draw(line, top=top, last=last) for line in lines),
        top=usd(top),
        days=(days[0], days[len(days) // 2], days[-1]) if days else (),
        today_at=None if today is None else str(WIDTH * today // last),
        rows=tuple(
            (day, tuple(usd(line.values[place]) for line in lines))
            for place, day in enumerate(days)
            if any(line.values[place] is not None for line in lines)
        ),
    )


def _draw(line: Line, *, top: Decimal, last: int) -> DrawnLine:
    points = [
        (str(WIDTH * place // last), _height(value, top))
        for place, value in enumerate(line.values)
        if value is not None
    ]
    path = " ".join(f"{'L' if at else 'M'}{x} {y}" for at, (x, y) in enumerate(points))
    area = ""
    if line.is_area and points:
        area = f"{path} L{points[-1][0]} {HEIGHT} L{points[0][0]} {HEIGHT} Z"
    return DrawnLine(line.kind, line.name, path, area, line.is_dashed)


def _height(value: Decimal, top: Decimal) -> str:
    share = max(ZERO, min(value, top)) / top
    return str((HEIGHT - share * HEIGHT).quantize(_HUNDREDTH))
