"""Sending: one attempt at each delivery that is due, outside of any transaction."""

from __future__ import annotations

import logging
import smtplib
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from django.core.mail import EmailMessage

from enforcement.notifications import domain
from enforcement.notifications.links import Place, link_to
from enforcement.notifications.models import Delivery
from enforcement.notifications.operations import claim_delivery, note_failed, note_sent
from governance.integrations.models import Integration
from governance.integrations.queries import find_active_integration, read_secret
from governance.tenants.models import Tenant
from valdrix.kernel.addresses import ANY_HOST
from valdrix.kernel.db import reading
from valdrix.kernel.outbound import Call, OutboundError, send
from valdrix.kernel.sealing import SealingError

log = logging.getLogger("valdrix.notifications")

_MOST_A_RUN: Final = 200
TURN: Final = timedelta(seconds=60)
"""So long a tenant's turn begins deliveries: its slow webhook must not keep a hand for hours."""
_ANSWER_BYTES: Final = 16_384
_TRIES: Final = 1
"""Each attempt is one try: the deliveries' own backoff spreads the others over hours."""


class NotDelivered(Exception):
    """An attempt failed.

    :ivar is_final: whether another attempt cannot end differently.
    """

    def __init__(self, detail: str, *, is_final: bool) -> None:
        super().__init__(detail)
        self.is_final = is_final


def send_due(tenant_id: uuid.UUID, *, clock: Callable[[], datetime]) -> dict[str, int]:
    """Attempt what is due, a bounded number of deliveries; return how many were sent and failed."""
    counts = {"sent": 0, "failed": 0}
    began = now = clock()
    for _ in range(_MOST_A_RUN):
        delivery = claim_delivery(tenant_id=tenant_id, now=now) if now - began < TURN else None
        if delivery is None:
            break
        try:
            _deliver(delivery, now=clock())
        except NotDelivered as error:
            log.warning(
                "delivery=%s channel=%s attempts=%d outcome=failed final=%s",
                delivery.pk, delivery.channel, delivery.attempts, error.is_final,
            )  # fmt: skip
            note_failed(delivery=delivery, error=str(error), is_final=error.is_final, now=clock())
            counts["failed"] += 1
        else:
            note_sent(delivery=delivery, now=clock())
            counts["sent"] += 1
        now = clock()
    return counts


def _deliver(delivery: Delivery, *, now: datetime) -> None:
    notice = delivery.notice
    kind = "budget" if notice.kind == domain.BUDGET_ALERT else "approval"
    url = link_to(Place(delivery.tenant_id, kind, notice.subject_id))
    message = domain.build_message(notice.kind, notice.facts, url=url)
    if delivery.channel == domain.EMAIL:
        _send_mail(delivery, message)
    else:
        _call_webhook(delivery, message, now)


def _send_mail(delivery: Delivery, message: domain.Message) -> None:
    mail = EmailMessage(
        subject=message.subject,
        body=message.text,
        to=[delivery.destination],
        headers={
            "Message-ID": f"<{delivery.pk}@valdrix>",
            "Auto-Submitted": "auto-generated",
        },
    )
    try:
        mail.send()
    except smtplib.SMTPRecipientsRefused:
        raise NotDelivered("the mail server refuses the address", is_final=True) from None
    except (smtplib.SMTPException, OSError) as error:
        raise NotDelivered(f"mail: {type(error).__name__}", is_final=False) from error


def _call_webhook(delivery: Delivery, message: domain.Message, now: datetime) -> None:
    with reading(delivery.tenant_id):
        integration = find_active_integration(delivery.tenant_id, uuid.UUID(delivery.destination))
        slug = Tenant.objects.get(pk=delivery.tenant_id).slug
    if integration is None:
        raise NotDelivered("the webhook was revoked", is_final=True)
    url = str(integration.settings["url"])
    if integration.settings.get("format", domain.GENERIC) == domain.SLACK:
        body = orjson.dumps(domain.build_slack(message))
        headers = {}
    else:
        body = orjson.dumps(_event(delivery, message, slug))
        headers = _signed(integration, delivery, body, now)
    call = Call(
        method="POST",
        url=url,
        hosts=ANY_HOST,
        headers={"Content-Type": "application/json", **headers},
        body=body,
        max_bytes=_ANSWER_BYTES,
        tries=_TRIES,
    )
    try:
        answer = send(call)
    except OutboundError as error:
        raise NotDelivered(str(error), is_final=error.is_final) from error
    if not 200 <= answer.status < 300:
        is_final = not domain.is_worth_retrying(answer.status)
        raise NotDelivered(f"answered {answer.status}", is_final=is_final)


def _event(delivery: Delivery, message: domain.Message, slug: str) -> dict[str, Any]:
    return {
        "id": str(delivery.pk),
        "type": delivery.notice.kind,
        "at": delivery.notice.created_at.isoformat(),
        "tenant": slug,
        "summary": message.subject,
        "data": delivery.notice.facts,
        "url": message.url,
    }


def _signed(
    integration: Integration, delivery: Delivery, body: bytes, now: datetime
) -> dict[str, str]:
    try:
        secret = read_secret(integration)
    except SealingError as error:
        raise NotDelivered("the webhook's secret cannot be read", is_final=False) from error
    return {
        "Valdrix-Event": delivery.notice.kind,
        "Valdrix-Delivery": str(delivery.pk),
        "Valdrix-Signature": domain.sign(body, secret=secret, timestamp=int(now.timestamp())),
    }
