"""Transitions of an approval that is locked: each moves it once, from the status it was read in."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db import IntegrityError

from governance.approvals.models import (
    APPROVED,
    CONSUMED,
    DENIED,
    EXPIRED,
    OPEN,
    PENDING,
    WITHDRAWN,
    Approval,
    Review,
)
from governance.approvals.operations import ApprovalMoved
from valdrix.kernel.db import savepoint, transaction_required
from valdrix.kernel.problems import NotFound, Refused

_STATES: Final = {
    PENDING: ("approval_pending", "It still waits for its reviewers."),
    APPROVED: ("approval_already_given", "It was given already."),
    DENIED: ("approval_denied", "It was denied."),
    EXPIRED: ("approval_expired", "Its time is over; ask the gate again."),
    WITHDRAWN: ("approval_withdrawn", "It was withdrawn; ask the gate again."),
    CONSUMED: ("approval_consumed", "It was spent; another change needs its own approval."),
}


class ApprovalNotOpen(Refused):
    """The approval is in another state than the call needs (409); the code says in which."""

    code = "approval_pending"


class ApprovalNotApplicable(Refused):
    """Nothing about the decision can be asked of reviewers (409)."""

    code = "approval_not_applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What an approval is once it is given: its ceiling and the decision that holds it."""

    max_monthly_delta_usd: Decimal
    max_hourly_delta_usd: Decimal | None
    held_decision_id: uuid.UUID


def get_approval(tenant_id: uuid.UUID, approval_id: uuid.UUID) -> Approval:
    """Return an approval as it is, without locking it.

    :raises NotFound: when the tenant has no such approval.
    """
    approval = Approval.objects.filter(tenant_id=tenant_id, pk=approval_id).first()
    if approval is None:
        raise NotFound("No such approval.")
    return approval


def lock_approval(tenant_id: uuid.UUID, approval_id: uuid.UUID) -> Approval:
    """Lock an approval and return it as it is under the lock.

    :raises NotFound: when the tenant has no such approval.
    """
    transaction_required()
    rows = Approval.objects.filter(tenant_id=tenant_id, pk=approval_id)
    approval = rows.select_for_update(of=("self",)).first()
    if approval is None:
        raise NotFound("No such approval.")
    return approval


def lock_approvals(tenant_id: uuid.UUID, approval_ids: set[uuid.UUID]) -> list[Approval]:
    """Lock approvals in primary-key order."""
    transaction_required()
    rows = Approval.objects.filter(tenant_id=tenant_id, pk__in=approval_ids)
    return list(rows.order_by("pk").select_for_update(of=("self",)))


def status_at(approval: Approval, at: datetime) -> str:
    """Return an approval's status at a moment: one whose time is over is expired already."""
    if approval.status in OPEN and approval.expires_at <= at:
        return EXPIRED
    return str(approval.status)


def check_status(approval: Approval, wanted: str, *, at: datetime) -> None:
    """Refuse an approval that is in another status.

    :raises ApprovalNotOpen: with the code of the status that it is in.
    """
    status = status_at(approval, at)
    if status != wanted:
        code, detail = _STATES[status]
        raise ApprovalNotOpen(detail, code=code)


def end_approval(
    *, approval: Approval, status: str, at: datetime, consumed_by: uuid.UUID | None = None
) -> None:
    """Move a locked, open approval to one of its ends.

    :param consumed_by: the decision that spent it, where that was no token.
    :raises ApprovalMoved: when it was moved under our lock: a defect.
    """
    transaction_required()
    rows = Approval.objects.filter(pk=approval.pk, status=approval.status)
    if rows.update(status=status, closed_at=at, consumed_by_decision_id=consumed_by) != 1:
        raise ApprovalMoved("an approval moved under its lock")


def give_approval(*, approval: Approval, given: Given, at: datetime) -> None:
    """Move a locked, pending approval to approved; its use has a time of its own.

    :raises ApprovalMoved: when it was moved under our lock: a defect.
    """
    transaction_required()
    rows = Approval.objects.filter(pk=approval.pk, status=PENDING)
    moved = rows.update(
        status=APPROVED,
        approved_at=at,
        expires_at=at + timedelta(seconds=approval.ttl_seconds),
        max_monthly_delta_usd=given.max_monthly_delta_usd,
        max_hourly_delta_usd=given.max_hourly_delta_usd,
        held_decision_id=given.held_decision_id,
    )
    if moved != 1:
        raise ApprovalMoved("an approval moved under its lock")


def reopen_approval(*, approval: Approval, reason: str, at: datetime) -> None:
    """Ask for a locked approval again that expired or was withdrawn: its next round.

    :raises ApprovalNotApplicable: when another approval of the same change is open.
    """
    rows = Approval.objects.filter(pk=approval.pk, status=approval.status)
    try:
        with savepoint():
            moved = rows.update(
                status=PENDING,
                round=approval.round + 1,
                request_reason=reason,
                requested_at=at,
                expires_at=at + timedelta(seconds=approval.ttl_seconds),
                approved_at=None,
                max_monthly_delta_usd=None,
                max_hourly_delta_usd=None,
                held_decision_id=None,
                reminded_at=None,
                closed_at=None,
            )
    except IntegrityError:
        raise ApprovalNotApplicable("Another approval of the same change is open.") from None
    if moved != 1:
        raise ApprovalMoved("an approval moved under its lock")


def record_review(*, review: Review) -> None:
    """Write one person's verdict, once and for ever.

    :raises NotInTransaction: outside the verdict's transaction.
    """
    transaction_required()
    review.save(force_insert=True)
