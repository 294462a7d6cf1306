"""Tiers and their limits. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

FREE: Final = "free"
STARTER: Final = "starter"
GROWTH: Final = "growth"
PRO: Final = "pro"
ENTERPRISE: Final = "enterprise"
TIERS: Final = (FREE, STARTER, GROWTH, PRO, ENTERPRISE)

MONTHLY_EXPOSURE_CEILING_USD: Final[dict[str, Decimal]] = {
    FREE: Decimal("1000.0000"),
    STARTER: Decimal("10000.0000"),
    GROWTH: Decimal("50000.0000"),
    PRO: Decimal("250000.0000"),
    ENTERPRISE: Decimal("10000000.0000"),
}
"""What a tier lets a tenant commit in a month when the policy names no ceiling of its own."""

API_CALLS_PER_MINUTE: Final[dict[str, int]] = {
    FREE: 300,
    STARTER: 600,
    GROWTH: 1_500,
    PRO: 3_000,
    ENTERPRISE: 6_000,
}
"""How often a tenant may call what is no gate, within any minute (SPEC 16)."""
