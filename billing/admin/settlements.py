"""The console's list of settlements, and the page of one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

from django.contrib.admin import SimpleListFilter, display
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from billing.models import SettlementRecord
from governance.identity.domain import ADMIN, OWNER
from valdrix.kernel.admin import TenantModelAdmin
from valdrix.kernel.admin_display import (
    GOOD,
    NOTHING,
    WARN,
    Panel,
    badge,
    delta_usd,
    link,
    mono,
    pretty_json,
    usd,
    utc,
    words,
)

_ONLY: Final = "only"
_NONE: Final = "none"


class ExceptionsFilter(SimpleListFilter):
    """Shows the settlements that need a person's look, or the others."""

    title = "exceptions"
    parameter_name = "exceptions"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices on offer."""
        return [(_ONLY, "exceptions only"), (_NONE, "without exceptions")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the settlements chosen; a value that is not on offer shows all."""
        if self.value() == _ONLY:
            return queryset.filter(exception_reason__isnull=False)
        if self.value() == _NONE:
            return queryset.filter(exception_reason__isnull=True)
        return queryset


class SettlementAdmin(TenantModelAdmin):
    """What was really spent against what was held."""

    roles = (ADMIN, OWNER)
    list_title = "Settlements"
    deferred = ("result_json", "notes")
    empty_text = "No settlement matches. Reconciling a decision, or its falling overdue, makes one."
    search_fields = ("decision_id",)
    search_help_text = "Decision id"
    list_display = (
        "when",
        "exception",
        "decision",
        "subject",
        "how",
        "reserved",
        "actual",
        "posted",
        "overrun",
        "drift",
    )
    list_display_links = ("when",)
    list_filter = (ExceptionsFilter,)

    def search(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Return the settlement that named a decision."""
        try:
            return rows.filter(decision_id=uuid.UUID(term))
        except ValueError:
            return rows.none()

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a settlement's page."""
        return f"Settlement {str(row.decision_id)[-12:]}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return what was settled, the amounts, and the answer that was given."""
        head = [
            ("Exception", _exception(row)),
            ("Decision named", _decision_link(row, str(row.decision_id))),
            ("Family", mono(str(row.family_id))),
            ("Project", row.project_id),
            ("Environment", row.environment),
        ]
        amounts = [
            ("Reserved", f"{usd(row.reserved_usd)} USD"),
            ("Actual", f"{usd(row.actual_usd)} USD"),
            ("Posted", f"{usd(row.posted_usd)} USD"),
            ("Overrun", f"{usd(row.overrun_usd)} USD"),
            ("Drift", f"{delta_usd(row.drift_usd)} USD"),
        ]
        origin = [
            ("Trigger", words(row.trigger)),
            ("Settled at", utc(row.settled_at)),
            ("Settled by", mono(row.settled_by)),
            ("Idempotency key", mono(row.idempotency_key)),
            ("Notes", row.notes or NOTHING),
            ("Settlement id", mono(str(row.id))),
        ]
        return [
            Panel("Settlement", head),
            Panel("Amounts", amounts),
            Panel("Origin", origin),
            Panel("Answer", document=pretty_json(row.result_json)),
        ]

    @display(description="Settled")
    def when(self, row: SettlementRecord) -> str:
        """Return when it was settled."""
        return utc(row.settled_at)

    @display(description="Exception")
    def exception(self, row: SettlementRecord) -> SafeString:
        """Return why a person should look, if one should."""
        return _exception(row)

    @display(description="Decision")
    def decision(self, row: SettlementRecord) -> SafeString | str:
        """Return the link to the decision that was named."""
        return _decision_link(row, f"…{str(row.decision_id)[-12:]}")

    @display(description="Project")
    def subject(self, row: SettlementRecord) -> str:
        """Return the project and environment."""
        return f"{row.project_id} / {row.environment}"

    @display(description="Trigger and principal")
    def how(self, row: SettlementRecord) -> str:
        """Return what settled it, and who."""
        return f"{words(row.trigger)}, by {row.settled_by}"

    @display(description="Reserved, USD")
    def reserved(self, row: SettlementRecord) -> str:
        """Return what was held."""
        return usd(row.reserved_usd)

    @display(description="Actual, USD")
    def actual(self, row: SettlementRecord) -> str:
        """Return what was really spent."""
        return usd(row.actual_usd)

    @display(description="Posted, USD")
    def posted(self, row: SettlementRecord) -> str:
        """Return what was posted."""
        return usd(row.posted_usd)

    @display(description="Overrun, USD")
    def overrun(self, row: SettlementRecord) -> str:
        """Return what nothing held covered."""
        return usd(row.overrun_usd)

    @display(description="Drift, USD")
    def drift(self, row: SettlementRecord) -> str:
        """Return the actual cost less what was held, with its sign."""
        return delta_usd(row.drift_usd)


def _exception(row: SettlementRecord) -> SafeString:
    if row.exception_reason is None:
        return badge("none", GOOD)
    return badge(words(row.exception_reason), WARN)


def _decision_link(row: SettlementRecord, text: str) -> SafeString | str:
    return link(reverse("admin:enforcement_decision_change", args=[str(row.decision_id)]), text)
