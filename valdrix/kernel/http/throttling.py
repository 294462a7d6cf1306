"""Limits by address: for whoever has shown no credential, and for signing in (SPEC 16)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from valdrix.kernel.http.client_address import client_address
from valdrix.kernel.http.measuring import route_of
from valdrix.kernel.http.probes import PROBES
from valdrix.kernel.http.problem_response import problem_response
from valdrix.kernel.http.refusing import DETAIL, RefusedBy, note_refusal
from valdrix.kernel.metrics import RATE_LIMIT_REJECTIONS
from valdrix.kernel.throttling.limiter import limiter
from valdrix.kernel.throttling.windows import Limit, Taken

_ASKS_FOR_CREDENTIALS: Final = "/api/v1/"
"""Elsewhere a header is no credential: people sign in there."""
_CREDENTIALS: Final = ("HTTP_AUTHORIZATION", "HTTP_X_API_KEY", "HTTP_X_TFC_TASK_SIGNATURE")
_IPV6_PREFIX: Final = 64


class AddressThrottleMiddleware:
    """Answers 429 to an address whose requests without a credential are too many.

    A request that carries a credential is counted when that is refused, see
    :func:`take_for_address`, and when it turns out that nobody looked at it: a header that is no
    credential where it is sent does not lift the limit. Static files have none: they are served
    before this, so that what arrives of them here is no file.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Count the request, unless somebody known makes it, and answer it or refuse."""
        if _is_limited(request):
            return self._refuse(request) or self._get_response(request)
        response = self._get_response(request)
        if _is_uncounted(request, response):
            return self._refuse(request) or response
        return response

    def _refuse(self, request: HttpRequest) -> HttpResponse | None:
        taken = take_for_address(request)
        if taken.is_allowed:
            return None
        headers = {"Retry-After": str(taken.wait_seconds)}
        return problem_response("throttled", DETAIL, headers=headers)


def take_for_address(request: HttpRequest) -> Taken:
    """Count one request without a good credential against its address."""
    request.is_counted = True  # type: ignore[attr-defined] # read below
    limit = Limit(
        f"address:{_place_of(client_address(request))}", settings.RATE_LIMIT_PER_MINUTE, 60.0
    )
    taken = limiter().take((limit,))
    if not taken.is_allowed:
        RATE_LIMIT_REJECTIONS.labels("address").inc()
        by = RefusedBy("address", (limit,), route_of(request), is_by_address=True)
        note_refusal(request, by)
    return taken


def _is_limited(request: HttpRequest) -> bool:
    if request.path in PROBES or _has_credential(request):
        return False
    # Only a request that has a session's cookie costs a look at the session.
    has_session = settings.SESSION_COOKIE_NAME in request.COOKIES
    return not (has_session and request.user.is_authenticated)


def _is_uncounted(request: HttpRequest, response: HttpResponse) -> bool:
    """Tell whether a request with a credential was answered without regard to it.

    What is refused before a credential is looked at, such as a body's size, says nothing of it.
    """
    if not _has_credential(request) or hasattr(request, "is_counted"):
        return False
    if response.status_code != HTTPStatus.UNAUTHORIZED and response.status_code >= 300:
        return False
    return not getattr(request.user, "is_authenticated", False)


def _has_credential(request: HttpRequest) -> bool:
    if not request.path.startswith(_ASKS_FOR_CREDENTIALS):
        return False
    return any(name in request.META for name in _CREDENTIALS)


def _place_of(address: str | None) -> str:
    """Return whom an address stands for: an IPv4 address, or the network of an IPv6 one."""
    if address is None:
        return "none"
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
