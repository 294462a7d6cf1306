"""Use cases of credit grants: made, voided and read by people."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime
from decimal import Decimal
from typing import Any

from billing.accounts import operations, queries
from billing.accounts.models import Account
from billing.accounts.operations import GrantTerms, Origin
from billing.accounts.queries import Grant, build_grant
from enforcement.controls.budgets import check_binding
from enforcement.ledger import operations as ledger
from enforcement.ledger.domain import CREDIT_GRANTED, CREDIT_VOIDED, EntryFacts
from governance.audit.operations import Actor, record_change
from valdrix.kernel.canonical import sha256_hex
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.money import to_text


def grant_credit(*, actor: Actor, grant_id: uuid.UUID, terms: GrantTerms) -> Grant:
    """Grant prepaid headroom to a project or to the whole tenant."""
    with transaction(actor.tenant_id):
        origin = Origin(actor.tenant_id, grant_id, actor.principal_id, actor.at)
        row = operations.open_grant(origin=origin, terms=terms)
        after = show_grant(row)
        _audit(actor, "credit.grant", row, before=None, after=after)
        _append(actor, CREDIT_GRANTED, row, amount_usd=row.total_usd, details=after)
    return build_grant(row, now=actor.at)


def void_credit(
    *, actor: Actor, projects: Collection[str] | None, grant_id: uuid.UUID, reason: str | None
) -> Grant:
    """Void a credit grant: no headroom from now on; its amounts stay and take refunds.

    :param projects: the projects that the actor's credential is bound to; None means all.
    :param reason: why, for the audit log.
    :raises NotFound: when the tenant has no such grant.
    :raises NotAllowed: when the credential is bound to other projects.
    :raises GrantNotVoidable: when it was voided before.
    """
    with transaction(actor.tenant_id):
        row = queries.lock_grant(actor.tenant_id, grant_id)
        check_binding(row, projects)
        before = show_grant(row)
        operations.void_grant(grant=row, voided_at=actor.at)
        after = show_grant(row) | ({} if reason is None else {"void_reason": reason})
        _audit(actor, "credit.void", row, before=before, after=after)
        _append(actor, CREDIT_VOIDED, row, amount_usd=row.remaining_usd, details=after)
    return build_grant(row, now=actor.at)


def get_credit(
    tenant_id: uuid.UUID,
    grant_id: uuid.UUID,
    *,
    projects: Collection[str] | None,
    now: datetime,
) -> Grant:
    """Return one credit grant; a bound credential also sees tenant-wide ones.

    :raises NotFound: when the tenant has no such grant.
    :raises NotAllowed: when the credential is bound to other projects.
    """
    with reading(tenant_id):
        grant = queries.get_grant(tenant_id, grant_id, now=now)
    if grant.account.project_id is not None:
        check_binding(grant.account, projects)
    return grant


def find_credits(
    tenant_id: uuid.UUID,
    *,
    projects: Collection[str] | None,
    after_id: uuid.UUID | None,
    limit: int,
    now: datetime,
) -> list[Grant]:
    """Return up to ``limit`` credit grants, oldest first, that a credential's projects may use."""
    return queries.read_grants(
        tenant_id, projects=projects, after_id=after_id, limit=limit, now=now
    )


def show_grant(row: Account) -> dict[str, Any]:
    """Return a grant's own fields as the audit log shows them."""
    return {
        "pool": row.pool,
        "project_id": row.project_id,
        "total_amount_usd": to_text(row.total_usd),
        "expires_at": None if row.expires_at is None else row.expires_at.isoformat(),
        "priority": row.priority,
        "reason": row.reason,
        "voided_at": None if row.voided_at is None else row.voided_at.isoformat(),
    }


def _audit(
    actor: Actor,
    action: str,
    row: Account,
    *,
    before: dict[str, Any] | None,
    after: dict[str, Any],
) -> None:
    record_change(
        actor=actor,
        action=action,
        subject=("credit_grant", str(row.id)),
        before=before,
        after=after,
    )


def _append(
    actor: Actor, event: str, row: Account, *, amount_usd: Decimal, details: dict[str, Any]
) -> None:
    """Append the ledger entry: ``amount_usd`` is the headroom that came or went."""
    facts = EntryFacts(
        event=event,
        at=actor.at,
        principal=actor.principal_id,
        project_id=row.project_id,
        subject_type="credit_grant",
        subject_id=str(row.id),
        amount_usd=amount_usd,
        details_sha256=sha256_hex(details),
    )
    ledger.append(tenant_id=actor.tenant_id, facts=[facts])
