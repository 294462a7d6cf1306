"""Reads of accounts as people manage them: budgets and credit grants."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec
from django.db.models import OuterRef, QuerySet, Subquery

from billing.accounts.domain import BUDGET, GRANT, BudgetState, GrantState, month_of
from billing.accounts.models import Account, AccountMonth
from billing.accounts.schema import GRANTS
from valdrix.kernel.db import read_at_once, to_array, transaction_required
from valdrix.kernel.money import ZERO
from valdrix.kernel.problems import NotFound
from valdrix.kernel.rows import REMEMBERED_ROWS, remembering

Projects: TypeAlias = Collection[str] | None
"""The projects that a credential is bound to; None means all of the tenant."""


@dataclass(frozen=True, slots=True, eq=False)
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


@dataclass(frozen=True, slots=True, eq=False)
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


_GRANTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_read_grant: Final = remembering(msgspec.json.Decoder(GRANTS.type).decode)
_GRANT_PAGE: Final = "SELECT billing_grants_page(%s, %s, %s, %s)"


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
    values = (to_array(projects), str(after_id or uuid.UUID(int=0)), str(limit))
    answer = read_at_once(tenant_id, _GRANT_PAGE, str(tenant_id), *values)
    assert answer is not None
    rows = map(_read_grant, _GRANTS.decode(answer))
    return [_grant_of(row, _is_expired(row, now)) for row in rows]


def build_grant(account: Account, *, now: datetime) -> Grant:
    """Return a grant's row together with what it offers at a moment."""
    return _build_grant(account, _is_expired(account, now))


def _is_expired(account: Account, now: datetime) -> bool:
    return account.expires_at is not None and account.expires_at <= now


def _build_grant(account: Account, is_expired: bool) -> Grant:  # noqa: FBT001 - of a moment
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
    if is_expired:
        return Grant(account, "expired", ZERO)
    headroom = state.left_usd(with_shadow=False)
    return Grant(account, "active" if headroom > 0 else "exhausted", headroom)


_grant_of: Final = lru_cache(maxsize=REMEMBERED_ROWS)(_build_grant)
"""The same of a row that was read, which never changes; an instance of the model does."""


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
