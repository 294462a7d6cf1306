"""The console's list of API keys. Digests are never read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.contrib.admin import display
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString

from governance.admin.key_acts import NEW_KEY, REVOKE_KEY, ROTATE_KEY
from governance.identity.domain import KEY_PREFIX, OWNER, ROLES
from governance.models import ApiKey
from valdrix.kernel.admin import TenantModelAdmin, seat_of
from valdrix.kernel.admin_display import BAD, GOOD, NEUTRAL, Panel, badge, mono, utc


class ApiKeyAdmin(TenantModelAdmin):
    """Which machines may call, as whom, and until when; to others than owners, their own keys."""

    roles = ROLES
    empty_text = "No API key yet."
    list_display = ("named", "state", "prefix", "role", "bound_to", "answers_for", "used", "ends")
    list_display_links = ("named",)
    list_acts = (NEW_KEY,)
    row_acts = (ROTATE_KEY, REVOKE_KEY)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the keys with their people, without digests: all to owners, else one's own."""
        rows = super().get_queryset(request).select_related("person").defer("digest")
        is_owner = seat_of(request).role == OWNER
        return rows if is_owner else rows.filter(person_id=request.user.pk)

    def get_list_title(self, request: HttpRequest, row: Any = None) -> str:
        """Return the heading of the list."""
        return "API keys" if seat_of(request).role == OWNER else "Your API keys"

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a key's page."""
        return f"API key {row.name}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return what the key may do and where it came from."""
        rights = [
            ("State", _state(row, timezone.now())),
            ("Prefix", mono(f"{KEY_PREFIX}{row.lookup}_…")),
            ("Role", row.role),
            ("Scopes", ", ".join(row.scopes) or "none"),
            ("Projects", _projects(row)),
            ("Responsible person", row.person.get_username()),
        ]
        life = [
            ("Created", utc(row.created_at)),
            ("Created by", mono(row.created_by)),
            ("Last used, to the minute", utc(row.last_used_at)),
            ("Expires", utc(row.expires_at) if row.expires_at else "never"),
            ("Revoked", utc(row.revoked_at)),
            ("Key id", mono(str(row.id))),
        ]
        return [Panel("Rights", rights), Panel("Life", life)]

    @display(description="Name")
    def named(self, row: ApiKey) -> str:
        """Return the key's name."""
        return row.name

    @display(description="State")
    def state(self, row: ApiKey) -> SafeString:
        """Return whether the key works."""
        return _state(row, timezone.now())

    @display(description="Prefix")
    def prefix(self, row: ApiKey) -> SafeString | str:
        """Return the part of the key that is no secret."""
        return mono(f"{KEY_PREFIX}{row.lookup}_…")

    @display(description="Projects")
    def bound_to(self, row: ApiKey) -> str:
        """Return the projects that the key is bound to."""
        return _projects(row)

    @display(description="Person")
    def answers_for(self, row: ApiKey) -> str:
        """Return who answers for the key."""
        return row.person.get_username()

    @display(description="Last used")
    def used(self, row: ApiKey) -> str:
        """Return when the key was last used."""
        return utc(row.last_used_at)

    @display(description="Expires")
    def ends(self, row: ApiKey) -> str:
        """Return when the key expires."""
        return utc(row.expires_at) if row.expires_at else "never"


def _state(row: ApiKey, now: datetime) -> SafeString:
    if row.revoked_at is not None:
        return badge("revoked", BAD)
    if row.expires_at is not None and row.expires_at <= now:
        return badge("expired", NEUTRAL)
    return badge("live", GOOD)


def _projects(row: ApiKey) -> str:
    if row.projects is None:
        return "all"
    return ", ".join(row.projects) or "none"
