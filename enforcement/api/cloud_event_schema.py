"""JSON Schemas of events and of what they are answered, for OpenAPI."""

from __future__ import annotations

from typing import Any, Final

from enforcement.adapters.cloud_event import SPEC_VERSION
from enforcement.adapters.cloud_event_gate import DATA_FIELDS, DEFAULT_ACTION, EXTENSIONS
from enforcement.adapters.terraform_schema import GATE_BODY_SCHEMA
from enforcement.api.gate_schema import BATCH_RESPONSE_SCHEMA, GATE_RESPONSE_SCHEMA
from enforcement.api.gates import BATCH_LIMIT

_Schema = dict[str, Any]


_PLAIN: Final = r"^[^\u0000-\u001f\u007f-\u009f\ufdd0-\ufdef\ufffe\uffff]*$"
_MEDIA: Final = (
    r"^[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}"
    r"( *;[^\u0000-\u001f\u007f-\u009f\ufdd0-\ufdef\ufffe\uffff]*)?$"
)
_REFERENCE: Final = r"^[^\s<>\"{}|\\^`\u0000-\u001f\u007f-\u009f\ufdd0-\ufdef\ufffe\uffff]+$"


def _text(description: str, *, is_optional: bool = True, **more: Any) -> _Schema:
    return {
        "type": ["string", "null"] if is_optional else "string",
        "minLength": 1,
        "maxLength": 2000,
        "description": description,
        "pattern": _PLAIN,
        **more,
    }


_INTEGERS: Final = {"minimum": -(2**31), "maximum": 2**31 - 1}


def _extension(name: str) -> _Schema:
    """Return the schema of the attribute that stands for a gate body's field; null is absent."""
    field = GATE_BODY_SCHEMA["properties"][name]
    description = f"The gate body's `{name}`, for events whose data are something else."
    if name == "dry_run":
        return {"enum": [True, False, "true", "false", None], "description": description}
    if name.startswith("estimated_"):
        types = ["string", "integer", "null"]
        return {**field, **_INTEGERS, "type": types, "description": description}
    return {**field, "type": ["string", "null"], "description": description}


_EXAMPLE: Final[_Schema] = {
    "specversion": SPEC_VERSION,
    "id": "9f0c1a52",
    "source": "/provisioner/eu-west-1",
    "type": "com.example.database.requested",
    "datacontenttype": "application/json",
    "data": {
        "project_id": "shop",
        "environment": "dev",
        "resource_reference": "database/orders",
        "estimated_monthly_delta_usd": "42.00",
    },
}

EVENT_SCHEMA: Final[_Schema] = {
    "type": "object",
    "additionalProperties": {
        "type": ["string", "boolean", "integer", "null"],
        "maxLength": 2000,
        "pattern": _PLAIN,
        **_INTEGERS,
    },
    "propertyNames": {"pattern": "^(?:[a-z0-9]{1,64}|data_base64)$"},
    "maxProperties": 100,
    "required": ["id", "source", "specversion", "type"],
    "anyOf": [
        {
            "required": ["data"],
            "properties": {"data": {"type": "object", "required": ["project_id"]}},
        },
        {"required": ["projectid"], "properties": {"projectid": {"type": "string"}}},
    ],
    "not": {
        "required": ["data", "data_base64"],
        "properties": {"data_base64": {"type": "string"}},
    },
    "properties": {
        "id": _text("Names the event within its source.", is_optional=False),
        "source": _text(
            "Where it happened, a URI reference.", is_optional=False, pattern=_REFERENCE
        ),
        "specversion": {"type": "string", "const": SPEC_VERSION},
        "type": _text("What happened.", is_optional=False),
        "subject": _text("What it happened to; the resource reference where data name none."),
        "time": _text("When it happened.", format="date-time"),
        "datacontenttype": _text("The data's media type; JSON where it is absent.", pattern=_MEDIA),
        "dataschema": _text("The data's schema, an absolute URI.", format="uri"),
        "data": {
            "type": ["object", "array", "string", "number", "boolean", "null"],
            "properties": {
                name: {**GATE_BODY_SCHEMA["properties"][name], "default": DEFAULT_ACTION}
                if name == "action"
                else GATE_BODY_SCHEMA["properties"][name]
                for name in DATA_FIELDS
            },
            "description": "A gate body; other members are the producer's own.",
        },
        "data_base64": {
            "type": ["string", "null"],
            "contentEncoding": "base64",
            "pattern": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
            "description": "The data where they are no JSON; never beside `data`.",
        },
        **{extension: _extension(name) for extension, name in EXTENSIONS.items()},
    },
    "examples": [_EXAMPLE],
}
"""One structured event."""

BATCH_SCHEMA: Final[_Schema] = {
    "type": "array",
    "maxItems": BATCH_LIMIT,
    "items": {
        "description": "A structured event. Each is answered alone: a wrong one refuses no other."
    },
    "examples": [[_EXAMPLE]],
}
"""A batch of them."""

RESPONSE_SCHEMA: Final[_Schema] = {"oneOf": [GATE_RESPONSE_SCHEMA, BATCH_RESPONSE_SCHEMA]}
"""The common response, or one for each event of a batch."""
