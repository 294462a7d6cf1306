"""The wire of a validating webhook, ``admission.k8s.io/v1`` AdmissionReview. Pure.

:func:`read_review` takes what an API server sends; :func:`answer_review` gives what it accepts:
the request's uid, no patch, status only with a refusal, warnings that are not cut, and audit keys
that are qualified names once the webhook's own name stands before them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from valdrix.kernel.problems import FieldError, Refused, escape_pointer
from valdrix.kernel.structs import converter

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
CREATE: Final = "CREATE"
UPDATE: Final = "UPDATE"
DELETE: Final = "DELETE"
CONNECT: Final = "CONNECT"
OPERATIONS: Final = (CREATE, UPDATE, DELETE, CONNECT)

WARNING_LIMIT: Final = 120
"""Longer ones may be cut by the API server, and by what shows them."""
WARNINGS_LIMIT: Final = 10
MESSAGE_LIMIT: Final = 1000
AUDIT_VALUE_LIMIT: Final = 500
_NAME_LIMIT: Final = 253
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_KIND: Final = re.compile(r"[A-Za-z0-9]{1,63}", re.ASCII)
_GROUP: Final = re.compile(r"[a-z0-9.-]{0,253}", re.ASCII)
_RESOURCE: Final = re.compile(r"[a-z0-9.-]{1,253}", re.ASCII)


class MalformedReview(Refused):
    """The body is not an AdmissionReview that can be answered (400)."""

    code = "malformed_review"


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """One admission request; ``resource`` is ``pods`` or ``deployments.apps``.

    :ivar name: empty where the API server gave none, as for what is still to get its name.
    :ivar namespace: empty for what belongs to the whole cluster.
    """

    uid: str
    kind: str
    resource: str
    subresource: str
    name: str
    namespace: str
    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    is_dry_run: bool
    object: dict[str, Any] | None
    old_object: dict[str, Any] | None


_make_review: Final = converter(Review)


def read_review(body: object) -> Review:
    """Return the request of an AdmissionReview; members that are not needed may be anything.

    :raises MalformedReview: with every fault; such a body is never an allow.
    """
    reader = _Reader()
    envelope = reader.mapping(body, "", required=True) or {}
    if envelope.get("apiVersion") != API_VERSION:
        reader.refuse("/apiVersion", f"must be {API_VERSION}")
    if envelope.get("kind") != KIND:
        reader.refuse("/kind", f"must be {KIND}")
    request = reader.mapping(envelope.get("request"), "/request", required=True) or {}
    kind = reader.mapping(request.get("kind"), "/request/kind", required=True) or {}
    resource = reader.mapping(request.get("resource"), "/request/resource", required=True) or {}
    operation = request.get("operation")
    if operation not in OPERATIONS:
        reader.refuse("/request/operation", f"must be one of {', '.join(OPERATIONS)}")
    reader.text(kind, "group", "/request/kind", pattern=_GROUP)
    group = reader.text(resource, "group", "/request/resource", pattern=_GROUP)
    plural = reader.text(resource, "resource", "/request/resource", pattern=_RESOURCE)
    review = {
        "uid": reader.text(request, "uid", "/request", required=True),
        "kind": reader.text(kind, "kind", "/request/kind", pattern=_KIND),
        "resource": f"{plural}.{group}" if group else plural,
        "subresource": reader.text(request, "subResource", "/request"),
        "name": reader.text(request, "name", "/request"),
        "namespace": reader.text(request, "namespace", "/request"),
        "operation": operation,
        "is_dry_run": reader.flag(request, "dryRun", "/request"),
        "object": reader.thing(request, "object", required=operation in (CREATE, UPDATE)),
        "old_object": reader.thing(request, "oldObject", required=False),
    }
    reader.finish()
    return _make_review(review)


class _Reader:
    """Gathers the faults of one review."""

    def __init__(self) -> None:
        self._errors: list[FieldError] = []

    def refuse(self, pointer: str, detail: str) -> None:
        self._errors.append(FieldError(pointer, "invalid_value", detail))

    def finish(self) -> None:
        if self._errors:
            raise MalformedReview(
                f"The body is not an AdmissionReview of {API_VERSION}.", errors=tuple(self._errors)
            )

    def mapping(self, value: object, pointer: str, *, required: bool) -> dict[str, Any] | None:
        if isinstance(value, dict):
            return value
        if required or value is not None:
            self.refuse(pointer, "must be an object")
        return None

    def text(
        self,
        parent: dict[str, Any],
        name: str,
        pointer: str,
        *,
        required: bool = False,
        pattern: re.Pattern[str] | None = None,
    ) -> str:
        value = parent.get(name, "")
        if value is None:
            value = ""
        if not isinstance(value, str) or len(value) > _NAME_LIMIT or _CONTROL.search(value):
            self.refuse(
                f"{pointer}/{name}", f"must be a string of at most {_NAME_LIMIT} characters"
            )
        elif required and not value:
            self.refuse(f"{pointer}/{name}", "is required")
        elif pattern is not None and not pattern.fullmatch(value):
            self.refuse(f"{pointer}/{name}", f"must match {pattern.pattern}")
        else:
            return value
        return ""

    def flag(self, parent: dict[str, Any], name: str, pointer: str) -> bool:
        value = parent.get(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(f"{pointer}/{name}", "must be true or false")
        return value is True

    def thing(self, request: dict[str, Any], name: str, *, required: bool) -> dict[str, Any] | None:
        """Read a Kubernetes object, of which labels and annotations must be maps of strings."""
        pointer = f"/request/{name}"
        thing = self.mapping(request.get(name), pointer, required=required)
        metadata = self.mapping(
            (thing or {}).get("metadata"), f"{pointer}/metadata", required=False
        )
        for member in ("labels", "annotations"):
            here = f"{pointer}/metadata/{member}"
            texts = self.mapping((metadata or {}).get(member), here, required=False) or {}
            for key, value in texts.items():
                if not isinstance(value, str):
                    self.refuse(f"{here}/{escape_pointer(key[:80])}", "must be a string")
        return thing


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a review is answered.

    :ivar code: HTTP status of a refusal, as ``kubectl`` shows it.
    :ivar reason: Kubernetes' own word for it, such as ``Forbidden``.
    :ivar audit: short keys without ``/``, values of any text.
    """

    allowed: bool
    code: int = 403
    reason: str = "Forbidden"
    message: str = ""
    warnings: tuple[str, ...] = ()
    audit: dict[str, str] = {}


def answer_review(uid: str, verdict: Verdict) -> dict[str, Any]:
    """Return the AdmissionReview that answers a request."""
    response: dict[str, Any] = {"uid": uid, "allowed": verdict.allowed}
    if not verdict.allowed:
        response["status"] = {
            "status": "Failure",
            "code": verdict.code,
            "reason": verdict.reason,
            "message": shorten(verdict.message, MESSAGE_LIMIT),
        }
    warnings = _distinct(verdict.warnings)
    if warnings:
        response["warnings"] = warnings
    audit = _audit(verdict.audit)
    if audit:
        response["auditAnnotations"] = audit
    return {"apiVersion": API_VERSION, "kind": KIND, "response": response}


def shorten(text: str, limit: int) -> str:
    """Return a text on one line without unprintable characters, cut with … at a limit."""
    plain = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return plain if len(plain) <= limit else plain[: limit - 1].rstrip() + "…"


def _distinct(warnings: Iterable[str]) -> list[str]:
    short = (shorten(text, WARNING_LIMIT) for text in warnings)
    return list(dict.fromkeys(text for text in short if text))[:WARNINGS_LIMIT]


def _audit(audit: Mapping[str, str]) -> dict[str, str]:
    return {key: shorten(value, AUDIT_VALUE_LIMIT) for key, value in audit.items() if value}
