"""A gate's answer as a table for a terminal, 80 columns wide. Pure: the answer in, text out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

from valdrix.kernel.money import EXACT

WIDTH: Final = 80
_INNER: Final = WIDTH - 4
_LABEL: Final = 10
_BAR: Final = 16
_COLUMNS: Final = (18, _BAR, 11, 10, 9, 7)
_USED: Final = "█"
_ASKED: Final = "▒"
_FREE: Final = "·"
_CENT: Final = Decimal("0.01")
_HEADINGS: Final = {
    "ALLOW": "ALLOW",
    "ALLOW_WITH_CREDITS": "ALLOW WITH CREDITS",
    "REQUIRE_APPROVAL": "REQUIRE APPROVAL",
    "DENY": "DENY",
}

Answer = dict[str, Any]


def render_decision(answer: Answer) -> str:
    """Return the whole table of one answer of a gate."""
    lines = [
        _rule("┌", "─", "┐"),
        *_boxed(_heading(answer)),
        *_boxed([answer["explanation"]["summary"]]),
        _rule("├", "─", "┤"),
        *_boxed(_facts(answer)),
        _rule("├", "─", "┤"),
        *_boxed(_waterfall(answer["entitlement_waterfall"])),
        _rule("├", "─", "┤"),
        *_boxed(_reasons(answer["explanation"]["reason_codes"])),
        _rule("└", "─", "┘"),
    ]
    return "\n".join(lines)


def bar(*, limit: Decimal | None, used: Decimal, asked: Decimal, width: int = _BAR) -> str:
    """Return a limit as a bar: what is used, what is asked for, what is left.

    What is not nothing has at least one block; what is asked beyond the limit fills the bar.
    """
    if limit is None:
        return ""
    if limit <= 0:
        return _ASKED * width if asked > 0 else _FREE * width
    used_blocks = min(_blocks(used, limit, width), width - (1 if asked > 0 else 0))
    asked_blocks = min(_blocks(asked, limit, width), width - used_blocks)
    free_blocks = width - used_blocks - asked_blocks
    return _USED * used_blocks + _ASKED * asked_blocks + _FREE * free_blocks


def _blocks(amount: Decimal, limit: Decimal, width: int) -> int:
    if amount <= 0:
        return 0
    if amount >= limit:
        return width
    return max(1, int(amount * width / limit))


def _heading(answer: Answer) -> list[str]:
    where = f"{answer['project_id']} · {answer['environment']} · {answer['action']}"
    decision: str = _HEADINGS.get(answer["decision"]) or answer["decision"]
    return [f"{decision}{where:>{max(len(where) + 2, _INNER - len(decision))}}"]


def _facts(answer: Answer) -> list[str]:
    lines: list[str] = []
    for label, text in _labelled_facts(answer):
        lines += textwrap.wrap(
            text,
            width=_INNER,
            initial_indent=f"{label:<{_LABEL}}",
            subsequent_indent=" " * _LABEL,
        )
    return lines


def _labelled_facts(answer: Answer) -> Iterable[tuple[str, str]]:
    yield "Change", answer["resource_reference"]
    yield "Cost", _cost(answer)
    context = answer["computed_context"]
    if context is not None:
        yield "Spending", _spending(context)
        yield "Risk", _risk(context)
    yield "Reserved", _reserved(answer)
    digest = answer["policy_document_sha256"][:12]
    mode = f"mode {answer['mode']} by {answer['mode_scope']}"
    yield "Policy", f"version {answer['policy_version']}, sha256 {digest}…, {mode}"
    yield "Decision", answer["decision_id"] or "not recorded"
    if answer["approval_request_id"] is not None:
        yield "Approval", answer["approval_request_id"]


def _cost(answer: Answer) -> str:
    state = answer["cost_state"]
    reasons = ", ".join(answer["cost_state_reasons"])
    state = f"{state} ({reasons})" if reasons else state
    if answer["estimated_monthly_delta_usd"] is None:
        return state
    monthly = _usd(answer["estimated_monthly_delta_usd"])
    hourly = Decimal(answer["estimated_hourly_delta_usd"])
    return f"{monthly} USD a month more ({hourly:,.4f} an hour), {state}"


def _spending(context: Answer) -> str:
    if not context["observed_cost_days"]:
        return f"no costs of this month yet ({context['data_source_mode']})"
    return (
        f"{_usd(context['mtd_spend_usd'])} USD this month, about"
        f" {_usd(context['burn_rate_daily_usd'])} a day:"
        f" {_usd(context['forecast_eom_usd'])} by its end"
    )


def _risk(context: Answer) -> str:
    factors = ", ".join(factor.replace("_", " ") for factor in context["risk_factors"])
    return f"{context['risk_class']} ({context['risk_score']} of 100){factors and f': {factors}'}"


def _reserved(answer: Answer) -> str:
    parts = [
        (answer["reserved_allocation_usd"], "of the budget"),
        (answer["reserved_reserved_credit_usd"], "of reserved credits"),
        (answer["reserved_emergency_credit_usd"], "of emergency credits"),
    ]
    texts = [f"{_usd(amount)} USD {name}" for amount, name in parts if Decimal(amount)]
    if answer["reservation_shared"]:
        held = _usd(answer["shared_reserved_usd"])
        texts.append(f"shares the {held} USD that an earlier decision on this change holds")
    return "; ".join(texts) or "nothing"


def _waterfall(stages: Sequence[Answer]) -> list[str]:
    if not stages:
        return ["Not evaluated."]
    rows = [_row("Waterfall", f"{_USED} used {_ASKED} asked", "limit", "used", "asked", "")]
    for stage in stages:
        limit = stage["limit_usd"]
        is_idle = stage["status"] == "skipped"
        asked = Decimal(stage["requested_usd"])
        rows.append(
            _row(
                stage["stage"].replace("_", " "),
                bar(
                    limit=None if limit is None else Decimal(limit),
                    used=Decimal(stage["used_usd"]),
                    asked=asked,
                ),
                "none" if limit is None else _usd(limit),
                _usd(stage["used_usd"]),
                "" if is_idle else _usd(asked),
                "-" if is_idle else stage["status"],
            )
        )
    return rows


def _row(name: str, blocks: str, *cells: str) -> str:
    widths = _COLUMNS[2:]
    right = " ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{name:<{_COLUMNS[0]}} {blocks:<{_BAR}} {right}"


def _reasons(reasons: Sequence[Answer]) -> list[str]:
    lines: list[str] = []
    for reason in reasons:
        lines += textwrap.wrap(
            f"{reason['code']}: {reason['detail']}", width=_INNER, subsequent_indent="  "
        )
        lines += textwrap.wrap(
            reason["action"], width=_INNER, initial_indent="  → ", subsequent_indent="    "
        )
    return lines or ["No reasons."]


def _usd(amount: str | Decimal) -> str:
    return f"{EXACT.quantize(Decimal(amount), _CENT):,}"


def _boxed(lines: Iterable[str]) -> list[str]:
    fitted: list[str] = []
    for line in lines:
        # Spaces inside a line that fits are its layout.
        fitted += [line] if len(line) <= _INNER else textwrap.wrap(line, _INNER)
    return [f"│ {line:<{_INNER}} │" for line in fitted]


def _rule(left: str, line: str, right: str) -> str:
    return f"{left}{line * (WIDTH - 2)}{right}"
