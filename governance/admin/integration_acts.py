"""What owners do about integrations: register a run task, rotate a secret, revoke."""

from __future__ import annotations

import os
from typing import Any, Final

from django import forms
from django.conf import settings
from django.http import HttpResponse
from django.urls import reverse

from governance.admin.people import AnsweredForm, actor_of, offer_people, show_once
from governance.identity.domain import OWNER
from governance.integrations.domain import (
    ENVIRONMENT_LIMIT,
    PROJECT_LIMIT,
    RUN_TASK,
    SECRET_BYTES,
)
from governance.integrations.operations import (
    create_integration,
    revoke_integration,
    rotate_secret,
)
from governance.models import Integration
from valdrix.kernel.admin_acts import Act, ActForm, Doing, Done
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import FieldError

_OWNERS: Final = (OWNER,)
_RUN_TASK_PATH: Final = "/api/v1/enforcement/gate/terraform/run-task/"


class NewRunTaskForm(AnsweredForm):
    """Which runs come through a run task, and where their cost lands."""

    name = forms.CharField(max_length=200, help_text="As it is called in HCP Terraform.")
    project_id = forms.CharField(
        label="Project",
        max_length=PROJECT_LIMIT,
        required=False,
        help_text="Of every run that comes through it. Empty: the workspace's name.",
    )
    environment = forms.CharField(
        max_length=ENVIRONMENT_LIMIT,
        required=False,
        help_text="Where a run's cost lands. Empty: as the workspace's name says.",
    )
    field_order = ("name", "project_id", "environment", "person_id")

    def field_for(self, error: FieldError) -> str | None:
        """Return the field of an error, those of settings included."""
        name = error.pointer.rpartition("/")[2]
        return name if name in self.fields else None


def run_task_url(row: Integration) -> str:
    """Return the address that a run task is registered with at the platform."""
    return f"{settings.PUBLIC_URL}{_RUN_TASK_PATH}{row.pk}"


def _register(doing: Doing, form: ActForm) -> HttpResponse:
    given = form.given()
    environment = given.get("environment")
    row, secret = create_integration(
        actor=actor_of(doing),
        integration_id=new_id(),
        random_bytes=os.urandom(SECRET_BYTES),
        kind=RUN_TASK,
        name=given["name"],
        person_id=given["person_id"],
        project_id=given.get("project_id"),
        settings={} if environment is None else {"environment": environment},
    )
    return _show_once(doing, row, secret)


def _rotate(doing: Doing, form: ActForm) -> HttpResponse:
    row, secret = rotate_secret(
        actor=actor_of(doing),
        integration_id=doing.row.pk,
        random_bytes=os.urandom(SECRET_BYTES),
    )
    return _show_once(doing, row, secret)


def _revoke(doing: Doing, form: ActForm) -> Done:
    row = revoke_integration(actor=actor_of(doing), integration_id=doing.row.pk)
    return Done(f"The integration {row.name} is revoked.", _page_of(row))


def _show_once(doing: Doing, row: Integration, secret: str) -> HttpResponse:
    note = "Keep it in the system that calls. It is stored here encrypted and not shown."
    if row.kind == RUN_TASK:
        note = f"Give it to the platform as the HMAC key, with the endpoint {run_task_url(row)}"
    return show_once(
        doing,
        secret=secret,
        title=f"Integration {row.name}",
        secret_title="The secret is shown now and never again",  # noqa: S106 - the heading above it
        secret_note=note,
        secret_label="Secret",  # noqa: S106 - words
        next_url=_page_of(row),
    )


def _page_of(row: Integration) -> str:
    return reverse("admin:governance_integration_change", args=[str(row.pk)])


def _is_active(row: Any) -> bool:
    return row.revoked_at is None


NEW_RUN_TASK: Final = Act(
    name="register",
    label="New run task",
    title="Register a run task",
    roles=_OWNERS,
    form=NewRunTaskForm,
    prepare=offer_people,
    initial=lambda doing: {"person_id": str(doing.person_id)},
    perform=_register,
    intro="HCP Terraform or Terraform Enterprise then asks here before each run. What comes"
    " through it may do what a member may.",
)
ROTATE_SECRET: Final = Act(
    name="rotate",
    label="Rotate the secret",
    roles=_OWNERS,
    perform=_rotate,
    applies=_is_active,
    intro="It gets a new secret; the old one stops at once.",
)
REVOKE_INTEGRATION: Final = Act(
    name="revoke",
    label="Revoke",
    title="Revoke the integration",
    roles=_OWNERS,
    perform=_revoke,
    tone="bad",
    applies=_is_active,
    intro="It stops at once, for ever, and its secret is forgotten.",
)
