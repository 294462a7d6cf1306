"""The console's lists of budgets, credit grants and the tenant's exposure."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from django.contrib.admin import SimpleListFilter, display
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString

from billing.accounts.domain import (
    ACTUALS,
    BUDGET,
    EXPOSURE,
    GRANT,
    RUN_RATE,
    BudgetState,
    month_of,
)
from billing.accounts.queries import build_grant
from billing.alerts.queries import alerts_of
from billing.models import Account, AccountMonth
from enforcement.admin.burn_down import budget_chart, grant_chart
from enforcement.admin.money_acts import CHANGE_BUDGET, NEW_BUDGET, NEW_GRANT, VOID_GRANT
from enforcement.controls.queries import month_to_date_spend
from governance.identity.domain import ROLES
from valdrix.kernel.admin import ConsoleChangeList, TenantModelAdmin, seat_of
from valdrix.kernel.admin_display import (
    GOOD,
    NEUTRAL,
    NOTHING,
    WARN,
    Bar,
    Panel,
    badge,
    build_bar,
    fullness,
    measure,
    mono,
    number,
    render_bar,
    usd,
    utc,
    words,
)
from valdrix.kernel.money import ZERO

_TITLES: Final = {BUDGET: "Budgets", GRANT: "Credit grants", EXPOSURE: "Exposure"}
_GRANT_TONES: Final = {"active": GOOD, "exhausted": WARN, "expired": NEUTRAL, "voided": NEUTRAL}


def attach_states(
    tenant_id: uuid.UUID, accounts: Sequence[Account], *, now: datetime
) -> Sequence[Account]:
    """Give each account a ``state``: what is taken in the month of a moment, in two statements."""
    months = {
        month.account_id: month
        for month in AccountMonth.objects.filter(
            tenant_id=tenant_id, account__in=[one.id for one in accounts], month=month_of(now)
        )
    }
    projects = {
        one.project_id
        for one in accounts
        if one.kind == BUDGET and one.basis == ACTUALS and one.project_id
    }
    spend = month_to_date_spend(tenant_id, projects, now=now) if projects else {}
    for one in accounts:
        month = months.get(one.id)
        posted = month.posted_usd if month else ZERO
        if one.kind == BUDGET and one.basis == ACTUALS:
            posted = max(ZERO, spend.get(one.project_id or "", ZERO))
        one.state = BudgetState(  # type: ignore[attr-defined]
            account_id=str(one.id),
            project_id=one.project_id or "",
            environment=one.environment,
            team=one.team,
            basis=one.basis,
            limit_usd=one.monthly_limit_usd or ZERO,
            posted_usd=posted,
            pending_usd=one.pending_usd,
            overrun_usd=month.overrun_usd if month else ZERO,
            shadow_usd=one.shadow_pending_usd + (month.shadow_posted_usd if month else ZERO),
        )
    return accounts


def budget_bar(state: BudgetState) -> Bar:
    """Return a budget's bar: settled, held, overrun, against the limit."""
    label = (
        f"Settled {usd(state.posted_usd)}, held {usd(state.pending_usd)},"
        f" overrun {usd(state.overrun_usd)} of a limit of {usd(state.limit_usd)} USD"
    )
    parts = [
        ("used", state.posted_usd),
        ("held", state.pending_usd),
        ("over", state.overrun_usd),
    ]
    return build_bar(parts, limit=state.limit_usd, label=label)


def fill_badge(state: BudgetState, *, active: bool) -> SafeString:
    """Return how full a budget is, as a badge."""
    if not active:
        return badge("inactive", NEUTRAL)
    return fullness(state.used_usd(with_shadow=False), state.limit_usd)


def scope_of(account: Account) -> str:
    """Return which changes an account is for, as words."""
    parts = [account.project_id or "all projects"]
    parts += [part for part in (account.environment, account.team) if part]
    return " / ".join(parts)


class KindFilter(SimpleListFilter):
    """Budgets unless another kind is chosen: each has its own columns."""

    title = "kind"
    parameter_name = "kind"
    has_default = True

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the kinds on offer."""
        return list(_TITLES.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the accounts of the kind."""
        return queryset.filter(kind=_kind_of(request))


class AccountChangeList(ConsoleChangeList):
    """A page of accounts with what is taken of each."""

    result_list: Sequence[Account]

    def get_results(self, request: HttpRequest) -> None:
        """Read the page, and the months of all its accounts at once."""
        super().get_results(request)
        tenant_id = seat_of(request).tenant_id
        self.result_list = attach_states(tenant_id, list(self.result_list), now=timezone.now())


class AccountAdmin(TenantModelAdmin):
    """What may be spent, and what is taken of it."""

    roles = ROLES
    ordering = ("id",)
    empty_text = "None yet. Admins and owners open budgets and grant credits."
    search_fields = ("project_id",)
    search_help_text = "Project or team"
    list_filter = (KindFilter,)
    list_display = ("scope", "fill", "taken", "left", "limit", "basis_used")
    list_display_links = ("scope",)
    list_acts = (NEW_BUDGET, NEW_GRANT)
    row_acts = (CHANGE_BUDGET, VOID_GRANT)
    detail_template = "valdrix/account_of_money.html"

    def get_page_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the account's panels and its chart."""
        now = timezone.now()
        charts = {BUDGET: budget_chart, GRANT: grant_chart}
        chart = charts[row.kind](row, now=now) if row.kind in charts else None
        title = f"Left in {now:%B}" if row.kind == BUDGET else "Left, the last thirty days"
        return {**super().get_page_context(request, row), "chart": chart, "chart_title": title}

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        """Return the columns of the kind that is looked at."""
        if _kind_of(request) == GRANT:
            return ("scope", "grant_status", "grant_bar", "grant_left", "pool_name", "ends")
        if _kind_of(request) == EXPOSURE:
            return ("scope", "settled", "held", "overrun")
        return ("scope", "fill", "taken", "left", "limit", "basis_used")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ConsoleChangeList]:
        """Return the list's class."""
        return AccountChangeList

    def get_list_title(self, request: HttpRequest, row: Any = None) -> str:
        """Return the name of the kind."""
        return _TITLES[_kind_of(request) if row is None else row.kind]

    def search(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Return the accounts of a project or team; a tenant has few enough to compare parts."""
        return rows.filter(Q(project_id__icontains=term) | Q(team__icontains=term))

    def get_page_title(self, row: Any) -> str:
        """Return the heading of an account's page."""
        return f"{_TITLES[row.kind].removesuffix('s')}: {scope_of(row)}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return the account's terms and its totals."""
        now = timezone.now()
        attach_states(row.tenant_id, [row], now=now)
        made = [
            ("Created", utc(row.created_at)),
            ("Created by", mono(row.created_by)),
            ("Account id", mono(str(row.id))),
        ]
        if row.kind == GRANT:
            return [Panel("Credit grant", _grant_rows(row, now)), Panel("Origin", made)]
        state = row.state
        totals = [
            ("Settled", f"{usd(state.posted_usd)} USD"),
            ("Held until settled", f"{usd(state.pending_usd)} USD"),
            ("Overrun", f"{usd(state.overrun_usd)} USD"),
            ("Shadow, limits nobody", f"{usd(state.shadow_usd)} USD"),
        ]
        month = f"{month_of(now):%B %Y} (UTC)"
        if row.kind == EXPOSURE:
            return [Panel(f"Exposure in {month}", totals), Panel("Origin", made)]
        head = [
            ("State", fill_badge(state, active=row.active)),
            ("Taken", render_bar(budget_bar(state))),
            ("Monthly limit", f"{usd(state.limit_usd)} USD"),
            ("Headroom", f"{usd(state.headroom_usd(with_shadow=False))} USD"),
            ("Alerts this month", _alerts(row, now)),
        ]
        scope = [
            ("Project", row.project_id),
            ("Environment", row.environment or "every one"),
            ("Team", row.team or "every one"),
            ("Basis", _basis(row)),
        ]
        return [
            Panel(f"Budget in {month}", head + totals),
            Panel("Scope", scope),
            Panel("Origin", made),
        ]

    @display(description="Scope")
    def scope(self, row: Account) -> str:
        """Return what the account is for."""
        return scope_of(row)

    @display(description="State")
    def fill(self, row: Any) -> SafeString:
        """Return how full the budget is."""
        return fill_badge(row.state, active=row.active)

    @display(description="Taken this month")
    def taken(self, row: Any) -> SafeString:
        """Return the bar and the amount."""
        text = f"{usd(row.state.used_usd(with_shadow=False))} USD"
        return measure(budget_bar(row.state), text)

    @display(description="Headroom")
    def left(self, row: Any) -> SafeString:
        """Return what is left."""
        return number(usd(row.state.headroom_usd(with_shadow=False)))

    @display(description="Limit a month")
    def limit(self, row: Any) -> SafeString:
        """Return the limit."""
        return number(usd(row.state.limit_usd))

    @display(description="Basis")
    def basis_used(self, row: Account) -> str:
        """Return what counts as taken."""
        return words(row.basis)

    @display(description="State")
    def grant_status(self, row: Account) -> SafeString:
        """Return whether the grant offers anything."""
        status = build_grant(row, now=timezone.now()).status
        return badge(status, _GRANT_TONES[status])

    @display(description="Used")
    def grant_bar(self, row: Account) -> SafeString:
        """Return the grant's bar."""
        return measure(_bar_of_grant(row), f"{usd(row.total_usd - row.remaining_usd)} USD")

    @display(description="Remaining")
    def grant_left(self, row: Account) -> SafeString:
        """Return what remains, of how much."""
        return number(f"{usd(row.remaining_usd)} of {usd(row.total_usd)}")

    @display(description="Pool")
    def pool_name(self, row: Account) -> str:
        """Return the pool."""
        return row.pool or NOTHING

    @display(description="Expires")
    def ends(self, row: Account) -> str:
        """Return when it expires."""
        return utc(row.expires_at) if row.expires_at else "never"

    @display(description="Settled")
    def settled(self, row: Any) -> SafeString:
        """Return what was settled this month."""
        return number(usd(row.state.posted_usd))

    @display(description="Held")
    def held(self, row: Any) -> SafeString:
        """Return what is held."""
        return number(usd(row.state.pending_usd))

    @display(description="Overrun")
    def overrun(self, row: Any) -> SafeString:
        """Return the overrun."""
        return number(usd(row.state.overrun_usd))


def _kind_of(request: HttpRequest) -> str:
    kind = request.GET.get("kind", BUDGET)
    return kind if kind in _TITLES else BUDGET


def _alerts(row: Account, now: datetime) -> str:
    found = alerts_of(row.tenant_id, [row.id], month=month_of(now)).get(row.id, {})
    return ", ".join(f"{level} % at {utc(at)}" for level, at in sorted(found.items())) or "none"


def _basis(row: Account) -> str:
    if row.basis == RUN_RATE:
        return "run rate: what was added this month"
    return "actuals: what the project really spent this month"


def _bar_of_grant(row: Account) -> Bar:
    label = (
        f"Consumed {usd(row.consumed_usd)}, held {usd(row.reserved_usd)},"
        f" remaining {usd(row.remaining_usd)} of {usd(row.total_usd)} USD"
    )
    parts = [("used", row.consumed_usd), ("held", row.reserved_usd)]
    return build_bar(parts, limit=row.total_usd, label=label)


def _grant_rows(row: Account, now: datetime) -> list[tuple[str, Any]]:
    grant = build_grant(row, now=now)
    return [
        ("State", badge(grant.status, _GRANT_TONES[grant.status])),
        ("Used", render_bar(_bar_of_grant(row))),
        ("Total", f"{usd(row.total_usd)} USD"),
        ("Remaining", f"{usd(row.remaining_usd)} USD"),
        ("Held until settled", f"{usd(row.reserved_usd)} USD"),
        ("Consumed", f"{usd(row.consumed_usd)} USD"),
        ("Offers now", f"{usd(grant.headroom_usd)} USD"),
        ("Pool", row.pool),
        ("For", scope_of(row)),
        ("Priority", row.priority),
        ("Expires", utc(row.expires_at) if row.expires_at else "never"),
        ("Voided", utc(row.voided_at)),
        ("Reason", row.reason or NOTHING),
    ]
