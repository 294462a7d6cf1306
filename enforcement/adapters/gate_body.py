"""Gate bodies: the fields that every JSON gate takes (SPEC 19), read into a ``GateRequest``.

The fields of a body are read one by one, so that one 422 names everything that is wrong with it:
a reader asks for its unknown members, then calls :func:`refuse_faults`, last.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

import msgspec

from enforcement.gate.inputs import (
    UNESTIMATED,
    Cost,
    DeltaMismatch,
    GateRequest,
    build_cost,
)
from valdrix.kernel.fields import Fields
from valdrix.kernel.money import HOURLY_PLACES, MONTHLY_PLACES, AmountError
from valdrix.kernel.problems import FieldError, InvalidRequest

CALLER_NAMESPACE: Final = "caller"

ACTION_PATTERN: Final = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)+", re.ASCII)
DIGEST_PATTERN: Final = re.compile(r"[A-Za-z0-9:_\-.+/=]{1,200}", re.ASCII)
KEY_PATTERN: Final = re.compile(r"[\x20-\x7e]{1,200}", re.ASCII)
RESOURCE_REFERENCE_LIMIT: Final = 2000
ENVIRONMENT_LIMIT: Final = 200
DELTAS: Final = ("estimated_monthly_delta_usd", "estimated_hourly_delta_usd")

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Surface(msgspec.Struct, frozen=True):
    """Where a body came in, and what it asks about when it does not say."""

    source: str
    default_action: str


class Statement(msgspec.Struct, frozen=True):
    """What a body says of its cost in its own two fields."""

    monthly: Decimal | None
    hourly: Decimal | None


def read_body(
    fields: Fields, surface: Surface, *, actor: str, header_key: str | None
) -> GateRequest:
    """Read what all gate bodies have; the request is of use only when nothing was refused.

    :param header_key: the ``Idempotency-Key`` header, None when there was none; it wins.
    """
    parent = fields.identifier("parent_decision_id")
    dry_run = fields.boolean("dry_run", default=False)
    key = _idempotency_key(fields, header_key)
    return GateRequest(
        source=surface.source,
        project_id=fields.text("project_id", required=True) or "",
        environment=_environment(fields),
        action=fields.text("action", pattern=ACTION_PATTERN) or surface.default_action,
        resource_reference=fields.text(
            "resource_reference", required=True, max_length=RESOURCE_REFERENCE_LIMIT
        )
        or "",
        cost=UNESTIMATED,
        actor=actor,
        team=fields.text("team"),
        metadata=fields.document("metadata") or {},
        change_digest=fields.text("change_digest", pattern=DIGEST_PATTERN),
        parent_decision_id=None if parent is None else str(parent),
        idempotency_key=None if dry_run else key,
        idempotency_namespace=CALLER_NAMESPACE,
        expected_request_fingerprint=fields.text("expected_request_fingerprint"),
        dry_run=dry_run,
    )


def read_statement(fields: Fields) -> Statement:
    """Read the two declared deltas."""
    monthly, hourly = DELTAS
    return Statement(
        fields.amount(monthly, places=MONTHLY_PLACES), fields.amount(hourly, places=HOURLY_PLACES)
    )


def read_declared_cost(fields: Fields, statement: Statement) -> Cost:
    """Return the cost that the two declared deltas name (SPEC 3.1)."""
    try:
        return build_cost(monthly=statement.monthly, hourly=statement.hourly)
    except DeltaMismatch as mismatch:
        fields.errors.extend(mismatch.errors)
    except AmountError as error:
        fields.refuse(
            "estimated_hourly_delta_usd", f"names a monthly delta that {error}", code=error.code
        )
    return UNESTIMATED


def refuse_faults(fields: Fields) -> None:
    """Refuse the body when anything is wrong with it, by the most telling code.

    :raises InvalidRequest: or ``DeltaMismatch``, when every fault is of that kind.
    """
    errors: tuple[FieldError, ...] = tuple(fields.errors)
    if not errors:
        return
    if all(error.code == DeltaMismatch.code for error in errors):
        raise DeltaMismatch("The request names its cost twice, and differently.", errors=errors)
    raise InvalidRequest("The request has invalid fields.", errors=errors)


def _environment(fields: Fields) -> str:
    """Return the caller's text as it came; absent and empty are kept and mean prod (SPEC 2)."""
    value = fields.raw("environment")
    if value is None:
        return ""
    if not isinstance(value, str):
        fields.refuse("environment", "must be a string", code="invalid_type")
    elif len(value) > ENVIRONMENT_LIMIT:
        fields.refuse(
            "environment", f"must have at most {ENVIRONMENT_LIMIT} characters", code="too_long"
        )
    elif _CONTROL.search(value):
        fields.refuse("environment", "must not hold control characters")
    else:
        return value
    return ""


def _idempotency_key(fields: Fields, header_key: str | None) -> str | None:
    """Return the caller's key: the header wins, and both must be well-formed (SPEC 3.9)."""
    body_key = fields.text("idempotency_key", pattern=KEY_PATTERN)
    if header_key is None:
        return body_key
    if not KEY_PATTERN.fullmatch(header_key):
        fields.refuse(
            "", "the Idempotency-Key header must have 1 to 200 printable ASCII characters"
        )
    return header_key
