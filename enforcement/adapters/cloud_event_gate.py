"""The gate's question that an event asks (SPEC 8, ECP-009). Pure.

An event's JSON data is a gate body; some fields may be extension attributes, for events whose data is
something else. What the data hold besides is the producer's: it is hashed and not kept.
"""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any, Final

import msgspec

from enforcement.adapters.cloud_event import Event
from enforcement.adapters.gate_body import (
    RESOURCE_REFERENCE_LIMIT,
    Surface,
    read_body,
    read_declared_cost,
    read_statement,
    refuse_faults,
)
from enforcement.gate.inputs import CLOUD_EVENT, GateRequest
from valdrix.kernel.canonical import NotCanonicalError, canonical_bytes
from valdrix.kernel.fields import Fields
from valdrix.kernel.problems import FieldError

DEFAULT_ACTION: Final = "cloud_event.received"
KEY_NAMESPACE: Final = "cloudevent"

DATA_FIELDS: Final = (
    "project_id",
    "environment",
    "action",
    "resource_reference",
    "estimated_monthly_delta_usd",
    "estimated_hourly_delta_usd",
    "change_digest",
    "team",
    "run_id",
    "parent_decision_id",
    "metadata",
    "dry_run",
    "expected_request_fingerprint",
    "idempotency_key",
)
"""Members of an event's data that are a gate body's."""

EXTENSIONS: Final = {
    "projectid": "project_id",
    "environment": "environment",
    "resourcereference": "resource_reference",
    "estimatedmonthlydeltausd": "estimated_monthly_delta_usd",
    "estimatedhourlydeltausd": "estimated_hourly_delta_usd",
    "changedigest": "change_digest",
    "parentdecisionid": "parent_decision_id",
    "dryrun": "dry_run",
    "expectedrequestfingerprint": "expected_request_fingerprint",
}
"""Extension attributes that are a gate body's fields; other extensions mean nothing here."""

_SURFACE: Final = Surface(CLOUD_EVENT, DEFAULT_ACTION)
_KEPT: Final = ("id", "source", "type", "subject", "time", "dataschema", "datacontenttype")
_SHOWN_KEY_LIMIT: Final = 400
_TRUTHS: Final = {"true": True, "false": False}


def to_gate_request(
    event: Event, *, actor: str, header_key: str | None, pointer: str = ""
) -> GateRequest:
    """Return the question that an event asks.

    :param header_key: the ``Idempotency-Key`` header, which wins over the event's own name.
    :param pointer: where the event stands in the body.
    :raises InvalidRequest: with every fault; ``DeltaMismatch`` when the only fault is that two
        statements of the cost disagree.
    """
    members, extensions = _gather(event)
    fields = Fields(members, pointer=f"{pointer}/data")
    for name, extension in extensions.items():
        given = (event.data or {}).get(name) if isinstance(event.data, dict) else None
        if given is not None and given != members[name]:
            fields.refuse(name, f"is not what the attribute {extension} says")
    request = read_body(fields, _SURFACE, actor=actor, header_key=header_key)
    run_id = fields.text("run_id")
    cost = read_declared_cost(fields, read_statement(fields))
    fields.errors[:] = [_at_home(error, pointer, extensions) for error in fields.errors]
    refuse_faults(fields)
    request = msgspec.structs.replace(
        request,
        run_id=run_id,
        cost=cost,
        metadata={**request.metadata, **_describe(event)},
    )
    if request.idempotency_key is not None or request.dry_run:
        return request
    return msgspec.structs.replace(
        request,
        idempotency_key=shown_key(event),
        idempotency_namespace=_key_namespace(event),
    )


def shown_key(event: Event) -> str:
    """Return an event's key as people read it; an id is unique only within its source."""
    key = f"{KEY_NAMESPACE}:{event.text('source')}:{event.text('id')}"
    if len(key) <= _SHOWN_KEY_LIMIT:
        return key
    return f"{key[:_SHOWN_KEY_LIMIT]}…"


def data_sha256(event: Event) -> str | None:
    """Return the SHA-256 of an event's data, None where it has none.

    JSON data are hashed as RFC 8785 has them, so that one event is one in all modes; where a number
    has no such form, by sorted keys.
    """
    if not event.has_data:
        return None
    if isinstance(event.data, bytes):
        return hashlib.sha256(event.data).hexdigest()
    try:
        octets = canonical_bytes(event.data)
    except NotCanonicalError:
        octets = json.dumps(
            event.data, sort_keys=True, separators=(",", ":"), default=_number
        ).encode()
    return hashlib.sha256(octets).hexdigest()


def _gather(event: Event) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the gate body's members, and which of them came from which extension."""
    data = event.data if isinstance(event.data, dict) else {}
    members = {name: data[name] for name in DATA_FIELDS if name in data}
    extensions = {}
    for extension, name in EXTENSIONS.items():
        value = event.attributes.get(extension)
        if value is None:
            continue
        if name == "dry_run" and isinstance(value, str):
            value = _TRUTHS.get(value, value)
        elif name.startswith("estimated_") and isinstance(value, int):
            value = str(value)
        members[name] = value
        extensions[name] = extension
    if members.get("resource_reference") is None:
        # What the event is about; without that, where it came from.
        about = event.text("subject") or event.text("source")
        members["resource_reference"] = about[:RESOURCE_REFERENCE_LIMIT]
    return members, extensions


def _at_home(error: FieldError, pointer: str, extensions: dict[str, str]) -> FieldError:
    """Return an error at the attribute that the faulty member came from."""
    head = f"{pointer}/data/"
    extension = extensions.get(error.pointer.removeprefix(head))
    if extension is None or not error.pointer.startswith(head):
        return error
    return FieldError(f"{pointer}/{extension}", error.code, error.detail)


def _describe(event: Event) -> dict[str, str]:
    """Return what is kept of an event: its own names, and what its data were."""
    kept = {f"cloud_event_{name}": event.text(name) for name in _KEPT if name in event.attributes}
    digest = data_sha256(event)
    return kept if digest is None else {**kept, "cloud_event_data_sha256": digest}


def _key_namespace(event: Event) -> str:
    """Return the stored key's namespace: exact, however source and id are spelled."""
    source, name = event.text("source"), event.text("id")
    exact = f"{len(source)}:{source}{len(name)}:{name}"
    return f"{KEY_NAMESPACE}:{hashlib.sha256(exact.encode()).hexdigest()}"


def _number(value: object) -> str:
    if not isinstance(value, Decimal):
        raise TypeError(f"{type(value).__name__} is not a JSON value")
    return str(value)
