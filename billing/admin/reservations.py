"""The console's list of reservations, and the page of one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

from django.contrib.admin import display
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from billing.models import Reservation
from billing.reservations.models import ACTIVE, RELEASED, SETTLED, STATES
from governance.identity.domain import ADMIN, OWNER
from valdrix.kernel.admin import TenantModelAdmin, column_filter
from valdrix.kernel.admin_display import (
    GOOD,
    INFO,
    NEUTRAL,
    NOTHING,
    Panel,
    badge,
    link,
    mono,
    usd,
    utc,
    words,
)

_TONES: Final = {ACTIVE: INFO, SETTLED: GOOD, RELEASED: NEUTRAL}


class ReservationAdmin(TenantModelAdmin):
    """What decisions hold until it is known what was really spent."""

    roles = (ADMIN, OWNER)
    empty_text = "No reservation matches. A decision that goes ahead makes one."
    search_fields = ("decision_id",)
    search_help_text = "Decision id"
    list_display = ("since", "state_badge", "subject", "own", "taken", "kind", "due")
    list_display_links = ("since",)
    list_filter = (column_filter("state", "state", STATES, label=words),)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the tenant's reservations with their charges."""
        return super().get_queryset(request).select_related("charge")

    def search(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Return the reservation of a decision."""
        try:
            return rows.filter(decision_id=uuid.UUID(term))
        except ValueError:
            return rows.none()

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a reservation's page."""
        return f"Reservation {str(row.decision_id)[-12:]}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return the reservation, its charge and its lines."""
        charge = row.charge
        decision_url = reverse("admin:enforcement_decision_change", args=[str(row.decision_id)])
        head = [
            ("State", badge(row.state, _TONES.get(row.state, NEUTRAL))),
            ("Decision", link(decision_url, str(row.decision_id))),
            ("Own part", f"{usd(row.own_usd)} USD"),
            ("Taken of a parent", f"{usd(row.taken_usd)} USD"),
            ("Month", f"{row.month:%Y-%m}"),
            ("Reserved at", utc(row.reserved_at)),
            ("Settled by itself after", utc(row.due_at)),
        ]
        change = [
            ("State", badge(charge.state, _TONES.get(charge.state, NEUTRAL))),
            ("Project", charge.project_id),
            ("Environment", charge.environment),
            ("Action", charge.action),
            ("Resource", charge.resource_reference),
            ("Run", charge.run_id or NOTHING),
            ("Held, all decisions", f"{usd(charge.held_usd)} USD"),
            ("Held, whole family", f"{usd(charge.family_held_usd)} USD"),
            ("Confirmed", utc(charge.confirmed_at)),
            ("Change fingerprint", mono(charge.change_fingerprint)),
        ]
        lines = row.lines.select_related("account").order_by("position")
        return [
            Panel("Reservation", head),
            Panel("Charge", change),
            Panel("Lines", [_line(line) for line in lines]),
        ]

    @display(description="Reserved")
    def since(self, row: Reservation) -> str:
        """Return when it was reserved."""
        return utc(row.reserved_at)

    @display(description="State")
    def state_badge(self, row: Reservation) -> SafeString:
        """Return the state."""
        return badge(row.state, _TONES.get(row.state, NEUTRAL))

    @display(description="Change")
    def subject(self, row: Reservation) -> str:
        """Return the project, environment and action."""
        charge = row.charge
        return f"{charge.project_id} / {charge.environment}: {charge.action}"

    @display(description="Own part, USD")
    def own(self, row: Reservation) -> str:
        """Return what it holds itself."""
        return usd(row.own_usd)

    @display(description="Of a parent, USD")
    def taken(self, row: Reservation) -> str:
        """Return what it took of a parent."""
        return usd(row.taken_usd)

    @display(description="Kind")
    def kind(self, row: Reservation) -> str:
        """Return whether it limits others."""
        return "shadow" if row.charge.is_shadow else "real"

    @display(description="Due")
    def due(self, row: Reservation) -> str:
        """Return when the overdue job settles it."""
        return utc(row.due_at)


def _line(line: Any) -> tuple[str, Any]:
    account = line.account
    url = reverse("admin:billing_account_change", args=[str(account.id)])
    name = account.project_id or ("exposure" if account.kind == "exposure" else "all projects")
    text = f"{words(line.kind)}, {usd(line.amount_usd)} USD, {line.state}"
    return text, link(url, f"{account.kind}: {name}" if account.kind != name else name)
