"""The JSON Schema (2020-12) of the policy document, as the API and docs/ publish it.

It says what a schema can say; ``document.lint`` also knows what one member means for another,
dates that do not exist, ids that repeat and expressions that do not compile.
"""

from __future__ import annotations

from typing import Any, Final

from governance.policies import document, domain
from governance.policies.environments import ENVIRONMENTS
from governance.policies.expressions import MAX_LENGTH
from governance.policies.section import ID_PATTERN

SCHEMA_ID: Final = f"urn:{domain.SCHEMA_VERSION}"

_AMOUNT: Final = r"^(?:(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,4})?|1000000000000(?:\.0{1,4})?)$"
_TIME: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})$"
)
_NONPROD_NAME: Final = r"^[A-Za-z0-9]+(?:[-_./ ][A-Za-z0-9]+)*(?:[-_./ ]?\*)?$"

_Schema = dict[str, Any]


def json_schema() -> _Schema:
    """Return the schema, a new object each time."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Valdrix enforcement policy",
        "description": "What is left out takes the strict default; an empty document is the "
        "strictest policy.",
        **_object(
            {
                "schema_version": {"const": domain.SCHEMA_VERSION},
                "environments": _object({"nonprod": _nonprod()}),
                "modes": _object(dict.fromkeys(domain.SOURCES, _modes())),
                "unknown_cost": _verbs("What an unknown cost means."),
                "partial_cost": _verbs("What a partial cost means; default: as unknown_cost."),
                "no_budget": _verbs("What a change without any matching budget means."),
                "limits": _object(
                    {
                        "plan_monthly_ceiling_usd": _amount(),
                        "enterprise_monthly_ceiling_usd": _amount(),
                    }
                ),
                "thresholds": _sides(_threshold()),
                "approvals": _sides(_approval_terms()),
                "approval_routing_rules": _entries(_routing_rule(), document.MAX_ROUTING_RULES),
                "rules": _entries(_rule(), document.MAX_RULES),
                "credits": _object({"emergency": _sides({"enum": list(domain.CREDIT_USES)})}),
                "k8s": _kubernetes(),
                "freezes": _entries(_freeze(), document.MAX_FREEZES),
                "exceptions": _entries(_exception(), document.MAX_EXCEPTIONS),
                "reservations": _reservations(),
                "context": _object(
                    {"stale_cost_days": _integer(document.STALE_COST_DAYS, default=3)}
                ),
                "actions": _actions(),
            }
        ),
    }


def _object(properties: _Schema, *, required: tuple[str, ...] = ()) -> _Schema:
    schema: _Schema = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    return {**schema, "required": list(required)} if required else schema


def _sides(schema: _Schema) -> _Schema:
    return _object(dict.fromkeys(ENVIRONMENTS, schema))


def _entries(schema: _Schema, most: int) -> _Schema:
    return {"type": "array", "items": schema, "maxItems": most}


def _choices(choices: tuple[str, ...], *, least: int = 1) -> _Schema:
    return {
        "type": "array",
        "items": {"enum": list(choices)},
        "minItems": least,
        "maxItems": len(choices),
        "uniqueItems": True,
    }


def _amount(**more: Any) -> _Schema:
    return {"type": "string", "pattern": _AMOUNT, "maxLength": 64, **more}


def _text(most: int) -> _Schema:
    return {"type": "string", "pattern": r"\S", "maxLength": most}


def _integer(bounds: tuple[int, int], **more: Any) -> _Schema:
    return {"type": "integer", "minimum": bounds[0], "maximum": bounds[1], **more}


def _identifier() -> _Schema:
    return {"type": "string", "pattern": f"^{ID_PATTERN}$"}


def _nonprod() -> _Schema:
    return {
        "description": "Names and patterns that are nonprod; everything else is prod.",
        "type": "array",
        "items": {"type": "string", "pattern": _NONPROD_NAME, "maxLength": 64},
        "maxItems": document.MAX_NONPROD,
        "uniqueItems": True,
    }


def _modes() -> _Schema:
    mode = {"enum": list(domain.MODES)}
    return _object({"default": mode, "prod": mode, "nonprod": mode})


def _verbs(description: str) -> _Schema:
    return {"description": description, **_sides({"enum": list(domain.VERBS)})}


def _threshold() -> _Schema:
    return _object(
        {
            "require_approval_from_usd": _amount(
                default="0.00", description="Every increase needs approval when left out."
            ),
            "deny_from_usd": _amount(),
        }
    )


def _approval_terms() -> _Schema:
    return _object(
        {
            "required": _integer(document.REQUIRED_APPROVALS, default=1),
            "separate_requester": {"type": "boolean"},
            "ttl_seconds": _integer(document.TTL_SECONDS, default=86_400),
            "require_second_factor": {
                "type": "boolean",
                "default": False,
                "description": "Approve in the console only, signed in with a second factor.",
            },
        }
    )


def _routing_rule() -> _Schema:
    return _object(
        {
            "id": _identifier(),
            "environment": {"enum": list(ENVIRONMENTS)},
            "action_prefix": _text(document.MAX_TEXT),
            "monthly_delta_from_usd": _amount(),
            "risk_levels": _choices(domain.RISK_LEVELS),
            "reviewer_roles": _choices(domain.ROLES),
            "reviewer_groups_all": {
                "type": "array",
                "items": _text(document.MAX_TEXT),
                "maxItems": document.MAX_GROUPS,
                "uniqueItems": True,
            },
            "required": _integer(document.REQUIRED_APPROVALS),
        },
        required=("id",),
    )


def _rule() -> _Schema:
    return _object(
        {
            "id": _identifier(),
            "when": {
                "description": "A CEL expression over input and context that is true or false.",
                **_text(MAX_LENGTH),
            },
            "effect": {"enum": list(domain.RULE_EFFECTS)},
            "message": _text(document.MAX_MESSAGE),
        },
        required=("id", "when", "effect"),
    )


def _kubernetes() -> _Schema:
    return _object(
        {
            "trust_object_annotations": {"type": "boolean", "default": False},
            "priced_kinds": {
                "type": "array",
                "items": {"type": "string", "pattern": f"^{document.KIND_PATTERN}$"},
                "maxItems": document.MAX_KINDS,
                "uniqueItems": True,
            },
            "declared_costs": {"enum": list(domain.DECLARED_COSTS), "default": "known"},
        }
    )


def _freeze() -> _Schema:
    time = {"type": "string", "pattern": _TIME}
    return _object(
        {
            "id": _identifier(),
            "from": time,
            "to": time,
            "environments": _choices(ENVIRONMENTS),
            "effect": {"enum": list(domain.FREEZE_EFFECTS), "default": "deny"},
        },
        required=("id", "from", "to"),
    )


def _exception() -> _Schema:
    return _object(
        {
            "id": _identifier(),
            "project_id": _text(document.MAX_TEXT),
            "environment": {"enum": list(ENVIRONMENTS)},
            "until": {"type": "string", "pattern": _TIME},
            "max_monthly_delta_usd": _amount(),
            "reason": _text(document.MAX_MESSAGE),
        },
        required=("id", "project_id", "until", "max_monthly_delta_usd", "reason"),
    )


def _reservations() -> _Schema:
    return _object(
        {
            "sla_hours": _integer(document.SLA_HOURS, default=720),
            "admission_ttl_seconds": _integer(document.ADMISSION_TTL_SECONDS, default=900),
            "drift_threshold_usd": _amount(default="0.00"),
            "drift_threshold_percent": {
                "type": "string",
                "pattern": f"^{document.PERCENT_PATTERN}$",
                "default": "0",
            },
        }
    )


def _actions() -> _Schema:
    return _object(
        {
            "max_attempts": _integer(document.MAX_ATTEMPTS, default=3),
            "retry_backoff_seconds": _integer(document.RETRY_BACKOFF_SECONDS, default=60),
            "lease_ttl_seconds": _integer(document.LEASE_TTL_SECONDS, default=300),
        }
    )
