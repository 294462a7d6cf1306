"""The console's list of integrations. Secrets are never read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.admin import display
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from governance.admin.integration_acts import (
    NEW_RUN_TASK,
    REVOKE_INTEGRATION,
    ROTATE_SECRET,
    run_task_url,
)
from governance.identity.domain import OWNER
from governance.integrations.domain import CLUSTER, RUN_TASK, WEBHOOK
from governance.models import Integration
from valdrix.kernel.admin import TenantModelAdmin
from valdrix.kernel.admin_display import BAD, GOOD, Panel, badge, mono, utc

_KINDS = {RUN_TASK: "HCP Terraform run task", CLUSTER: "Kubernetes cluster", WEBHOOK: "Webhook"}


class IntegrationAdmin(TenantModelAdmin):
    """Which other systems are connected, for which project, and when they last called."""

    roles = (OWNER,)
    list_title = "Integrations"
    empty_text = (
        "Nothing is connected yet. A run task is registered here, clusters and webhooks by"
        " POST …/integrations."
    )
    list_display = ("named", "state", "of_kind", "project", "answers_for", "used", "created")
    list_display_links = ("named",)
    list_acts = (NEW_RUN_TASK,)
    row_acts = (ROTATE_SECRET, REVOKE_INTEGRATION)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the tenant's integrations with their people, without secrets."""
        return super().get_queryset(request).select_related("person").defer("sealed_secret")

    def get_page_title(self, row: Any) -> str:
        """Return the heading of an integration's page."""
        return f"Integration {row.name}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return what the integration is for and where it came from."""
        terms = [
            ("State", _state(row)),
            ("Kind", _KINDS[row.kind]),
            ("Project", row.project_id or "as what comes says"),
            *((name.capitalize(), str(value)) for name, value in sorted(row.settings.items())),
            ("Responsible person", row.person.get_username()),
        ]
        if row.kind == RUN_TASK:
            terms.append(("Endpoint URL", mono(run_task_url(row))))
        life = [
            ("Created", utc(row.created_at)),
            ("Created by", mono(row.created_by)),
            ("Secret replaced", utc(row.rotated_at)),
            ("Last used, to the minute", utc(row.last_used_at)),
            ("Revoked", utc(row.revoked_at)),
            ("Integration id", mono(str(row.id))),
        ]
        return [Panel("Terms", terms), Panel("Life", life)]

    @display(description="Name")
    def named(self, row: Integration) -> str:
        """Return the integration's name."""
        return row.name

    @display(description="State")
    def state(self, row: Integration) -> SafeString:
        """Return whether the integration works."""
        return _state(row)

    @display(description="Kind")
    def of_kind(self, row: Integration) -> str:
        """Return what kind of system it is."""
        return _KINDS[row.kind]

    @display(description="Project")
    def project(self, row: Integration) -> str:
        """Return the project that it is bound to."""
        return row.project_id or "as what comes says"

    @display(description="Person")
    def answers_for(self, row: Integration) -> str:
        """Return who answers for it."""
        return row.person.get_username()

    @display(description="Last used")
    def used(self, row: Integration) -> str:
        """Return when it was last used."""
        return utc(row.last_used_at)

    @display(description="Created")
    def created(self, row: Integration) -> str:
        """Return when it was made."""
        return utc(row.created_at)


def _state(row: Integration) -> SafeString:
    return badge("active", GOOD) if row.revoked_at is None else badge("revoked", BAD)
