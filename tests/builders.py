"""A valid question, policy and accounts, of which a test changes one fact.

The base case: 100.00 US dollars a month in prod, asked by Terraform in hard mode, against one
budget of 1000.00 that is empty. It is allowed by the budget and nothing else is found.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from billing.accounts.domain import BudgetState, ExposureState, GrantState
from enforcement.gate.context import ComputedContext, DayCost, build_context, sum_up
from enforcement.gate.decision import GateContext, Outcome, Sharing, decide
from enforcement.gate.inputs import Cost, GateInput, GateRequest, normalise
from enforcement.gate.waterfall import Accounts
from governance.policies.document import parse_policy
from governance.policies.domain import Policy
from valdrix.kernel.money import hourly_from_monthly

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
CENT_OF_CENT = Decimal("0.0001")
"""The smallest difference between two monthly amounts."""

EXPOSURE_ID = "00000000-0000-7000-8000-00000000eeee"


def usd(amount: str | int | Decimal) -> Decimal:
    """Return an amount as its column holds it."""
    return Decimal(amount).quantize(CENT_OF_CENT)


def account_id(number: int) -> str:
    """Return an account's id; the lower number is the older account."""
    return f"00000000-0000-7000-8000-{number:012d}"


def a_cost(
    monthly: str | int | Decimal | None = "100",
    *,
    state: str = "known",
    reasons: tuple[str, ...] = (),
) -> Cost:
    """Return a cost; None for ``monthly`` is an unknown one."""
    if monthly is None:
        return Cost(
            monthly_delta_usd=None,
            hourly_delta_usd=None,
            state="unknown",
            reasons=reasons or ("no_estimate",),
        )
    amount = usd(monthly)
    return Cost(
        monthly_delta_usd=amount,
        hourly_delta_usd=hourly_from_monthly(amount),
        state=state,
        reasons=reasons,
    )


def a_request(**changes: Any) -> GateRequest:
    """Return a question as a surface put it."""
    facts: dict[str, Any] = {
        "source": "terraform",
        "project_id": "shop",
        "environment": "prod",
        "action": "terraform.apply",
        "resource_reference": "module.shop",
        "cost": a_cost(),
        "actor": "key:0190",
    }
    return GateRequest(**facts | changes)


def an_input(**changes: Any) -> GateInput:
    """Return a normalised question; ``environment`` is its class, ``prod`` or ``nonprod``."""
    request = a_request(**changes)
    return normalise(request, environment=request.environment)


def a_policy(mode: str = "hard", **sections: Any) -> Policy:
    """Return a policy that lets the base case pass; ``sections`` replace the document's."""
    return parse_policy(a_policy_document(mode, **sections))


def a_policy_document(mode: str = "hard", **sections: Any) -> dict[str, Any]:
    """Return the document of :func:`a_policy`."""
    document: dict[str, Any] = {
        "schema_version": "valdrix.enforcement.policy.v1",
        "modes": {
            "terraform": {"default": mode},
            "k8s_admission": {"default": mode},
            "cloud_event": {"default": mode},
        },
        "thresholds": {
            "prod": {"require_approval_from_usd": "1000000.00"},
            "nonprod": {"require_approval_from_usd": "1000000.00"},
        },
    }
    return document | sections


def a_budget(number: int = 1, *, limit: str | int | Decimal = 1000, **changes: Any) -> BudgetState:
    """Return an empty budget of the project."""
    facts: dict[str, Any] = {
        "account_id": account_id(number),
        "project_id": "shop",
        "environment": None,
        "team": None,
        "basis": "run_rate",
        "limit_usd": usd(limit),
        "posted_usd": usd(0),
        "pending_usd": usd(0),
        "overrun_usd": usd(0),
        "shadow_usd": usd(0),
    }
    return BudgetState(**facts | changes)


def a_grant(number: int = 11, *, remaining: str | int | Decimal = 50, **changes: Any) -> GrantState:
    """Return a tenant-wide grant of the reserved pool that never expires."""
    facts: dict[str, Any] = {
        "account_id": account_id(number),
        "pool": "reserved",
        "project_id": None,
        "priority": 100,
        "expires_at": None,
        "remaining_usd": usd(remaining),
        "shadow_usd": usd(0),
    }
    return GrantState(**facts | changes)


def an_exposure(**changes: Any) -> ExposureState:
    """Return the tenant's exposure account, empty."""
    facts: dict[str, Any] = {
        "account_id": EXPOSURE_ID,
        "posted_usd": usd(0),
        "pending_usd": usd(0),
        "overrun_usd": usd(0),
        "shadow_usd": usd(0),
    }
    return ExposureState(**facts | changes)


def some_accounts(**changes: Any) -> Accounts:
    """Return one budget, no grant, a wide plan ceiling and no enterprise ceiling."""
    facts: dict[str, Any] = {
        "budgets": (a_budget(),),
        "grants": (),
        "exposure": an_exposure(),
        "plan_ceiling_usd": usd(1_000_000),
        "enterprise_ceiling_usd": None,
    }
    return Accounts(**facts | changes)


def some_days(*amounts: str | int, until: date | None = None) -> list[DayCost]:
    """Return final daily costs that end with a date, by default the base case's day."""
    last = until or NOW.date()
    return [
        DayCost(last - timedelta(days=len(amounts) - 1 - place), usd(amount), is_final=True)
        for place, amount in enumerate(amounts)
    ]


def a_computed(gate_input: GateInput, *, now: datetime = NOW) -> ComputedContext:
    """Return the computed context of a project with ten steady days of 100.00."""
    figures = sum_up(some_days(*[100] * 10), today=now.date())
    return build_context(gate_input, figures, now=now, stale_after_days=3)


def a_sharing(**changes: Any) -> Sharing:
    """Return a charge of 40.00 that an earlier decision about the same change holds."""
    facts: dict[str, Any] = {
        "charge_id": account_id(21),
        "family_id": account_id(21),
        "covered_usd": usd(40),
        "family_held_usd": usd(40),
    }
    return Sharing(**facts | changes)


CONTEXT_FACTS = frozenset(GateContext.__struct_fields__)


def a_context(**changes: Any) -> GateContext:
    """Return what the base case depends on.

    :param changes: members of ``GateContext``, or else of the question: ``a_context(cost=…)``.
    """
    of_context = {name: value for name, value in changes.items() if name in CONTEXT_FACTS}
    of_question = {name: value for name, value in changes.items() if name not in CONTEXT_FACTS}
    gate_input = of_context.pop("gate_input", None) or an_input(**of_question)
    now = of_context.get("evaluated_at", NOW)
    facts: dict[str, Any] = {
        "gate_input": gate_input,
        "evaluated_at": now,
        "policy_version": 1,
        "policy_sha256": "0" * 64,
        "policy_schema_version": "valdrix.enforcement.policy.v1",
        "forced_mode": None,
        "accounts": some_accounts(),
        "sharing": None,
        "parent_is_applicable": False,
        "computed": a_computed(gate_input, now=now),
    }
    return GateContext(**facts | of_context)


def an_outcome(policy: Policy | None = None, **changes: Any) -> Outcome:
    """Return what is decided about the base case with some facts changed."""
    return decide(a_context(**changes), policy or a_policy())


def codes_of(outcome: Outcome) -> list[tuple[str, str, str | None]]:
    """Return code, effect and waiving exception of every finding."""
    return [(found.code, found.effect, found.waived_by) for found in outcome.findings]


def through_json(policy: Policy) -> Policy:
    """Return a policy as replay gets it: encoded and decoded again."""
    return msgspec.json.decode(msgspec.json.encode(policy), type=Policy)
