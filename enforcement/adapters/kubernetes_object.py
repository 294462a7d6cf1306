"""One Kubernetes object as an admission sees it: what its author claims, and what it is. Pure.

Claims are labels and annotations below ``valdrix.io/``; an annotation wins over a label of the same
name. What an object *is* is told by digests that Valdrix computes; no object is ever stored.
"""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any, Final

import msgspec

from enforcement.gate.inputs import Cost, DeltaMismatch, build_cost
from valdrix.kernel.money import HOURLY_PLACES, MONTHLY_PLACES, AmountError, parse_amount

PREFIX: Final = "valdrix.io/"
PROJECT: Final = f"{PREFIX}project"
ENVIRONMENT: Final = f"{PREFIX}environment"
MONTHLY: Final = f"{PREFIX}estimated-monthly-usd"
HOURLY: Final = f"{PREFIX}estimated-hourly-usd"
DECISION: Final = f"{PREFIX}decision-id"

_NAMES: Final = (PROJECT, ENVIRONMENT, MONTHLY, HOURLY, DECISION)

_WORKLOADS: Final = frozenset(
    {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod"}
)
_FREE: Final = frozenset(
    {
        "annotations",
        "args",
        "command",
        "env",
        "envFrom",
        "image",
        "imagePullPolicy",
        "imagePullSecrets",
        "labels",
        "lifecycle",
        "livenessProbe",
        "minReadySeconds",
        "ports",
        "progressDeadlineSeconds",
        "readinessProbe",
        "revisionHistoryLimit",
        "securityContext",
        "startupProbe",
        "strategy",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "updateStrategy",
        "volumeMounts",
        "workingDir",
    }
)
"""Members of a workload's spec that change nothing that is paid for. What is not listed may."""


class ObjectCost(msgspec.Struct, frozen=True):
    """What one object's author says that it costs; nothing where ``monthly_usd`` is None.

    :ivar fault: what is wrong with the statement, as a sentence; there is no amount then.
    """

    monthly_usd: Decimal | None = None
    fault: str | None = None

    @property
    def is_stated(self) -> bool:
        """Tell whether the author said anything about the cost, right or wrong."""
        return self.monthly_usd is not None or self.fault is not None


def read_claims(thing: dict[str, Any] | None) -> dict[str, str]:
    """Return what an object's labels and annotations below ``valdrix.io/`` say."""
    metadata = metadata_of(thing)
    labels, annotations = _texts(metadata, "labels"), _texts(metadata, "annotations")
    found = {}
    for name in _NAMES:
        text = annotations.get(name, labels.get(name))
        if text is not None:
            found[name] = text
    return found


def read_object_cost(claims: dict[str, str]) -> ObjectCost:
    """Return what claims say of an object's whole cost a month, in US dollars.

    What is wrong is a fault, not an exception: in a review it depends on the mode what it means.
    """
    amounts: dict[str, Decimal | None] = {MONTHLY: None, HOURLY: None}
    for name, places in ((MONTHLY, MONTHLY_PLACES), (HOURLY, HOURLY_PLACES)):
        if name not in claims:
            continue
        try:
            amount = parse_amount(claims[name], places=places)
        except AmountError as error:
            return ObjectCost(fault=f"{name} {error}")
        if amount < 0:
            return ObjectCost(fault=f"{name} must not be negative: it is what the object costs")
        amounts[name] = amount
    if amounts[MONTHLY] is None and amounts[HOURLY] is None:
        return ObjectCost()
    try:
        cost: Cost = build_cost(monthly=amounts[MONTHLY], hourly=amounts[HOURLY])
    except DeltaMismatch:
        return ObjectCost(fault=f"{MONTHLY} is not 730 times {HOURLY}")
    except AmountError as error:
        return ObjectCost(fault=f"{HOURLY} names a monthly cost that {error}")
    return ObjectCost(monthly_usd=cost.monthly_delta_usd)


def metadata_of(thing: dict[str, Any] | None) -> dict[str, Any]:
    """Return an object's metadata, empty where there is none."""
    found = (thing or {}).get("metadata")
    return found if isinstance(found, dict) else {}


def object_digest(thing: dict[str, Any] | None) -> str:
    """Return the SHA-256 of what an object is: everything but its metadata and its status.

    What it is said to cost belongs to it: the same spec at another cost is another change.
    """
    claims = read_claims(thing)
    parts = {name: value for name, value in (thing or {}).items() if name not in _NOT_ITSELF}
    cost = {name: claims[name] for name in (MONTHLY, HOURLY) if name in claims}
    return _sha256({"object": parts, "cost": cost})


_NOT_ITSELF: Final = frozenset({"metadata", "status"})


def priced_digest(thing: dict[str, Any] | None, *, kind: str) -> str:
    """Return the SHA-256 of what of an object may cost something.

    A new image, another environment variable or a label on a workload's pods costs nothing; of a
    kind that is not known everything may.
    """
    parts = {name: value for name, value in (thing or {}).items() if name not in _NOT_ITSELF}
    return _sha256(_without_free(parts) if kind in _WORKLOADS else parts)


def _without_free(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_free(item) for name, item in value.items() if name not in _FREE}
    if isinstance(value, list):
        return [_without_free(item) for item in value]
    return value


def _texts(metadata: dict[str, Any], name: str) -> dict[str, str]:
    found = metadata.get(name)
    return found if isinstance(found, dict) else {}


def _sha256(document: Any) -> str:
    """Hash a document by sorted keys.

    Not by RFC 8785: an object may hold numbers that a double cannot, and none is compared with
    anything but an object that came the same way.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=_number)
    return hashlib.sha256(text.encode()).hexdigest()


def _number(value: object) -> dict[str, str]:
    if not isinstance(value, Decimal):
        raise TypeError(f"{type(value).__name__} is not a JSON value")
    return {"decimal": str(value)}
