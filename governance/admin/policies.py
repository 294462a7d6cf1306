"""The console's lists of policy versions and of forced modes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.admin import display
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString

from governance.identity.domain import ROLES
from governance.models import ForcedMode, PolicyVersion
from governance.policies.domain import SOURCES
from valdrix.kernel.admin import TenantModelAdmin, column_filter
from valdrix.kernel.admin_display import (
    NEUTRAL,
    NOTHING,
    WARN,
    Panel,
    badge,
    mono,
    pretty_json,
    short,
    utc,
    words,
)


class PolicyVersionAdmin(TenantModelAdmin):
    """Every policy that was ever in force. Addresses use the number, the tenant's own."""

    roles = ROLES
    url_field = "number"
    ordering = ("-number",)
    deferred = ("canonical_json",)
    empty_text = "Nothing published yet: the empty policy, the strictest, governs."
    list_display = ("version", "published", "by", "remark", "digest")
    list_display_links = ("version",)

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a version's page."""
        return f"Policy version {row.number}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return who published it, its digest, and the document."""
        rows = [
            ("Number", row.number),
            ("Published", utc(row.published_at)),
            ("Author", mono(row.author)),
            ("Comment", row.comment or NOTHING),
            ("Schema", row.schema_version),
            ("SHA-256", mono(row.sha256)),
        ]
        return [
            Panel("Version", rows),
            Panel(
                "Document",
                document=pretty_json(row.canonical_json),
                note="Indented for reading; the digest is over the canonical form.",
            ),
        ]

    @display(description="Version")
    def version(self, row: PolicyVersion) -> str:
        """Return the number."""
        return f"Version {row.number}"

    @display(description="Published")
    def published(self, row: PolicyVersion) -> str:
        """Return when it was published."""
        return utc(row.published_at)

    @display(description="Author")
    def by(self, row: PolicyVersion) -> SafeString | str:
        """Return who published it."""
        return mono(row.author)

    @display(description="Comment")
    def remark(self, row: PolicyVersion) -> str:
        """Return the comment's beginning."""
        return row.comment[:120] or NOTHING

    @display(description="SHA-256")
    def digest(self, row: PolicyVersion) -> SafeString | str:
        """Return the digest, shortened."""
        return short(row.sha256)


class ForcedModeAdmin(TenantModelAdmin):
    """Lower modes that owners put in force at once."""

    roles = ROLES
    empty_text = "No mode was ever forced."
    list_display = ("forced", "in_force", "where", "mode", "ends", "why")
    list_display_links = ("forced",)
    list_filter = (column_filter("source", "source", SOURCES, label=words),)

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a forced mode's page."""
        return f"{words(row.source)} / {row.environment} forced to {row.mode}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return what was forced, by whom and why."""
        rows = [
            ("State", _in_force(row)),
            ("Source", words(row.source)),
            ("Environment", row.environment),
            ("Mode", row.mode),
            ("From", utc(row.forced_at)),
            ("Until", utc(row.until_at)),
            ("Forced by", mono(row.forced_by)),
            ("Reason", row.reason),
        ]
        return [Panel("Forced mode", rows)]

    @display(description="Forced")
    def forced(self, row: ForcedMode) -> str:
        """Return when it was forced."""
        return utc(row.forced_at)

    @display(description="State")
    def in_force(self, row: ForcedMode) -> SafeString:
        """Return whether it is in force."""
        return _in_force(row)

    @display(description="Where")
    def where(self, row: ForcedMode) -> str:
        """Return the source and environment."""
        return f"{words(row.source)} / {row.environment}"

    @display(description="Until")
    def ends(self, row: ForcedMode) -> str:
        """Return when it ends."""
        return utc(row.until_at)

    @display(description="Reason")
    def why(self, row: ForcedMode) -> str:
        """Return the reason's beginning."""
        return row.reason[:120]


def _in_force(row: ForcedMode) -> SafeString:
    return badge("in force", WARN) if row.until_at > timezone.now() else badge("over", NEUTRAL)
