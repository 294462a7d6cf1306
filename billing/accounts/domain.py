"""What an account can still take. Pure arithmetic on kept totals."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

import msgspec

from valdrix.kernel.money import ZERO

BUDGET: Final = "budget"
GRANT: Final = "grant"
EXPOSURE: Final = "exposure"
KINDS: Final = (BUDGET, GRANT, EXPOSURE)

RESERVED_POOL: Final = "reserved"
EMERGENCY_POOL: Final = "emergency"
POOLS: Final = (RESERVED_POOL, EMERGENCY_POOL)

RUN_RATE: Final = "run_rate"
ACTUALS: Final = "actuals"
BASES: Final = (RUN_RATE, ACTUALS)


class BudgetState(msgspec.Struct, frozen=True, kw_only=True):
    """One budget as it stood under its lock, amounts in US dollars for one UTC month.

    :ivar posted_usd: settled in this month; with basis ``actuals`` what the project really
        spent in it so far.
    :ivar pending_usd: reserved and not yet settled, whatever the month.
    :ivar overrun_usd: spent or approved above what was reserved.
    :ivar shadow_usd: held by shadow decisions only, which never limits others.
    """

    account_id: str
    project_id: str
    environment: str | None
    team: str | None
    basis: str
    limit_usd: Decimal
    posted_usd: Decimal
    pending_usd: Decimal
    overrun_usd: Decimal
    shadow_usd: Decimal

    def used_usd(self, *, with_shadow: bool) -> Decimal:
        """Return what of the limit is taken, in US dollars."""
        used = self.posted_usd + self.pending_usd + self.overrun_usd
        return used + self.shadow_usd if with_shadow else used

    def headroom_usd(self, *, with_shadow: bool) -> Decimal:
        """Return what is left of the limit, never below zero."""
        return max(ZERO, self.limit_usd - self.used_usd(with_shadow=with_shadow))


class GrantState(msgspec.Struct, frozen=True, kw_only=True):
    """One credit grant as it stood under its lock, amounts in US dollars."""

    account_id: str
    pool: str
    project_id: str | None
    priority: int
    expires_at: datetime | None
    remaining_usd: Decimal
    shadow_usd: Decimal

    def headroom_usd(self, *, now: datetime, with_shadow: bool) -> Decimal:
        """Return what the grant can still cover: nothing once it has expired."""
        if self.expires_at is not None and self.expires_at <= now:
            return ZERO
        return self.left_usd(with_shadow=with_shadow)

    def left_usd(self, *, with_shadow: bool) -> Decimal:
        """Return what is left of the grant, expired or not."""
        shadow = self.shadow_usd if with_shadow else ZERO
        return max(ZERO, self.remaining_usd - shadow)

    def burn_key(self) -> tuple[bool, bool, datetime, int, str]:
        """Return the place in the burn order (SPEC 3.5).

        A grant of the project before a tenant-wide one, then earliest expiry (none is last),
        then lowest priority number, then oldest id.
        """
        return (
            self.project_id is None,
            self.expires_at is None,
            self.expires_at or datetime.min.replace(tzinfo=UTC),
            self.priority,
            self.account_id,
        )


class ExposureState(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant's exposure account: everything that went ahead, against the two ceilings."""

    account_id: str
    posted_usd: Decimal
    pending_usd: Decimal
    overrun_usd: Decimal
    shadow_usd: Decimal

    def used_usd(self, *, with_shadow: bool) -> Decimal:
        """Return the tenant's monthly exposure, in US dollars."""
        used = self.posted_usd + self.pending_usd + self.overrun_usd
        return used + self.shadow_usd if with_shadow else used


def month_of(moment: datetime) -> date:
    """Return the first day of a moment's UTC calendar month, which is how months are named."""
    return moment.astimezone(UTC).date().replace(day=1)
