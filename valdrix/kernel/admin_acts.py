"""Acts: what people do in the console. A form by GET, one operation by POST, a message.

An act never happens by GET. What the operation refuses is shown on the form with what was typed;
nothing was written then. Each act names the roles that see it; the operation checks rights again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone

from valdrix.kernel.admin_display import GOOD, Panel
from valdrix.kernel.db import reading
from valdrix.kernel.http.client_address import client_address
from valdrix.kernel.problems import FieldError, Refused

_METHODS: Final = ("GET", "HEAD", "POST")


@dataclass(frozen=True, slots=True)
class Doing:
    """One request to do something: by whom, from where, when, and to which row.

    :ivar person_id: who is signed in.
    :ivar row: as it was read for this request; None for what concerns no row.
    :ivar context: what every page's template is given.
    """

    request: HttpRequest
    tenant_id: Any
    role: str
    person_id: int
    address: str | None
    now: datetime
    row: Any = None
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """What to say, and where to go, after an act."""

    message: str
    url: str


class ActForm(forms.Form):
    """A form whose empty fields are left out, as a request to the API leaves them out."""

    required_css_class = "vx-required"

    def given(self) -> dict[str, Any]:
        """Return what was filled in."""
        return {
            name: value for name, value in self.cleaned_data.items() if value not in (None, "", [])
        }


class EditForm(ActForm):
    """A form that carries the mark of what it showed."""

    shown = forms.CharField(max_length=100, required=False, widget=forms.HiddenInput)

    def given(self) -> dict[str, Any]:
        """Return what was filled in; the mark is none of it."""
        return {name: value for name, value in super().given().items() if name != "shown"}

    @property
    def mark(self) -> str | None:
        """Return the mark, or None of a request that carries none."""
        return str(self.cleaned_data.get("shown") or "") or None


def _nothing(doing: Doing) -> dict[str, Any]:
    return {}


def _as_it_is(doing: Doing, form: Any) -> None:
    """Leave a form as its class has it."""


def _always(row: Any) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing that can be done.

    :ivar name: its part of the address.
    :ivar perform: calls the one operation and returns what to say, a page of its own, or more for
        the form's template.
    :ivar applies: whether a row's page offers it.
    :ivar initial: what the form begins with.
    :ivar prepare: gives a form what it offers, such as the choices of a field.
    :ivar show: more for the template, read in the tenant's transaction.
    :ivar panels: facts beside the form.
    """

    name: str
    label: str
    roles: tuple[str, ...]
    perform: Callable[[Doing, Any], Done | HttpResponse | Mapping[str, Any]]
    form: type[ActForm] = ActForm
    title: str = ""
    intro: str = ""
    tone: str = ""
    applies: Callable[[Any], bool] = _always
    initial: Callable[[Doing], dict[str, Any]] = _nothing
    prepare: Callable[[Doing, Any], None] = _as_it_is
    show: Callable[[Doing], dict[str, Any]] = _nothing
    panels: Callable[[Doing], list[Panel]] = field(default=lambda doing: [])
    template: str = "valdrix/act.html"

    @property
    def heading(self) -> str:
        """Return the page's heading."""
        return self.title or self.label


def doing_of(request: HttpRequest, tenancy: Any, *, row: Any, context: Mapping[str, Any]) -> Doing:
    """Return who does something by a request; the one place that reads the clock for it."""
    return Doing(
        request=request,
        tenant_id=tenancy.tenant_id,
        role=tenancy.role,
        person_id=int(request.user.pk or 0),
        address=client_address(request),
        now=timezone.now(),
        row=row,
        context=context,
    )


def answer_act(act: Act, doing: Doing, *, back_url: str) -> HttpResponse:
    """Answer an act's page: the form, or what became of it."""
    request = doing.request
    if request.method not in _METHODS:
        return HttpResponseNotAllowed(_METHODS)
    if doing.role not in act.roles:
        raise PermissionDenied
    if request.method != "POST":
        form = act.form(initial=act.initial(doing))
        act.prepare(doing, form)
        return _show(act, doing, form, {"back_url": back_url})
    form = act.form(request.POST)
    act.prepare(doing, form)
    more: dict[str, Any] = {"back_url": back_url}
    if not form.is_valid():
        return _show(act, doing, form, {**more, "status": HTTPStatus.UNPROCESSABLE_ENTITY})
    try:
        done = act.perform(doing, form)
    except Refused as refused:
        put_errors(form, refused)
        return _show(act, doing, form, {**more, "status": HTTPStatus(refused.status)})
    if isinstance(done, HttpResponse):
        return done
    if isinstance(done, Mapping):
        return _show(act, doing, form, {**more, **done})
    messages.success(request, done.message, extra_tags=GOOD)
    return HttpResponseRedirect(done.url)


def put_errors(form: forms.Form, refused: Refused) -> None:
    """Put what was refused where it was typed; what belongs to no field stands above the form."""
    placed = 0
    for error in refused.errors:
        name = field_of(form, error)
        if name is not None:
            detail = getattr(form, "detail_for", _detail_of)(error)
            form.add_error(name, detail)
            placed += 1
    if placed < len(refused.errors) or not refused.errors:
        rest = [one for one in refused.errors if field_of(form, one) is None]
        said = [f"{one.pointer or 'The whole'}: {one.detail}" for one in rest]
        form.add_error(None, " ".join([refused.detail, *said]))


def _detail_of(error: FieldError) -> str:
    return error.detail


def field_of(form: forms.Form, error: FieldError) -> str | None:
    """Return the form's field that an error belongs to, or None; forms may know it better."""
    own = getattr(form, "field_for", None)
    if own is not None:
        found: str | None = own(error)
        return found
    name = error.pointer.lstrip("/").split("/")[0]
    return name if name in form.fields else None


def _show(act: Act, doing: Doing, form: forms.Form, more: Mapping[str, Any]) -> HttpResponse:
    with reading(doing.tenant_id):
        page = {
            **doing.context,
            "act": act,
            "form": form,
            "panels": act.panels(doing),
            **act.show(doing),
            **more,
        }
        status = more.get("status", HTTPStatus.OK)
        return TemplateResponse(doing.request, act.template, page, status=status).render()
