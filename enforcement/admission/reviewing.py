"""One review from its exemptions to its verdict, and what its old object proves."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from django.db import DatabaseError, InterfaceError

from enforcement.adapters import kubernetes
from enforcement.adapters.admission_review import DELETE, Review, Verdict
from enforcement.adapters.kubernetes import Assessment
from enforcement.adapters.kubernetes_verdict import (
    exempt,
    refuse_fault,
    refuse_place,
    verdict_of,
)
from enforcement.admission.queries import Origin, Terms, find_held, read_terms
from enforcement.gate.decision import HARD, SHADOW
from enforcement.gate.inputs import K8S_ADMISSION, GateRequest, normalise
from valdrix.kernel.db import TimeLimits, drop_lost_connection
from valdrix.kernel.problems import NotAllowed, Refused

log = logging.getLogger("valdrix.admission")

_APPLYING: Final = ("k8s.create", "k8s.update")


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Who asks for a review, from where, and how the gate is asked on their behalf.

    :ivar origin: by the credential and the address, never by what the review says.
    :ivar projects: the projects that the credential is bound to; None for all of the tenant.
    :ivar ask: puts one question to the gate and returns its response.
    :ivar confirm: records that a decision's change was applied.
    """

    origin: Origin
    projects: frozenset[str] | None
    own_namespace: str
    limits: TimeLimits
    now: datetime
    ask: Callable[[GateRequest], dict[str, Any]]
    confirm: Callable[[uuid.UUID], object]


@dataclass(frozen=True, slots=True)
class _Case:
    """One review with what it asks and what it is judged by."""

    review: Review
    assessment: Assessment
    request: GateRequest
    terms: Terms

    @property
    def environment(self) -> str:
        """Return the class of the environment that the change lands in."""
        return self.terms.governing.policy.classify_environment(self.request.environment)

    @property
    def mode(self) -> str:
        """Return the mode in force."""
        return self.terms.governing.mode(K8S_ADMISSION, self.environment).mode


def decide_review(review: Review, desk: Desk) -> Verdict:
    """Return the verdict on a review; a change that its old object proves applied is confirmed."""
    exemption = kubernetes.find_exemption(review, own_namespace=desk.own_namespace)
    applied_digest = kubernetes.find_applied_digest(review)
    if exemption is not None and applied_digest is None:
        return exempt(exemption)
    case = _open(review, desk)
    if exemption is None and not kubernetes.is_priced(review, case.terms.kubernetes.priced_kinds):
        exemption = kubernetes.UNPRICED
    exemption = exemption or case.assessment.exemption
    verdict = exempt(exemption) if exemption else _judge(case, desk)
    if applied_digest is not None:
        _confirm_applied(applied_digest, case, desk)
    return verdict


def _open(review: Review, desk: Desk) -> _Case:
    terms = read_terms(desk.origin, review.namespace, now=desk.now, limits=desk.limits)
    assessment = kubernetes.find_cost(review)
    place = kubernetes.place(review, terms.binding, terms.kubernetes, projects=desk.projects)
    request = kubernetes.to_gate_request(
        review, assessment, cluster=terms.cluster, place=place, actor=desk.origin.principal_id
    )
    return _Case(review, assessment, request, terms)


def _judge(case: _Case, desk: Desk) -> Verdict:
    request, assessment = case.request, case.assessment
    notes = kubernetes.find_notes(case.review, assessment)
    if assessment.fault is not None:
        if case.mode == HARD:
            return refuse_fault(assessment.fault)
        notes = (*notes, f"the cost counts as unknown: {assessment.fault}")
    if not case.terms.kubernetes.declared_costs_are_known and case.review.operation != DELETE:
        request = kubernetes.distrust(request, assessment)
    try:
        response = desk.ask(request)
    except NotAllowed as refusal:
        return refuse_place(refusal.detail, is_shadow=case.mode == SHADOW)
    return verdict_of(response, notes=notes)


def _confirm_applied(digest: str, case: _Case, desk: Desk) -> None:
    """Confirm what is held for the object that a review shows to be in force.

    What cannot be confirmed now is confirmed by the next review, or lapses.
    """
    applied = [
        msgspec.structs.replace(case.request, action=action, change_digest=digest)
        for action in _APPLYING
    ]
    fingerprints = [
        normalise(request, environment=case.environment).change_fingerprint for request in applied
    ]
    try:
        decision_id = find_held(desk.origin.tenant_id, fingerprints, limits=desk.limits)
        if decision_id is not None:
            desk.confirm(decision_id)
    except Refused as refusal:
        log.info("an applied change is not confirmed: %s", refusal.problem_code)
    except (DatabaseError, InterfaceError) as error:
        log.warning("an applied change could not be confirmed", exc_info=error)
        drop_lost_connection()
