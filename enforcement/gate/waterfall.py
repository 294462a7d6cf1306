"""The entitlement waterfall: five stages, always all five, always in this order (SPEC 3.5).

Pure. Each stage records limit, used, headroom, requested, consumed, status and a reason; what
one stage could not cover, the next is asked for. A stage that covered a part keeps it in the
trace whatever the outcome; only an outcome that goes ahead, or waits for approval, reserves.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from billing.accounts.domain import (
    EMERGENCY_POOL,
    RESERVED_POOL,
    BudgetState,
    ExposureState,
    GrantState,
)
from valdrix.kernel.money import ZERO

PLAN_LIMIT: Final = "plan_limit"
PROJECT_ALLOCATION: Final = "project_allocation"
RESERVED_CREDITS: Final = "reserved_credits"
EMERGENCY_CREDITS: Final = "emergency_credits"
ENTERPRISE_CEILING: Final = "enterprise_ceiling"

PASS: Final = "pass"  # noqa: S105 - a status, not a password
LIMITED: Final = "limited"
SKIPPED: Final = "skipped"

PLAN_LIMIT_EXCEEDED: Final = "plan_limit_exceeded"
PROJECT_BUDGET_EXCEEDED: Final = "project_budget_exceeded"
RESERVED_CREDITS_EXHAUSTED: Final = "reserved_credits_exhausted"
EMERGENCY_CREDITS_EXHAUSTED: Final = "emergency_credits_exhausted"
ENTERPRISE_CEILING_EXCEEDED: Final = "enterprise_ceiling_exceeded"
NO_BUDGET_CONFIGURED: Final = "no_budget_configured"
NO_CEILING_CONFIGURED: Final = "no_ceiling_configured"
NOTHING_TO_COVER: Final = "nothing_to_cover"

ALLOCATION: Final = "allocation"
RESERVED_CREDIT: Final = "reserved_credit"
EMERGENCY_CREDIT: Final = "emergency_credit"
EXPOSURE: Final = "exposure"


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """The accounts that a question touches, as they stood under their locks.

    :ivar plan_ceiling_usd: the policy's, else the tier's; monthly, US dollars.
    :ivar enterprise_ceiling_usd: the absolute cap, or None where the policy names none.
    """

    budgets: tuple[BudgetState, ...]
    grants: tuple[GrantState, ...]
    exposure: ExposureState
    plan_ceiling_usd: Decimal
    enterprise_ceiling_usd: Decimal | None


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the waterfall, as recorded; amounts in US dollars a month.

    :ivar limit_usd: None where the stage has no limit.
    """

    stage: str
    limit_usd: Decimal | None
    used_usd: Decimal
    headroom_usd: Decimal | None
    requested_usd: Decimal
    consumed_usd: Decimal
    status: str
    reason_code: str | None


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """What would be held of one account: a reservation's line, in burn order."""

    account_id: str
    kind: str
    amount_usd: Decimal


class Waterfall(msgspec.Struct, frozen=True, kw_only=True):
    """The five recorded stages and what they would hold.

    :ivar uncovered_usd: what neither budget nor credits cover.
    :ivar holds: lines for the covered part, and the exposure line for the whole of it.
    """

    stages: tuple[Stage, ...]
    holds: tuple[Hold, ...]
    uncovered_usd: Decimal
    allocation_usd: Decimal
    reserved_credit_usd: Decimal
    emergency_credit_usd: Decimal

    @property
    def limiting_stage(self) -> Stage | None:
        """Return the first stage that limits: it gives ``entitlement_reason_code``."""
        return next((stage for stage in self.stages if stage.status == LIMITED), None)

    def is_limited(self, name: str) -> bool:
        """Tell whether the named stage limits."""
        return any(stage.stage == name and stage.status == LIMITED for stage in self.stages)


def run_waterfall(
    accounts: Accounts, *, requested_usd: Decimal, now: datetime, with_shadow: bool
) -> Waterfall:
    """Run all five stages for one increase.

    :param requested_usd: the increase to reserve, never negative.
    :param now: read after the locks were taken: a grant that expired meanwhile has no headroom.
    :param with_shadow: count shadow holds too, so that shadow says what hard would have said.
    """
    exposed = accounts.exposure.used_usd(with_shadow=with_shadow)
    plan = _ceiling(PLAN_LIMIT, accounts.plan_ceiling_usd, exposed, requested_usd)
    allocation = _allocation(accounts.budgets, requested_usd, with_shadow=with_shadow)
    # Without a budget there is nothing that credits could stand in for.
    uncovered = requested_usd - allocation.consumed_usd if accounts.budgets else ZERO
    rooms = [
        (grant, grant.headroom_usd(now=now, with_shadow=with_shadow))
        for grant in sorted(accounts.grants, key=GrantState.burn_key)
    ]
    reserved, reserved_holds = _credits(rooms, RESERVED_POOL, uncovered)
    left = uncovered - reserved.consumed_usd
    emergency, emergency_holds = _credits(rooms, EMERGENCY_POOL, left)
    enterprise = _ceiling(
        ENTERPRISE_CEILING, accounts.enterprise_ceiling_usd, exposed, requested_usd
    )
    budget_holds = [
        Hold(account_id=budget.account_id, kind=ALLOCATION, amount_usd=allocation.consumed_usd)
        for budget in accounts.budgets
    ]
    exposure_hold = Hold(
        account_id=accounts.exposure.account_id, kind=EXPOSURE, amount_usd=requested_usd
    )
    return Waterfall(
        stages=(plan, allocation, reserved, emergency, enterprise),
        holds=(*budget_holds, *reserved_holds, *emergency_holds, exposure_hold),
        uncovered_usd=left - emergency.consumed_usd,
        allocation_usd=allocation.consumed_usd,
        reserved_credit_usd=reserved.consumed_usd,
        emergency_credit_usd=emergency.consumed_usd,
    )


_CEILING_CODES: Final = {
    PLAN_LIMIT: PLAN_LIMIT_EXCEEDED,
    ENTERPRISE_CEILING: ENTERPRISE_CEILING_EXCEEDED,
}


def _ceiling(name: str, limit: Decimal | None, used: Decimal, requested: Decimal) -> Stage:
    """Return a stage that compares the tenant's exposure, this change included, with a cap."""
    if limit is None:
        return Stage(
            stage=name,
            limit_usd=None,
            used_usd=used,
            headroom_usd=None,
            requested_usd=requested,
            consumed_usd=ZERO,
            status=SKIPPED,
            reason_code=NO_CEILING_CONFIGURED,
        )
    headroom = max(ZERO, limit - used)
    fits = requested <= headroom
    return Stage(
        stage=name,
        limit_usd=limit,
        used_usd=used,
        headroom_usd=headroom,
        requested_usd=requested,
        consumed_usd=min(requested, headroom),
        status=PASS if fits else LIMITED,
        reason_code=None if fits else _CEILING_CODES[name],
    )


def _allocation(budgets: Sequence[BudgetState], requested: Decimal, *, with_shadow: bool) -> Stage:
    """Return the budgets' stage: every matching one is charged, the smallest headroom limits.

    Without a budget the stage is skipped: what that means is the policy's to say.
    """
    if not budgets:
        return Stage(
            stage=PROJECT_ALLOCATION,
            limit_usd=None,
            used_usd=ZERO,
            headroom_usd=None,
            requested_usd=requested,
            consumed_usd=ZERO,
            status=SKIPPED,
            reason_code=NO_BUDGET_CONFIGURED,
        )
    tightest = min(
        budgets,
        key=lambda budget: (budget.headroom_usd(with_shadow=with_shadow), budget.account_id),
    )
    headroom = tightest.headroom_usd(with_shadow=with_shadow)
    fits = requested <= headroom
    return Stage(
        stage=PROJECT_ALLOCATION,
        limit_usd=tightest.limit_usd,
        used_usd=tightest.used_usd(with_shadow=with_shadow),
        headroom_usd=headroom,
        requested_usd=requested,
        consumed_usd=min(requested, headroom),
        status=PASS if fits else LIMITED,
        reason_code=None if fits else PROJECT_BUDGET_EXCEEDED,
    )


_POOLS: Final = {
    RESERVED_POOL: (RESERVED_CREDITS, RESERVED_CREDIT, RESERVED_CREDITS_EXHAUSTED),
    EMERGENCY_POOL: (EMERGENCY_CREDITS, EMERGENCY_CREDIT, EMERGENCY_CREDITS_EXHAUSTED),
}


def _credits(
    rooms: Sequence[tuple[GrantState, Decimal]], pool: str, requested: Decimal
) -> tuple[Stage, list[Hold]]:
    """Return a credit pool's stage and its holds.

    :param rooms: grants of all pools in burn order, each with its headroom.
    """
    name, kind, exhausted = _POOLS[pool]
    rooms = [(grant, room) for grant, room in rooms if grant.pool == pool]
    headroom = sum((room for _, room in rooms), ZERO)
    holds: list[Hold] = []
    left = requested
    for grant, room in rooms:
        taken = min(left, room)
        if taken > 0:
            holds.append(Hold(account_id=grant.account_id, kind=kind, amount_usd=taken))
            left -= taken
    status, reason = PASS, None
    if requested == 0:
        status, reason = SKIPPED, NOTHING_TO_COVER
    elif left > 0:
        status, reason = LIMITED, exhausted
    stage = Stage(
        stage=name,
        limit_usd=headroom,
        used_usd=ZERO,
        headroom_usd=headroom,
        requested_usd=requested,
        consumed_usd=requested - left,
        status=status,
        reason_code=reason,
    )
    return stage, holds
