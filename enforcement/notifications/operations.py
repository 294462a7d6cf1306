"""Writes of notifications: events spread into deliveries, and what became of each."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db.models import F

from enforcement.decisions.models import Decision
from enforcement.ledger import domain as ledger
from enforcement.ledger.models import LedgerEntry
from enforcement.ledger.queries import find_head
from enforcement.notifications import domain, queries
from enforcement.notifications.facts import approval_facts, budget_facts
from enforcement.notifications.models import DEAD, PENDING, SENT, Delivery, Notice, NoticeCursor
from enforcement.notifications.recipients import find_recipients
from governance.approvals.models import Approval
from governance.audit.operations import Actor, record_change
from valdrix.kernel.db import transaction
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import NotFound, Refused

LEASE: Final = timedelta(minutes=5)
"""Longer than every attempt: a delivery whose sender died is taken up again after it."""
_NEW_TENANT_READS_BACK: Final = 1_000
_ERROR_LENGTH: Final = 300
_KINDS: Final = {
    ledger.APPROVAL_REQUESTED: domain.APPROVAL_REQUESTED,
    ledger.APPROVAL_APPROVED: domain.APPROVAL_APPROVED,
    ledger.APPROVAL_DENIED: domain.APPROVAL_DENIED,
    ledger.APPROVAL_WITHDRAWN: domain.APPROVAL_WITHDRAWN,
    ledger.APPROVAL_EXPIRED: domain.APPROVAL_EXPIRED,
}


class DeliveryNotDead(Refused):
    """The delivery was not given up (409)."""

    code = "delivery_not_dead"


def spread_ledger(*, tenant_id: uuid.UUID, now: datetime) -> int:
    """Make notices of the ledger's next entries, each once; return how many were made."""
    made = 0
    while True:
        with transaction(tenant_id):
            head = find_head(tenant_id)
            begin = max(0, (head.sequence if head else 0) - _NEW_TENANT_READS_BACK)
            cursor = queries.lock_cursor(tenant_id, begin=begin)
            if cursor is None:
                return made
            entries, read_to = queries.find_told_entries(tenant_id, after=cursor.sequence)
            if read_to == cursor.sequence:
                return made
            for entry in entries:
                made += _tell_entry(entry, now)
            NoticeCursor.objects.filter(pk=tenant_id).update(sequence=read_to)


def spread_alerts(*, tenant_id: uuid.UUID, now: datetime) -> int:
    """Make notices of budget alerts, each once; return how many were made."""
    with transaction(tenant_id):
        return sum(
            _tell(
                kind=domain.BUDGET_ALERT,
                key=f"alert:{alert.pk}",
                approval=None,
                about=(tenant_id, alert.account_id, budget_facts(alert)),
                now=now,
            )
            for alert in queries.find_untold_alerts(tenant_id, now=now)
        )


def remind(*, tenant_id: uuid.UUID, now: datetime) -> int:
    """Make notices of approvals whose time is running out, each once a round."""
    made = 0
    with transaction(tenant_id):
        for approval in queries.find_unreminded(tenant_id, now=now):
            before = domain.reminded_before(timedelta(seconds=approval.ttl_seconds))
            if now < approval.expires_at - before:
                continue
            rows = Approval.objects.filter(
                pk=approval.pk, status=approval.status, reminded_at__isnull=True
            )
            if rows.update(reminded_at=now) == 1:
                made += _tell_approval(
                    approval,
                    kind=domain.APPROVAL_REMINDER,
                    key=f"reminder:{approval.pk}:{approval.round}",
                    now=now,
                )
    return made


def claim_delivery(*, tenant_id: uuid.UUID, now: datetime) -> Delivery | None:
    """Take one delivery that is due, for the time of an attempt, and return it with its notice."""
    with transaction(tenant_id):
        delivery = queries.lock_due(tenant_id, now=now)
        if delivery is None:
            return None
        delivery.attempts += 1
        delivery.next_at = now + LEASE
        delivery.save(update_fields=["attempts", "next_at"])
        return delivery


def note_sent(*, delivery: Delivery, now: datetime) -> None:
    """Note that a claimed delivery arrived."""
    with transaction(delivery.tenant_id):
        _claimed(delivery).update(state=SENT, sent_at=now, last_error="")


def note_failed(*, delivery: Delivery, error: str, is_final: bool, now: datetime) -> None:
    """Note that a claimed delivery failed: it is tried again later, or given up."""
    wait = None if is_final else domain.retry_after(delivery.attempts)
    with transaction(delivery.tenant_id):
        _claimed(delivery).update(
            state=DEAD if wait is None else PENDING,
            next_at=now + (wait or timedelta()),
            last_error=domain.one_line(error)[:_ERROR_LENGTH],
        )


def revive_delivery(*, actor: Actor, delivery_id: uuid.UUID) -> Delivery:
    """Try a delivery again that was given up.

    :raises NotFound: when the tenant has no such delivery.
    :raises DeliveryNotDead: when it was not given up.
    """
    with transaction(actor.tenant_id):
        delivery = queries.lock_delivery(actor.tenant_id, delivery_id)
        if delivery is None:
            raise NotFound
        if delivery.state != DEAD:
            raise DeliveryNotDead("It was not given up.")
        delivery.state, delivery.attempts, delivery.next_at = PENDING, 0, actor.at
        delivery.save(update_fields=["state", "attempts", "next_at"])
        record_change(
            actor=actor,
            action="delivery.retry",
            subject=("delivery", str(delivery.pk)),
            before={"state": DEAD, "last_error": delivery.last_error},
            after={"state": PENDING},
        )
        return delivery


def _claimed(delivery: Delivery) -> Any:
    """Return the delivery if nobody else took it since: a sender that was slow changes nothing."""
    return Delivery.objects.filter(
        pk=delivery.pk,
        tenant_id=delivery.tenant_id,
        state=PENDING,
        attempts=delivery.attempts,
    )


def _tell_entry(entry: LedgerEntry, now: datetime) -> int:
    assert entry.approval_request_id is not None, "only entries of approvals are told"
    rows = Approval.objects.filter(tenant_id=entry.tenant_id, pk=entry.approval_request_id)
    approval = rows.first()
    if approval is None:
        return 0
    return _tell_approval(
        approval, kind=_KINDS[entry.event], key=f"ledger:{entry.sequence}", now=now
    )


def _tell_approval(approval: Approval, *, kind: str, key: str, now: datetime) -> int:
    rows = Decision.objects.filter(
        tenant_id=approval.tenant_id, approval_request_id=approval.pk, decision="REQUIRE_APPROVAL"
    )
    decision = rows.order_by(F("monthly_delta_usd").desc(nulls_first=True), "pk").first()
    facts = approval_facts(approval, decision)
    about = (approval.tenant_id, approval.pk, facts)
    return _tell(kind=kind, key=key, approval=approval, about=about, now=now)


def _tell(
    *,
    kind: str,
    key: str,
    approval: Approval | None,
    about: tuple[uuid.UUID, uuid.UUID, dict[str, Any]],
    now: datetime,
) -> int:
    tenant_id, subject_id, facts = about
    notice = Notice(
        id=new_id(),
        tenant_id=tenant_id,
        kind=kind,
        key=key,
        subject_id=subject_id,
        facts=facts,
        created_at=now,
    )
    # A key that was told before is told no more, whatever else went wrong.
    Notice.objects.bulk_create([notice], ignore_conflicts=True)
    if not Notice.objects.filter(pk=notice.pk).exists():
        return 0
    found = find_recipients(tenant_id, kind, approval=approval, project_id=facts["project_id"])
    Delivery.objects.bulk_create(
        Delivery(
            id=new_id(),
            tenant_id=tenant_id,
            notice=notice,
            channel=channel,
            destination=destination,
            next_at=now,
            created_at=now,
        )
        for channel, destination in _reachable(found)
    )
    return 1


def _reachable(found: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the destinations that can be sent to, each once; without mail none by e-mail."""
    kept = []
    for channel, destination in dict.fromkeys(found):
        can_mail = settings.MAIL_IS_CONFIGURED and _is_address(destination)
        if channel == domain.EMAIL and not can_mail:
            continue
        kept.append((channel, destination))
    return kept


def _is_address(text: str) -> bool:
    try:
        validate_email(text)
    except ValidationError:
        return False
    return True
