"""Admission reviews as an API server sends them, and its own rules for what it accepts back."""

from __future__ import annotations

import json
import re
from typing import Any

from django.http import HttpResponse

from tests.client import Api

REVIEW = "gate/k8s/admission/review"
MONTHLY = "valdrix.io/estimated-monthly-usd"
HOURLY = "valdrix.io/estimated-hourly-usd"
DECISION = "valdrix.io/decision-id"
UID = "705ab4f5-6393-11e8-b7cc-42010a800002"


def an_object(
    kind: str = "Deployment",
    *,
    name: str = "web",
    spec: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    """Return an object as the API server has filled it in."""
    return {
        "apiVersion": "v1" if kind in {"Pod", "Service"} else "apps/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "shop-dev",
            "uid": "8a1e598b-cc4b-49b7-a465-bee6204c18db",
            "resourceVersion": "1167496",
            "creationTimestamp": "2026-11-17T08:52:31Z",
            "annotations": annotations or {},
            **metadata,
        },
        "spec": spec or {"replicas": 3},
        "status": {"replicas": 3},
    }


def a_review(
    thing: dict[str, Any] | None = None,
    old: dict[str, Any] | None = None,
    *,
    operation: str = "CREATE",
    **request: Any,
) -> dict[str, Any]:
    """Return the review of an object, by default the creation of a Deployment."""
    if thing is None and old is None:
        thing = an_object()
    subject = thing or old or {}
    kind = subject["kind"]
    group = "" if subject["apiVersion"] == "v1" else subject["apiVersion"].partition("/")[0]
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": UID,
            "kind": {"group": group, "version": "v1", "kind": kind},
            "resource": {"group": group, "version": "v1", "resource": f"{kind.lower()}s"},
            "requestKind": {"group": group, "version": "v1", "kind": kind},
            "name": subject["metadata"].get("name", ""),
            "namespace": "shop-dev",
            "operation": operation,
            "userInfo": {"username": "system:admin", "groups": ["system:masters"]},
            "object": thing,
            "oldObject": old,
            "dryRun": False,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
            **request,
        },
    }


def costing(monthly: str | None, **more: Any) -> dict[str, Any]:
    """Return a Deployment whose author says what it costs."""
    return an_object(annotations={} if monthly is None else {MONTHLY: monthly}, **more)


def send_review(review: dict[str, Any], *, key: str, **options: Any) -> dict[str, Any]:
    """Send a review as an API server does; return what it makes of the answer.

    The answer must be one that the API server accepts.
    """
    response = Api().post(options.pop("path", REVIEW), review, key=key, **options)
    return accept(response, review["request"]["uid"])


class CallFailed(AssertionError):
    """The API server treats the call as failed: then its failurePolicy decides, not the answer."""


_QUALIFIED = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_HOOK = "gate.valdrix.io"


def accept(response: HttpResponse, uid: str) -> dict[str, Any]:
    """Return the ``response`` of an answer, by the rules that an API server has for a validator.

    :raises CallFailed: for whatever the API server takes for a failed call.
    """
    if response.status_code != 200:
        raise CallFailed(f"status {response.status_code}: {response.content!r}")
    if response["Content-Type"].partition(";")[0] != "application/json":
        raise CallFailed(f"content type {response['Content-Type']}")
    return verify(json.loads(response.content), uid)


def verify(answer: Any, uid: str) -> dict[str, Any]:
    """Return an answer's ``response`` when the API server takes it for one."""
    if not isinstance(answer, dict):
        raise CallFailed("not an object")
    if (answer.get("apiVersion"), answer.get("kind")) != ("admission.k8s.io/v1", "AdmissionReview"):
        raise CallFailed("expected an AdmissionReview of admission.k8s.io/v1")
    response = answer.get("response")
    if not isinstance(response, dict):
        raise CallFailed("the response is absent")
    if response.get("uid") != uid:
        raise CallFailed("the response's uid is not the request's")
    if response.get("patch") or response.get("patchType") is not None:
        raise CallFailed("a validating webhook may not return a patch")
    if not isinstance(response.get("allowed", False), bool):
        raise CallFailed("allowed is no boolean")
    _verify_status(response.get("status"))
    for key, value in (response.get("auditAnnotations") or {}).items():
        if not _QUALIFIED.fullmatch(key) or not isinstance(value, str):
            raise CallFailed(f"{_HOOK}/{key} is no audit annotation")
    warnings = response.get("warnings") or []
    if len(set(warnings)) != len(warnings) or not all(0 < len(text) <= 120 for text in warnings):
        raise CallFailed("a warning is empty, there twice, or longer than 120 characters")
    return response


def _verify_status(status: Any) -> None:
    """Check that a status decodes as ``metav1.Status`` does."""
    if status is None:
        return
    kinds = {"status": str, "message": str, "reason": str, "code": int}
    if not isinstance(status, dict) or not all(
        isinstance(value, kinds[name]) for name, value in status.items() if name in kinds
    ):
        raise CallFailed("the status does not decode")


def shown_refusal(response: dict[str, Any], *, resource: str, name: str) -> tuple[int, str]:
    """Return the code and the text that the API server's own client is shown."""
    assert not response.get("allowed")
    status = response.get("status") or {}
    code = status.get("code") or 403
    text = status.get("message") or status.get("reason")
    denied = f'admission webhook "{_HOOK}" denied the request'
    denied = f"{denied}: {text}" if text else f"{denied} without explanation"
    return code, f'{resource} "{name}" is forbidden: {denied}'
