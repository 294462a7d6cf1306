"""Measuring: how many requests, answered how, in which time, by route and never by path."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from valdrix.kernel.metrics import REQUEST_COUNT, REQUEST_DURATION


class MeasuringMiddleware:
    """Counts each answer by its route's pattern, so that no label holds a caller's text."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer the request and count it."""
        started = time.perf_counter()
        response = self._get_response(request)
        match = request.resolver_match
        route = match.route if match is not None else "unmatched"
        method = request.method if request.method in _METHODS else "other"
        REQUEST_COUNT.labels(method, route, str(response.status_code)).inc()
        REQUEST_DURATION.labels(method, route).observe(time.perf_counter() - started)
        return response


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
