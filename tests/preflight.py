"""Bodies of a preflight: a small estimate and a small plan, with one fact changed."""

from __future__ import annotations

from typing import Any


def build_estimate(monthly: str = "300", hourly: str = "0.410958904109589041") -> dict[str, Any]:
    """Return an Infracost diff of one project."""
    totals = {"resources": [], "totalMonthlyCost": monthly, "totalHourlyCost": hourly}
    return {
        "version": "0.2",
        "currency": "USD",
        "metadata": {"infracostCommand": "diff"},
        "projects": [
            {
                "name": "shop",
                "metadata": {"path": ".", "type": "terraform_plan_json"},
                "pastBreakdown": {"resources": [], "totalMonthlyCost": "0", "totalHourlyCost": "0"},
                "breakdown": totals,
                "diff": totals,
            }
        ],
        "totalMonthlyCost": monthly,
        "totalHourlyCost": hourly,
        "diffTotalMonthlyCost": monthly,
        "diffTotalHourlyCost": hourly,
    }


def build_plan(instance_type: str = "m5.large", **members: Any) -> dict[str, Any]:
    """Return a Terraform plan that creates one instance."""
    return {
        "format_version": "1.2",
        "terraform_version": "1.9.0",
        "resource_changes": [
            {
                "address": "aws_instance.web",
                "mode": "managed",
                "type": "aws_instance",
                "name": "web",
                "provider_name": "registry.terraform.io/hashicorp/aws",
                "change": {
                    "actions": ["create"],
                    "before": None,
                    "after": {"instance_type": instance_type},
                    "after_unknown": {"id": True},
                    "before_sensitive": False,
                    "after_sensitive": {},
                },
            }
        ],
        **members,
    }


def build_preflight(**members: Any) -> dict[str, Any]:
    """Return a preflight body with an estimate and a plan."""
    return {
        "project_id": "shop",
        "environment": "dev",
        "resource_reference": "module.web",
        "run_id": "run-1",
        "stage": "post_plan",
        "cost_estimate": {"format": "infracost", "document": build_estimate()},
        "plan": build_plan(),
        **members,
    }
