"""The only reads of a gate: everything a decision depends on, after its locks, in one statement."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from django.db import connection

from billing.accounts.domain import (
    ACTUALS,
    BUDGET,
    EXPOSURE,
    GRANT,
    BudgetState,
    ExposureState,
    GrantState,
    month_of,
)
from billing.plans.domain import FREE, MONTHLY_EXPOSURE_CEILING_USD
from billing.reservations.models import CREDIT_KINDS
from enforcement.gate.context import (
    ComputedContext,
    DayCost,
    SpendingFigures,
    build_context,
    sum_up,
)
from enforcement.gate.inputs import GateInput
from enforcement.gate.waterfall import Accounts, Hold
from governance.policies.domain import Policy
from valdrix.kernel.db import Rows
from valdrix.kernel.ids import id_of
from valdrix.kernel.money import ZERO

_READ: Final = """
SELECT accounts, costs, tier, policy_version
  FROM enforcement_gate_snapshot(valdrix_current_tenant(), %s, %s::uuid[], %s)
"""

_HISTORIES: Final = 512
"""Projects whose figures a process remembers: a history is up to 3 kB of text."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read after the locks.

    :ivar policy_version: the newest published version, 0 for none: the evaluation starts again
        when it is not the one that the request was read under.
    """

    accounts: Accounts
    computed: ComputedContext
    policy_version: int


def read_snapshot(
    *,
    gate_input: GateInput,
    account_ids: list[uuid.UUID],
    policy: Policy,
    now: datetime,
    row: tuple[Any, ...] | None = None,
) -> Snapshot:
    """Read everything that a decision depends on, in one statement.

    :param account_ids: the locked accounts; of a dry run the ones that would be locked.
    :param now: the clock, read after the locks.
    :param row: what was read ahead on the same day; it is read again where the accounts are not
        the locked ones.
    """
    if row is None or [account_id for account_id, _ in accounts_of(row)] != account_ids:
        with connection.cursor() as cursor:
            cursor.execute(_READ, [gate_input.project_id, account_ids, month_of(now)])
            row = cursor.fetchone()
    rows, costs, tier, policy_version = row
    computed = build_context(
        gate_input,
        figures_of(costs, now.astimezone(UTC).date()),
        now=now,
        stale_after_days=policy.context.stale_cost_days,
    )
    limits = policy.limits
    plan_ceiling = limits.plan_monthly_ceiling_usd
    if plan_ceiling is None:
        plan_ceiling = MONTHLY_EXPOSURE_CEILING_USD[tier or FREE]
    # The absolute cap is never missing: what the policy leaves out, the tier has.
    enterprise_ceiling = limits.enterprise_monthly_ceiling_usd
    if enterprise_ceiling is None:
        enterprise_ceiling = max(plan_ceiling, MONTHLY_EXPOSURE_CEILING_USD[tier or FREE])
    accounts = _accounts(
        rows or [],
        # Where real spending is not known, what was posted stands for it: never an empty budget.
        spent_usd=None if costs is None else max(ZERO, computed.mtd_spend_usd),
        plan_ceiling_usd=plan_ceiling,
        enterprise_ceiling_usd=enterprise_ceiling,
    )
    return Snapshot(accounts=accounts, computed=computed, policy_version=policy_version or 0)


def after_holds(row: tuple[Any, ...], holds: Sequence[Hold], *, is_shadow: bool) -> tuple[Any, ...]:
    """Return what would be read once an outcome's lines are written: for the next one behind it."""
    accounts = {account[1]: list(account) for account in row[0] or []}
    for hold in holds:
        account = accounts.get(hold.account_id)
        if account is None:
            continue  # An account of another scope's.
        if is_shadow:
            account[_SHADOW] = str(Decimal(account[_SHADOW]) + hold.amount_usd)
        elif hold.kind in CREDIT_KINDS:
            account[_REMAINING] = str(Decimal(account[_REMAINING]) - hold.amount_usd)
        else:
            account[_PENDING] = str(Decimal(account[_PENDING]) + hold.amount_usd)
    # A grant that is used up is not among what the next one locks.
    left = [one for one in accounts.values() if one[0] != GRANT or Decimal(one[_REMAINING]) > 0]
    return (left, *row[1:])


def take_accounts(found: Sequence[Sequence[Any]] | None) -> Rows:
    """Return the ids and kinds of accounts as they came from the database."""
    return [(id_of(account_id), kind) for account_id, kind in found or []]


def accounts_of(row: tuple[Any, ...]) -> Rows:
    """Return the ids and kinds of the accounts that were read."""
    return [(id_of(account[1]), account[0]) for account in row[0] or []]


_PENDING, _SHADOW, _REMAINING = 7, 10, 14
"""Places of an account's amounts in what is read of it."""


@lru_cache(maxsize=_HISTORIES)
def figures_of(costs: str | None, today: date) -> SpendingFigures:
    """Return the figures of a cost history as the database keeps it; None where its store failed.

    They change with the history and the day alone, so that each is summed up once.
    """
    if costs is None:
        return sum_up(None, today=today)
    return sum_up([_day(day) for day in costs.split(",") if day], today=today)


def _day(text: str) -> DayCost:
    day, amount, status = text.split(" ")
    return DayCost(date.fromisoformat(day), Decimal(amount), status == "final")


def _accounts(
    rows: list[list[Any]],
    *,
    spent_usd: Decimal | None,
    plan_ceiling_usd: Decimal,
    enterprise_ceiling_usd: Decimal | None,
) -> Accounts:
    budgets: list[BudgetState] = []
    grants: list[GrantState] = []
    exposure = ExposureState(
        account_id="", posted_usd=ZERO, pending_usd=ZERO, overrun_usd=ZERO, shadow_usd=ZERO
    )
    for row in rows:
        if row[0] == BUDGET:
            budgets.append(_budget(row, spent_usd))
        elif row[0] == GRANT:
            grants.append(_grant(row))
        elif row[0] == EXPOSURE:
            exposure = ExposureState(
                account_id=row[1],
                pending_usd=Decimal(row[7]),
                posted_usd=Decimal(row[8]),
                overrun_usd=Decimal(row[9]),
                shadow_usd=Decimal(row[10]),
            )
    return Accounts(
        budgets=tuple(budgets),
        grants=tuple(grants),
        exposure=exposure,
        plan_ceiling_usd=plan_ceiling_usd,
        enterprise_ceiling_usd=enterprise_ceiling_usd,
    )


def _budget(row: list[Any], spent_usd: Decimal | None) -> BudgetState:
    """Return a budget's state; with basis ``actuals`` real spending stands for what posted."""
    posted, pending = Decimal(row[8]), Decimal(row[7])
    if row[5] == ACTUALS and spent_usd is not None:
        # Confirmed lines up to the newest cost date are in the costs already (SPEC 5).
        posted, pending = spent_usd, pending - Decimal(row[15])
    return BudgetState(
        account_id=row[1],
        project_id=row[2],
        environment=row[3],
        team=row[4],
        basis=row[5],
        limit_usd=Decimal(row[6]),
        pending_usd=pending,
        posted_usd=posted,
        overrun_usd=Decimal(row[9]),
        shadow_usd=Decimal(row[10]),
    )


def _grant(row: list[Any]) -> GrantState:
    expires_at = None if row[13] is None else datetime.fromisoformat(row[13]).astimezone(UTC)
    return GrantState(
        account_id=row[1],
        project_id=row[2],
        pool=row[11],
        priority=row[12],
        expires_at=expires_at,
        remaining_usd=Decimal(row[14]),
        shadow_usd=Decimal(row[10]),
    )
