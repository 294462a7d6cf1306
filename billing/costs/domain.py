"""What one project spent on one day. Pure."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import msgspec


class DayAmount(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of one project on one UTC day.

    :ivar amount_usd: US dollars with at most 4 decimals; below zero after credits.
    :ivar is_final: False while the provider may still restate the day.
    """

    project_id: str
    date: date
    amount_usd: Decimal
    is_final: bool = True
