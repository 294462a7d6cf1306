"""Measuring: how many requests, answered how, in which time, by route and never by path."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse
from prometheus_client import Counter, Histogram

from valdrix.kernel.db import ORDINARY, patience_of
from valdrix.kernel.metrics import DB_QUERY_DURATION, REQUEST_COUNT, REQUEST_DURATION
from valdrix.kernel.postgresql.deadline import be_patient, patience

_PATIENCE_SECONDS = patience_of(ORDINARY)


class MeasuringMiddleware:
    """Counts each answer by its route's pattern, so that no label holds a caller's text.

    The statements of the request are timed by what they do, and none is waited for for ever.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer the request and count it."""
        started = time.perf_counter()
        be_patient(_PATIENCE_SECONDS)
        try:
            with connection.execute_wrapper(_time_statement):
                response = self._get_response(request)
        finally:
            be_patient(None)
        route = route_of(request)
        method = method_label(request.method)
        count, duration = _counters(method, route, response.status_code)
        count.inc()
        duration.observe(time.perf_counter() - started)
        return response


@lru_cache(maxsize=4096)
def _counters(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Return what counts such an answer; to look it up by its labels takes longer than to count."""
    return (
        REQUEST_COUNT.labels(method, route, str(status)),
        REQUEST_DURATION.labels(method, route),
    )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BY_OPERATION = {
    word: DB_QUERY_DURATION.labels(word.lower())
    for word in ("SELECT", "INSERT", "UPDATE", "DELETE")
}
_OTHER = DB_QUERY_DURATION.labels("other")


def route_of(request: HttpRequest) -> str:
    """Return the pattern of the route that a request took; ``unmatched`` without one."""
    match = request.resolver_match
    return "unmatched" if match is None else match.route


def method_label(method: str | None) -> str:
    """Return what a method is counted as; one that is none is a caller's text."""
    return method if method in _METHODS else "other"


def _time_statement(execute: Callable[..., Any], sql: Any, *arguments: Any) -> Any:
    """Run one statement and time it; its first word says what it does (WITH counts as other)."""
    started = time.perf_counter()
    try:
        with patience():
            return execute(sql, *arguments)
    finally:
        word = str(sql).lstrip()[:6].upper()
        _BY_OPERATION.get(word, _OTHER).observe(time.perf_counter() - started)
