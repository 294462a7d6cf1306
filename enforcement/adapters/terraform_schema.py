"""JSON Schemas (OpenAPI 3.1) of the bodies that the Terraform gates read."""

from __future__ import annotations

from typing import Any, Final

from enforcement.adapters.gate_body import (
    ACTION_PATTERN,
    DIGEST_PATTERN,
    ENVIRONMENT_LIMIT,
    KEY_PATTERN,
    RESOURCE_REFERENCE_LIMIT,
)
from enforcement.adapters.terraform import (
    COST_FORMATS,
    DEFAULT_ACTION,
    PREFLIGHT_RUN_ID_LIMIT,
    RUN_ID_PATTERN,
    STAGES,
)
from valdrix.kernel.fields import TEXT_LIMIT
from valdrix.kernel.schemas import PLAIN_PATTERN, amount_schema, text_schema

_Schema = dict[str, Any]


def _text(
    description: str, *, max_length: int = TEXT_LIMIT, is_optional: bool = True, **more: Any
) -> _Schema:
    return text_schema(max_length, is_optional=is_optional, description=description, **more)


def _amount(description: str, places: int) -> _Schema:
    return {
        **amount_schema(places=places),
        "type": ["string", "number", "null"],
        "description": f"{description} A plain decimal with at most {places} decimals.",
    }


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"


_PROPERTIES: Final[_Schema] = {
    "project_id": _text("Where the cost lands.", is_optional=False),
    "environment": {
        "type": ["string", "null"],
        "maxLength": ENVIRONMENT_LIMIT,
        "pattern": PLAIN_PATTERN,
        "description": "Free text, classified by the policy; empty or absent is prod.",
    },
    "action": _text(
        "What is to be done.", pattern=_whole(ACTION_PATTERN.pattern), default=DEFAULT_ACTION
    ),
    "resource_reference": _text(
        "What it is done to.", max_length=RESOURCE_REFERENCE_LIMIT, is_optional=False
    ),
    "estimated_monthly_delta_usd": _amount("What the change adds to a month, in US dollars.", 4),
    "estimated_hourly_delta_usd": _amount(
        "The same for an hour; a month has 730. Both must name the same cost.", 6
    ),
    "change_digest": _text(
        "The caller's own digest of what is changed: a claim, never shared across runs.",
        pattern=_whole(DIGEST_PATTERN.pattern),
    ),
    "team": _text("Whose budget is meant besides the project's."),
    "run_id": _text("The pipeline run; stages of one run share a reservation."),
    "parent_decision_id": {
        "type": ["string", "null"],
        "format": "uuid",
        "description": "An earlier decision whose reservation this call may use.",
    },
    "metadata": {
        "type": ["object", "null"],
        "additionalProperties": True,
        "description": "Facts for policy rules; at most 16384 bytes as canonical JSON.",
    },
    "dry_run": {
        "type": ["boolean", "null"],
        "default": False,
        "description": "Evaluate only: nothing is reserved, recorded or claimed.",
    },
    "expected_request_fingerprint": _text("409 when the request has another fingerprint."),
    "idempotency_key": _text(
        "Names this attempt; the Idempotency-Key header wins.",
        pattern=_whole(KEY_PATTERN.pattern),
    ),
}

_GATE_EXAMPLE: Final[_Schema] = {
    "project_id": "shop",
    "environment": "prod",
    "action": DEFAULT_ACTION,
    "resource_reference": "module.web.aws_instance.blue",
    "estimated_monthly_delta_usd": "62.0500",
    "team": "storefront",
    "metadata": {"family": "m7g"},
    "idempotency_key": "shop-deploy-4711",
}

GATE_BODY_SCHEMA: Final[_Schema] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["project_id", "resource_reference"],
    "properties": _PROPERTIES,
    "examples": [_GATE_EXAMPLE],
}
"""The body of ``POST gate/terraform``."""

PREFLIGHT_BODY_SCHEMA: Final[_Schema] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["project_id", "resource_reference", "run_id", "stage"],
    "properties": {
        **_PROPERTIES,
        "run_id": _text(
            "The pipeline run; with the stage it is the key of a call that brings none.",
            max_length=PREFLIGHT_RUN_ID_LIMIT,
            is_optional=False,
            pattern=_whole(RUN_ID_PATTERN.pattern),
        ),
        "stage": {"type": "string", "enum": list(STAGES), "description": "Where the run stands."},
        "cost_estimate": {
            "type": ["object", "null"],
            "additionalProperties": False,
            "required": ["format", "document"],
            "properties": {
                "format": {"type": "string", "enum": list(COST_FORMATS)},
                "document": {"type": "object", "description": "Infracost JSON, version 0.x."},
            },
            "description": "The deltas and the cost state are taken from it.",
        },
        "plan": {
            "type": ["object", "null"],
            "description": "Terraform plan JSON, format 0.1 to 1.x; only its digest is kept.",
        },
    },
    "examples": [
        {
            "project_id": "shop",
            "environment": "prod",
            "resource_reference": "workspace/shop-prod",
            "run_id": "run-8841",
            "stage": "post_plan",
            "cost_estimate": {
                "format": "infracost",
                "document": {
                    "version": "0.2",
                    "currency": "USD",
                    "metadata": {"infracostCommand": "diff"},
                    "projects": [
                        {
                            "name": "shop/web",
                            "metadata": {"type": "terraform_dir"},
                            "diff": {"totalMonthlyCost": "62.05", "totalHourlyCost": "0.085"},
                        }
                    ],
                    "diffTotalMonthlyCost": "62.05",
                },
            },
            "plan": {
                "format_version": "1.2",
                "resource_changes": [
                    {
                        "address": "aws_instance.web",
                        "mode": "managed",
                        "change": {"actions": ["create"], "after": {"instance_type": "m7g.large"}},
                    }
                ],
            },
        }
    ],
}
"""The body of ``POST gate/terraform/preflight``."""
