"""People in forms: who does something, who may answer for a credential, and a secret shown once."""

from __future__ import annotations

from typing import Final

from django import forms
from django.http import HttpResponse
from django.template.response import TemplateResponse

from governance.audit.operations import Actor
from governance.identity.queries import find_memberships
from valdrix.kernel.admin_acts import ActForm, Doing
from valdrix.kernel.db import reading

_OFFERED_PEOPLE: Final = 500


class AnsweredForm(ActForm):
    """A form that names the person who answers for what is made."""

    person_id = forms.TypedChoiceField(label="Responsible person", coerce=int)

    def offer(self, people: list[tuple[str, str]]) -> None:
        """Offer the people who may answer for it."""
        self.fields["person_id"].choices = people  # type: ignore[attr-defined]  # a choice field


def offer_people(doing: Doing, form: AnsweredForm) -> None:
    """Offer the tenant's people."""
    with reading(doing.tenant_id):
        rows = find_memberships(doing.tenant_id, limit=_OFFERED_PEOPLE)
    form.offer(
        [
            (str(row.user_id), f"{row.user.get_username()} ({row.role})")
            for row in rows
            if row.user.is_active
        ]
    )


def actor_of(doing: Doing) -> Actor:
    """Return who does something, for the operation and the audit log."""
    return Actor(doing.tenant_id, f"user:{doing.person_id}", doing.address, doing.now)


def show_once(doing: Doing, *, secret: str, **page: str) -> HttpResponse:
    """Answer a POST itself with a secret: there is no address under which it is seen again.

    :param page: ``title``, ``secret_title``, ``secret_note``, ``secret_label`` and ``next_url``.
    """
    return TemplateResponse(
        doing.request, "valdrix/once.html", {**doing.context, **page, "secret": secret}
    )
