"""What owners do about workload issuers: register one, replace its keys, revoke it."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.urls import reverse

from governance.admin.people import AnsweredForm, actor_of, offer_people
from governance.identity.domain import OWNER
from governance.models import WorkloadIssuer
from governance.workloads.domain import IMMUTABLE_CLAIMS, audience_of
from governance.workloads.operations import (
    ISSUER_LIMIT,
    register_issuer,
    replace_keys,
    revoke_issuer,
)
from valdrix.kernel import strict_json
from valdrix.kernel.admin_acts import Act, ActForm, Doing, Done
from valdrix.kernel.admin_display import Panel, mono
from valdrix.kernel.ids import new_id

_OWNERS: Final = (OWNER,)
_MOST_TEXT: Final = 200_000
_AN_EXAMPLE: Final = "repository_id = 123456789\nref = refs/heads/main"


class KeysForm(ActForm):
    """The public keys that tokens are verified by."""

    jwks = forms.CharField(
        label="Public keys",
        max_length=_MOST_TEXT,
        required=False,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}),
        help_text="The issuer's key set as JSON (a JWKS). Empty: fetched from the issuer itself,"
        " where this server may.",
    )

    def clean_jwks(self) -> object:
        """Return the key set as parsed, or None; what it must be is the operation's to say."""
        text: str = self.cleaned_data["jwks"]
        if not text.strip():
            return None
        try:
            return strict_json.loads(text.encode())
        except strict_json.StrictJsonError as error:
            raise forms.ValidationError(f"This is {error}.") from None


class NewIssuerForm(KeysForm, AnsweredForm):
    """Whose tokens speak for which project, and by which claims."""

    name = forms.CharField(max_length=200, help_text="What it lets in, such as a repository.")
    issuer = forms.CharField(
        max_length=ISSUER_LIMIT,
        help_text="The claim iss of its tokens, such as"
        " https://token.actions.githubusercontent.com or https://gitlab.com.",
    )
    project_id = forms.CharField(
        label="Project", max_length=200, help_text="The one project that its tokens may ask for."
    )
    conditions = forms.CharField(
        label="Claims that a token must have",
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false", "placeholder": _AN_EXAMPLE}),
        help_text="One a line, as claim = value; a claim on several lines takes any of its values."
        f" One of {', '.join(IMMUTABLE_CLAIMS)} is demanded: names can be taken by others.",
    )
    field_order = ("name", "issuer", "project_id", "conditions", "jwks", "person_id")

    def clean_conditions(self) -> dict[str, list[str]]:
        """Return the claims with their values."""
        found: dict[str, list[str]] = {}
        for line in self.cleaned_data["conditions"].splitlines():
            if not line.strip():
                continue
            claim, equals, value = line.partition("=")
            if not equals or not claim.strip() or not value.strip():
                raise forms.ValidationError(f"“{line.strip()[:60]}” is not a claim = value.")
            found.setdefault(claim.strip(), []).append(value.strip())
        return found


def _register(doing: Doing, form: ActForm) -> Done:
    given = form.given()
    row = register_issuer(
        actor=actor_of(doing),
        issuer_id=new_id(),
        name=given["name"],
        issuer=given["issuer"],
        project_id=given["project_id"],
        conditions=given["conditions"],
        person_id=given["person_id"],
        jwks=given.get("jwks"),
    )
    return Done(f"Tokens of {row.issuer} now speak for {row.project_id}.", _page_of(row))


def _replace_keys(doing: Doing, form: ActForm) -> Done:
    row = replace_keys(actor=actor_of(doing), issuer_id=doing.row.pk, jwks=form.given().get("jwks"))
    said = "are fetched from the issuer" if row.jwks is None else "are replaced"
    return Done(f"The keys of {row.name} {said}.", _page_of(row))


def _revoke(doing: Doing, form: ActForm) -> Done:
    row = revoke_issuer(actor=actor_of(doing), issuer_id=doing.row.pk)
    return Done(f"The registration {row.name} is revoked.", _page_of(row))


def _page_of(row: WorkloadIssuer) -> str:
    return reverse("admin:governance_workloadissuer_change", args=[str(row.pk)])


def _is_active(row: Any) -> bool:
    return row.revoked_at is None


def _show_audience(doing: Doing) -> list[Panel]:
    rows = [("Audience", mono(audience_of(doing.tenant_id)))]
    note = "A job must ask its platform for a token of this audience, and of no other beside it."
    return [Panel("For the job's side", rows, note=note)]


NEW_ISSUER: Final = Act(
    name="register",
    label="New registration",
    title="Register a workload issuer",
    roles=_OWNERS,
    form=NewIssuerForm,
    prepare=offer_people,
    initial=lambda doing: {"person_id": str(doing.person_id)},
    perform=_register,
    panels=_show_audience,
    intro="CI jobs and service accounts then prove who they are by tokens of their platform, and"
    " no secret is stored with them. They may do what a member may, in one project.",
)
REPLACE_KEYS: Final = Act(
    name="keys",
    label="Replace the keys",
    roles=_OWNERS,
    form=KeysForm,
    perform=_replace_keys,
    applies=_is_active,
    intro="The old keys stop at once.",
)
REVOKE_ISSUER: Final = Act(
    name="revoke",
    label="Revoke",
    title="Revoke the registration",
    roles=_OWNERS,
    perform=_revoke,
    tone="bad",
    applies=_is_active,
    intro="Its tokens stop at once, for ever.",
)
