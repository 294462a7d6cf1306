"""Which levels of its limit a budget has reached. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from billing.accounts.domain import BudgetState

LEVELS_PERCENT: Final = (50, 80, 100)


def reached_levels(state: BudgetState) -> tuple[int, ...]:
    """Return the levels that what is used of a budget has reached, in percent, lowest first.

    Nothing used reaches nothing, not even a limit of zero; shadow never counts.
    """
    used = state.used_usd(with_shadow=False)
    if used <= 0:
        return ()
    return tuple(
        level for level in LEVELS_PERCENT if used * 100 >= Decimal(level) * state.limit_usd
    )
