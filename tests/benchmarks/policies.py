"""The policy that benchmarks decide by: 20 rules that look at much and match nothing."""

from __future__ import annotations

from typing import Any, Final

_PLACES: Final = range(1, 6)
_CONDITIONS: Final = (
    "input.environment == 'nonprod' && input.metadata.family == 'p5'",
    "input.estimated_monthly_delta_usd > 50000.0 && context.risk_class == 'critical'",
    "input.action.startsWith('terraform.destroy') && input.environment == 'prod'",
    "context.forecast_eom_usd > 900000.0 || context.anomaly_percent == '1000'",
    "has(input.metadata.region) && !(input.metadata.region in ['eu-central-1', 'eu-west-1'])",
)

SECTIONS: Final[dict[str, Any]] = {
    "limits": {"plan_monthly_ceiling_usd": "900000000.00"},
    "rules": [
        {"id": f"rule-{place}", "when": when, "effect": "deny", "message": "Not in this house"}
        for place, when in enumerate(_CONDITIONS, start=1)
    ],
    "freezes": [
        {
            "id": f"freeze-{place}",
            "from": f"2031-0{place}-01T00:00:00Z",
            "to": f"2031-0{place}-08T00:00:00Z",
            "environments": ["prod", "nonprod"],
            "effect": "deny",
        }
        for place in _PLACES
    ],
    "exceptions": [
        {
            "id": f"exception-{place}",
            "project_id": f"project-{place}",
            "until": "2031-01-01T00:00:00Z",
            "max_monthly_delta_usd": "900.00",
            "reason": "An agreed move",
        }
        for place in _PLACES
    ],
    "approval_routing_rules": [
        {
            "id": f"route-{place}",
            "environment": "prod",
            "action_prefix": "terraform.",
            "monthly_delta_from_usd": f"{place}000.00",
            "reviewer_roles": ["owner"],
            "required": 1,
        }
        for place in _PLACES
    ],
}
"""Sections of a policy document: five rules in CEL, freezes, exceptions and routing rules each."""
