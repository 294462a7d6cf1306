"""The console's editor of policies: fields or text, lint at the field, the difference, publish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.urls import reverse

from enforcement.admin.policy_form import DocumentForm, MembersForm, PublicationForm
from enforcement.controls import policies
from governance.admin.policies import PolicyVersionAdmin
from governance.audit.operations import Actor
from governance.identity.domain import ADMIN, OWNER
from governance.models import PolicyVersion
from governance.policies.comparison import Change, diff
from governance.policies.governing import NO_VERSION
from governance.policies.operations import PolicyVersionConflict, build_draft
from governance.policies.queries import find_live_version
from valdrix.kernel.admin_acts import Act, Doing, Done, put_errors
from valdrix.kernel.admin_display import pretty_json
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import Refused

_WRITERS: Final = (ADMIN, OWNER)
_CHECK, _REBASE = "check", "rebase"
_KINDS: Final = {
    "added": "added",
    "removed": "removed",
    "changed": "changed",
    "reordered": "in another order",
}


def actor_of(doing: Doing) -> Actor:
    """Return who does something, for the operation and the audit log."""
    return Actor(doing.tenant_id, f"user:{doing.person_id}", doing.address, doing.now)


def show_changes(changes: tuple[Change, ...]) -> list[dict[str, str]]:
    """Return the differences of two documents as rows."""
    return [
        {
            "kind": _KINDS[change.kind],
            "pointer": change.pointer or "/",
            "was": "" if change.old is None else pretty_json(change.old),
            "becomes": "" if change.new is None else pretty_json(change.new),
        }
        for change in changes
    ]


def _version_number(version: PolicyVersion | None) -> int:
    return NO_VERSION if version is None else version.number


def _document_of(version: PolicyVersion | None) -> Any:
    return {} if version is None else policies.document_of(version)


def _begin_members(doing: Doing) -> dict[str, Any]:
    live = policies.find_live_version(doing.tenant_id)
    return {
        **MembersForm.initial_of(_document_of(live)),
        "base_version": _version_number(live),
    }


def _begin_document(doing: Doing) -> dict[str, Any]:
    live = policies.find_live_version(doing.tenant_id)
    return {
        **DocumentForm.initial_of(_document_of(live)),
        "base_version": _version_number(live),
    }


def _show_editor(doing: Doing) -> dict[str, Any]:
    live = find_live_version(doing.tenant_id)
    name = "admin:governance_policyversion_"
    return {
        "live_number": _version_number(live),
        "tabs": [
            ("Fields", reverse(f"{name}edit"), doing.request.path == reverse(f"{name}edit")),
            (
                "JSON",
                reverse(f"{name}edit-json"),
                doing.request.path == reverse(f"{name}edit-json"),
            ),
        ],
    }


def _perform(doing: Doing, form: Any) -> Done | Mapping[str, Any]:
    """Check, publish, or take the live version as the base, as the button says.

    :raises Refused: with what is wrong with the document, or when it may not be published.
    """
    document = form.policy_document()
    wanted = doing.request.POST.get("do")
    base = form.cleaned_data["base_version"]
    if wanted in {_CHECK, _REBASE}:
        comparison = policies.compare_with_live(doing.tenant_id, document)
        if wanted == _REBASE:
            base = comparison.live_version
        return {
            "form": _again(form, base),
            "checked": True,
            "is_stale": comparison.live_version != base,
            "changes": show_changes(comparison.changes),
            "raised_modes": comparison.raised_modes,
        }
    draft = build_draft(
        version_id=new_id(),
        document=document,
        comment=form.cleaned_data["comment"],
        base_version=base,
    )
    try:
        version = policies.publish_policy(actor=actor_of(doing), draft=draft)
    except PolicyVersionConflict as conflict:
        put_errors(form, conflict)
        return _show_conflict(doing, form, base, conflict)
    return Done(
        f"Version {version.number} is published and in force.",
        reverse("admin:governance_policyversion_change", args=[str(version.number)]),
    )


def _again(form: Any, base: int) -> Any:
    """Return the form with what was typed, on another base."""
    data = form.data.copy()
    data["base_version"] = str(base)
    again = type(form)(data)
    again.is_valid()
    return again


def _show_conflict(doing: Doing, form: Any, base: int, conflict: Refused) -> Mapping[str, Any]:
    """Return what the versions changed that were published since the draft was begun."""
    live = policies.find_live_version(doing.tenant_id)
    old: Any = {}
    if base != NO_VERSION:
        old = _document_of(policies.get_version(doing.tenant_id, base))
    return {
        "form": form,
        "status": conflict.status,
        "is_conflict": True,
        "theirs": show_changes(diff(old, _document_of(live))),
        "their_version": live,
    }


def _begin_roll_back(doing: Doing) -> dict[str, Any]:
    return {
        "base_version": _version_number(policies.find_live_version(doing.tenant_id)),
        "comment": f"Back to version {doing.row.number}",
    }


def _show_roll_back(doing: Doing) -> dict[str, Any]:
    live = find_live_version(doing.tenant_id)
    changes = diff(_document_of(live), _document_of(doing.row))
    return {"changes": show_changes(changes), "live_number": _version_number(live)}


def _roll_back(doing: Doing, form: Any) -> Done:
    version = policies.roll_back_policy(
        actor=actor_of(doing),
        version_id=new_id(),
        number=doing.row.number,
        comment=form.cleaned_data["comment"],
        base_version=form.cleaned_data["base_version"],
    )
    return Done(
        f"Version {version.number} is published: the document of version {doing.row.number}.",
        reverse("admin:governance_policyversion_change", args=[str(version.number)]),
    )


EDIT: Final = Act(
    name="edit",
    label="Edit the policy",
    roles=_WRITERS,
    form=MembersForm,
    initial=_begin_members,
    show=_show_editor,
    perform=_perform,
    template="valdrix/policy_editor.html",
)
EDIT_JSON: Final = Act(
    name="edit-json",
    label="Edit as JSON",
    title="Edit the policy",
    roles=_WRITERS,
    form=DocumentForm,
    initial=_begin_document,
    show=_show_editor,
    perform=_perform,
    template="valdrix/policy_editor.html",
)
ROLL_BACK: Final = Act(
    name="roll-back",
    label="Roll back to this version",
    roles=_WRITERS,
    form=PublicationForm,
    initial=_begin_roll_back,
    show=_show_roll_back,
    perform=_roll_back,
    template="valdrix/policy_roll_back.html",
)


class PolicyAdmin(PolicyVersionAdmin):
    """Every policy that was ever in force, and the editor of the next one."""

    list_acts = (EDIT, EDIT_JSON)
    row_acts = (ROLL_BACK,)
