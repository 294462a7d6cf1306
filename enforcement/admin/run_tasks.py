"""The console's list of run tasks' calls: what was asked, decided, and told to the platform."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from django.contrib.admin import SimpleListFilter, display
from django.db.models import JSONField, QuerySet
from django.db.models.fields.json import KT
from django.db.models.functions import Cast
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from enforcement.adapters.run_task import FAILED, PASSED, decode_call, decode_verdict
from enforcement.adapters.terraform import STAGES
from enforcement.models import Decision, RunTask
from enforcement.run_tasks.models import DECIDED, GIVEN_UP, RECEIVED, REPORTED, STATES
from governance.identity.domain import ADMIN, OWNER
from governance.integrations.domain import RUN_TASK
from governance.models import Integration
from valdrix.kernel.admin import ConsoleChangeList, TenantModelAdmin, column_filter, seat_of
from valdrix.kernel.admin_display import (
    BAD,
    GOOD,
    INFO,
    NOTHING,
    WARN,
    Panel,
    badge,
    link,
    mono,
    utc,
    words,
)

_TONES: Final = {RECEIVED: INFO, DECIDED: WARN, REPORTED: GOOD, GIVEN_UP: BAD}
_NAMES: Final = {
    RECEIVED: "waiting",
    DECIDED: "being told",
    REPORTED: "told",
    GIVEN_UP: "given up",
}
_RESULT_TONES: Final = {PASSED: GOOD, FAILED: BAD}
_MOST_REGISTRATIONS: Final = 500


class RegistrationFilter(SimpleListFilter):
    """Shows the calls that came through one registration."""

    title = "registration"
    parameter_name = "integration_id"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer the tenant's run tasks, revoked ones too: their calls stay."""
        rows = Integration.objects.filter(tenant_id=seat_of(request).tenant_id, kind=RUN_TASK)
        pairs = rows.order_by("-pk").values_list("pk", "name")[:_MOST_REGISTRATIONS]
        return [(str(pk), name) for pk, name in pairs]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the calls of the registration that was chosen."""
        chosen = self.value()
        if chosen is None or chosen not in {value for value, _ in self.lookup_choices}:
            return queryset
        return queryset.filter(integration_id=chosen)


class RunTaskChangeList(ConsoleChangeList):
    """A page of calls with the names of their registrations."""

    result_list: Sequence[RunTask]

    def get_results(self, request: HttpRequest) -> None:
        """Read the page, and the names of its registrations at once."""
        super().get_results(request)
        rows = list(self.result_list)
        names = _names(seat_of(request).tenant_id, {row.integration_id for row in rows})
        for row in rows:
            row.through = names.get(row.integration_id, NOTHING)  # type: ignore[attr-defined]
        self.result_list = rows


class RunTaskAdmin(TenantModelAdmin):
    """What runs asked, what was decided, and whether the platform was told."""

    roles = (ADMIN, OWNER)
    list_title = "Run tasks"
    empty_text = (
        "No run has asked yet. An owner registers a run task under Integrations, and then at"
        " the platform."
    )
    deferred = ("call_json", "verdict_json", "sealed_token")
    list_display = ("when", "state_shown", "result", "run", "at_stage", "registration", "told", "error")  # fmt: skip
    list_display_links = ("when",)
    list_filter = (
        column_filter("state", "state", STATES, label=lambda name: _NAMES[name]),
        column_filter("stage", "stage", STAGES, label=words),
        RegistrationFilter,
    )

    def get_list_queryset(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return the calls, of each answer no more than whether it passed."""
        answered = rows.annotate(answer=Cast("verdict_json", JSONField()))
        return super().get_list_queryset(request, answered.annotate(status=KT("answer__status")))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ConsoleChangeList]:
        """Return the list's class."""
        return RunTaskChangeList

    def get_page_title(self, row: Any) -> str:
        """Return the heading of a call's page."""
        return f"Run {row.run_id}, {words(row.stage)}"

    def get_panels(self, request: HttpRequest, row: Any) -> Sequence[Panel]:
        """Return what was asked, how far it came, and what the platform was told."""
        return [_asked(row), _progress(row), _answered(row)]

    @display(description="Received")
    def when(self, row: RunTask) -> str:
        """Return when the platform asked."""
        return utc(row.received_at)

    @display(description="State")
    def state_shown(self, row: RunTask) -> SafeString:
        """Return how far the call has come."""
        return _state(row)

    @display(description="Answer")
    def result(self, row: Any) -> SafeString | str:
        """Return what the platform is told at the end."""
        return _result(row.status)

    @display(description="Run")
    def run(self, row: RunTask) -> str:
        """Return the platform's run."""
        return row.run_id

    @display(description="Stage")
    def at_stage(self, row: RunTask) -> str:
        """Return the stage that asked."""
        return words(row.stage)

    @display(description="Registration")
    def registration(self, row: Any) -> str:
        """Return which integration the call came through."""
        return str(row.through)

    @display(description="Last callback")
    def told(self, row: RunTask) -> str:
        """Return when the platform last heard of it."""
        return utc(row.told_at)

    @display(description="Last error")
    def error(self, row: RunTask) -> str:
        """Return what went wrong last."""
        return row.last_error or NOTHING


def _asked(row: RunTask) -> Panel:
    call = decode_call(row.call_json)
    name = _names(row.tenant_id, {row.integration_id}).get(row.integration_id)
    page = reverse("admin:governance_integration_change", args=[str(row.integration_id)])
    rows = [
        ("Organization", call.organization_name),
        ("Workspace", call.workspace_name),
        ("Run", mono(row.run_id)),
        ("Stage", words(row.stage)),
        ("Speculative", "yes: nothing is reserved" if call.is_speculative else "no"),
        ("Registration", link(page if name else None, name or NOTHING)),
        ("Plan digest", mono(row.plan_digest)),
        ("Task result", mono(row.task_result_id)),
    ]
    return Panel("What was asked", rows)


def _progress(row: RunTask) -> Panel:
    call = decode_call(row.call_json)
    rows = [
        ("State", _state(row)),
        ("Received", utc(row.received_at)),
        ("Times taken up", row.attempts),
        ("Failures in a row", row.failures),
        ("Last error", row.last_error or NOTHING),
        ("Last callback", utc(row.told_at)),
        ("Calls back to", urlsplit(call.callback_url).hostname or NOTHING),
        ("Next try", NOTHING if row.finished_at else utc(row.due_at)),
        ("Finished", utc(row.finished_at)),
    ]
    return Panel("How far it came", rows)


def _answered(row: RunTask) -> Panel:
    if row.verdict_json is None:
        return Panel("What the platform is told", [("Answer", _result(None))])
    verdict = decode_verdict(row.verdict_json)
    decided = Decision.objects.filter(tenant_id=row.tenant_id, pk=row.decision_id).exists()
    page = reverse("admin:enforcement_decision_change", args=[str(row.decision_id)])
    rows = [
        ("Answer", _result(verdict.status)),
        ("Message", verdict.message),
        ("Decision", link(page, str(row.decision_id)) if decided else NOTHING),
        ("Outcomes beside it", len(verdict.outcomes)),
    ]
    return Panel("What the platform is told", rows)


def _names(tenant_id: uuid.UUID, ids: set[uuid.UUID]) -> dict[uuid.UUID, str]:
    rows = Integration.objects.filter(tenant_id=tenant_id, pk__in=ids)
    return dict(rows.values_list("pk", "name"))


def _state(row: RunTask) -> SafeString:
    return badge(_NAMES[row.state], _TONES[row.state])


def _result(status: str | None) -> SafeString | str:
    return NOTHING if status is None else badge(status, _RESULT_TONES.get(status, WARN))
