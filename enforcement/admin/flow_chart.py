"""The chart of a simulation: how much money goes from which outcome to which, as an SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from enforcement.admin import labels
from enforcement.decisions.models import DECISIONS
from valdrix.kernel.admin_display import usd
from valdrix.kernel.money import ZERO

WIDTH: Final = 1000
HEIGHT: Final = 300
_NODE: Final = 16
_GAP: Final = 14
_LEAST: Final = Decimal("1.5")


@dataclass(frozen=True, slots=True)
class Node:
    """One outcome on one side: a bar, and what it says."""

    kind: str
    x: int
    y: str
    height: str
    text_x: int
    text_y: str
    anchor: str
    label: str
    amount: str


@dataclass(frozen=True, slots=True)
class Band:
    """What goes from one outcome to one, as a path; the same in words."""

    kind: str
    path: str
    title: str
    is_moved: bool


@dataclass(frozen=True, slots=True)
class FlowChart:
    """Two columns of bars with bands between them.

    :ivar unit: what heights stand for.
    """

    label: str
    unit: str
    nodes: tuple[Node, ...]
    bands: tuple[Band, ...]


@dataclass(frozen=True, slots=True)
class _Flow:
    before: str
    after: str
    decisions: int
    money: Decimal
    size: Decimal


def build_flow_chart(result: dict[str, Any]) -> FlowChart:
    """Return the chart of a simulation's result; by decisions where no money is in it."""
    flows = _flows(result)
    is_money = any(flow.money > 0 for flow in flows)
    flows = [
        _Flow(
            flow.before,
            flow.after,
            flow.decisions,
            flow.money,
            flow.money if is_money else Decimal(flow.decisions),
        )
        for flow in flows
    ]
    total = sum((flow.size for flow in flows), ZERO)
    room = Decimal(HEIGHT - _GAP * (len(DECISIONS) - 1))
    scale = room / total if total else ZERO
    left, left_nodes = _column(flows, scale, is_left=True)
    right, right_nodes = _column(flows, scale, is_left=False)
    bands = tuple(_band(flow, left, right, scale) for flow in flows)
    return FlowChart(
        label="Money by outcome: as it was on the left, under this policy on the right",
        unit="monthly increase in USD" if is_money else "decisions",
        nodes=(*left_nodes, *right_nodes),
        # What moved lies on top of what stayed.
        bands=tuple(sorted(bands, key=lambda band: band.is_moved)),
    )


def _flows(result: dict[str, Any]) -> list[_Flow]:
    moved = {(one["from"], one["to"]): one for one in result["moved"]}
    found = []
    for before in DECISIONS:
        was = result["was"][before]
        left = [one for (start, _), one in moved.items() if start == before]
        stayed = was["decisions"] - sum(one["decisions"] for one in left)
        money = Decimal(was["monthly_increase_usd"])
        money -= sum((Decimal(one["monthly_increase_usd"]) for one in left), ZERO)
        for after in DECISIONS:
            one = moved.get((before, after))
            if one is not None:
                amount = Decimal(one["monthly_increase_usd"])
                found.append(_Flow(before, after, one["decisions"], amount, ZERO))
            elif before == after and stayed:
                found.append(_Flow(before, after, stayed, money, ZERO))
    return found


def _column(
    flows: Sequence[_Flow], scale: Decimal, *, is_left: bool
) -> tuple[dict[tuple[str, str], Decimal], list[Node]]:
    """Return where each band begins or ends, and the bars of one side."""
    places: dict[tuple[str, str], Decimal] = {}
    nodes, y = [], ZERO
    for outcome in DECISIONS:
        own = [flow for flow in flows if (flow.before if is_left else flow.after) == outcome]
        top = y
        for flow in own:
            places[flow.before, flow.after] = y
            y += flow.size * scale
        if own:
            amount = sum((flow.money for flow in own), ZERO)
            decisions = sum(flow.decisions for flow in own)
            nodes.append(
                Node(
                    kind=labels.decision_tone(outcome),
                    x=0 if is_left else WIDTH - _NODE,
                    y=_text(top),
                    height=_text(max(_LEAST, y - top)),
                    text_x=_NODE + 8 if is_left else WIDTH - _NODE - 8,
                    text_y=_text((top + y) / 2 + 4),
                    anchor="start" if is_left else "end",
                    label=labels.decision_label(outcome),
                    amount=f"{decisions} · {usd(amount)}",
                )
            )
        y += _GAP
    return places, nodes


def _band(
    flow: _Flow,
    left: dict[tuple[str, str], Decimal],
    right: dict[tuple[str, str], Decimal],
    scale: Decimal,
) -> Band:
    ends = (flow.before, flow.after)
    height = max(_LEAST, flow.size * scale)
    start, end = left[ends], right[ends]
    x0, x1, middle = _NODE, WIDTH - _NODE, WIDTH // 2
    path = (
        f"M{x0},{_text(start)} C{middle},{_text(start)} {middle},{_text(end)} {x1},{_text(end)}"
        f" L{x1},{_text(end + height)} C{middle},{_text(end + height)}"
        f" {middle},{_text(start + height)} {x0},{_text(start + height)} Z"
    )
    words = f"{labels.decision_label(flow.before)} to {labels.decision_label(flow.after)}"
    return Band(
        kind=labels.decision_tone(flow.after),
        path=path,
        title=f"{words}: {flow.decisions} decisions, {usd(flow.money)} USD a month",
        is_moved=flow.before != flow.after,
    )


def _text(value: Decimal) -> str:
    return f"{value:.1f}"
