"""What the demo tenants have: people, policy, budgets, credits and costs. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

from billing.accounts.domain import EMERGENCY_POOL, RESERVED_POOL
from billing.accounts.operations import BudgetTerms, GrantTerms
from billing.costs.domain import DayAmount
from governance.policies.domain import SCHEMA_VERSION
from valdrix.kernel.money import EXACT, MONTHLY_PLACES, round_amount

PROJECT: Final = "shop"
GROUPS: Final = {"owner": ("finance", "platform"), "admin": ("platform",)}
"""Which reviewer groups the demo's people are in, by role."""
MONTH_DAYS: Final = 30
"""How many days of costs a project without any gets."""

POLICY_COMMENT: Final = "The demo's policy"


@dataclass(frozen=True, slots=True)
class TenantContent:
    """What one demo tenant is made of.

    :ivar projects: each with about what it spends on a working day, in US dollars.
    :ivar has_console: whether its people can sign in.
    """

    name: str
    policy: dict[str, Any]
    budgets: tuple[BudgetTerms, ...]
    grants: tuple[GrantTerms, ...]
    projects: dict[str, Decimal]
    has_console: bool


def _policy(*, prod_approval_from_usd: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "modes": {
            "terraform": {"default": "soft", "prod": "soft", "nonprod": "hard"},
            "k8s_admission": {"default": "hard", "prod": "hard", "nonprod": "soft"},
            "cloud_event": {"default": "shadow"},
        },
        "unknown_cost": {"prod": "require_approval", "nonprod": "allow"},
        "no_budget": {"prod": "require_approval", "nonprod": "allow"},
        "limits": {
            "plan_monthly_ceiling_usd": "50000.00",
            "enterprise_monthly_ceiling_usd": "80000.00",
        },
        "thresholds": {
            "prod": {"require_approval_from_usd": prod_approval_from_usd},
            "nonprod": {"require_approval_from_usd": "5000.00"},
        },
        "approvals": {
            "prod": {"required": 1, "separate_requester": True, "ttl_seconds": 86400},
            "nonprod": {"required": 1, "separate_requester": False, "ttl_seconds": 86400},
        },
        "approval_routing_rules": [
            {
                "id": "prod-owner",
                "environment": "prod",
                "reviewer_roles": ["owner"],
                "required": 1,
            }
        ],
        "credits": {"emergency": {"prod": "approval", "nonprod": "automatic"}},
        "k8s": {"trust_object_annotations": True},
    }


DEMO: Final = TenantContent(
    name="Demo",
    policy=_policy(prod_approval_from_usd="500.00"),
    budgets=(
        BudgetTerms(project_id=PROJECT, environment="prod", monthly_limit_usd=Decimal("3000.0000")),
        BudgetTerms(
            project_id=PROJECT, environment="nonprod", monthly_limit_usd=Decimal("2000.0000")
        ),
        BudgetTerms(project_id="analytics", monthly_limit_usd=Decimal("1200.0000")),
    ),
    grants=(
        GrantTerms(
            pool=RESERVED_POOL, total_usd=Decimal("500.0000"), reason="Committed-use discount"
        ),
        GrantTerms(
            pool=EMERGENCY_POOL, total_usd=Decimal("250.0000"), reason="For nights and incidents"
        ),
    ),
    projects={PROJECT: Decimal("68.00"), "analytics": Decimal("31.00")},
    has_console=True,
)
OTHER: Final = TenantContent(
    name="Other",
    policy=_policy(prod_approval_from_usd="100.00"),
    budgets=(
        BudgetTerms(project_id=PROJECT, environment="prod", monthly_limit_usd=Decimal("400.0000")),
    ),
    grants=(GrantTerms(pool=RESERVED_POOL, total_usd=Decimal("50.0000"), reason="Welcome credit"),),
    projects={PROJECT: Decimal("9.00")},
    has_console=False,
)

# Monday to Sunday: a shop sells, and scales out, at the end of the week.
_SHARE_OF_WEEKDAY: Final = ("0.94", "0.97", "1.00", "1.02", "1.11", "0.83", "0.76")


def daily_costs(
    project_id: str, *, working_day_usd: Decimal, since: date, until: date
) -> list[DayAmount]:
    """Return a project's costs of each day from ``since`` to before ``until``.

    A day costs the same whenever it is asked for: a weekly rhythm, and up to 6 % more or less
    that follows from the project's name and the date.
    """
    days = [since + timedelta(days=number) for number in range((until - since).days)]
    return [
        DayAmount(
            project_id=project_id,
            date=day,
            amount_usd=round_amount(
                EXACT.multiply(working_day_usd, _share(project_id, day)), places=MONTHLY_PLACES
            ),
        )
        for day in days
    ]


def _share(project_id: str, day: date) -> Decimal:
    digest = hashlib.sha256(f"{project_id} {day.isoformat()}".encode()).digest()
    noise = Decimal(int.from_bytes(digest[:2], "big") % 1201 - 600).scaleb(-4)
    return Decimal(_SHARE_OF_WEEKDAY[day.weekday()]) + noise
