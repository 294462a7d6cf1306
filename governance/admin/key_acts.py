"""What is done about API keys: owners issue, rotate and revoke; everybody takes over their own.

A key's text is shown once, and whoever was shown it judges nothing that was asked by it.
"""

from __future__ import annotations

import os
from datetime import UTC
from typing import Any, Final

from django import forms
from django.http import HttpResponse
from django.urls import reverse

from governance.admin.people import AnsweredForm, actor_of, offer_people, show_once
from governance.identity.domain import MEMBER, OWNER, RANDOM_BYTES, ROLES, SCOPES
from governance.identity.operations import (
    KeyTerms,
    issue_api_key,
    revoke_api_key,
    rotate_api_key,
)
from governance.models import ApiKey
from valdrix.kernel.admin_acts import Act, ActForm, Doing, Done
from valdrix.kernel.ids import new_id

_OWNERS: Final = (OWNER,)
_MOST_PROJECTS: Final = 100


class NewKeyForm(AnsweredForm):
    """What a new key may do, and who answers for it."""

    name = forms.CharField(max_length=200, help_text="What uses it, such as a pipeline's name.")
    role = forms.ChoiceField(choices=[(role, role) for role in ROLES], initial=MEMBER)
    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in SCOPES],
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="Beyond the role: approve lets it approve as the person who answers for it,"
        " who has to take such a key themselves.",
    )
    projects = forms.CharField(
        max_length=20_000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="One a line. Empty: every project of the tenant.",
    )
    expires_at = forms.DateTimeField(
        label="Expires, UTC",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
        help_text="Empty: never.",
    )
    field_order = ("name", "role", "scopes", "projects", "person_id", "expires_at")


def _issue(doing: Doing, form: ActForm) -> HttpResponse:
    given = form.given()
    expires_at = given.get("expires_at")
    terms = KeyTerms(
        name=given["name"],
        role=given["role"],
        person_id=given["person_id"],
        scopes=given.get("scopes", ()),
        projects=_projects(given.get("projects")),
        expires_at=None if expires_at is None else expires_at.astimezone(UTC),
    )
    key, text = issue_api_key(
        actor=actor_of(doing), key_id=new_id(), random_bytes=os.urandom(RANDOM_BYTES), **terms
    )
    return _show_once(doing, key, text)


def _rotate(doing: Doing, form: ActForm) -> HttpResponse:
    key, text = rotate_api_key(
        actor=actor_of(doing), key_id=doing.row.pk, random_bytes=os.urandom(RANDOM_BYTES)
    )
    return _show_once(doing, key, text)


def _revoke(doing: Doing, form: ActForm) -> Done:
    key = revoke_api_key(actor=actor_of(doing), key_id=doing.row.pk)
    return Done(f"The key {key.name} is revoked.", _page_of(key))


def _projects(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [line.strip() for line in text.splitlines() if line.strip()][:_MOST_PROJECTS]


def _show_once(doing: Doing, key: ApiKey, text: str) -> HttpResponse:
    return show_once(
        doing,
        secret=text,
        title=f"API key {key.name}",
        secret_title="The key is shown now and never again",  # noqa: S106 - the heading above it
        secret_note="Keep it where the pipeline reads its secrets. Only a digest is stored here.",  # noqa: S106 - words
        secret_label="API key",  # noqa: S106 - words
        next_url=_page_of(key),
    )


def _page_of(key: ApiKey) -> str:
    return reverse("admin:governance_apikey_change", args=[str(key.pk)])


def _is_live(row: Any) -> bool:
    return row.revoked_at is None


NEW_KEY: Final = Act(
    name="issue",
    label="New API key",
    roles=_OWNERS,
    form=NewKeyForm,
    prepare=offer_people,
    initial=lambda doing: {"role": MEMBER, "person_id": str(doing.person_id)},
    perform=_issue,
    intro="A machine's credential. It can do no more than you, and no more than its person's role."
    " You are shown the text of another person's key, too: until they rotate it themselves, you judge"
    " nothing that it asks for where requester and reviewer are separate.",
)
ROTATE_KEY: Final = Act(
    name="rotate",
    label="Rotate",
    title="Rotate the key",
    roles=ROLES,
    perform=_rotate,
    applies=_is_live,
    intro="It gets a new text, shown to you alone; the old one stops at once.",
)
REVOKE_KEY: Final = Act(
    name="revoke",
    label="Revoke",
    title="Revoke the key",
    roles=ROLES,
    perform=_revoke,
    tone="bad",
    applies=_is_live,
    intro="It stops at once, for ever.",
)
