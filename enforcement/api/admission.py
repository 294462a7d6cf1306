"""The gates that Kubernetes calls: a native validating webhook, and generic JSON (SPEC 8)."""

from __future__ import annotations

import re
import uuid
from contextlib import nullcontext
from decimal import Decimal
from typing import Final

from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request

from enforcement.adapters import kubernetes_generic
from enforcement.adapters.admission_review import answer_review, read_review
from enforcement.admission.queries import Origin
from enforcement.admission.reviewing import Desk, decide_review
from enforcement.api.admission_schema import (
    GENERIC_BODY_SCHEMA,
    REVIEW_ANSWER_SCHEMA,
    REVIEW_BODY_SCHEMA,
)
from enforcement.api.gate_schema import GATE_RESPONSE_SCHEMA
from enforcement.api.gates import KEY_HEADER, GateView, answer, ask_gate, configured_budget
from enforcement.gate.ask import TimeBudget
from enforcement.reconciliation.operations import confirm
from governance.api.assuming import confirming
from governance.api.callers import actor_of, principal_of
from governance.api.cluster_authentication import ClusterAuthentication
from governance.api.permissions import require_project
from governance.identity.domain import Principal
from valdrix.kernel.db import time_limit

_JSON: Final = "application/json"
_DURATION: Final = re.compile(r"(?:[0-9]{1,6}(?:\.[0-9]{1,9})?(?:ms|s|m))+", re.ASCII)
_PART: Final = re.compile(r"([0-9.]+)(ms|s|m)", re.ASCII)
_MILLISECONDS: Final = {"ms": Decimal(1), "s": Decimal(1000), "m": Decimal(60_000)}
_LEAST_MS: Final = 50
_SHARE: Final = 0.9
"""What of the time that an API server waits is used: the rest is the network's."""
_TIMEOUT: Final = OpenApiParameter(
    "timeout", str, description="How long the API server waits, such as 5s."
)


class AdmissionView(GateView):
    """``POST gate/k8s/admission``: what a controller of one's own asks, as generic JSON."""

    @extend_schema(
        operation_id="gate_k8s_admission",
        summary="May this change to a cluster, with this cost, happen?",
        request={_JSON: GENERIC_BODY_SCHEMA},
        responses={(200, _JSON): GATE_RESPONSE_SCHEMA},
    )
    @confirming
    def post(self, request: Request) -> HttpResponse:
        """Decide one change; the answer is 200 whatever the decision."""
        principal = principal_of(request)
        gate_request = kubernetes_generic.to_gate_request(
            request.data, actor=principal.principal_id, header_key=request.headers.get(KEY_HEADER)
        )
        return answer(ask_gate(request, gate_request))


class AdmissionReviewView(GateView):
    """``POST gate/k8s/admission/review``: the webhook that an API server calls itself."""

    # An object has at most 3 MiB, a review two of them; a custom resource nests deeply.
    max_body_bytes = 16 * 1024 * 1024
    max_body_values = 1_000_000
    max_body_depth = 256

    @extend_schema(
        operation_id="gate_k8s_admission_review",
        summary="Answer an AdmissionReview of a validating webhook.",
        parameters=[_TIMEOUT],
        request={_JSON: REVIEW_BODY_SCHEMA},
        responses={(200, _JSON): REVIEW_ANSWER_SCHEMA},
    )
    def post(self, request: Request) -> HttpResponse:
        """Admit or refuse one request to the API server."""
        return _answer_review(request, None)


class ClusterReviewView(AdmissionReviewView):
    """The same webhook at a cluster's own address, which its own secret opens."""

    authentication_classes = (ClusterAuthentication,)

    @extend_schema(
        operation_id="gate_k8s_cluster_review",
        summary="Answer an AdmissionReview of a connected cluster.",
        parameters=[_TIMEOUT],
        request={_JSON: REVIEW_BODY_SCHEMA},
        responses={(200, _JSON): REVIEW_ANSWER_SCHEMA},
    )
    def post(  # type: ignore[override] # the address names the cluster
        self, request: Request, integration_id: uuid.UUID
    ) -> HttpResponse:
        """Admit or refuse one request to the cluster's API server."""
        return _answer_review(request, integration_id)


def _answer_review(request: Request, integration_id: uuid.UUID | None) -> HttpResponse:
    review = read_review(request.data)
    waits_ms = read_wait_ms(request.query_params.get("timeout"))
    desk = _desk(request, integration_id, waits_ms)
    # Whatever the database does, the answer comes while it is still waited for.
    with nullcontext() if waits_ms is None else time_limit(waits_ms * _SHARE / 1000):
        verdict = decide_review(review, desk)
    return answer(answer_review(review.uid, verdict))


def _desk(request: Request, integration_id: uuid.UUID | None, waits_ms: int | None) -> Desk:
    principal = principal_of(request)
    # Half of it, so that a fail-safe outcome can still be recorded.
    at_most_ms = None if waits_ms is None else max(_LEAST_MS, waits_ms // 2)
    budget = configured_budget(at_most_ms=at_most_ms)
    now = timezone.now()
    return Desk(
        origin=Origin(
            tenant_id=principal.tenant_id,
            principal_id=principal.principal_id,
            integration_id=integration_id,
        ),
        projects=principal.projects,
        own_namespace=settings.OWN_NAMESPACE,
        limits=budget.limits(),
        now=now,
        # A review cannot carry a token; its change is always computed, never declared.
        ask=lambda gate_request: ask_gate(
            request,
            gate_request,
            budget=budget,
            may_spend_approval=gate_request.change_digest_is_computed,
        ),
        confirm=lambda decision_id: _confirm(request, principal, decision_id, budget),
    )


def _confirm(
    request: Request, principal: Principal, decision_id: uuid.UUID, budget: TimeBudget
) -> None:
    confirm(
        actor=actor_of(request, now=timezone.now()),
        decision_id=decision_id,
        may_use=lambda project_id: require_project(principal, project_id),
        limits=budget.limits(),
    )


def read_wait_ms(text: str | None) -> int | None:
    """Return how long the API server says that it waits; what is no duration says nothing.

    :param text: a duration as Go writes it, such as ``5s`` or ``1m30s``.
    """
    if text is None or not _DURATION.fullmatch(text):
        return None
    parts = (Decimal(number) * _MILLISECONDS[unit] for number, unit in _PART.findall(text))
    return max(_LEAST_MS, int(sum(parts, Decimal(0))))
