"""Reads that need more than one app's rows."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import msgspec

from billing.accounts.domain import ACTUALS, month_of
from billing.accounts.queries import Budget, Projects, build_budget
from billing.accounts.schema import BUDGETS
from billing.costs.queries import spend_between
from valdrix.kernel.db import read_at_once, to_array
from valdrix.kernel.money import ZERO
from valdrix.kernel.rows import remembering


def month_to_date_spend(
    tenant_id: uuid.UUID, projects: Collection[str], *, now: datetime
) -> dict[str, Decimal]:
    """Return what projects really spent in the month of a moment so far, in US dollars.

    A project without ingested costs in that month is left out.
    """
    today = now.astimezone(UTC).date()
    return spend_between(tenant_id, projects, since=month_of(now), until=today)


_PAGE: Final = "SELECT enforcement_budgets_page(%s, %s, %s, %s, %s, %s)"
_PAGES: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ROW: Final = msgspec.json.Decoder(
    tuple[
        BUDGETS.type,  # type: ignore[name-defined] # made at run time
        Decimal | None,
        Decimal | None,
        Decimal | None,
        list[tuple[int, datetime]] | None,
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
    page = (str(tenant_id), to_array(projects), str(after_id or uuid.UUID(int=0)), str(limit))
    answer = read_at_once(tenant_id, _PAGE, *page, month, today)
    assert answer is not None
    return [_build(row) for row in _PAGES.decode(answer)]


@remembering
def _build(row: bytes) -> Budget:
    account, posted_usd, overrun_usd, spent_usd, alerts = _ROW.decode(row)
    if account.basis == ACTUALS:
        posted_usd = spent_usd
    return build_budget(
        account,
        posted_usd=posted_usd or ZERO,
        overrun_usd=overrun_usd or ZERO,
        alerts=dict(alerts or ()),
    )
