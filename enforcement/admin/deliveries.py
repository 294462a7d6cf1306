"""The console's list of deliveries: who was told what, what failed, and what was given up."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

from django.contrib.admin import display
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from enforcement.admin.policies import actor_of
from enforcement.notifications.domain import BUDGET_ALERT, CHANNELS, MOST_ATTEMPTS
from enforcement.notifications.models import DEAD, PENDING, SENT, STATES, Delivery
from enforcement.notifications.operations import revive_delivery
from governance.identity.domain import ADMIN, OWNER
from governance.integrations.models import Integration
from valdrix.kernel.admin import ConsoleChangeList, TenantModelAdmin, column_filter, seat_of
from valdrix.kernel.admin_acts import Act, Doing, Done
from valdrix.kernel.admin_display import (
    BAD,
    GOOD,
    NOTHING,
    WARN,
    Panel,
    badge,
    link,
    mono,
    pretty_json,
    utc,
    words,
)

_TONES: Final = {PENDING: WARN, SENT: GOOD, DEAD: BAD}
_NAMES: Final = {PENDING: "waiting", SENT: "sent", DEAD: "given up"}


def state_badge(row: Delivery) -> SafeString:
    """Return what became of a delivery."""
    return badge(_NAMES.get(row.state, row.state), _TONES.get(row.state, WARN))


def _retry(doing: Doing, form: Any) -> Done:
    delivery = revive_delivery(actor=actor_of(doing), delivery_id=doing.row.pk)
    return Done(
        "It is tried again within a minute.",
        reverse("admin:enforcement_delivery_change", args=[str(delivery.pk)]),
    )


RETRY: Final = Act(
    name="retry",
    label="Try it again",
    roles=(ADMIN, OWNER),
    perform=_retry,
    applies=lambda row: row.state == DEAD,
    intro="It is sent once more, with fresh attempts, to the same address.",
)


class DeliveryChangeList(ConsoleChangeList):
    """A page of deliveries with the names of their webhooks."""

    result_list: Sequence[Delivery]

    def get_results(self, request: HttpRequest) -> None:
        """Read the page, and the names of its webhooks at once."""
        super().get_results(request)
        rows = list(self.result_list)
        name_webhooks(seat_of(request).tenant_id, rows)
        self.result_list = rows


def name_webhooks(tenant_id: uuid.UUID, rows: Sequence[Delivery]) -> None:
    """Give each delivery a ``to``: its address, or its webhook's name."""
    ids = {one.destination for one in rows if one.channel != "email"}
    names = {
        str(pk): name
        for pk, name in Integration.objects.filter(tenant_id=tenant_id, pk__in=ids).values_list(
            "pk", "name"
        )
    }
    for one in rows:
        one.to = names.get(one.destination, one.destination)  # type: ignore[attr-defined]


class DeliveryAdmin(TenantModelAdmin):
    """Who was told, and what could not be delivered."""

    roles = (ADMIN, OWNER)
    list_title = "Notifications"
    empty_text = "No notification matches. What people are told appears here."
    list_display = ("when", "state_shown", "told", "channel", "receiver", "tried", "error")
    list_display_links = ("when",)
    list_filter = (
        column_filter("state", "state", STATES, label=lambda name: _NAMES[name]),
        column_filter("channel", "channel", CHANNELS),
    )
    row_acts = (RETRY,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the tenant's deliveries with what they tell."""
        return super().get_queryset(request).select_related("notice")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ConsoleChangeList]:
        """Return the list's class."""
        return DeliveryChangeList

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a delivery's page."""
        return f"Notification {str(row.id)[-12:]}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return where it went, what became of it, and what it says."""
        name_webhooks(row.tenant_id, [row])
        notice = row.notice
        name = "billing_account" if notice.kind == BUDGET_ALERT else "governance_approval"
        subject = reverse(f"admin:{name}_change", args=[str(notice.subject_id)])
        life = [
            ("State", state_badge(row)),
            ("Attempts", f"{row.attempts} of {MOST_ATTEMPTS}"),
            ("Next attempt", utc(row.next_at) if row.state == PENDING else NOTHING),
            ("Sent", utc(row.sent_at)),
            ("Last error", row.last_error or NOTHING),
        ]
        told = [
            ("Told", words(notice.kind.replace(".", " "))),
            ("About", link(subject, str(notice.subject_id))),
            ("Channel", row.channel),
            ("To", row.to),
            ("Made", utc(row.created_at)),
            ("Delivery id", mono(str(row.id))),
        ]
        return [
            Panel("Notification", told),
            Panel("Delivery", life),
            Panel("What it says", document=pretty_json(notice.facts)),
        ]

    @display(description="Made")
    def when(self, row: Delivery) -> str:
        """Return when it was made."""
        return utc(row.created_at)

    @display(description="State")
    def state_shown(self, row: Delivery) -> SafeString:
        """Return what became of it."""
        return state_badge(row)

    @display(description="Told")
    def told(self, row: Delivery) -> str:
        """Return what it tells."""
        return f"{words(row.notice.kind.replace('.', ' '))}: {row.notice.facts['project_id']}"

    @display(description="To")
    def receiver(self, row: Any) -> str:
        """Return the address or the webhook."""
        return str(row.to)

    @display(description="Attempts")
    def tried(self, row: Delivery) -> int:
        """Return how often it was tried."""
        return row.attempts

    @display(description="Last error")
    def error(self, row: Delivery) -> str:
        """Return why the last attempt failed."""
        return row.last_error or NOTHING
