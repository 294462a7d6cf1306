"""The drawing of the dashboard: every panel is there, with its figures or without any."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.dashboard.drawing import draw_page, format_value, read_lines
from tests.prometheus import DASHBOARD

SHIPPED = json.loads(DASHBOARD.read_text())


def answer(*values: str, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "values": [[1000 + 2 * at, value] for at, value in enumerate(values)]}


def test_every_panel_is_drawn_and_says_when_it_has_no_data() -> None:
    page = draw_page(SHIPPED, {}, says="nothing ran")
    asking = [panel for panel in SHIPPED["panels"] if panel.get("targets")]
    for panel in SHIPPED["panels"]:
        assert f">{panel['title']}</h" in page
    assert page.count("No data") == len(asking)


def test_a_panel_has_a_line_for_each_series_and_names_it() -> None:
    panel = next(one for one in SHIPPED["panels"] if one["title"].startswith("Decisions"))
    (target,) = panel["targets"]
    answers = {
        target["expr"]: [answer("1", "2", decision="ALLOW"), answer("NaN", "3", decision="<DENY>")]
    }
    assert [(one.name, len(one.points)) for one in read_lines(panel, answers)] == [
        ("ALLOW", 2), ("<DENY>", 1),
    ]  # fmt: skip
    page = draw_page({"title": "t", "panels": [panel]}, answers, says="")
    assert page.count("<polyline") == 2
    assert "ALLOW: 2/s" in page
    assert "&lt;DENY&gt;: 3/s" in page


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.001, "percentunit", "0.1 %"),
        (0.0123, "s", "12.3 ms"),
        (2.5, "s", "2.5 s"),
        (2.5, "reqps", "2.5/s"),
        (77.0, "short", "77"),
    ],
)
def test_figures_have_their_unit(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text
