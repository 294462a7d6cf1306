"""Writes of budget alerts: each level of each budget and month once, from kept totals."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Final

import msgspec
from django.db import DatabaseError, connection

from billing.accounts.domain import ACTUALS, BudgetState, month_of
from billing.accounts.queries import find_budgets
from billing.alerts.domain import reached_levels
from billing.alerts.queries import alerts_of
from billing.costs.queries import spend_between
from valdrix.kernel.db import transaction
from valdrix.kernel.ids import new_id
from valdrix.kernel.metrics import BUDGET_ALERTS
from valdrix.kernel.money import ZERO

log = logging.getLogger("valdrix.budgets")

_PAGE: Final = 500
_RAISE: Final = """
INSERT INTO billing_budget_alert
    (id, tenant_id, account_id, project_id, month, level_percent, used_usd, limit_usd, raised_at)
VALUES (%(id)s, %(tenant)s, %(account)s, %(project)s, %(month)s, %(level)s, %(used)s, %(limit)s,
    %(at)s)
ON CONFLICT (account_id, month, level_percent) DO NOTHING
"""


def raise_budget_alerts(
    tenant_id: uuid.UUID, *, at: datetime, projects: Collection[str] | None = None
) -> int:
    """Write the alerts that a tenant's active budgets have come to, in transactions of its own.

    Any number may do this at once: the constraint lets each alert be written once.

    :param projects: only budgets of these; None means all.
    :return: how many were new.
    """
    raised = 0
    after_id: uuid.UUID | None = None
    while True:
        with transaction(tenant_id):
            budgets = find_budgets(
                tenant_id, projects=projects, after_id=after_id, limit=_PAGE, now=at
            )
            states = [one.state for one in budgets if one.account.active]
            raised += _raise(tenant_id, list(_with_actuals(tenant_id, states, at)), at)
        if len(budgets) < _PAGE:
            return raised
        after_id = budgets[-1].account.id


def raise_budget_alerts_now(
    tenant_id: uuid.UUID, *, at: datetime, projects: Collection[str]
) -> None:
    """Do so for what was changed just now; where the database fails, the job does it later.

    What was changed is committed: that its alerts are late is no reason to say that it failed.
    """
    try:
        raise_budget_alerts(tenant_id, at=at, projects=projects)
    except DatabaseError:
        log.exception("budget alerts of tenant %s wait for the job", tenant_id)


def _raise(tenant_id: uuid.UUID, states: list[BudgetState], at: datetime) -> int:
    due = [(state, level) for state in states for level in reached_levels(state)]
    month = month_of(at)
    known = alerts_of(tenant_id, {uuid.UUID(state.account_id) for state, _ in due}, month=month)
    raised = 0
    for state, level in due:
        if level in known.get(uuid.UUID(state.account_id), {}):
            continue
        with connection.cursor() as cursor:
            cursor.execute(
                _RAISE,
                {
                    "id": new_id(),
                    "tenant": tenant_id,
                    "account": state.account_id,
                    "project": state.project_id,
                    "month": month,
                    "level": level,
                    "used": state.used_usd(with_shadow=False),
                    "limit": state.limit_usd,
                    "at": at,
                },
            )
            raised += cursor.rowcount
            BUDGET_ALERTS.labels(str(level)).inc(cursor.rowcount)
    return raised


def _with_actuals(
    tenant_id: uuid.UUID, states: list[BudgetState], at: datetime
) -> Iterator[BudgetState]:
    """Put real spending in the place of what posted, for budgets on actuals (SPEC 5)."""
    projects = {state.project_id for state in states if state.basis == ACTUALS}
    spend = spend_between(tenant_id, projects, since=month_of(at), until=at.astimezone(UTC).date())
    for state in states:
        if state.basis == ACTUALS:
            posted = max(ZERO, spend.get(state.project_id, ZERO))
            yield msgspec.structs.replace(state, posted_usd=posted)
        else:
            yield state
