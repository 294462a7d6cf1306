"""The console's list of decisions, and the page of one."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.admin import display
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.accounts.domain import BUDGET
from billing.models import Account
from enforcement.admin import labels
from enforcement.admin.decision_page import build_page
from enforcement.decisions.models import DECISIONS
from enforcement.models import Decision
from governance.identity.domain import ROLES
from governance.policies.domain import SOURCES
from governance.policies.environments import ENVIRONMENTS
from valdrix.kernel.admin import TenantModelAdmin, column_filter, seat_of
from valdrix.kernel.admin_display import delta_usd, utc, words

_RECENT = 1000
_OFFERED = 40


def recent_projects(request: HttpRequest) -> list[str]:
    """Return the projects of budgets and of the newest decisions, by name."""
    tenant_id = seat_of(request).tenant_id
    budgets = Account.objects.filter(tenant_id=tenant_id, kind=BUDGET).order_by("id")
    newest = Decision.objects.filter(tenant_id=tenant_id).order_by("-id")
    names = {name for name in budgets.values_list("project_id", flat=True)[:_RECENT] if name}
    names |= set(newest.values_list("project_id", flat=True)[:_RECENT])
    return sorted(names)


def _offered_projects(request: HttpRequest) -> list[str]:
    return recent_projects(request)[:_OFFERED]


class DecisionAdmin(TenantModelAdmin):
    """What was asked, what was answered, and why."""

    roles = ROLES
    deferred = ("context_json", "outcome_json", "response_json")
    detail_template = "valdrix/decision.html"
    empty_text = "No decision matches. A gate call writes one here the moment it is answered."
    search_fields = ("id",)
    search_help_text = "Decision id, or a part of a project's name"
    list_display = (
        "made_at",
        "outcome",
        "reason",
        "project",
        "change",
        "delta",
        "in_mode",
    )
    list_display_links = ("made_at",)
    list_filter = (
        column_filter("decision", "decision", DECISIONS, label=labels.decision_label),
        column_filter("source", "source", SOURCES, label=words),
        column_filter("environment", "environment", ENVIRONMENTS),
        column_filter("project_id", "project", _offered_projects),
    )

    def search(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Return the decision with this id, or those of projects whose name has the term."""
        try:
            return rows.filter(id=uuid.UUID(term))
        except ValueError:
            names = [name for name in recent_projects(request) if term.lower() in name.lower()]
            return rows.filter(project_id__in=[*names, term])

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a decision's page."""
        return f"Decision {str(row.id)[-12:]}"

    def get_page_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return what the page shows, all of it of this tenant."""
        tenancy = seat_of(request)
        page = build_page(row, role=tenancy.role, viewer_id=int(request.user.pk or 0))
        return {"page": page, "decision": row}

    @display(description="Time")
    def made_at(self, row: Decision) -> str:
        """Return when it was made."""
        return utc(row.created_at)

    @display(description="Decision")
    def outcome(self, row: Decision) -> SafeString | str:
        """Return the decision, and what hard mode would have said."""
        shown = labels.decision_badge(row.decision)
        if row.would_have_been is None:
            return shown
        other = labels.decision_label(row.would_have_been).lower()
        return format_html('{} <span class="vx-sub">hard: {}</span>', shown, other)

    @display(description="Mode")
    def in_mode(self, row: Decision) -> SafeString | str:
        """Return the mode in force."""
        return labels.mode_badge(row.mode)

    @display(description="Project")
    def project(self, row: Decision) -> SafeString:
        """Return the project and its environment."""
        return format_html(
            '<div class="vx-cell"><span>{}</span> <span class="vx-sub">{}</span></div>',
            row.project_id,
            row.environment,
        )

    @display(description="Change")
    def change(self, row: Decision) -> SafeString:
        """Return the action and the resource."""
        return format_html(
            '<div class="vx-cell"><span>{}</span> <span class="vx-sub vx-clip">{}</span></div>',
            row.action,
            row.resource_reference,
        )

    @display(description="USD a month")
    def delta(self, row: Decision) -> SafeString:
        """Return the monthly delta and how much of the cost is known."""
        return format_html(
            '<div class="vx-cell"><span class="vx-number">{}</span>'
            ' <span class="vx-sub">cost {}</span></div>',
            delta_usd(row.monthly_delta_usd),
            row.cost_state,
        )

    @display(description="Reason")
    def reason(self, row: Decision) -> str:
        """Return the first reason's title."""
        return labels.reason_title(row.reason_codes[0] if row.reason_codes else None)
