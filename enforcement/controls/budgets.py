"""Use cases of budgets: made, changed and read by people."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec

from billing.accounts import operations, queries
from billing.accounts.domain import ACTUALS, month_of
from billing.accounts.models import Account
from billing.accounts.operations import BudgetChange, BudgetTerms, Origin
from billing.accounts.queries import Budget
from billing.alerts.operations import raise_budget_alerts_now
from billing.alerts.queries import alerts_of
from enforcement.controls.queries import month_to_date_spend, read_budgets
from enforcement.ledger import operations as ledger
from enforcement.ledger.domain import BUDGET_CHANGED, BUDGET_CREATED, EntryFacts
from governance.audit.operations import Actor, record_change
from valdrix.kernel.canonical import sha256_hex
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.edits import check_unmoved
from valdrix.kernel.money import ZERO, to_text
from valdrix.kernel.problems import NotAllowed


def create_budget(*, actor: Actor, budget_id: uuid.UUID, terms: BudgetTerms) -> Budget:
    """Open a budget for a scope that has none.

    :raises BudgetExists: when the scope has one already.
    """
    with transaction(actor.tenant_id):
        origin = Origin(actor.tenant_id, budget_id, actor.principal_id, actor.at)
        row = operations.open_budget(origin=origin, terms=terms)
        _record(actor, BUDGET_CREATED, row, before=None)
    return _alerted(actor, row)


def change_budget(
    *,
    actor: Actor,
    projects: Collection[str] | None,
    budget_id: uuid.UUID,
    change: BudgetChange,
    shown: str | None = None,
) -> Budget:
    """Change a budget's limit, basis or activity; values that it has already change nothing.

    A limit below what is taken already is allowed: it leaves no headroom.

    :param projects: the projects that the actor's credential is bound to; None means all.
    :param shown: the mark of what the editor was shown; None when it was not kept.
    :raises NotFound: when the tenant has no such budget.
    :raises NotAllowed: when the credential is bound to other projects.
    :raises StaleEdit: when it is another budget by now than was shown.
    """
    with transaction(actor.tenant_id):
        row = queries.lock_budget(actor.tenant_id, budget_id)
        check_binding(row, projects)
        before = show_budget(row)
        check_unmoved(shown, before)
        changed = operations.change_budget(budget=row, change=change)
        if changed:
            _record(actor, BUDGET_CHANGED, row, before=before)
    return _alerted(actor, row)


def get_budget(
    tenant_id: uuid.UUID,
    budget_id: uuid.UUID,
    *,
    projects: Collection[str] | None,
    now: datetime,
) -> Budget:
    """Return one budget as it stands in the current UTC month.

    :raises NotFound: when the tenant has no such budget.
    :raises NotAllowed: when the credential is bound to other projects.
    """
    with reading(tenant_id):
        budget = _with_alerts(tenant_id, [_read(tenant_id, budget_id, now=now)], now=now)[0]
    check_binding(budget.account, projects)
    return budget


def find_budgets(
    tenant_id: uuid.UUID,
    *,
    projects: Collection[str] | None,
    after_id: uuid.UUID | None,
    limit: int,
    now: datetime,
) -> list[Budget]:
    """Return up to ``limit`` budgets, oldest first, of the projects of a credential."""
    return read_budgets(tenant_id, projects=projects, after_id=after_id, limit=limit, now=now)


def check_binding(row: Account, projects: Collection[str] | None) -> None:
    """Refuse a credential that is bound to other projects than an account's.

    :raises NotAllowed: with the code ``project_not_allowed``.
    """
    if projects is not None and row.project_id not in projects:
        raise NotAllowed("The credential is bound to other projects.", code="project_not_allowed")


def show_budget(row: Account) -> dict[str, Any]:
    """Return a budget's own fields as the audit log shows them."""
    return {
        "project_id": row.project_id,
        "environment": row.environment,
        "team": row.team,
        "basis": row.basis,
        "monthly_limit_usd": to_text(row.monthly_limit_usd or ZERO),
        "active": row.active,
    }


def _read(tenant_id: uuid.UUID, budget_id: uuid.UUID, *, now: datetime) -> Budget:
    budget = queries.get_budget(tenant_id, budget_id, now=now)
    return _with_actuals(tenant_id, [budget], now=now)[0]


def _with_actuals(tenant_id: uuid.UUID, budgets: list[Budget], *, now: datetime) -> list[Budget]:
    """Put real spending in the place of ``posted_usd`` of budgets on actuals (SPEC 5)."""
    projects = {one.state.project_id for one in budgets if one.state.basis == ACTUALS}
    if not projects:
        return budgets
    spend = month_to_date_spend(tenant_id, projects, now=now)
    return [
        replace(
            one,
            state=msgspec.structs.replace(
                one.state, posted_usd=spend.get(one.state.project_id, ZERO)
            ),
        )
        if one.state.basis == ACTUALS
        else one
        for one in budgets
    ]


def _with_alerts(tenant_id: uuid.UUID, budgets: list[Budget], *, now: datetime) -> list[Budget]:
    ids = [one.account.id for one in budgets]
    found = alerts_of(tenant_id, ids, month=month_of(now))
    return [replace(one, alerts=found.get(one.account.id, {})) for one in budgets]


def _alerted(actor: Actor, row: Account) -> Budget:
    """Return a budget that was made or changed just now, with the alerts that this led to."""
    assert row.project_id is not None
    raise_budget_alerts_now(actor.tenant_id, at=actor.at, projects=[row.project_id])
    return get_budget(actor.tenant_id, row.id, projects=None, now=actor.at)


def _record(actor: Actor, event: str, row: Account, *, before: dict[str, Any] | None) -> None:
    after = show_budget(row)
    record_change(
        actor=actor,
        action="budget.create" if before is None else "budget.change",
        subject=("budget", str(row.id)),
        before=before,
        after=after,
    )
    facts = EntryFacts(
        event=event,
        at=actor.at,
        principal=actor.principal_id,
        project_id=row.project_id,
        environment=row.environment,
        subject_type="budget",
        subject_id=str(row.id),
        amount_usd=row.monthly_limit_usd,
        details_sha256=sha256_hex(after),
    )
    ledger.append(tenant_id=actor.tenant_id, facts=[facts])
