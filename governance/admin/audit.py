"""The console's audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.admin import display
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from governance.identity.domain import ADMIN, OWNER
from governance.models import AuditEntry
from valdrix.kernel.admin import TenantModelAdmin
from valdrix.kernel.admin_display import NOTHING, Panel, mono, pretty_json, utc


class AuditEntryAdmin(TenantModelAdmin):
    """Who changed what, from where."""

    roles = (ADMIN, OWNER)
    list_title = "Audit log"
    deferred = ("before", "after")
    ordering = ("-at", "-id")
    empty_text = "No change matches."
    search_fields = ("object_id",)
    search_help_text = "Whole object id, action or principal"
    list_display = ("when", "action", "subject", "by", "address")
    list_display_links = ("when",)

    def search(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Return the changes of one object, of one kind, or by one principal."""
        return rows.filter(object_id=term) | rows.filter(action=term) | rows.filter(actor=term)

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a change's page."""
        return f"{row.action} at {utc(row.at)}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return who did it, and the object before and after."""
        who = [
            ("At", utc(row.at)),
            ("Principal", mono(row.actor)),
            ("Address", row.address or NOTHING),
            ("Action", row.action),
            ("Object", row.object_type),
            ("Object id", mono(row.object_id)),
        ]
        return [
            Panel("Change", who),
            Panel("Before", document=_document(row.before)),
            Panel("After", document=_document(row.after)),
        ]

    @display(description="Time")
    def when(self, row: AuditEntry) -> str:
        """Return when it was done."""
        return utc(row.at)

    @display(description="Object")
    def subject(self, row: AuditEntry) -> str:
        """Return what was changed."""
        return f"{row.object_type} {row.object_id}"

    @display(description="By")
    def by(self, row: AuditEntry) -> SafeString | str:
        """Return who did it."""
        return mono(row.actor)


def _document(value: Any) -> str:
    return "(nothing)" if value is None else pretty_json(value)
