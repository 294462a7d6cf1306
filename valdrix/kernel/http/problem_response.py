"""Problem responses: whatever a door raises becomes one ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

import orjson
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import DatabaseError, InterfaceError
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from rest_framework import exceptions

from valdrix.kernel.db import is_database_down, sqlstate_of
from valdrix.kernel.metrics import DB_ERRORS
from valdrix.kernel.problems import (
    CONTENT_TYPE,
    STATUS_BY_CODE,
    FieldError,
    Refused,
    build_problem,
)
from valdrix.kernel.request_context import current_request_id

_STATEMENT_TIMEOUT: Final = "57014"
_CHALLENGE: Final = 'Bearer realm="valdrix"'
_LOCK_TIMEOUT: Final = "55P03"
_CONTENDED: Final = frozenset({"40P01", "40001"})
_READS: Final = frozenset({"GET", "HEAD"})
_RETRY_SOON: Final = {"Retry-After": "2"}

log = logging.getLogger("valdrix.http")

_CODE_BY_API_EXCEPTION: Final[dict[type[exceptions.APIException], tuple[str, str]]] = {
    exceptions.NotAuthenticated: ("not_authenticated", "Credentials are required."),
    exceptions.AuthenticationFailed: ("authentication_failed", "The credentials are not valid."),
    exceptions.PermissionDenied: ("permission_denied", "This is not yours to do."),
    exceptions.NotFound: ("not_found", "No such object."),
    exceptions.MethodNotAllowed: ("method_not_allowed", "This method is not allowed here."),
    exceptions.NotAcceptable: ("not_acceptable", "Only application/json is served here."),
    exceptions.UnsupportedMediaType: (
        "unsupported_media_type",
        "Send the body as application/json.",
    ),
    exceptions.ParseError: ("malformed_body", "The body cannot be parsed."),
    exceptions.Throttled: ("throttled", "Too many requests; retry after the time given."),
    exceptions.ValidationError: ("invalid_request", "The request has invalid fields."),
}


def problem_document(
    code: str, detail: str, *, errors: Iterable[FieldError] = ()
) -> dict[str, Any]:
    """Return the problem document of a refusal with this code (RFC 9457)."""
    return build_problem(code, detail, request_id=current_request_id(), errors=errors)


def problem_response(
    code: str,
    detail: str,
    *,
    errors: Iterable[FieldError] = (),
    headers: dict[str, str] | None = None,
) -> HttpResponse:
    """Return the response that a refusal with this code is."""
    body = problem_document(code, detail, errors=errors)
    response = HttpResponse(
        orjson.dumps(body), status=STATUS_BY_CODE[code], content_type=CONTENT_TYPE
    )
    # Some refusals are made outside the middleware that would count the bytes.
    response["Content-Length"] = str(len(response.content))
    for name, value in (headers or {}).items():
        response[name] = value
    return response


def handle_exception(error: Exception, context: dict[str, Any]) -> HttpResponse:
    """Answer whatever a view raised; the setting ``EXCEPTION_HANDLER`` names this function."""
    if isinstance(error, Refused):
        headers = {"WWW-Authenticate": _CHALLENGE} if error.status == 401 else None
        return problem_response(
            error.problem_code, error.detail, errors=error.errors, headers=headers
        )
    if isinstance(error, Http404):
        return problem_response("not_found", "No such object.")
    if isinstance(error, PermissionDenied):
        return problem_response("permission_denied", "This is not yours to do.")
    if isinstance(error, RequestDataTooBig):
        return problem_response("body_too_large", "The body is too large.")
    if isinstance(error, UnreadablePostError):
        log.warning("a body did not come to its end: %s", type(error.__cause__).__name__)
        if isinstance(error.__cause__, BlockingIOError):
            return problem_response("request_timeout", "The body did not come to its end in time.")
        return problem_response("malformed_body", "The body broke off before its end.")
    if isinstance(error, exceptions.APIException):
        return _from_api_exception(error)
    if isinstance(error, DatabaseError | InterfaceError):
        return _from_database_error(error, reads=context["request"].method in _READS)
    log.exception("unhandled error", exc_info=error)
    return problem_response("internal_error", "Valdrix failed to answer; the fault is logged.")


def _from_api_exception(error: exceptions.APIException) -> HttpResponse:
    known = (text for kind, text in _CODE_BY_API_EXCEPTION.items() if isinstance(error, kind))
    found = next(known, None)
    if found is None:
        log.error("an API exception has no code", exc_info=error)
    code, detail = found or ("internal_error", "Valdrix failed to answer; the fault is logged.")
    headers: dict[str, str] = {}
    if STATUS_BY_CODE[code] == 401:
        headers["WWW-Authenticate"] = _CHALLENGE
    wait = getattr(error, "wait", None)
    if wait is not None:
        headers["Retry-After"] = str(max(1, int(-(-wait // 1))))
    return problem_response(code, detail, headers=headers)


def _from_database_error(error: DatabaseError | InterfaceError, *, reads: bool) -> HttpResponse:
    state = sqlstate_of(error)
    DB_ERRORS.labels((state or "none")[:2]).inc()
    if reads and state in {_LOCK_TIMEOUT, *_CONTENDED}:
        # Whoever reads changes nothing that could be in conflict.
        log.warning("a read waited for a lock in vain", exc_info=error)
        return problem_response(
            "database_busy", "What is to be read is held; try again.", headers=_RETRY_SOON
        )
    if state == _LOCK_TIMEOUT:
        return problem_response(
            "gate_lock_timeout", "Another change holds what this one needs; try again."
        )
    if state in _CONTENDED:
        return problem_response(
            "gate_lock_contended", "Another change was in the way of this one; try again."
        )
    if state == _STATEMENT_TIMEOUT:
        return problem_response("statement_timeout", "The database took too long.")
    if is_database_down(error):
        log.error("database unavailable", exc_info=error)
        return problem_response(
            "database_unavailable", "The database cannot be reached.", headers=_RETRY_SOON
        )
    log.exception("database error", exc_info=error)
    return problem_response("internal_error", "Valdrix failed to answer; the fault is logged.")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that cannot be read; the root URLconf names this as ``handler400``."""
    return problem_response("malformed_request", "The request cannot be read.")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer what a page refuses; the root URLconf names this as ``handler403``."""
    return problem_response("permission_denied", "This is not yours to do.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a path that no route matches; the root URLconf names this as ``handler404``."""
    return problem_response("not_found", "No such path.")


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer a fault outside any API view; the root URLconf names this as ``handler500``."""
    return problem_response("internal_error", "Valdrix failed to answer; the fault is logged.")
