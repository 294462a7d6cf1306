"""Every route refuses a caller without a credential, or is on this list of public ones.

The routes are called, not inspected: what counts is the answer.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, path
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from valdrix.routes import PUBLIC_ROUTES

PUBLIC = {
    "/.well-known/jwks.json",
    "/admin/login/",
    "/api/docs",
    "/api/schema",
    "/health",
    "/health/live",
    "/health/ready",
    "/metrics",
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
VALUES = {"int": "1", "uuid": str(uuid.UUID(int=1)), "str": "x", "slug": "x", "path": "x"}
SIGN_IN = "/admin/login/"
CONSOLE = "/admin/"
"""Where signing out leads, which in turn asks a stranger to sign in."""


def list_patterns(patterns: list[URLPattern | URLResolver], prefix: str = "/") -> Iterator[str]:
    """Give every route as its URLconf spells it."""
    for entry in patterns:
        if isinstance(entry, URLResolver):
            yield from list_patterns(entry.url_patterns, prefix + str(entry.pattern))
        else:
            yield prefix + str(entry.pattern)


def fill(pattern: str) -> str:
    """Return a path that a route matches."""
    plain = re.sub(r"<(?:(\w+):)?\w+>", lambda match: VALUES[match[1] or "str"], pattern)
    # The admin's catch-all is a regular expression.
    return re.sub(r"\(\?P<url>\.\*\)\$?", "x", plain)


def find_open(patterns: list[str], client: Client) -> list[str]:
    """Return the routes and methods that do more for a stranger than send them away."""
    found = []
    for pattern in patterns:
        if pattern in PUBLIC:
            continue
        for method in METHODS:
            response = client.generic(method, fill(pattern), b"{}", content_type="application/json")
            if not is_sent_away(response):
                found.append(f"{method} {pattern}: {response.status_code}")
    return found


def is_sent_away(response: HttpResponse) -> bool:
    """Tell whether a response asks for a credential and gives nothing."""
    if response.status_code == 302:
        return response["Location"].startswith(SIGN_IN) or response["Location"] == CONSOLE
    return response.status_code == 401


def test_every_route_asks_for_a_credential() -> None:
    patterns = list(list_patterns(get_resolver().url_patterns))
    assert len(patterns) > len(PUBLIC)
    assert find_open(patterns, Client(enforce_csrf_checks=False)) == []


def test_the_public_list_is_this_one_and_names_routes() -> None:
    assert set(PUBLIC_ROUTES) == PUBLIC
    assert set(list_patterns(get_resolver().url_patterns)) >= PUBLIC


class OpenView(APIView):
    """An API view that forgot its permissions."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def post(self, request: Request) -> Response:
        return Response({})


def open_page(request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse("for everybody")


urlpatterns = [path("api/open", OpenView.as_view()), path("page/<int:number>", open_page)]


@pytest.mark.urls(__name__)
def test_an_open_route_is_found() -> None:
    patterns = list(list_patterns(get_resolver().url_patterns))
    found = find_open(patterns, Client())
    assert "POST /api/open: 200" in found
    assert "GET /page/<int:number>: 200" in found
