"""Refusing a flood at the edge: whose limit is used up is not asked who they are again.

A refusal that a view made says which limits it stands on. While those still refuse, the same caller's
same call is answered here, with 429 and before anything else of Valdrix runs: no statement, no body
parsed, no place among the requests in progress. Nothing is taken here: once a token is back, the call
takes the whole way again.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson
from django.http import HttpRequest

from valdrix.kernel.http.measuring import method_label
from valdrix.kernel.http.request_id import choose_id
from valdrix.kernel.http.yielding import COMES_LAST
from valdrix.kernel.metrics import RATE_LIMIT_REJECTIONS, REQUEST_COUNT
from valdrix.kernel.problems import CONTENT_TYPE, STATUS_BY_CODE, build_problem
from valdrix.kernel.throttling.limiter import Limiter
from valdrix.kernel.throttling.windows import Limit

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

NOTE: Final = "valdrix.refused_by"
KEPT_SECONDS: Final = 60.0
"""As long as an authentication is remembered: a credential that ended is asked about again."""
_MOST_KEPT: Final = 4096
_CODE: Final = "throttled"
DETAIL: Final = "Too many requests; retry after the time given."
_STATUS: Final = f"{STATUS_BY_CODE[_CODE]} {HTTPStatus(STATUS_BY_CODE[_CODE]).phrase}"
_WHO_AND_WHAT: Final = (
    "REQUEST_METHOD",
    "PATH_INFO",
    "HTTP_AUTHORIZATION",
    "HTTP_X_API_KEY",
    "HTTP_X_TFC_TASK_SIGNATURE",
    "HTTP_COOKIE",
)
_WHERE: Final = ("REMOTE_ADDR", "HTTP_X_FORWARDED_FOR")


@dataclass(frozen=True, slots=True)
class RefusedBy:
    """What a refusal stands on.

    :ivar kind: the name of the limit that refused, as metrics have it.
    :ivar route: the pattern of the route that was called.
    :ivar is_by_address: whether it is the address that was refused, whoever calls from there.
    """

    kind: str
    limits: tuple[Limit, ...]
    route: str
    is_by_address: bool = False


def note_refusal(request: HttpRequest, refused_by: RefusedBy) -> None:
    """Say what a request was refused by, for the next of its kind."""
    request.META[NOTE] = refused_by


class RefusingApplication:
    """A WSGI application that answers again, by itself, what was refused a moment ago."""

    def __init__(self, application: Application, *, limiter: Callable[[], Limiter]) -> None:
        self._application = application
        self._limiter = limiter
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[float, bytes, RefusedBy]] = OrderedDict()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request, or refuse it like the one before."""
        caller = _digest(environ, _WHO_AND_WHAT)
        known = self._kept.get(caller)
        if known is not None and _is_meant(environ, known):
            limits, limiter = known[2].limits, self._limiter()
            refusal = limiter.find_refusal(limits)
            if refusal is not None:
                return _refuse(environ, start_response, known[2], refusal.wait_seconds)
            if limiter.goes_on(limits):
                environ[COMES_LAST] = True
        answer = self._application(environ, start_response)
        noted = environ.get(NOTE)
        if noted is not None:
            self._keep(caller, environ, noted)
        return answer

    def _keep(self, caller: bytes, environ: dict[str, Any], refused_by: RefusedBy) -> None:
        with self._lock:
            self._kept[caller] = (time.monotonic(), _digest(environ, _WHERE), refused_by)
            self._kept.move_to_end(caller)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)


def _is_meant(environ: dict[str, Any], known: tuple[float, bytes, RefusedBy]) -> bool:
    """Tell whether what is known of a caller is new enough, and of this address where that counts."""
    since, place, refused_by = known
    if time.monotonic() - since > KEPT_SECONDS:
        return False
    return not refused_by.is_by_address or place == _digest(environ, _WHERE)


def _digest(environ: dict[str, Any], names: tuple[str, ...]) -> bytes:
    """Return what stands for some of a request's headers; the headers themselves are not kept."""
    text = "\x00".join(f"{len(value)}:{value}" for value in (environ.get(n, "") for n in names))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _refuse(
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    refused_by: RefusedBy,
    wait_seconds: int,
) -> Iterable[bytes]:
    method: str = environ["REQUEST_METHOD"]
    RATE_LIMIT_REJECTIONS.labels(refused_by.kind).inc()
    route, status = refused_by.route, str(STATUS_BY_CODE[_CODE])
    REQUEST_COUNT.labels(method_label(method), route, status).inc()
    request_id = choose_id(environ.get("HTTP_X_REQUEST_ID", ""))
    body = orjson.dumps(build_problem(_CODE, DETAIL, request_id=request_id))
    start_response(
        _STATUS,
        [
            ("Content-Type", CONTENT_TYPE),
            ("Content-Length", str(len(body))),
            ("Retry-After", str(wait_seconds)),
            ("X-Request-ID", request_id),
        ],
    )
    return [] if method == "HEAD" else [body]
