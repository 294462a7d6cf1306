"""Settling a family of charges against what was really spent (SPEC 5). Pure.

Posted up to the actual, in burn order; the rest goes back to the very grants it came from, the
last burnt first. An actual above what was reserved is an overrun on the budgets and on the
exposure, never taken from grants. A negative actual takes back what the month has posted, never
below zero.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from valdrix.kernel.money import ZERO
from valdrix.kernel.problems import Refused

_ALLOCATION: Final = "allocation"
_EXPOSURE: Final = "exposure"
_OVERRUN: Final = "overrun"
_CREDITS: Final = ("reserved_credit", "emergency_credit")


class SettlementInconsistent(Refused):
    """The lines of a reservation do not add up; nothing was changed, and an incident is open."""

    code = "settlement_inconsistent"


@dataclass(frozen=True, slots=True)
class OpenLine:
    """One pending line, under its locks.

    :ivar own_usd: what the line's reservation holds in all, US dollars a month.
    :ivar month_posted_usd: what the line's account has posted in the line's month so far.
    """

    line_id: int
    decision_id: uuid.UUID
    own_usd: Decimal
    account_id: uuid.UUID
    kind: str
    position: int
    amount_usd: Decimal
    month: date
    month_posted_usd: Decimal


@dataclass(frozen=True, slots=True)
class SettledLine:
    """What becomes of one line: how much of it posts; what is left over goes back."""

    line: OpenLine
    posted_usd: Decimal

    @property
    def refunded_usd(self) -> Decimal:
        """Return what goes back to the line's account, never below zero."""
        return max(ZERO, self.line.amount_usd - self.posted_usd)


@dataclass(frozen=True, slots=True)
class Overrun:
    """What one account takes above everything that was reserved of it."""

    decision_id: uuid.UUID
    account_id: uuid.UUID
    month: date
    amount_usd: Decimal


@dataclass(frozen=True, slots=True)
class Settlement:
    """A whole family settled, amounts in US dollars a month.

    :ivar overrun_usd: what was spent above the accounts' cover, approved or not.
    :ivar drift_usd: actual minus reserved; the actual of a release is what was reserved of it: 0.
    """

    reserved_usd: Decimal
    actual_usd: Decimal
    posted_usd: Decimal
    overrun_usd: Decimal
    lines: tuple[SettledLine, ...]
    overruns: tuple[Overrun, ...]

    @property
    def drift_usd(self) -> Decimal:
        """Return what was spent above (or, negative, below) what was reserved."""
        return self.actual_usd - self.reserved_usd


def settle(lines: Sequence[OpenLine], *, actual_usd: Decimal) -> Settlement:
    """Settle all pending lines of a family against one actual.

    :param lines: in burn order: by decision, then by position.
    :param actual_usd: what was really spent a month; negative for a saving.
    :raises SettlementInconsistent: when a reservation's lines do not add up to what it holds.
    """
    if not lines and actual_usd != 0:
        raise SettlementInconsistent(
            "The decision holds no account that its actual could be posted to."
        )
    left = max(ZERO, actual_usd)
    settled: list[SettledLine] = []
    reserved = posted = approved = ZERO
    for group in _by_decision(lines):
        _check_adds_up(group)
        own = group[0].own_usd
        part = min(left, own)
        on_accounts = min(part, own - _overrun_of(group))
        settled.extend(_post(group, on_accounts, part - on_accounts))
        reserved, posted, left = reserved + own, posted + on_accounts, left - part
        approved += part - on_accounts
    if actual_usd < 0:
        settled = _take_back(settled, -actual_usd)
        posted = -max(
            (-one.posted_usd for one in settled if one.line.kind == _EXPOSURE), default=ZERO
        )
    return Settlement(
        reserved_usd=reserved,
        actual_usd=actual_usd,
        posted_usd=posted,
        overrun_usd=approved + left,
        lines=tuple(settled),
        overruns=tuple(_overruns(lines, left)),
    )


def _by_decision(lines: Sequence[OpenLine]) -> list[list[OpenLine]]:
    groups: dict[uuid.UUID, list[OpenLine]] = {}
    for line in lines:
        groups.setdefault(line.decision_id, []).append(line)
    return list(groups.values())


def _overrun_of(group: Sequence[OpenLine]) -> Decimal:
    """Return the overrun that an approval allowed one reservation: the same on each account."""
    return max((line.amount_usd for line in group if line.kind == _OVERRUN), default=ZERO)


def _check_adds_up(group: Sequence[OpenLine]) -> None:
    """Check one reservation: budgets are charged alike, and all parts make up the whole."""
    own = group[0].own_usd
    allocations = {line.amount_usd for line in group if line.kind == _ALLOCATION}
    credit = sum((line.amount_usd for line in group if line.kind in _CREDITS), ZERO)
    exposure = sum((line.amount_usd for line in group if line.kind == _EXPOSURE), ZERO)
    overruns = {line.amount_usd for line in group if line.kind == _OVERRUN}
    over = _overrun_of(group)
    is_whole = exposure + over == own and len(allocations) <= 1 and len(overruns) <= 1
    if allocations and is_whole:
        is_whole = allocations.pop() + credit + over == own
    if not is_whole:
        raise SettlementInconsistent(
            "The reservation's lines do not add up to what it holds; nothing was changed."
        )


def _post(group: Sequence[OpenLine], part: Decimal, over: Decimal) -> list[SettledLine]:
    """Post a part of one reservation: budgets first, then grants in the order they burnt.

    :param over: the part that no account covered and an approval allowed.
    """
    allocation = next((line.amount_usd for line in group if line.kind == _ALLOCATION), ZERO)
    on_budgets = min(part, allocation)
    on_credits = part - on_budgets
    settled = []
    for line in group:
        if line.kind == _ALLOCATION:
            amount = on_budgets
        elif line.kind == _EXPOSURE:
            amount = part
        elif line.kind == _OVERRUN:
            amount = over
        else:
            amount = min(on_credits, line.amount_usd)
            on_credits -= amount
        settled.append(SettledLine(line, amount))
    return settled


def _take_back(settled: Sequence[SettledLine], saving: Decimal) -> list[SettledLine]:
    """Take a saving back from what each budget and the exposure have posted in the month."""
    seen: set[uuid.UUID] = set()
    changed = []
    for one in settled:
        line = one.line
        if line.kind in {_ALLOCATION, _EXPOSURE} and line.account_id not in seen:
            seen.add(line.account_id)
            changed.append(SettledLine(line, -min(saving, line.month_posted_usd)))
        else:
            changed.append(one)
    return changed


def _overruns(lines: Sequence[OpenLine], amount: Decimal) -> list[Overrun]:
    """Put what is above the reserve on every budget and on the exposure, once each."""
    if amount == 0:
        return []
    found: dict[uuid.UUID, Overrun] = {}
    for line in lines:
        if line.kind in {_ALLOCATION, _EXPOSURE}:
            found.setdefault(
                line.account_id, Overrun(line.decision_id, line.account_id, line.month, amount)
            )
    return list(found.values())
