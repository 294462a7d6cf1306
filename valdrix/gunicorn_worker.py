"""The worker that gunicorn serves with: threads, and refusals of its own as problem documents.

What is no HTTP request, or one beyond gunicorn's bounds, never reaches Django. Gunicorn itself
would answer a page of HTML, and close in a way that can lose the answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from gunicorn.http import errors

from valdrix.gunicorn_connections import PatientWorker
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import CONTENT_TYPE, STATUS_BY_CODE, build_problem

_BY_KIND: Final[tuple[tuple[type[Exception], str], ...]] = (
    (errors.ConfigurationProblem, "internal_error"),
    (errors.InvalidResponseHeader, "internal_error"),
    (errors.InvalidResponseHeaderName, "internal_error"),
    (errors.LimitRequestLine, "uri_too_long"),
    (errors.LimitRequestHeaders, "header_fields_too_large"),
    (errors.ExpectationFailed, "expectation_failed"),
    (errors.UnsupportedTransferCoding, "length_required"),
    (errors.ParseException, "malformed_request"),
)
"""The first that fits; what is none of them is our fault, too."""
_DETAIL: Final = {
    "uri_too_long": "The request's target is too long.",
    "header_fields_too_large": "The request has too many header fields, or too long ones.",
    "expectation_failed": "Only 100-continue can be expected.",
    "length_required": "Send the body with a Content-Length.",
    "malformed_request": "The request cannot be read.",
    "request_timeout": "The request did not come to its end in time.",
    "internal_error": "A fault of Valdrix; it is logged.",
}
_SAID_ONCE: Final = frozenset({"IDEMPOTENCY-KEY", "X-TFC-TASK-SIGNATURE"})
"""Beside them every attribute of an event; two credentials are refused by who judges them."""
_EVENT_PREFIX: Final = "CE-"
_HTTP_1_1: Final = (1, 1)


class ProblemWorker(PatientWorker):
    """Answers a request that cannot be read with a problem document, and then closes."""

    def refuse(self, code: str) -> bytes:
        """Return the answer to a request that the application does not see."""
        self._note(code)
        return render(code, _DETAIL[code])

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request, unless its header says twice what is said once, or not what it must."""
        refuse_ambiguous(req.headers, version=req.version)
        return super().handle_request(req, conn)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what gunicorn could not read, or could not bring to an end."""
        code, detail = refusal_of(exc)
        if code == "internal_error":
            self.log.error("a request failed outside the application", exc_info=exc)
        else:
            self._note(code)
        with contextlib.suppress(OSError):
            client.sendall(render(code, detail))

    def _note(self, code: str) -> None:
        # Imported where the directory of counts is known, which is so in a worker.
        from valdrix.kernel.metrics import REQUESTS_UNREAD  # noqa: PLC0415

        REQUESTS_UNREAD.labels(code).inc()
        # A flood of half requests is counted, and does not fill the log.
        say = self.log.debug if code == "request_timeout" else self.log.warning
        say("a request was refused unread: %s", code)


def refuse_ambiguous(headers: Sequence[tuple[str, str]], *, version: tuple[int, int]) -> None:
    """Refuse a header from which WSGI would make one that nobody sent.

    It joins equal fields by a comma: two idempotency keys would be a third one. HTTP/1.1 asks for the
    host (RFC 9112, 3.2).

    :param headers: names in capitals, and values, as they came.
    :raises gunicorn.http.errors.InvalidHeader: for the first field that is wrong.
    """
    seen = set()
    for name, _ in headers:
        if name in _SAID_ONCE or name.startswith(_EVENT_PREFIX):
            if name in seen:
                raise errors.InvalidHeader(name)
            seen.add(name)
    if version == _HTTP_1_1 and all(name != "HOST" for name, _ in headers):
        raise errors.InvalidHeader("HOST")


def refusal_of(error: BaseException) -> tuple[str, str]:
    """Return the code of a refusal and what is said of it; the sender's own text is not echoed."""
    code = next((code for kind, code in _BY_KIND if isinstance(error, kind)), "internal_error")
    return code, _DETAIL[code]


def render(code: str, detail: str) -> bytes:
    """Return the whole answer, after which the connection closes."""
    request_id = str(new_id())
    body = orjson.dumps(build_problem(code, detail, request_id=request_id))
    status = STATUS_BY_CODE[code]
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        "Connection: close\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"X-Request-ID: {request_id}\r\n\r\n"
    )
    return head.encode("ascii") + body
