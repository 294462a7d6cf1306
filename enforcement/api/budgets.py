"""The API of budgets: members read them, admins open and change them."""

from __future__ import annotations

import uuid
from typing import Any, Final

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from billing.accounts.domain import BASES, RUN_RATE
from billing.accounts.operations import BudgetChange, BudgetTerms
from billing.accounts.queries import Budget
from billing.alerts.domain import LEVELS_PERCENT
from enforcement.controls import budgets
from governance.api.api_keys import PAGE_PARAMETERS, read_id_cursor
from governance.api.assuming import confirming
from governance.api.callers import actor_of, principal_of
from governance.api.documents import closed_object, page_of
from governance.api.permissions import RequireRole, require_project
from governance.identity.domain import ADMIN, MEMBER
from governance.policies.environments import ENVIRONMENTS
from valdrix.kernel.fields import Fields
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import build_page, read_limit, refuse_unknown_query
from valdrix.kernel.http.times import to_text as time_text
from valdrix.kernel.ids import new_id
from valdrix.kernel.money import MONTHLY_PLACES, ZERO, to_text
from valdrix.kernel.rows import rendering
from valdrix.kernel.schemas import amount_schema, text_schema

_TAGS: Final = ["budgets"]
_AMOUNT: Final = {"type": "string", "examples": ["1500.0000"], "description": "US dollars."}
_NEW_AMOUNT: Final = amount_schema(is_signed=False, examples=["1500.00"])
_ENVIRONMENT: Final = {"type": ["string", "null"], "enum": [*ENVIRONMENTS, None]}
_BASIS: Final = {"type": "string", "enum": list(BASES)}

_BUDGET: Final = closed_object(
    {
        "id": {"type": "string", "format": "uuid"},
        "project_id": {"type": "string"},
        "environment": {**_ENVIRONMENT, "description": "null covers both."},
        "team": {"type": ["string", "null"], "description": "null covers every team."},
        "basis": _BASIS,
        "monthly_limit_usd": _AMOUNT,
        "active": {"type": "boolean"},
        "posted_usd": {**_AMOUNT, "description": "Settled in this UTC month, US dollars."},
        "pending_usd": {**_AMOUNT, "description": "Reserved and not settled, US dollars."},
        "overrun_usd": {**_AMOUNT, "description": "Above what was reserved, US dollars."},
        "headroom_usd": {**_AMOUNT, "description": "What is left, never below 0, US dollars."},
        "alerts": {
            "type": "array",
            "description": "Levels of the limit that were reached in this UTC month.",
            "items": closed_object(
                {
                    "level_percent": {"type": "integer", "enum": list(LEVELS_PERCENT)},
                    "raised_at": {"type": "string", "format": "date-time"},
                }
            ),
        },
        "created_at": {"type": "string", "format": "date-time"},
        "created_by": {"type": "string"},
    }
)
_NEW_BUDGET: Final = closed_object(
    {
        "project_id": text_schema(),
        "environment": _ENVIRONMENT,
        "team": text_schema(is_optional=True),
        "basis": _BASIS,
        "monthly_limit_usd": _NEW_AMOUNT,
        "active": {"type": "boolean"},
    },
    optional=("environment", "team", "basis", "active"),
)
_CHANGE: Final = {
    **closed_object(
        {"monthly_limit_usd": _NEW_AMOUNT, "active": {"type": "boolean"}, "basis": _BASIS},
        optional=("monthly_limit_usd", "active", "basis"),
    ),
    "minProperties": 1,
}
_CHANGEABLE: Final = ("monthly_limit_usd", "active", "basis")


class BudgetsView(ApiView):
    """The tenant's budgets."""

    permission_classes = (RequireRole(MEMBER, to_write=ADMIN),)

    @extend_schema(
        operation_id="list_budgets",
        tags=_TAGS,
        parameters=PAGE_PARAMETERS,
        responses={200: page_of(_BUDGET)},
    )
    @confirming
    def get(self, request: Request) -> Response:
        """List budgets, oldest first, as they stand in the current UTC month."""
        refuse_unknown_query(request, "limit", "cursor")
        principal, limit = principal_of(request), read_limit(request)
        found = budgets.find_budgets(
            principal.tenant_id,
            projects=principal.projects,
            after_id=read_id_cursor(request),
            limit=limit + 1,
            now=timezone.now(),
        )
        page = build_page(
            request, found, limit=limit, key=lambda one: one.state.account_id, render=_shown
        )
        return Response(page)

    @extend_schema(
        operation_id="create_budget",
        tags=_TAGS,
        request={"application/json": _NEW_BUDGET},
        responses={201: _BUDGET},
    )
    def post(self, request: Request) -> Response:
        """Open a budget; its project, environment and team must not have one yet."""
        refuse_unknown_query(request)
        terms = _read_terms(request)
        require_project(principal_of(request), terms.project_id)
        actor = actor_of(request, now=timezone.now())
        budget = budgets.create_budget(actor=actor, budget_id=new_id(), terms=terms)
        return Response(_render(budget), status=201)


class BudgetView(ApiView):
    """One budget."""

    permission_classes = (RequireRole(MEMBER, to_write=ADMIN),)

    @extend_schema(operation_id="get_budget", tags=_TAGS, responses={200: _BUDGET})
    def get(self, request: Request, budget_id: uuid.UUID) -> Response:
        """Show a budget as it stands in the current UTC month."""
        refuse_unknown_query(request)
        principal = principal_of(request)
        budget = budgets.get_budget(
            principal.tenant_id, budget_id, projects=principal.projects, now=timezone.now()
        )
        return Response(_render(budget))

    @extend_schema(
        operation_id="change_budget",
        tags=_TAGS,
        request={"application/json": _CHANGE},
        responses={200: _BUDGET},
    )
    def patch(self, request: Request, budget_id: uuid.UUID) -> Response:
        """Change a budget's limit, basis or activity; its scope never changes."""
        refuse_unknown_query(request)
        change = _read_change(request)
        budget = budgets.change_budget(
            actor=actor_of(request, now=timezone.now()),
            projects=principal_of(request).projects,
            budget_id=budget_id,
            change=change,
        )
        return Response(_render(budget))


def _read_terms(request: Request) -> BudgetTerms:
    fields = Fields(request.data)
    project_id = fields.text("project_id", required=True)
    environment = fields.choice("environment", ENVIRONMENTS)
    team = fields.text("team")
    basis = fields.choice("basis", BASES) or RUN_RATE
    limit_usd = fields.amount("monthly_limit_usd", places=MONTHLY_PLACES, required=True)
    if limit_usd is not None and limit_usd < 0:
        fields.refuse("monthly_limit_usd", "must not be negative", code="out_of_range")
    active = fields.boolean("active", default=True)
    fields.finish()
    assert project_id is not None
    assert limit_usd is not None
    return BudgetTerms(
        project_id=project_id,
        environment=environment,
        team=team,
        basis=basis,
        monthly_limit_usd=limit_usd,
        active=active,
    )


def _read_change(request: Request) -> BudgetChange:
    fields = Fields(request.data)
    body = request.data if isinstance(request.data, dict) else {}
    for name in _CHANGEABLE:
        if name in body and body[name] is None:
            fields.refuse(name, "must not be null", code="invalid_type")
    limit_usd = fields.amount("monthly_limit_usd", places=MONTHLY_PLACES)
    if limit_usd is not None and limit_usd < 0:
        fields.refuse("monthly_limit_usd", "must not be negative", code="out_of_range")
    active = fields.boolean("active", default=True)
    basis = fields.choice("basis", BASES)
    if isinstance(request.data, dict) and not body:
        fields.refuse("", "must change " + ", ".join(_CHANGEABLE), code="required")
    fields.finish()
    return BudgetChange(
        monthly_limit_usd=limit_usd, active=active if "active" in body else None, basis=basis
    )


def _render(budget: Budget) -> dict[str, Any]:
    row, state = budget.account, budget.state
    return {
        "id": str(row.id),
        "project_id": row.project_id,
        "environment": row.environment,
        "team": row.team,
        "basis": row.basis,
        "monthly_limit_usd": to_text(row.monthly_limit_usd or ZERO),
        "active": row.active,
        "posted_usd": to_text(state.posted_usd),
        "pending_usd": to_text(state.pending_usd),
        "overrun_usd": to_text(state.overrun_usd),
        "headroom_usd": to_text(state.headroom_usd(with_shadow=False)),
        "alerts": [
            {"level_percent": level, "raised_at": time_text(at)}
            for level, at in sorted(budget.alerts.items())
        ],
        "created_at": time_text(row.created_at),
        "created_by": row.created_by,
    }


_shown: Final = rendering(_render)
