"""Kubernetes admission: what one review asks, what it costs, and where it belongs (SPEC 8). Pure.

The order is: :func:`find_exemption` tells what is not asked at all; :func:`find_cost` what the change
costs; :func:`place` where it lands; :func:`to_gate_request` puts the question. What an object's
author writes into it is a claim: it never names a cluster, and a project only where policy says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from decimal import Decimal
from typing import Any, Final

import msgspec

from enforcement.adapters.admission_review import CONNECT, CREATE, DELETE, UPDATE, Review
from enforcement.adapters.kubernetes_object import (
    DECISION,
    ENVIRONMENT,
    HOURLY,
    MONTHLY,
    PROJECT,
    ObjectCost,
    metadata_of,
    object_digest,
    priced_digest,
    read_claims,
    read_object_cost,
)
from enforcement.gate.inputs import K8S_ADMISSION, UNESTIMATED, Cost, GateRequest, build_cost
from governance.policies.domain import Kubernetes
from valdrix.kernel.money import ZERO

REVIEW_NAMESPACE: Final = "k8s.review"
RETRY_SECONDS: Final = 60
UNASSIGNED: Final = "unassigned"
SCALE: Final = "scale"

SUBRESOURCE: Final = "subresource"
CONTROLLED: Final = "controller-owned"
NAMESPACE: Final = "namespace"
UNPRICED: Final = "kind-not-priced"
UNCHANGED: Final = "unchanged"
DELETION: Final = "deletion-of-no-known-cost"
SCALE_DOWN: Final = "scale-down"

_SYSTEM_NAMESPACE: Final = "kube-system"
_FIELD_LIMIT: Final = 200
_NAME_LIMIT: Final = 253
_READABLE_LIMIT: Final = 200
_CORE_CONTROLLERS: Final = frozenset({"Node", "ReplicationController"})
_DECISION_ID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


class Binding(msgspec.Struct, frozen=True):
    """Where an owner says that a cluster's namespace belongs; None where nothing is said."""

    project_id: str | None = None
    environment: str | None = None


class Place(msgspec.Struct, frozen=True):
    """Where a change lands; an empty environment is prod."""

    project_id: str
    environment: str


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """What a review's change costs.

    :ivar exemption: why the gate is not asked at all, or None.
    :ivar is_declared: the cost rests on what the object's author says.
    :ivar fault: what is wrong with what the author says; the cost is unknown then.
    :ivar notes: what the author should know, for warnings.
    """

    cost: Cost = UNESTIMATED
    exemption: str | None = None
    is_declared: bool = False
    fault: str | None = None
    notes: tuple[str, ...] = ()


def find_exemption(review: Review, *, own_namespace: str) -> str | None:
    """Return why a review is none of the gate's business, whatever the policy says, or None."""
    if review.operation == CONNECT:
        return SUBRESOURCE
    subject = review.object or review.old_object
    if _is_copied_by_controller(review.kind, subject):
        return CONTROLLED
    if _carries_cost(review):
        return None
    if review.subresource not in {"", SCALE}:
        return SUBRESOURCE
    if review.namespace in {_SYSTEM_NAMESPACE, own_namespace}:
        return NAMESPACE
    return CONTROLLED if _find_controller(subject) else None


def is_priced(review: Review, kinds: Collection[str]) -> bool:
    """Tell whether the policy prices the review's kind, or the object's author does."""
    if review.kind in kinds or _carries_cost(review):
        return True
    plural = review.resource.partition(".")[0]
    return review.subresource == SCALE and plural in {f"{kind.lower()}s" for kind in kinds}


def find_cost(review: Review) -> Assessment:
    """Return what a review's change costs: what the object is said to cost, less what it was.

    Unknown is never zero: a change without a stated cost has an unknown one, unless nothing that
    may cost changes. A deletion is never refused for its cost.
    """
    new = read_object_cost(read_claims(review.object))
    old = read_object_cost(read_claims(review.old_object))
    if review.operation == DELETE:
        if old.monthly_usd is None:
            return Assessment(exemption=DELETION)
        return _declared(ZERO, old.monthly_usd)
    if review.operation == UPDATE and review.old_object is not None:
        if object_digest(review.object) == object_digest(review.old_object):
            return Assessment(exemption=UNCHANGED)
        if new.monthly_usd is None:
            return _find_unstated_cost(review, new)
    if new.fault is not None:
        return Assessment(fault=new.fault, is_declared=True)
    if new.monthly_usd is None:
        return Assessment()
    notes = () if old.fault is None else (f"the old object's cost counts as nothing: {old.fault}",)
    return msgspec.structs.replace(_declared(new.monthly_usd, old.monthly_usd or ZERO), notes=notes)


def _find_unstated_cost(review: Review, new: ObjectCost) -> Assessment:
    """Return what an update costs whose new object states no cost that can be read."""
    if new.fault is not None and _statement(review.object) != _statement(review.old_object):
        return Assessment(fault=new.fault, is_declared=True)
    if _is_scale_down(review):
        return Assessment(exemption=SCALE_DOWN)
    before = priced_digest(review.old_object, kind=review.kind)
    if priced_digest(review.object, kind=review.kind) == before:
        return Assessment(cost=build_cost(monthly=ZERO, hourly=None))
    return Assessment(fault=new.fault, is_declared=new.fault is not None)


def _declared(new_usd: Decimal, old_usd: Decimal) -> Assessment:
    return Assessment(cost=build_cost(monthly=new_usd - old_usd, hourly=None), is_declared=True)


def place(
    review: Review,
    binding: Binding,
    terms: Kubernetes,
    *,
    projects: frozenset[str] | None,
) -> Place:
    """Return where a review's change lands (SPEC 8).

    A registered binding wins. What the object's author writes counts only where none exists and
    the policy trusts it, and never for a project that the credential may not use.

    :param projects: the projects that the credential is bound to; None for all of the tenant.
    """
    if binding.project_id is not None:
        return Place(binding.project_id, binding.environment or "")
    fallback = next(iter(projects)) if projects is not None and len(projects) == 1 else UNASSIGNED
    if not terms.trust_object_annotations:
        return Place(fallback, binding.environment or "")
    claims = read_claims(review.object or review.old_object)
    project = _text(claims.get(PROJECT))
    is_false = PROJECT in claims and not (project and (projects is None or project in projects))
    if is_false:
        return Place(fallback, binding.environment or "")
    environment = binding.environment
    if environment is None:
        environment = _text(claims.get(ENVIRONMENT))
    return Place(project or fallback, environment)


def to_gate_request(
    review: Review, assessment: Assessment, *, cluster: str, place: Place, actor: str
) -> GateRequest:
    """Return the question that a review asks; what is no decision's id is no parent.

    Its key is one for retries: another cluster, object, cost or state of the object is another.
    """
    claims = read_claims(review.object)
    parent = claims.get(DECISION)
    name = _name(review)
    reference = f"{cluster}/{review.namespace or '-'}/{review.resource}/{name}"
    if review.subresource == SCALE:
        # What a status says is of the object itself; a scale is another one beside it.
        reference += f"/{SCALE}"
    metadata = {
        "cluster": cluster,
        "operation": review.operation,
        "kind": review.kind,
        "resource": review.resource,
        "subresource": review.subresource,
        "namespace": review.namespace,
        "name": name,
        "cost_basis": _basis(assessment),
    }
    digest = object_digest(review.object or review.old_object)
    return GateRequest(
        source=K8S_ADMISSION,
        project_id=place.project_id,
        environment=place.environment,
        action=f"k8s.{SCALE if review.subresource == SCALE else review.operation.lower()}",
        resource_reference=reference,
        cost=assessment.cost,
        actor=actor,
        metadata=metadata,
        change_digest=digest,
        change_digest_is_computed=True,
        parent_decision_id=parent.lower() if parent and _DECISION_ID.fullmatch(parent) else None,
        idempotency_key=None if review.is_dry_run else _key(review, reference, digest),
        idempotency_namespace=REVIEW_NAMESPACE,
        retry_seconds=RETRY_SECONDS,
        dry_run=review.is_dry_run,
    )


def distrust(request: GateRequest, assessment: Assessment) -> GateRequest:
    """Return a question under a policy that takes declared costs for unknown (SPEC 8)."""
    if not assessment.is_declared:
        return request
    return msgspec.structs.replace(request, cost=UNESTIMATED)


def find_notes(review: Review, assessment: Assessment) -> tuple[str, ...]:
    """Return what the object's author should know, one sentence each."""
    parent = read_claims(review.object).get(DECISION)
    if parent is not None and not _DECISION_ID.fullmatch(parent):
        return (*assessment.notes, f"{DECISION} is no decision's id and is ignored.")
    return assessment.notes


def find_applied_digest(review: Review) -> str | None:
    """Return the digest of the object that a review shows to be in force, where it may be held for.

    Only an object that says what it costs can have been charged for.
    """
    if review.is_dry_run or review.operation not in {UPDATE, DELETE}:
        return None
    if not read_object_cost(read_claims(review.old_object)).is_stated:
        return None
    return object_digest(review.old_object)


def _carries_cost(review: Review) -> bool:
    """Tell whether a review states a cost that it changes."""
    if review.operation == CREATE:
        return bool(_statement(review.object))
    if review.operation == DELETE:
        return bool(_statement(review.old_object))
    return _statement(review.object) != _statement(review.old_object)


def _statement(thing: dict[str, Any] | None) -> dict[str, str]:
    claims = read_claims(thing)
    return {name: claims[name] for name in (MONTHLY, HOURLY) if name in claims}


def _is_copied_by_controller(kind: str, thing: dict[str, Any] | None) -> bool:
    """Tell whether an object carries its controller's own annotations.

    A Deployment's controller copies them to each ReplicaSet: the cost is the Deployment's.
    """
    return kind == "ReplicaSet" and _find_controller(thing) == "Deployment"


def _find_controller(thing: dict[str, Any] | None) -> str | None:
    """Return the kind of the controller that owns an object, or None.

    Of the core group only two kinds control others: a ConfigMap as "controller" was made up.
    """
    owners = metadata_of(thing).get("ownerReferences")
    for owner in owners if isinstance(owners, list) else ():
        if not isinstance(owner, dict) or owner.get("controller") is not True:
            continue
        kind = owner.get("kind")
        if isinstance(kind, str) and (owner.get("apiVersion") != "v1" or kind in _CORE_CONTROLLERS):
            return kind
    return None


def _is_scale_down(review: Review) -> bool:
    """Tell whether a scale asks for no more replicas than there are."""
    new, old = _replicas(review.object), _replicas(review.old_object)
    return review.subresource == SCALE and new is not None and old is not None and new <= old


def _replicas(thing: dict[str, Any] | None) -> int | None:
    spec = (thing or {}).get("spec")
    # A scale of zero leaves its replicas out.
    found = spec.get("replicas", 0) if isinstance(spec, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _name(review: Review) -> str:
    metadata = metadata_of(review.object or review.old_object)
    for found in (review.name, metadata.get("name"), metadata.get("uid")):
        if isinstance(found, str) and found and found.isprintable():
            return found[:_NAME_LIMIT]
    return review.uid


def _basis(assessment: Assessment) -> str:
    if assessment.is_declared:
        return "declared"
    return "none" if assessment.cost == UNESTIMATED else "unchanged"


def _text(claim: str | None) -> str:
    """Return a claim that can be a project's or an environment's name, else nothing."""
    if claim is None or len(claim) > _FIELD_LIMIT or not claim.isprintable():
        return ""
    return claim.strip()


def _key(review: Review, reference: str, digest: str) -> str:
    """Return the retry key: readable as far as it goes, exact by a digest over all its parts."""
    version = metadata_of(review.old_object).get("resourceVersion")
    parts = (
        reference,
        review.operation,
        version if isinstance(version, str) else "",
        digest,
        *sorted(_statement(review.object).items()),
        *sorted(_statement(review.old_object).items()),
    )
    exact = hashlib.sha256(repr(parts).encode()).hexdigest()
    return f"k8s:{review.operation}:{reference[:_READABLE_LIMIT]}:{exact}"
