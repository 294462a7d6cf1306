"""Reads that need more than one app's rows."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from billing.accounts.domain import ACTUALS, BUDGET, month_of
from billing.accounts.queries import BUDGETS, Budget, Projects, build_budget
from billing.costs.queries import spend_between
from valdrix.kernel.db import read_at_once, to_array, to_literal
from valdrix.kernel.money import ZERO


def month_to_date_spend(
    tenant_id: uuid.UUID, projects: Collection[str], *, now: datetime
) -> dict[str, Decimal]:
    """Return what projects really spent in the month of a moment so far, in US dollars.

    A project without ingested costs in that month is left out.
    """
    today = now.astimezone(UTC).date()
    return spend_between(tenant_id, projects, since=month_of(now), until=today)


_PAGE: Final = f"""
SELECT coalesce(json_agg(json_build_array({BUDGETS.sql("a")}, m.posted_usd, m.overrun_usd,
       CASE WHEN a.basis = '{ACTUALS}' THEN (
            SELECT sum(c.amount_usd) FROM billing_daily_cost c
             WHERE c.tenant_id = a.tenant_id AND c.project_id = a.project_id
               AND c.date BETWEEN %s AND %s) END,
       (SELECT json_agg(json_build_array(b.level_percent, b.raised_at) ORDER BY b.level_percent)
          FROM billing_budget_alert b
         WHERE b.tenant_id = a.tenant_id AND b.account_id = a.id AND b.month = %s)
       ) ORDER BY a.id), '[]') FROM (
    SELECT * FROM billing_account
     WHERE tenant_id = %s AND kind = '{BUDGET}' AND coalesce(project_id = ANY (%s::text[]), true)
       AND id > coalesce(%s, '{uuid.UUID(int=0)}'::uuid) ORDER BY id LIMIT %s) AS a
  LEFT JOIN billing_account_month m ON m.account_id = a.id AND m.month = %s
"""  # noqa: S608 - of constants
_PAGES: Final = msgspec.json.Decoder(
    list[
        tuple[
            BUDGETS.type,  # type: ignore[name-defined] # made at run time
            Decimal | None,
            Decimal | None,
            Decimal | None,
            list[tuple[int, datetime]] | None,
        ]
    ]
)


def read_budgets(
    tenant_id: uuid.UUID,
    *,
    projects: Projects,
    after_id: uuid.UUID | None,
    limit: int,
    now: datetime,
) -> list[Budget]:
    """Return up to ``limit`` budgets in the order they were made, read at once.

    Each with its alerts of the month of a moment; those on actuals with what their project really
    spent in it in the place of what was settled (SPEC 5).
    """
    month, today = str(month_of(now)), str(now.astimezone(UTC).date())
    page = (str(tenant_id), to_array(projects), to_literal(after_id), str(limit))
    answer = read_at_once(tenant_id, _PAGE, month, today, month, *page, month)
    assert answer is not None
    return [_build(row) for row in _PAGES.decode(answer)]


def _build(row: tuple[Any, ...]) -> Budget:
    account, posted_usd, overrun_usd, spent_usd, alerts = row
    if account.basis == ACTUALS:
        posted_usd = spent_usd
    return build_budget(
        account,
        posted_usd=posted_usd or ZERO,
        overrun_usd=overrun_usd or ZERO,
        alerts=dict(alerts or ()),
    )
