"""The console's list of metered use: each day's counts, and whether new use is taken at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

from django.conf import settings
from django.contrib.admin import display
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.models import QuotaCount, QuotaReservation
from billing.plans.queries import find_tier
from billing.quotas.domain import (
    COMMITTED,
    LLM_TOKENS,
    QUOTAS,
    RESERVED,
    TENANT_HOLDER,
    USER,
    Quota,
    day_of,
)
from governance.identity.domain import ADMIN, OWNER
from governance.identity.queries import find_usernames
from valdrix.kernel.admin import ConsoleChangeList, TenantModelAdmin, seat_of, typed_filter
from valdrix.kernel.admin_display import (
    BAD,
    GOOD,
    INFO,
    NEUTRAL,
    NOTHING,
    Bar,
    Panel,
    badge,
    build_bar,
    fullness,
    measure,
    mono,
    number,
    render_bar,
    utc,
)

_METERS: Final = {LLM_TOKENS: "LLM tokens"}
_SHOWN: Final = 50
_TONES: Final = {RESERVED: INFO, COMMITTED: GOOD}


@dataclass(frozen=True, slots=True)
class _Standing:
    """How a count stands against the plan that the tenant is on now, and whose it is."""

    count: QuotaCount
    tier: str
    quota: Quota
    holder: str

    @property
    def limit(self) -> int:
        return self.quota.daily(self.count.holder)

    @property
    def taken(self) -> int:
        return self.count.reserved_units + self.count.used_units

    @property
    def left(self) -> int:
        return max(0, self.limit - self.taken)


def _attach_standings(rows: Sequence[Any]) -> Sequence[Any]:
    """Give each count its ``standing``, in two statements for all of them."""
    if not rows:
        return rows
    tenant_id = rows[0].tenant_id
    tier = find_tier(tenant_id)
    names = find_usernames(tenant_id, {one for one in map(_person_of, rows) if one is not None})
    for row in rows:
        person = _person_of(row)
        holder = (
            {TENANT_HOLDER: "whole tenant"}.get(row.holder, row.holder)
            if person is None
            else names.get(person, f"person {person}, who left")
        )
        row.standing = _Standing(row, tier, QUOTAS[row.meter][tier], holder)
    return rows


def _person_of(row: QuotaCount) -> int | None:
    kind, _, number = row.holder.partition(":")
    return int(number) if kind == USER and number.isdigit() else None


class QuotaChangeList(ConsoleChangeList):
    """A page of counts, each with how it stands."""

    result_list: Sequence[Any]

    def get_results(self, request: HttpRequest) -> None:
        """Read the page, the plan, and the names of all its people at once."""
        super().get_results(request)
        self.result_list = _attach_standings(list(self.result_list))


def _on_day(request: HttpRequest, rows: QuerySet[Any], value: str) -> QuerySet[Any]:
    try:
        return rows.filter(day=date.fromisoformat(value))
    except ValueError:
        return rows.none()


class QuotaCountAdmin(TenantModelAdmin):
    """What of each UTC day is held and used, by the tenant, its people and the system."""

    roles = (ADMIN, OWNER)
    list_title = "Metered use"
    ordering = ("-day", "meter", "holder")
    empty_text = "Nothing was metered yet. POST /api/v1/billing/quotas/reservations holds units."
    change_list_template = "valdrix/quotas.html"
    list_filter = (typed_filter("day", "day (UTC)", _on_day, input_type="date"),)
    list_display = ("when", "whose", "what", "fill", "taken", "left", "limit")
    list_display_links = ("when",)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ConsoleChangeList]:
        """Return the list's class."""
        return QuotaChangeList

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Answer the list, with the state of the switch above it."""
        state, says = _kill_switch()
        context = {"kill_switch": state, "kill_switch_says": says, **(extra_context or {})}
        return super().changelist_view(request, context)

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a count's page."""
        (shown,) = _attach_standings([row])
        return f"{_METERS[row.meter]}, {row.day}: {shown.standing.holder}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return the count, the plan that bounds it, and what it is the sum of."""
        standing: _Standing = _attach_standings([row])[0].standing
        state, says = _kill_switch()
        count = [
            ("State", _fill(standing)),
            ("Taken", render_bar(_bar(standing))),
            ("Held", _units(row.reserved_units)),
            ("Used", _units(row.used_units)),
            ("Left", _units(standing.left)),
        ]
        quota = standing.quota
        plan = [
            ("Plan", standing.tier),
            ("A day", _units(standing.limit)),
            ("A request", _units(quota.request_units)),
            ("Providers", ", ".join(quota.providers)),
            ("New use", state),
            ("Which means", says),
        ]
        rows = self._reservations(request, row)
        note = f"The newest {_SHOWN} of them." if len(rows) == _SHOWN else ""
        lines = [_line(one) for one in rows]
        return [
            Panel("Count", count),
            Panel("Bounds", plan),
            Panel("Reservations", lines, note=note),
        ]

    def _reservations(self, request: HttpRequest, row: QuotaCount) -> list[QuotaReservation]:
        rows = QuotaReservation.objects.filter(
            tenant_id=seat_of(request).tenant_id, meter=row.meter, day=row.day
        )
        if row.holder != TENANT_HOLDER:
            rows = rows.filter(holder=row.holder)
        return list(rows.order_by("-reserved_at", "-pk")[:_SHOWN])

    @display(description="Day (UTC)")
    def when(self, row: QuotaCount) -> str:
        """Return the day."""
        return str(row.day)

    @display(description="Whose")
    def whose(self, row: Any) -> str:
        """Return whose count it is."""
        return str(row.standing.holder)

    @display(description="Meter")
    def what(self, row: QuotaCount) -> str:
        """Return what is metered."""
        return _METERS[row.meter]

    @display(description="State")
    def fill(self, row: Any) -> SafeString:
        """Return how full the day is."""
        return _fill(row.standing)

    @display(description="Taken")
    def taken(self, row: Any) -> SafeString:
        """Return the bar and the units."""
        return measure(_bar(row.standing), _units(row.standing.taken))

    @display(description="Left")
    def left(self, row: Any) -> SafeString:
        """Return what is left of the day."""
        return number(_units(row.standing.left))

    @display(description="Limit, present plan")
    def limit(self, row: Any) -> SafeString:
        """Return what the plan gives a day."""
        return number(_units(row.standing.limit))


def _kill_switch() -> tuple[SafeString, str]:
    if settings.METERED_USE_SUSPENDED:
        says = (
            "Every new reservation is refused, for all tenants (METERED_USE_SUSPENDED)."
            " What was spent is still counted."
        )
        return badge("suspended", BAD), says
    return badge("taken", GOOD), "New use is taken as far as the plan goes."


def _fill(standing: _Standing) -> SafeString:
    if standing.count.day < day_of(timezone.now()):
        return badge("day is over", NEUTRAL)
    return fullness(Decimal(standing.taken), Decimal(standing.limit))


def _bar(standing: _Standing) -> Bar:
    count = standing.count
    label = (
        f"Used {_units(count.used_units)}, held {_units(count.reserved_units)}"
        f" of {_units(standing.limit)} units"
    )
    parts = [("used", Decimal(count.used_units)), ("held", Decimal(count.reserved_units))]
    return build_bar(parts, limit=Decimal(standing.limit), label=label)


def _line(row: QuotaReservation) -> tuple[str, SafeString]:
    used = NOTHING if row.used_units is None else _units(row.used_units)
    return utc(row.reserved_at), format_html(
        "{} held {}, used {}, {}, {}",
        badge(row.state, _TONES.get(row.state, NEUTRAL)),
        _units(row.units),
        used,
        row.provider,
        mono(row.principal_id),
    )


def _units(units: int) -> str:
    return f"{units:,}"
