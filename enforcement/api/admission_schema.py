"""JSON Schemas of what Kubernetes sends and gets, for OpenAPI; tests hold them to real answers."""

from __future__ import annotations

from typing import Any, Final

from enforcement.adapters.admission_review import (
    API_VERSION,
    CREATE,
    KIND,
    MESSAGE_LIMIT,
    OPERATIONS,
    UPDATE,
    WARNING_LIMIT,
    WARNINGS_LIMIT,
)
from enforcement.adapters.kubernetes_generic import DEFAULT_ACTION
from enforcement.adapters.terraform_schema import GATE_BODY_SCHEMA
from valdrix.kernel.schemas import PLAIN_PATTERN

_Schema = dict[str, Any]
_NAME: Final[_Schema] = {"type": ["string", "null"], "maxLength": 253, "pattern": PLAIN_PATTERN}
_TEXTS: Final[_Schema] = {"type": ["object", "null"], "additionalProperties": {"type": "string"}}
_OBJECT: Final[_Schema] = {
    "type": ["object", "null"],
    "additionalProperties": True,
    "properties": {
        "metadata": {
            "type": ["object", "null"],
            "additionalProperties": True,
            "properties": {"labels": _TEXTS, "annotations": _TEXTS},
        }
    },
}

GENERIC_BODY_SCHEMA: Final[_Schema] = {
    **GATE_BODY_SCHEMA,
    "properties": {
        **GATE_BODY_SCHEMA["properties"],
        "action": {**GATE_BODY_SCHEMA["properties"]["action"], "default": DEFAULT_ACTION},
        "metadata": {
            **GATE_BODY_SCHEMA["properties"]["metadata"],
            "description": "Facts for policy rules; `labels` and `annotations` as a Kubernetes"
            " object has them may state the cost. At most 16384 bytes as canonical JSON.",
        },
    },
    "examples": [
        {
            "project_id": "shop",
            "environment": "dev",
            "action": DEFAULT_ACTION,
            "resource_reference": "shop-dev/deployments.apps/web",
            "metadata": {"annotations": {"valdrix.io/estimated-monthly-usd": "42.00"}},
        }
    ],
}
"""The body of ``POST gate/k8s/admission``."""

_GROUP: Final[_Schema] = {
    "group": {"type": ["string", "null"], "maxLength": 253, "pattern": "^[a-z0-9.-]*$"},
}
_REQUEST: Final[_Schema] = {
    "type": "object",
    "additionalProperties": True,
    "required": ["uid", "kind", "resource", "operation"],
    "properties": {
        "uid": {"type": "string", "minLength": 1, "maxLength": 253, "pattern": PLAIN_PATTERN},
        "kind": {
            "type": "object",
            "required": ["kind"],
            "properties": {
                **_GROUP,
                "kind": {"type": "string", "pattern": "^[A-Za-z0-9]{1,63}$"},
            },
        },
        "resource": {
            "type": "object",
            "required": ["resource"],
            "properties": {
                **_GROUP,
                "resource": {"type": "string", "pattern": "^[a-z0-9.-]{1,253}$"},
            },
        },
        "subResource": _NAME,
        "name": _NAME,
        "namespace": _NAME,
        "operation": {"type": "string", "enum": list(OPERATIONS)},
        "dryRun": {"type": ["boolean", "null"]},
        "object": {**_OBJECT, "description": "Required for CREATE and UPDATE."},
        "oldObject": _OBJECT,
    },
    "if": {"properties": {"operation": {"enum": [CREATE, UPDATE]}}},
    "then": {"required": ["object"], "properties": {"object": {"type": "object"}}},
}
REVIEW_BODY_SCHEMA: Final[_Schema] = {
    "type": "object",
    "additionalProperties": True,
    "required": ["apiVersion", "kind", "request"],
    "properties": {
        "apiVersion": {"type": "string", "const": API_VERSION},
        "kind": {"type": "string", "const": KIND},
        "request": _REQUEST,
    },
    "examples": [
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "request": {
                "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
                "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
                "name": "web",
                "namespace": "shop-dev",
                "operation": "CREATE",
                "object": {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {
                        "name": "web",
                        "namespace": "shop-dev",
                        "annotations": {"valdrix.io/estimated-monthly-usd": "42.00"},
                    },
                    "spec": {"replicas": 3},
                },
            },
        }
    ],
}
"""The body of ``POST gate/k8s/admission/review``."""

REVIEW_ANSWER_SCHEMA: Final[_Schema] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "response"],
    "properties": {
        "apiVersion": {"type": "string", "const": API_VERSION},
        "kind": {"type": "string", "const": KIND},
        "response": {
            "type": "object",
            "additionalProperties": False,
            "required": ["uid", "allowed"],
            "properties": {
                "uid": {"type": "string"},
                "allowed": {"type": "boolean"},
                "status": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["status", "code", "reason", "message"],
                    "properties": {
                        "status": {"type": "string", "const": "Failure"},
                        "code": {"type": "integer", "enum": [403, 422]},
                        "reason": {"type": "string", "enum": ["Forbidden", "Invalid"]},
                        "message": {"type": "string", "maxLength": MESSAGE_LIMIT},
                    },
                },
                "warnings": {
                    "type": "array",
                    "maxItems": WARNINGS_LIMIT,
                    "items": {"type": "string", "maxLength": WARNING_LIMIT},
                },
                "auditAnnotations": {
                    "type": "object",
                    "propertyNames": {"pattern": "^[a-z]([a-z-]*[a-z])?$"},
                    "additionalProperties": {"type": "string"},
                },
            },
        },
    },
}
"""What ``POST gate/k8s/admission/review`` answers."""
