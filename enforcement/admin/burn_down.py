"""What is left of a budget or a grant, day by day, as a chart."""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django.db.models import Case, F, QuerySet, Sum, When
from django.db.models.functions import TruncDate

from billing.accounts.domain import ACTUALS, month_of
from billing.costs.models import DailyCost
from billing.models import Account, ReservationLine
from billing.reservations.models import PENDING, POSTED
from valdrix.kernel.admin_charts import Chart, Line, build_chart
from valdrix.kernel.admin_display import usd
from valdrix.kernel.money import EXACT, MONTHLY_PLACES, ZERO, round_amount

_GRANT_DAYS: Final = 30


def budget_chart(account: Account, *, now: datetime) -> Chart:
    """Return how a budget's limit was used up in the month of a moment, and an even use of it."""
    first = month_of(now)
    length = calendar.monthrange(first.year, first.month)[1]
    days = [first + timedelta(days=number) for number in range(length)]
    today = now.astimezone(UTC).date().day - 1
    limit = account.monthly_limit_usd or ZERO
    if account.basis == ACTUALS:
        before, taken = ZERO, _spent(account, first, days[-1])
    else:
        before, taken = _carried(account, first), _taken(_lines(account).filter(month=first))
    left = _run_down(limit - before, taken, days[: today + 1])
    even = [_even(limit, place, length) for place in range(length)]
    shown = [max(ZERO, value) for value in left]
    return build_chart(
        [
            Line("left", "left", [*shown, *[None] * (length - len(shown))], is_area=True),
            Line("even", "even use", even, is_dashed=True),
        ],
        days=[f"{day:%d %b}" for day in days],
        label=f"{usd(shown[-1])} of {usd(limit)} USD are left on day {today + 1} of {length}",
        today=today,
    )


def grant_chart(account: Account, *, now: datetime) -> Chart:
    """Return what was left of a grant on each of the last thirty days."""
    today = now.astimezone(UTC).date()
    days = [today - timedelta(days=number) for number in reversed(range(_GRANT_DAYS))]
    taken = _taken(_lines(account))
    earlier = sum((amount for day, amount in taken.items() if day < days[0]), ZERO)
    left = _run_down(account.total_usd - earlier, taken, days)
    shown = [max(ZERO, value) for value in left]
    return build_chart(
        [Line("left", "left", shown, is_area=True)],
        days=[f"{day:%d %b}" for day in days],
        label=f"{usd(shown[-1])} of {usd(account.total_usd)} USD are left",
        today=_GRANT_DAYS - 1,
    )


def _lines(account: Account) -> QuerySet[ReservationLine]:
    return ReservationLine.objects.filter(
        tenant_id=account.tenant_id,
        account=account,
        is_shadow=False,
        state__in=(PENDING, POSTED),
    )


def _amount() -> Any:
    return Sum(Case(When(state=POSTED, then=F("posted_usd")), default=F("amount_usd")))


def _taken(lines: QuerySet[ReservationLine]) -> dict[date, Decimal]:
    rows = lines.annotate(day=TruncDate("reservation__reserved_at", tzinfo=UTC))
    return dict(rows.values_list("day").annotate(total=_amount()).order_by("day"))


def _carried(account: Account, first: date) -> Decimal:
    """Return what earlier months hold still: until it is settled it counts in this one too."""
    rows = _lines(account).filter(state=PENDING, month__lt=first)
    return rows.aggregate(total=Sum("amount_usd"))["total"] or ZERO


def _spent(account: Account, first: date, last: date) -> dict[date, Decimal]:
    rows = DailyCost.objects.filter(
        tenant_id=account.tenant_id, project_id=account.project_id, date__range=(first, last)
    )
    return dict(rows.values_list("date").annotate(total=Sum("amount_usd")).order_by("date"))


def _run_down(begin: Decimal, taken: Mapping[date, Decimal], days: Sequence[date]) -> list[Decimal]:
    left, values = begin, []
    for day in days:
        left -= taken.get(day, ZERO)
        values.append(left)
    return values


def _even(limit: Decimal, place: int, length: int) -> Decimal:
    used = EXACT.multiply(limit, Decimal(place + 1))
    return limit - round_amount(used / length, places=MONTHLY_PLACES)
