"""Reads of accounts as people manage them: budgets and credit grants."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

import msgspec
from django.db.models import OuterRef, QuerySet, Subquery

from billing.accounts.domain import BUDGET, GRANT, BudgetState, GrantState, month_of
from billing.accounts.models import Account, AccountMonth
from valdrix.kernel.db import read_at_once, to_array, to_literal, transaction_required
from valdrix.kernel.money import ZERO
from valdrix.kernel.problems import NotFound
from valdrix.kernel.rows import RowsOf

Projects: TypeAlias = Collection[str] | None
"""The projects that a credential is bound to; None means all of the tenant."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget's row, and what of it is taken in one UTC month.

    :ivar state: by run rate; for the basis ``actuals`` the caller puts the project's spending
        in the place of ``posted_usd``, because accounts know no costs.
    :ivar alerts: the levels of the limit that were reached in the month, in percent, and when
        that was seen; the caller's too.
    """

    account: Account
    state: BudgetState
    alerts: Mapping[int, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grant:
    """A credit grant's row, and what it offers at one moment.

    :ivar status: ``active``, ``exhausted``, ``expired`` or ``voided``; only an active one offers
        headroom, and each takes refunds.
    :ivar headroom_usd: US dollars that a decision could take now.
    """

    account: Account
    status: str
    headroom_usd: Decimal


def lock_budget(tenant_id: uuid.UUID, account_id: uuid.UUID) -> Account:
    """Lock one budget and return it as it is under the lock.

    :raises NotFound: when the tenant has no such budget.
    """
    return _lock(tenant_id, account_id, kind=BUDGET)


def lock_grant(tenant_id: uuid.UUID, account_id: uuid.UUID) -> Account:
    """Lock one credit grant and return it as it is under the lock.

    :raises NotFound: when the tenant has no such grant.
    """
    return _lock(tenant_id, account_id, kind=GRANT)


def get_budget(tenant_id: uuid.UUID, account_id: uuid.UUID, *, now: datetime) -> Budget:
    """Return one budget with what is taken of it in the month of a moment.

    :raises NotFound: when the tenant has no such budget.
    """
    rows = Account.objects.filter(tenant_id=tenant_id, id=account_id, kind=BUDGET)
    return _build_budget(_one(_with_month(rows, now)))


def find_budgets(
    tenant_id: uuid.UUID,
    *,
    projects: Projects,
    after_id: uuid.UUID | None,
    limit: int,
    now: datetime,
) -> list[Budget]:
    """Return up to ``limit`` budgets in the order they were made.

    :param projects: only budgets of these; None means all.
    :param after_id: the budget after which they start.
    """
    rows = Account.objects.filter(tenant_id=tenant_id, kind=BUDGET)
    if projects is not None:
        rows = rows.filter(project_id__in=projects)
    if after_id is not None:
        rows = rows.filter(id__gt=after_id)
    return [_build_budget(row) for row in _with_month(rows, now).order_by("id")[:limit]]


def get_grant(tenant_id: uuid.UUID, account_id: uuid.UUID, *, now: datetime) -> Grant:
    """Return one credit grant as it stands at a moment.

    :raises NotFound: when the tenant has no such grant.
    """
    rows = Account.objects.filter(tenant_id=tenant_id, id=account_id, kind=GRANT)
    return build_grant(_one(rows), now=now)


BUDGETS: Final = RowsOf(
    Account,
    only=(
        *("id", "project_id", "environment", "team", "basis", "monthly_limit_usd", "active"),
        *("pending_usd", "shadow_pending_usd", "created_at", "created_by"),
    ),
)
_ROWS: Final = RowsOf(
    Account,
    only=(
        *("id", "project_id", "pool", "total_usd", "remaining_usd", "reserved_usd"),
        *("consumed_usd", "shadow_pending_usd", "priority", "reason", "expires_at", "voided_at"),
        *("created_at", "created_by"),
    ),
)
_GRANTS: Final = msgspec.json.Decoder(list[_ROWS.type])  # type: ignore[name-defined] # made at run time
_GRANT_PAGE: Final = f"""
SELECT coalesce(json_agg({_ROWS.sql("a")}), '[]') FROM (
    SELECT * FROM billing_account
     WHERE tenant_id = %s AND kind = '{GRANT}'
       AND (project_id IS NULL OR coalesce(project_id = ANY (%s::text[]), true))
       AND id > coalesce(%s, '{uuid.UUID(int=0)}'::uuid) ORDER BY id LIMIT %s) AS a
"""  # noqa: S608 - of constants


def read_grants(
    tenant_id: uuid.UUID,
    *,
    projects: Projects,
    after_id: uuid.UUID | None,
    limit: int,
    now: datetime,
) -> list[Grant]:
    """Return up to ``limit`` credit grants in the order they were made, read at once.

    :param projects: only grants that these may draw on, tenant-wide ones included; None means all.
    :param after_id: the grant after which they start.
    """
    values = (to_array(projects), to_literal(after_id), str(limit))
    answer = read_at_once(tenant_id, _GRANT_PAGE, str(tenant_id), *values)
    assert answer is not None
    return [build_grant(row, now=now) for row in _GRANTS.decode(answer)]


def build_grant(account: Account, *, now: datetime) -> Grant:
    """Return a grant's row together with what it offers at a moment."""
    state = GrantState(
        account_id=str(account.id),
        pool=account.pool or "",
        project_id=account.project_id,
        priority=account.priority,
        expires_at=account.expires_at,
        remaining_usd=account.remaining_usd,
        shadow_usd=account.shadow_pending_usd,
    )
    if account.voided_at is not None:
        return Grant(account, "voided", ZERO)
    if account.expires_at is not None and account.expires_at <= now:
        return Grant(account, "expired", ZERO)
    headroom = state.headroom_usd(now=now, with_shadow=False)
    return Grant(account, "active" if headroom > 0 else "exhausted", headroom)


def _lock(tenant_id: uuid.UUID, account_id: uuid.UUID, *, kind: str) -> Account:
    transaction_required()
    rows = Account.objects.select_for_update(of=("self",)).filter(
        tenant_id=tenant_id, id=account_id, kind=kind
    )
    return _one(rows)


def _one(rows: QuerySet[Account]) -> Account:
    account = rows.first()
    if account is None:
        raise NotFound
    return account


def _with_month(rows: QuerySet[Account], now: datetime) -> QuerySet[Account]:
    """Add the totals of a moment's month."""
    totals = AccountMonth.objects.filter(account=OuterRef("pk"), month=month_of(now))
    return rows.annotate(
        month_posted_usd=Subquery(totals.values("posted_usd")),
        month_overrun_usd=Subquery(totals.values("overrun_usd")),
    )


def _build_budget(row: Any) -> Budget:
    """Return a budget from a row of ``_with_month``; a month without a row has no totals yet."""
    return build_budget(
        row,
        posted_usd=row.month_posted_usd or ZERO,
        overrun_usd=row.month_overrun_usd or ZERO,
        alerts={},
    )


def build_budget(
    account: Account,
    *,
    posted_usd: Decimal,
    overrun_usd: Decimal,
    alerts: Mapping[int, datetime],
) -> Budget:
    """Return a budget's row with what is taken of it in one month, in US dollars."""
    state = BudgetState(
        account_id=str(account.id),
        project_id=account.project_id or "",
        environment=account.environment,
        team=account.team,
        basis=account.basis,
        limit_usd=account.monthly_limit_usd or ZERO,
        posted_usd=posted_usd,
        pending_usd=account.pending_usd,
        overrun_usd=overrun_usd,
        shadow_usd=account.shadow_pending_usd,
    )
    return Budget(account=account, state=state, alerts=alerts)
