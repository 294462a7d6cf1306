"""The console's list of incidents, and the page of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.contrib.admin import display
from django.http import HttpRequest
from django.utils.safestring import SafeString

from governance.identity.domain import ADMIN, OWNER
from governance.incidents.models import OPEN, RESOLVED, STATES
from governance.models import Incident
from valdrix.kernel.admin import TenantModelAdmin, column_filter
from valdrix.kernel.admin_display import (
    BAD,
    GOOD,
    NEUTRAL,
    Panel,
    badge,
    mono,
    pretty_json,
    utc,
    words,
)

_TONES: Final = {OPEN: BAD, RESOLVED: GOOD}


class IncidentAdmin(TenantModelAdmin):
    """What is wrong that no program may mend by itself."""

    roles = (ADMIN, OWNER)
    deferred = ("detail",)
    empty_text = "No incident matches. What a check finds wrong opens one here."
    list_display = ("opened", "state_badge", "kind_in_words", "subject", "times", "seen", "closed")
    list_display_links = ("opened",)
    list_filter = (column_filter("state", "state", STATES, label=words),)

    def get_page_title(self, row: Any) -> str:
        """Return the heading of an incident's page."""
        return f"Incident: {words(row.kind)}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return what was found, how often and since when."""
        found = [
            ("State", _state(row)),
            ("Kind", mono(row.kind)),
            ("Subject", mono(row.subject)),
            ("Incident id", mono(str(row.id))),
        ]
        times = [
            ("Occurrences", row.occurrences),
            ("Opened", utc(row.opened_at)),
            ("Last seen", utc(row.last_seen_at)),
            ("Resolved", utc(row.resolved_at)),
        ]
        return [
            Panel("Incident", found),
            Panel("Life", times),
            Panel("Detail", document=pretty_json(row.detail)),
        ]

    @display(description="Opened")
    def opened(self, row: Incident) -> str:
        """Return when it was first seen."""
        return utc(row.opened_at)

    @display(description="State")
    def state_badge(self, row: Incident) -> SafeString:
        """Return whether it is still open."""
        return _state(row)

    @display(description="Kind")
    def kind_in_words(self, row: Incident) -> str:
        """Return what is wrong."""
        return words(row.kind)

    @display(description="Occurrences")
    def times(self, row: Incident) -> int:
        """Return how often it was seen."""
        return row.occurrences

    @display(description="Last seen")
    def seen(self, row: Incident) -> str:
        """Return when it was seen last."""
        return utc(row.last_seen_at)

    @display(description="Resolved")
    def closed(self, row: Incident) -> str:
        """Return when somebody closed it."""
        return utc(row.resolved_at)


def _state(row: Incident) -> SafeString:
    return badge(row.state, _TONES.get(row.state, NEUTRAL))
