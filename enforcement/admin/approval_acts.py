"""What people say about an approval: yes, no, never mind, once more.

Every form carries the mark of what its page showed. When that has moved meanwhile nothing is done,
and the page says so.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any, Final

from django import forms
from django.urls import reverse
from django.utils import timezone

from enforcement.admin.people import principal_of
from enforcement.review.approve import approve
from enforcement.review.domain import Words
from enforcement.review.judging import mark_of
from enforcement.review.reading import Seen, see_approval
from enforcement.review.refuse import deny, withdraw
from enforcement.review.request import request_approval
from governance.approvals.authority import find_refusal
from governance.approvals.models import APPROVED, EXPIRED, PENDING, WITHDRAWN, Approval
from governance.identity.domain import ROLES
from valdrix.kernel.admin_acts import Act, ActForm, Doing, Done
from valdrix.kernel.admin_display import Panel, delta_usd, usd, words
from valdrix.kernel.fields import Fields
from valdrix.kernel.money import MONTHLY_PLACES
from valdrix.kernel.problems import FieldError, InvalidRequest, NotAllowed, NotFound, Refused

_MOST_AT_ONCE: Final = 100
_SHORT: Final = {"rows": 2, "maxlength": 2000}


class PageMoved(Refused):
    """Nothing of what the page showed can be done any more (409)."""

    code = "page_moved"


class VerdictForm(ActForm):
    """What is said, and what the page showed when it was said."""

    reason = forms.CharField(
        max_length=2000, required=False, widget=forms.Textarea(attrs=_SHORT), help_text=""
    )
    shown = forms.CharField(max_length=100, required=False, widget=forms.HiddenInput)


class ApproveForm(VerdictForm):
    """A yes; for an unknown cost, up to which amount."""

    max_monthly_delta_usd = forms.CharField(
        label="Up to, USD a month",
        max_length=64,
        required=False,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
        help_text="The cost is unknown: the approval holds up to this amount.",
    )
    field_order = ("max_monthly_delta_usd", "reason", "shown")


class SeveralForm(ActForm):
    """One reason for several denials."""

    reason = forms.CharField(max_length=2000, widget=forms.Textarea(attrs=_SHORT))


def is_judge(seen: Seen) -> bool:
    """Tell whether the person may judge at all."""
    return find_refusal(seen.bench.terms, seen.bench.reviewer) is None


def _shown(form: Any) -> str:
    """Return the mark that a form carries; one without it has shown nothing."""
    return str(form.cleaned_data.get("shown") or "")


def _approve(doing: Doing, form: Any) -> Done:
    fields = Fields(form.given())
    ceiling = fields.amount("max_monthly_delta_usd", places=MONTHLY_PLACES)
    reason = fields.prose("reason") or ""
    fields.raw("shown")
    fields.finish()
    outcome = approve(
        principal=principal_of(doing.request),
        approval_id=doing.row.pk,
        words=Words(reason=reason, max_monthly_delta_usd=ceiling, shown=_shown(form)),
        clock=timezone.now,
    )
    if outcome["status"] == APPROVED:
        amount = usd(outcome["max_monthly_delta_usd"])
        said = f"Approved, up to {amount} USD a month. Its requester can go on."
    else:
        missing = outcome["approvals_required"] - outcome["approvals_given"]
        said = f"Your approval counts. {missing} more {'is' if missing == 1 else 'are'} needed."
    return Done(said, _page_of(doing.row))


def _deny(doing: Doing, form: Any) -> Done:
    deny(
        principal=principal_of(doing.request),
        approval_id=doing.row.pk,
        words=Words(reason=_reason(form), shown=_shown(form)),
        clock=timezone.now,
    )
    return Done("Denied. What it held was given back.", _page_of(doing.row))


def _withdraw(doing: Doing, form: Any) -> Done:
    withdraw(
        principal=principal_of(doing.request),
        approval_id=doing.row.pk,
        words=Words(reason=_reason(form), shown=_shown(form) or None),
        clock=timezone.now,
    )
    return Done("Withdrawn. What it held was given back.", _page_of(doing.row))


def _ask_again(doing: Doing, form: Any) -> Done:
    request_approval(
        principal=principal_of(doing.request),
        decision_id=doing.row.decision_id,
        reason=_reason(form),
        clock=timezone.now,
    )
    return Done("Its reviewers are asked again.", _page_of(doing.row))


def _deny_several(doing: Doing, form: Any) -> Done:
    """Deny each of the chosen ones by itself; one that cannot be denied stops no other."""
    reason, marks = _reason(form), _marks(doing)
    denied, refused = 0, []
    for approval_id in _chosen(doing):
        try:
            deny(
                principal=principal_of(doing.request),
                approval_id=approval_id,
                words=Words(reason=reason, shown=marks.get(str(approval_id), "")),
                clock=timezone.now,
            )
        except Refused as error:
            refused.append(f"{str(approval_id)[-12:]}: {error.detail}")
        else:
            denied += 1
    if not denied:
        raise PageMoved(" ".join(refused) or "Nothing was chosen.")
    said = f"{denied} denied."
    if refused:
        said += f" {len(refused)} were not: {' '.join(refused)}"
    return Done(said, reverse("admin:governance_approval_changelist"))


def _chosen(doing: Doing) -> list[uuid.UUID]:
    """Return the ids that the address names, each once.

    :raises InvalidRequest: when one is none, or there are too many.
    """
    texts = doing.request.GET.getlist("id")
    try:
        ids = list(dict.fromkeys(uuid.UUID(text) for text in texts))
    except ValueError:
        raise _unreadable("is not the id of an approval") from None
    if len(ids) > _MOST_AT_ONCE:
        raise _unreadable(f"at most {_MOST_AT_ONCE} at once")
    return ids


def _marks(doing: Doing) -> dict[str, str]:
    """Return the marks that the page showed, by the approval's id."""
    pairs = (text.partition(" ") for text in doing.request.POST.getlist("shown"))
    return {approval_id: mark for approval_id, _, mark in pairs}


def _unreadable(detail: str) -> InvalidRequest:
    return InvalidRequest("The choice cannot be read.", errors=(FieldError("", "invalid", detail),))


def _show_several(doing: Doing) -> dict[str, Any]:
    principal, found = principal_of(doing.request), []
    try:
        ids = _chosen(doing)
    except InvalidRequest:
        return {"chosen": []}
    for approval_id in ids:
        try:
            seen = see_approval(principal, approval_id, now=doing.now)
        except (NotAllowed, NotFound):
            continue
        if seen.status == PENDING and is_judge(seen):
            found.append(
                {
                    "name": f"{seen.approval.project_id} / {seen.approval.environment}",
                    "action": seen.approval.action,
                    "delta": delta_usd(seen.approval.monthly_delta_usd),
                    "url": _page_of(seen.approval),
                    "shown": f"{seen.approval.pk} {mark_of(seen.approval)}",
                }
            )
    return {"chosen": found}


def _reason(form: Any) -> str:
    fields = Fields(form.given())
    reason = fields.prose("reason") or ""
    fields.raw("shown")
    fields.finish()
    return reason


def _begin(doing: Doing) -> dict[str, Any]:
    return {"shown": mark_of(doing.row)}


def _prepare(doing: Doing, form: Any) -> None:
    """Ask for what this approval needs: a ceiling only where the cost is unknown."""
    seen: Seen = doing.row.seen
    if "max_monthly_delta_usd" in form.fields and not seen.ceiling_required:
        del form.fields["max_monthly_delta_usd"]
    if seen.reason_required and "max_monthly_delta_usd" in type(form).base_fields:
        form.fields["reason"].help_text = "Required here."


def _about(doing: Doing) -> list[Panel]:
    """Return what is judged: a form that stands alone still says what it is about."""
    approval, seen = doing.row, doing.row.seen
    decision = seen.waiting[0] if seen.waiting else None
    rows = [
        ("Where", f"{approval.project_id} / {approval.environment}"),
        ("Action", approval.action),
        ("Resource", decision.resource_reference if decision else ""),
        ("USD a month", delta_usd(approval.monthly_delta_usd)),
        ("Status", words(seen.status)),
        ("Given", f"{len(seen.bench.given)} of {seen.bench.terms.needed}"),
    ]
    return [Panel("What it is about", rows, note="All of it is on the approval's own page.")]


def _page_of(approval: Approval) -> str:
    return reverse("admin:governance_approval_change", args=[str(approval.pk)])


def _is_pending_for_judge(row: Any) -> bool:
    return row.seen.status == PENDING and is_judge(row.seen)


def _can_be_withdrawn(row: Any) -> bool:
    seen: Seen = row.seen
    asked = seen.bench.reviewer.person_id in seen.bench.terms.requesters
    return seen.status in {PENDING, APPROVED} and (asked or is_judge(seen))


def _can_be_asked_again(row: Any) -> bool:
    seen: Seen = row.seen
    asked = seen.bench.reviewer.person_id in seen.bench.terms.requesters
    return asked and seen.status in {EXPIRED, WITHDRAWN} and row.closed_at is not None


APPROVE: Final = Act(
    name="approve",
    label="Approve",
    title="Approve this change",
    roles=ROLES,
    form=ApproveForm,
    initial=_begin,
    prepare=_prepare,
    panels=_about,
    perform=_approve,
    tone="good",
    applies=lambda row: bool(row.seen.may_approve),
)
DENY: Final = Act(
    name="deny",
    label="Deny",
    title="Deny this change",
    roles=ROLES,
    form=VerdictForm,
    initial=_begin,
    panels=_about,
    perform=_deny,
    tone="bad",
    applies=_is_pending_for_judge,
    intro="One denial is enough, and needs a reason. What it holds is given back.",
)
WITHDRAW: Final = Act(
    name="withdraw",
    label="Withdraw",
    title="Withdraw this request",
    roles=ROLES,
    form=VerdictForm,
    initial=_begin,
    panels=_about,
    perform=_withdraw,
    applies=_can_be_withdrawn,
    intro="It ends, and what it holds is given back. A token that was claimed opens nothing then.",
)
ASK_AGAIN: Final = replace(
    WITHDRAW,
    name="ask-again",
    label="Ask again",
    title="Ask its reviewers again",
    perform=_ask_again,
    applies=_can_be_asked_again,
    intro="Those who may judge it are asked once more, about the same decision.",
)
DENY_SEVERAL: Final = Act(
    name="deny-several",
    label="Deny them all",
    title="Deny several changes",
    roles=ROLES,
    form=SeveralForm,
    show=_show_several,
    perform=_deny_several,
    tone="bad",
    template="valdrix/deny_several.html",
)
