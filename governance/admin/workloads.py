"""The console's list of workload issuers, and the page of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.admin import display
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from governance.admin.workload_acts import NEW_ISSUER, REPLACE_KEYS, REVOKE_ISSUER
from governance.identity.domain import OWNER
from governance.models import WorkloadIssuer
from governance.workloads.domain import audience_of
from valdrix.kernel.admin import TenantModelAdmin
from valdrix.kernel.admin_display import BAD, GOOD, Panel, badge, mono, utc


class WorkloadIssuerAdmin(TenantModelAdmin):
    """Whose tokens speak for which project, and when they last did."""

    roles = (OWNER,)
    list_title = "Workload issuers"
    empty_text = "Nothing is registered: CI jobs need an API key until something is."
    list_display = ("named", "state", "of_issuer", "project", "answers_for", "used", "created")
    list_display_links = ("named",)
    list_acts = (NEW_ISSUER,)
    row_acts = (REPLACE_KEYS, REVOKE_ISSUER)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the tenant's registrations with their people."""
        return super().get_queryset(request).select_related("person")

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a registration's page."""
        return f"Workload issuer {row.name}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return whom it lets in, by which claims and keys, and where it came from."""
        terms = [
            ("State", _state(row)),
            ("Issuer", mono(row.issuer)),
            ("Audience", mono(audience_of(row.tenant_id))),
            ("Project", row.project_id),
            ("Keys", _keys(row)),
            ("Responsible person", row.person.get_username()),
        ]
        life = [
            ("Registered", utc(row.created_at)),
            ("Registered by", mono(row.created_by)),
            ("Last used, to the minute", utc(row.last_used_at)),
            ("Revoked", utc(row.revoked_at)),
            ("Registration id", mono(str(row.id))),
        ]
        claims = [(claim, " or ".join(values)) for claim, values in sorted(row.conditions.items())]
        note = "A token must have all of them."
        return [
            Panel("Terms", terms),
            Panel("Claims that a token must have", claims, note=note),
            Panel("Life", life),
        ]

    @display(description="Name")
    def named(self, row: WorkloadIssuer) -> str:
        """Return the registration's name."""
        return row.name

    @display(description="State")
    def state(self, row: WorkloadIssuer) -> SafeString:
        """Return whether its tokens are taken."""
        return _state(row)

    @display(description="Issuer")
    def of_issuer(self, row: WorkloadIssuer) -> str:
        """Return who makes the tokens."""
        return row.issuer

    @display(description="Project")
    def project(self, row: WorkloadIssuer) -> str:
        """Return the project that its tokens speak for."""
        return row.project_id

    @display(description="Person")
    def answers_for(self, row: WorkloadIssuer) -> str:
        """Return who answers for it."""
        return row.person.get_username()

    @display(description="Last used")
    def used(self, row: WorkloadIssuer) -> str:
        """Return when a token of it was last taken."""
        return utc(row.last_used_at)

    @display(description="Registered")
    def created(self, row: WorkloadIssuer) -> str:
        """Return when it was registered."""
        return utc(row.created_at)


def _state(row: WorkloadIssuer) -> SafeString:
    return badge("active", GOOD) if row.revoked_at is None else badge("revoked", BAD)


def _keys(row: WorkloadIssuer) -> str:
    if row.jwks is None:
        return "fetched from the issuer"
    names = [str(key.get("kid") or "unnamed") for key in row.jwks["keys"]]
    return f"uploaded: {', '.join(names)}"
