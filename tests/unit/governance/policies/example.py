"""The example document of the specification, whole: every key of it must be accepted."""

from __future__ import annotations

from typing import Any


def example_document() -> dict[str, Any]:
    """Return a new copy of the example."""
    return {
        "schema_version": "valdrix.enforcement.policy.v1",
        "environments": {"nonprod": ["dev", "test", "staging", "sandbox", "preview"]},
        "modes": {
            "terraform": {"default": "soft", "prod": "soft", "nonprod": "hard"},
            "k8s_admission": {"default": "hard"},
            "cloud_event": {"default": "shadow"},
        },
        "unknown_cost": {"prod": "require_approval", "nonprod": "allow"},
        "no_budget": {"prod": "require_approval", "nonprod": "allow"},
        "limits": {
            "plan_monthly_ceiling_usd": "50000.00",
            "enterprise_monthly_ceiling_usd": "80000.00",
        },
        "thresholds": {
            "prod": {"require_approval_from_usd": "500.00", "deny_from_usd": "20000.00"},
            "nonprod": {"require_approval_from_usd": "5000.00"},
        },
        "approvals": {
            "prod": {"required": 1, "separate_requester": True, "ttl_seconds": 86400},
            "nonprod": {"required": 1, "separate_requester": False, "ttl_seconds": 86400},
        },
        "approval_routing_rules": [
            {
                "id": "prod-large",
                "environment": "prod",
                "action_prefix": "terraform.",
                "monthly_delta_from_usd": "1000.00",
                "risk_levels": ["high", "critical"],
                "reviewer_roles": ["owner"],
                "reviewer_groups_all": ["finance", "platform"],
                "required": 2,
            }
        ],
        "rules": [
            {
                "id": "no-gpu-in-dev",
                "when": "input.environment == 'nonprod' && input.metadata.family == 'p5'",
                "effect": "deny",
                "message": "GPU families are prod only",
            }
        ],
        "credits": {"emergency": {"prod": "approval", "nonprod": "automatic"}},
        "k8s": {
            "trust_object_annotations": False,
            "priced_kinds": [
                "Deployment",
                "StatefulSet",
                "DaemonSet",
                "Job",
                "CronJob",
                "Pod",
                "PersistentVolumeClaim",
                "Service",
            ],
        },
        "freezes": [
            {
                "id": "year-end",
                "from": "2026-12-20T00:00:00Z",
                "to": "2027-01-03T00:00:00Z",
                "environments": ["prod"],
                "effect": "deny",
            }
        ],
        "exceptions": [
            {
                "id": "migration",
                "project_id": "shop",
                "until": "2026-12-01T00:00:00Z",
                "max_monthly_delta_usd": "900.00",
                "reason": "agreed move",
            }
        ],
        "reservations": {
            "sla_hours": 720,
            "admission_ttl_seconds": 900,
            "drift_threshold_usd": "50.00",
            "drift_threshold_percent": "20",
        },
        "context": {"stale_cost_days": 3},
        "actions": {"max_attempts": 3, "retry_backoff_seconds": 60, "lease_ttl_seconds": 300},
    }
