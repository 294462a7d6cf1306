"""Writes of what people decide about accounts: budgets opened and changed, credits granted."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import IntegrityError
from psycopg import errors

from billing.accounts.domain import BUDGET, GRANT, RUN_RATE
from billing.accounts.models import Account
from valdrix.kernel.db import savepoint, transaction_required
from valdrix.kernel.money import ZERO
from valdrix.kernel.problems import Refused

_SCOPE_CONSTRAINT = "billing_account_one_budget_a_scope"


class BudgetExists(Refused):
    """There already is a budget of this project, environment and team (409)."""

    code = "budget_exists"


class GrantNotVoidable(Refused):
    """The credit grant was voided before (409)."""

    code = "grant_not_voidable"


@dataclass(frozen=True, slots=True)
class Origin:
    """Which tenant a new account belongs to, its id, who made it, and when."""

    tenant_id: uuid.UUID
    account_id: uuid.UUID
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetTerms:
    """What a new budget covers and allows.

    :ivar environment: ``prod`` or ``nonprod``; None covers both.
    :ivar team: None covers every team.
    :ivar monthly_limit_usd: US dollars a UTC month, 4 decimals.
    """

    project_id: str
    environment: str | None = None
    team: str | None = None
    basis: str = RUN_RATE
    monthly_limit_usd: Decimal
    active: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetChange:
    """New values of a budget; None leaves one as it is."""

    monthly_limit_usd: Decimal | None = None
    active: bool | None = None
    basis: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantTerms:
    """What a new credit grant offers.

    :ivar project_id: None offers it to every project of the tenant.
    :ivar total_usd: US dollars above zero, 4 decimals.
    :ivar priority: among grants that expire together, the lowest number burns first.
    """

    pool: str
    total_usd: Decimal
    project_id: str | None = None
    expires_at: datetime | None = None
    priority: int = 100
    reason: str


def open_budget(*, origin: Origin, terms: BudgetTerms) -> Account:
    """Insert a budget.

    :raises BudgetExists: when its scope already has one, also one being made at this moment.
    :raises NotInTransaction: outside a transaction.
    """
    budget = Account(
        id=origin.account_id,
        tenant_id=origin.tenant_id,
        kind=BUDGET,
        created_at=origin.created_at,
        created_by=origin.created_by,
        project_id=terms.project_id,
        environment=terms.environment,
        team=terms.team,
        basis=terms.basis,
        monthly_limit_usd=terms.monthly_limit_usd,
        active=terms.active,
    )
    try:
        with savepoint():
            budget.save(force_insert=True)
    except IntegrityError as error:
        if not _is_violation_of(error, _SCOPE_CONSTRAINT):
            raise
        raise BudgetExists(
            "There already is a budget of this project, environment and team."
        ) from None
    return budget


def change_budget(*, budget: Account, change: BudgetChange) -> bool:
    """Write new values to a locked budget; tell whether any of them differs from the old.

    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    wanted = {
        "monthly_limit_usd": change.monthly_limit_usd,
        "active": change.active,
        "basis": change.basis,
    }
    changed = {
        name: value
        for name, value in wanted.items()
        if value is not None and value != getattr(budget, name)
    }
    for name, value in changed.items():
        setattr(budget, name, value)
    if changed:
        # Only these columns: the gate moves the kept totals of the same row.
        budget.save(update_fields=list(changed))
    return bool(changed)


def open_grant(*, origin: Origin, terms: GrantTerms) -> Account:
    """Insert a credit grant whose whole amount remains.

    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    return Account.objects.create(
        id=origin.account_id,
        tenant_id=origin.tenant_id,
        kind=GRANT,
        created_at=origin.created_at,
        created_by=origin.created_by,
        project_id=terms.project_id,
        pool=terms.pool,
        total_usd=terms.total_usd,
        remaining_usd=terms.total_usd,
        reserved_usd=ZERO,
        consumed_usd=ZERO,
        priority=terms.priority,
        expires_at=terms.expires_at,
        reason=terms.reason,
    )


def void_grant(*, grant: Account, voided_at: datetime) -> None:
    """Void a locked credit grant: it offers no headroom any more, and keeps its amounts.

    :raises GrantNotVoidable: when it is void already.
    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    updated = Account.objects.filter(
        id=grant.id, tenant_id=grant.tenant_id, kind=GRANT, voided_at__isnull=True
    ).update(voided_at=voided_at)
    if updated != 1:
        raise GrantNotVoidable("The credit grant was voided before.")
    grant.voided_at = voided_at


def _is_violation_of(error: IntegrityError, constraint: str) -> bool:
    cause = error.__cause__
    return isinstance(cause, errors.UniqueViolation) and cause.diag.constraint_name == constraint
