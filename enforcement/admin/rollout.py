"""The console's rollout: how far each mode is, and one step up by two people."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from enforcement.admin import labels
from enforcement.rollout.domain import THRESHOLDS
from enforcement.rollout.operations import (
    Promoter,
    Standing,
    propose,
    read_rollout,
    sign,
    withdraw,
)
from governance.audit.operations import Actor
from governance.identity.domain import ADMIN, OWNER
from governance.policies.domain import SOURCES
from governance.policies.environments import ENVIRONMENTS
from valdrix.kernel.admin import ConsolePage, seat_of
from valdrix.kernel.admin_display import utc, words
from valdrix.kernel.http.client_address import client_address
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import Refused

_DOES: Final = ("propose", "sign", "withdraw")


def show_rollout(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Answer the state by GET; propose, sign or withdraw by POST and come back with a message."""
    if request.method not in {"GET", "HEAD", "POST"}:
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    actor = Actor(
        tenant_id=seat_of(request).tenant_id,
        principal_id=f"user:{request.user.pk}",
        address=client_address(request),
        at=timezone.now(),
    )
    person_id = int(request.user.pk or 0)
    if request.method == "POST":
        _act(request, Promoter(actor=actor, person_id=person_id))
        return HttpResponseRedirect(reverse("admin:rollout"))
    rollout = read_rollout(actor)
    page = {
        **context,
        "is_required": rollout.is_required,
        "standings": [_row(one, person_id) for one in rollout.standings],
    }
    return TemplateResponse(request, "valdrix/rollout.html", page).render()


def _act(request: HttpRequest, promoter: Promoter) -> None:
    scope = (request.POST.get("source", ""), request.POST.get("environment", ""))
    do = request.POST.get("do", "")
    if scope[0] not in SOURCES or scope[1] not in ENVIRONMENTS or do not in _DOES:
        messages.error(request, "There is nothing of this name to promote.")
        return
    name = f"{words(scope[0])} {scope[1]}"
    try:
        if do == "propose":
            made = propose(promoter=promoter, promotion_id=new_id(), scope=scope)
            said = f"{name}: {made.to_mode} is proposed. Another admin or owner signs it."
        elif do == "sign":
            version = sign(promoter=promoter, version_id=new_id(), scope=scope)
            said = f"{name}: signed and published as policy version {version.number}."
        else:
            withdraw(promoter=promoter, scope=scope)
            said = f"{name}: the proposal is withdrawn."
        messages.success(request, said)
    except Refused as refusal:
        messages.error(request, f"{name}: {refusal.detail}")


def _row(one: Standing, person_id: int) -> dict[str, Any]:
    figures, asked = one.figures, THRESHOLDS.get(one.next_mode or "")
    proposal = one.proposal
    return {
        "source": one.source,
        "name": words(one.source),
        "environment": one.environment,
        "mode": labels.mode_badge(one.mode),
        "next": one.next_mode,
        "figures": [
            ("Decisions", figures.decisions, f"≥ {asked.decisions}" if asked else ""),
            (
                "False positives",
                figures.false_positive_rate,
                f"≤ {asked.false_positive_rate}" if asked else "",
            ),
            ("Errors", figures.error_rate, f"≤ {asked.error_rate}" if asked else ""),
            (
                "p95, ms",
                "–" if figures.p95_ms is None else figures.p95_ms,
                f"≤ {asked.p95_ms}" if asked else "",
            ),
        ],
        "missing": one.missing,
        "proposal": None
        if proposal is None
        else {
            "to": proposal.to_mode,
            "by": proposal.proposed_by,
            "until": utc(proposal.expires_at),
            "is_own": proposal.proposer_person_id == person_id,
        },
    }


ROLLOUT_PAGES: Final = (
    ConsolePage(
        route="rollout/",
        name="rollout",
        title="Rollout",
        roles=(ADMIN, OWNER),
        view=show_rollout,
    ),
)
