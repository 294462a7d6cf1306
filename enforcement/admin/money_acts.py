"""What people do about money: open and change budgets, grant and void credits."""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final

from django import forms
from django.urls import reverse

from billing.accounts.domain import BASES, BUDGET, GRANT, POOLS, RUN_RATE
from billing.accounts.operations import BudgetChange, BudgetTerms, GrantTerms
from enforcement.admin.policies import actor_of
from enforcement.controls.budgets import change_budget, create_budget, show_budget
from enforcement.controls.credits import grant_credit, void_credit
from governance.identity.domain import ADMIN, OWNER
from governance.policies.environments import ENVIRONMENTS
from valdrix.kernel.admin_acts import Act, ActForm, Doing, Done, EditForm
from valdrix.kernel.admin_display import usd, words
from valdrix.kernel.edits import edit_mark
from valdrix.kernel.fields import Fields
from valdrix.kernel.ids import new_id
from valdrix.kernel.money import MONTHLY_PLACES, ZERO

_WRITERS: Final = (ADMIN, OWNER)
_EVERY: Final = [("", "every one"), *((name, name) for name in ENVIRONMENTS)]
_AMOUNT: Final = forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"})
_PRIORITY: Final = 100
_MOST_PRIORITY: Final = 32_767


class NewBudgetForm(ActForm):
    """What a new budget covers."""

    project_id = forms.CharField(label="Project", max_length=200)
    environment = forms.ChoiceField(choices=_EVERY, required=False)
    team = forms.CharField(max_length=200, required=False, help_text="Empty: every team.")
    monthly_limit_usd = forms.CharField(label="Limit, USD a month", max_length=64, widget=_AMOUNT)
    basis = forms.ChoiceField(
        choices=[(name, words(name)) for name in BASES],
        help_text="Run rate: what was added this month. Actuals: what was really spent.",
    )


class BudgetForm(EditForm):
    """What of a budget can change."""

    monthly_limit_usd = forms.CharField(label="Limit, USD a month", max_length=64, widget=_AMOUNT)
    basis = forms.ChoiceField(choices=[(name, words(name)) for name in BASES])
    active = forms.BooleanField(required=False, help_text="An inactive budget limits nothing.")


class GrantForm(ActForm):
    """What a new credit grant offers."""

    pool = forms.ChoiceField(choices=[(name, words(name)) for name in POOLS])
    total_amount_usd = forms.CharField(label="Amount, USD", max_length=64, widget=_AMOUNT)
    project_id = forms.CharField(
        label="Project", max_length=200, required=False, help_text="Empty: the whole tenant."
    )
    expires_at = forms.DateTimeField(
        label="Expires, UTC",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
        help_text="Empty: never.",
    )
    priority = forms.IntegerField(
        min_value=0,
        max_value=_MOST_PRIORITY,
        required=False,
        help_text=f"Of grants that expire together the lowest burns first; empty: {_PRIORITY}.",
    )
    reason = forms.CharField(max_length=2000, widget=forms.Textarea(attrs={"rows": 2}))


class ReasonForm(ActForm):
    """Why."""

    reason = forms.CharField(
        max_length=2000, required=False, widget=forms.Textarea(attrs={"rows": 2})
    )


def _create_budget(doing: Doing, form: ActForm) -> Done:
    fields = Fields(form.given())
    project_id = fields.text("project_id", required=True)
    environment = fields.choice("environment", ENVIRONMENTS)
    team = fields.text("team")
    basis = fields.choice("basis", BASES) or RUN_RATE
    limit_usd = _amount(fields, "monthly_limit_usd")
    fields.finish()
    budget = create_budget(
        actor=actor_of(doing),
        budget_id=new_id(),
        terms=BudgetTerms(
            project_id=str(project_id),
            environment=environment,
            team=team,
            basis=basis,
            monthly_limit_usd=limit_usd,
        ),
    )
    return Done("The budget is open.", _page_of(budget.account.id))


def _change_budget(doing: Doing, form: Any) -> Done:
    fields = Fields(form.given() | {"active": bool(form.cleaned_data["active"])})
    limit_usd = _amount(fields, "monthly_limit_usd")
    basis = fields.choice("basis", BASES)
    active = fields.boolean("active", default=True)
    fields.finish()
    change_budget(
        actor=actor_of(doing),
        projects=None,
        budget_id=doing.row.id,
        change=BudgetChange(monthly_limit_usd=limit_usd, basis=basis, active=active),
        shown=form.mark,
    )
    return Done("The budget is changed.", _page_of(doing.row.id))


def _grant(doing: Doing, form: ActForm) -> Done:
    given = form.given()
    expires_at = given.pop("expires_at", None)
    fields = Fields(given)
    pool = fields.choice("pool", POOLS, required=True)
    total_usd = _amount(fields, "total_amount_usd")
    project_id = fields.text("project_id")
    priority = fields.integer("priority", minimum=0, maximum=_MOST_PRIORITY)
    reason = fields.prose("reason", required=True)
    if not fields.errors and total_usd <= 0:
        fields.refuse("total_amount_usd", "must be above 0", code="out_of_range")
    if expires_at is not None and expires_at <= doing.now:
        fields.refuse("expires_at", "must be in the future", code="out_of_range")
    fields.finish()
    grant = grant_credit(
        actor=actor_of(doing),
        grant_id=new_id(),
        terms=GrantTerms(
            pool=str(pool),
            total_usd=total_usd,
            project_id=project_id,
            expires_at=None if expires_at is None else expires_at.astimezone(UTC),
            priority=_PRIORITY if priority is None else priority,
            reason=str(reason),
        ),
    )
    return Done("The credit is granted.", _page_of(grant.account.id))


def _void(doing: Doing, form: ActForm) -> Done:
    fields = Fields(form.given())
    reason = fields.prose("reason")
    fields.finish()
    void_credit(actor=actor_of(doing), projects=None, grant_id=doing.row.id, reason=reason)
    return Done("The grant is void; what it holds already stays held.", _page_of(doing.row.id))


def _amount(fields: Fields, name: str) -> Any:
    """Return an amount from zero up; a wrong one leaves its error and counts as zero."""
    amount = fields.amount(name, places=MONTHLY_PLACES, required=True)
    if amount is not None and amount < 0:
        fields.refuse(name, "must not be negative", code="out_of_range")
    return ZERO if amount is None else amount


def _begin_change(doing: Doing) -> dict[str, Any]:
    row = doing.row
    return {
        "monthly_limit_usd": usd(row.monthly_limit_usd).replace(",", ""),
        "basis": row.basis,
        "active": row.active,
        "shown": edit_mark(show_budget(row)),
    }


def _page_of(account_id: object) -> str:
    return reverse("admin:billing_account_change", args=[str(account_id)])


NEW_BUDGET: Final = Act(
    name="budget",
    label="New budget",
    roles=_WRITERS,
    form=NewBudgetForm,
    perform=_create_budget,
    intro="How much new monthly run rate may be added within one calendar month (UTC).",
)
CHANGE_BUDGET: Final = Act(
    name="change-budget",
    label="Change the budget",
    roles=_WRITERS,
    form=BudgetForm,
    initial=_begin_change,
    perform=_change_budget,
    applies=lambda row: row.kind == BUDGET,
    intro="A limit below what is taken already is allowed: it leaves no headroom.",
)
NEW_GRANT: Final = Act(
    name="grant",
    label="Grant credit",
    roles=_WRITERS,
    form=GrantForm,
    perform=_grant,
    intro="Prepaid headroom: it covers what budgets cannot.",
)
VOID_GRANT: Final = Act(
    name="void",
    label="Void the grant",
    roles=_WRITERS,
    form=ReasonForm,
    perform=_void,
    tone="bad",
    applies=lambda row: row.kind == GRANT and row.voided_at is None,
    intro="It offers no headroom from now on. What it holds stays held, and takes refunds.",
)
