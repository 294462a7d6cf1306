"""The console's approvals: what I may judge, what I asked for, and the page of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.contrib.admin import SimpleListFilter, display
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from enforcement.admin.approval_acts import APPROVE, ASK_AGAIN, DENY, DENY_SEVERAL, WITHDRAW
from enforcement.admin.approval_page import build_approval_page, risk_of
from enforcement.admin.people import principal_of
from enforcement.review.queue import find_queue
from enforcement.review.reading import Seen, see_approval, see_approvals
from governance.admin.approvals import needs_of, status_badge
from governance.approvals.models import PENDING, STATUSES
from governance.approvals.state import status_at
from governance.identity.domain import ADMIN, OWNER, ROLES
from governance.models import Approval
from governance.policies.environments import ENVIRONMENTS
from valdrix.kernel.admin import ConsoleChangeList, TenantModelAdmin, column_filter, seat_of
from valdrix.kernel.admin_display import age, delta_usd, number, utc, words
from valdrix.kernel.problems import NotAllowed

QUEUE: Final = "queue"
MINE: Final = "mine"
ALL: Final = "all"
_VIEWS: Final = {QUEUE: "Waiting for me", MINE: "Asked by me", ALL: "All"}
_SEES_ALL: Final = (ADMIN, OWNER)
_QUEUE_LIMIT: Final = 500


class ViewFilter(SimpleListFilter):
    """What waits for me, unless something else is chosen; members have no list of all."""

    title = "show"
    parameter_name = "view"
    has_default = True

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        self._view = view_of(request)
        super().__init__(request, *args)

    def value(self) -> str:
        """Return the view that is shown."""
        return self._view

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the views on offer to the person's role."""
        sees_all = seat_of(request).role in _SEES_ALL
        return [(name, text) for name, text in _VIEWS.items() if sees_all or name != ALL]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the approvals of the view."""
        view = view_of(request)
        if view == MINE:
            return queryset.filter(requester_person_id=request.user.pk)
        if view == ALL:
            return queryset
        waiting = find_queue(principal_of(request), limit=_QUEUE_LIMIT, now=timezone.now())
        return queryset.filter(pk__in=[one.pk for one in waiting])


def view_of(request: HttpRequest) -> str:
    """Return which approvals a list shows: a status that is asked for is looked for in all."""
    wanted = request.GET.get("view")
    sees_all = seat_of(request).role in _SEES_ALL
    if wanted in _VIEWS and (wanted != ALL or sees_all):
        return str(wanted)
    return ALL if sees_all and request.GET.get("status") else QUEUE


class ApprovalChangeList(ConsoleChangeList):
    """A page of approvals, each as the person sees it."""

    result_list: Sequence[Approval]

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str]:
        """Return the oldest first in the queue, the newest first elsewhere."""
        return ["pk"] if view_of(request) == QUEUE else ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        """Read the page, and what concerns all its approvals at once."""
        super().get_results(request)
        rows, now = list(self.result_list), timezone.now()
        for seen in see_approvals(principal_of(request), rows, now=now):
            seen.approval.seen = seen  # type: ignore[attr-defined]
            seen.approval.looked_at = now  # type: ignore[attr-defined]
        self.result_list = rows


class ApprovalAdmin(TenantModelAdmin):
    """Who is asked to judge what. Members see what a rule lets them judge, and their own."""

    roles = ROLES
    list_title = "Approvals"
    change_list_template = "valdrix/approvals.html"
    detail_template = "valdrix/approval.html"
    list_display = ("chosen", "subject", "cost", "risk", "waits", "given", "state")
    list_display_links = ("subject",)
    list_filter = (
        ViewFilter,
        column_filter("status", "status", STATUSES, label=words),
        column_filter("environment", "environment", ENVIRONMENTS),
    )
    list_acts = (DENY_SEVERAL,)
    row_acts = (APPROVE, DENY, WITHDRAW, ASK_AGAIN)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the tenant's approvals; a member's are those of the queue and their own."""
        rows = super().get_queryset(request)
        if seat_of(request).role in _SEES_ALL or view_of(request) == QUEUE:
            return rows
        return rows.filter(requester_person_id=request.user.pk)

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        """Return the approval as the person sees it; what they may not see does not exist."""
        row = TenantModelAdmin.get_object(self, request, object_id)
        if row is None:
            return None
        try:
            row.seen = see_approval(principal_of(request), row.pk, now=timezone.now())
        except NotAllowed:
            return None
        return row

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ConsoleChangeList]:
        """Return the list's class."""
        return ApprovalChangeList

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Answer the list, with what to do about several at once."""
        view = view_of(request)
        empty = {
            QUEUE: "Nothing waits for you. What needs your judgement appears here.",
            MINE: "You have asked for nothing that people had to judge.",
            ALL: "No approval matches. A decision that needs a person opens one here.",
        }
        context = {
            "view": view,
            "empty_text": empty[view],
            "deny_several_url": reverse("admin:governance_approval_deny-several"),
        }
        return super().changelist_view(request, context | (extra_context or {}))

    def act_links(self, request: HttpRequest, row: Any = None) -> list[dict[str, str]]:
        """Return nothing: the pages have their acts in their own places."""
        return []

    def get_page_title(self, row: Any) -> str:
        """Return the heading of an approval's page."""
        return f"Approval {str(row.id)[-12:]}"

    def get_page_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return everything that a person needs to judge."""
        return {"page": build_approval_page(request, row.seen, now=timezone.now())}

    @display(description="Choose")
    def chosen(self, row: Any) -> SafeString | str:
        """Return a box to choose the approval with, where it can be denied."""
        if not _may_deny(row.seen):
            return ""
        return format_html(
            '<input type="checkbox" form="vx-several" name="id" value="{}" aria-label="Choose {}">',
            row.pk,
            row.project_id,
        )

    @display(description="Change")
    def subject(self, row: Any) -> SafeString:
        """Return where the change lands, and what it is."""
        decision = row.seen.waiting[0] if row.seen.waiting else None
        return format_html(
            '<div class="vx-cell"><span>{} / {}</span>'
            ' <span class="vx-sub vx-clip">{} {}</span></div>',
            row.project_id,
            row.environment,
            row.action,
            decision.resource_reference if decision else "",
        )

    @display(description="USD a month")
    def cost(self, row: Any) -> SafeString:
        """Return the monthly delta."""
        return number(delta_usd(row.monthly_delta_usd))

    @display(description="Risk")
    def risk(self, row: Any) -> SafeString | str:
        """Return the computed risk."""
        return risk_of(row.seen.waiting[0]) if row.seen.waiting else ""

    @display(description="Age")
    def waits(self, row: Any) -> SafeString:
        """Return how long it waits, and when its time is over."""
        ends = f"expires in {age(row.expires_at - row.looked_at)}"
        is_open = status_at(row, row.looked_at) == PENDING
        return format_html(
            '<div class="vx-cell"><span title="{}">{}</span> <span class="vx-sub">{}</span></div>',
            utc(row.requested_at),
            age(row.looked_at - row.requested_at),
            ends if is_open else "",
        )

    @display(description="Given")
    def given(self, row: Any) -> SafeString:
        """Return how many have agreed, and who must."""
        bench = row.seen.bench
        return format_html(
            '<div class="vx-cell"><span>{} of {}</span> <span class="vx-sub">{}</span></div>',
            len(bench.given),
            bench.terms.needed,
            needs_of(row),
        )

    @display(description="Status")
    def state(self, row: Any) -> SafeString:
        """Return the status at this moment."""
        return status_badge(row.seen.status)


def _may_deny(seen: Seen) -> bool:
    return DENY.applies(seen.approval)
