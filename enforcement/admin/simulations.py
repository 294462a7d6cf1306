"""The console's "Simulate on history": a policy is tried on past decisions before it is published."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson
from django import forms
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from enforcement.admin import labels
from enforcement.admin.flow_chart import build_flow_chart
from enforcement.controls import policies
from enforcement.exports.domain import month_start
from enforcement.replay.models import Simulation
from enforcement.replay.operations import (
    JOB,
    SimulationOrder,
    get_simulation,
    order_simulation,
)
from enforcement.replay.queries import Span
from governance.identity.domain import ADMIN, OWNER
from governance.policies.document import InvalidPolicy
from valdrix.kernel import strict_json
from valdrix.kernel.admin import ConsolePage, seat_of
from valdrix.kernel.admin_display import delta_usd, pretty_json, usd, utc
from valdrix.kernel.db import reading
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import NotFound
from valdrix.kernel.prompting import prompt

_LATEST: Final = 10
_MOST_CHARACTERS: Final = 400_000
_MOST_ERRORS: Final = 20
_SHOWN: Final = 100


class SimulationForm(forms.Form):
    """A policy document and the days on whose decisions it is tried."""

    document = forms.CharField(
        label="Policy document",
        max_length=_MOST_CHARACTERS,
        widget=forms.Textarea(attrs={"rows": 18, "class": "vx-mono", "spellcheck": "false"}),
        help_text="The live policy stands here; change what you want to try. Nothing is published.",
    )
    first = forms.DateField(label="First day", widget=forms.DateInput(attrs={"type": "date"}))
    last = forms.DateField(label="Last day", widget=forms.DateInput(attrs={"type": "date"}))

    def clean_document(self) -> Any:
        """Return the document as it was parsed."""
        try:
            return strict_json.loads(self.cleaned_data["document"].encode())
        except (strict_json.StrictJsonError, UnicodeEncodeError) as error:
            raise forms.ValidationError(f"This is not JSON: {error}") from None

    def clean(self) -> dict[str, Any]:
        """Check that the days follow one another."""
        cleaned = super().clean() or {}
        first, last = cleaned.get("first"), cleaned.get("last")
        if first and last and not first <= last < date.max:
            self.add_error("last", "The last day must not be before the first one.")
        return cleaned


def show_simulations(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Answer the form by GET, and order a simulation by POST."""
    if request.method not in {"GET", "HEAD", "POST"}:
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    now, tenant_id = timezone.now(), seat_of(request).tenant_id
    if request.method == "POST":
        form = SimulationForm(request.POST)
        if form.is_valid():
            try:
                found = order_simulation(order=_order(request, form, now), clock=timezone.now)
                if found.finished_at is None:
                    prompt(JOB)
                return HttpResponseRedirect(reverse("admin:simulation", args=[found.pk]))
            except InvalidPolicy as refusal:
                for one in refusal.errors[:_MOST_ERRORS]:
                    form.add_error("document", f"{one.pointer or '/'} {one.detail}")
    else:
        live = policies.find_live_version(tenant_id)
        today = now.astimezone(UTC).date()
        form = SimulationForm(
            initial={
                "document": pretty_json({} if live is None else live.canonical_json),
                "first": month_start(now).date(),
                "last": today,
            }
        )
    with reading(tenant_id):
        rows = Simulation.objects.filter(tenant_id=tenant_id).order_by("-id")[:_LATEST]
        latest = [_summary(row) for row in rows.defer("document_json", "result_json")]
        page = {**context, "form": form, "latest": latest}
        return TemplateResponse(request, "valdrix/simulations.html", page).render()


def show_simulation(
    request: HttpRequest, context: dict[str, Any], *, simulation_id: uuid.UUID
) -> HttpResponse:
    """Answer one simulation: its progress, then what would have been."""
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD"])
    try:
        found = get_simulation(tenant_id=seat_of(request).tenant_id, simulation_id=simulation_id)
    except NotFound:
        page = {**context, "text": "There is no such simulation in this tenant."}
        return TemplateResponse(request, "valdrix/message.html", page, status=404).render()
    page = {
        **context,
        "crumbs": [(reverse("admin:simulations"), "Simulate on history"), (None, "Result")],
        "one": _summary(found),
        "result": None,
    }
    if found.result_json is not None:
        result = orjson.loads(found.result_json)
        page |= {"result": result, "chart": build_flow_chart(result), **_tables(result)}
    return TemplateResponse(request, "valdrix/simulation.html", page).render()


def _order(request: HttpRequest, form: SimulationForm, now: datetime) -> SimulationOrder:
    days = form.cleaned_data
    return SimulationOrder(
        simulation_id=new_id(),
        document=days["document"],
        span=Span(
            tenant_id=seat_of(request).tenant_id,
            start_at=_midnight(days["first"]),
            end_at=_midnight(days["last"]) + timedelta(days=1),
        ),
        requested_by=f"user:{request.user.pk}",
        requested_at=now,
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=UTC)


def _summary(row: Simulation) -> dict[str, Any]:
    last = row.end_at - timedelta(microseconds=1)
    return {
        "url": reverse("admin:simulation", args=[row.pk]),
        "days": f"{row.start_at:%Y-%m-%d} to {last:%Y-%m-%d}",
        "status": row.status,
        "is_open": row.finished_at is None,
        "done": row.done,
        "total": row.total,
        "by": row.requested_by,
        "at": utc(row.requested_at),
        "sha256": row.policy_sha256,
        "error": row.error,
    }


def _tables(result: dict[str, Any]) -> dict[str, Any]:
    positives = result["false_positives"]
    rate = positives["rate"]
    return {
        "outcomes": [
            {
                "badge": labels.decision_badge(name),
                "was": was["decisions"],
                "was_usd": usd(was["monthly_increase_usd"]),
                "would": result["would_be"][name]["decisions"],
                "would_usd": usd(result["would_be"][name]["monthly_increase_usd"]),
            }
            for name, was in result["was"].items()
        ],
        "moved": [
            {
                "before": labels.decision_badge(one["from"]),
                "after": labels.decision_badge(one["to"]),
                "decisions": one["decisions"],
                "usd": usd(one["monthly_increase_usd"]),
            }
            for one in result["moved"]
        ],
        "changed": [
            {
                "url": reverse("admin:enforcement_decision_change", args=[one["decision_id"]]),
                "change": one["resource_reference"],
                "project": f"{one['project_id']} {one['environment']}",
                "before": labels.decision_badge(one["from"]),
                "after": labels.decision_badge(one["to"]),
                "reasons": ", ".join(labels.reason_title(code) for code in one["reason_codes_to"]),
                "usd": delta_usd(one["estimated_monthly_delta_usd"]),
                "approved_then": one["approved_then"],
            }
            for one in result["changed_decisions"][:_SHOWN]
        ],
        "positives": {
            "denied": positives["denied"]["decisions"],
            "approved": positives["denied_but_approved_then"]["decisions"],
            "usd": usd(positives["denied_but_approved_then"]["monthly_increase_usd"]),
            "percent": None if rate is None else f"{Decimal(rate):.1%}",
        },
    }


SIMULATION_PAGES: Final = (
    ConsolePage(
        route="simulations/",
        name="simulations",
        title="Simulate on history",
        roles=(ADMIN, OWNER),
        view=show_simulations,
    ),
    ConsolePage(
        route="simulations/<uuid:simulation_id>/",
        name="simulation",
        title="Simulation",
        roles=(ADMIN, OWNER),
        view=show_simulation,
    ),
)
