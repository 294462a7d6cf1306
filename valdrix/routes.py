"""Routes: every one is authenticated, or is on the list of those that anybody may call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from django.contrib.auth.models import AnonymousUser
from django.http import Http404, HttpRequest
from django.test import RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.views import APIView

from enforcement.api.run_tasks import RunTaskSignature
from governance.api.authentication import ApiKeyAuthentication
from governance.api.cluster_authentication import ClusterAuthentication

PUBLIC_ROUTES: Final = frozenset(
    {
        "/.well-known/jwks.json",
        "/admin/login/",
        "/api/docs",
        "/api/schema",
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
    }
)
CREDENTIALS: Final = (ApiKeyAuthentication, ClusterAuthentication, RunTaskSignature)
"""Kinds of credentials; a route below ``/api`` takes exactly one."""

_API: Final = "/api/"
_METHODS: Final = ("get", "post", "put", "patch", "delete", "head", "options")


@dataclass(frozen=True, slots=True)
class Route:
    """One route: its pattern, as the URLconfs spell it, and what answers it."""

    pattern: str
    callback: Callable[..., Any]

    @property
    def view_class(self) -> type[APIView] | None:
        """Return the class behind an API route, or None for another kind of view."""
        found = getattr(self.callback, "cls", None)
        return found if isinstance(found, type) and issubclass(found, APIView) else None


def list_routes(urlconf: str | None = None) -> list[Route]:
    """Return every route of a URLconf, the root one unless another is named."""
    return list(_walk(get_resolver(urlconf).url_patterns, "/"))


def find_open_routes(routes: list[Route]) -> list[str]:
    """Return what is wrong: routes anybody can call, and public routes that are none."""
    problems = []
    for route in routes:
        if route.pattern in PUBLIC_ROUTES:
            continue
        view_class = route.view_class
        reason = _find_page_fault(route) if view_class is None else _find_api_fault(route)
        if reason is not None:
            problems.append(f"{route.pattern}: {reason}")
    missing = PUBLIC_ROUTES - {route.pattern for route in routes}
    problems.extend(f"{pattern}: on the public list, but no such route" for pattern in missing)
    return sorted(problems)


def _walk(patterns: list[URLPattern | URLResolver], prefix: str) -> Iterator[Route]:
    for entry in patterns:
        pattern = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from _walk(entry.url_patterns, pattern)
        else:
            yield Route(pattern, entry.callback)


def _find_api_fault(route: Route) -> str | None:
    """Return how an API view lets anybody in, or None: each method is asked without a key."""
    view_class = route.view_class
    assert view_class is not None
    kinds = set(view_class.authentication_classes)
    if route.pattern.startswith(_API) and not any(kinds == {kind} for kind in CREDENTIALS):
        return "takes credentials other than API keys, or of several kinds"
    for method in _METHODS:
        if hasattr(view_class, method) and not _refuses_anybody(view_class, method):
            return f"{method.upper()} is answered without credentials"
    return None


def _refuses_anybody(view_class: type[APIView], method: str) -> bool:
    view = view_class()
    view.args, view.kwargs, view.format_kwarg = (), {}, None
    view.request = view.initialize_request(RequestFactory().generic(method.upper(), "/"))
    try:
        view.check_permissions(view.request)
    except (NotAuthenticated, PermissionDenied):
        return True
    return False


def _find_page_fault(route: Route) -> str | None:
    """Return how a page lets anybody in, or None when it sends them to sign in."""
    if route.pattern.startswith(_API):
        return "is below /api and not an API view"
    request: HttpRequest = RequestFactory().get("/")
    request.user = AnonymousUser()
    parameters = _some_parameters(route)
    try:
        response = route.callback(request, **parameters)
    except Http404:
        return None
    except Exception as error:  # noqa: BLE001 - whatever it is, the view ran for nobody
        return f"ran without a signed-in user ({type(error).__name__})"
    if response.status_code in {401, 403}:
        return None
    if response.status_code == 302 and "/login/" in response.get("Location", ""):
        return None
    return f"answers {response.status_code} without a signed-in user"


def _some_parameters(route: Route) -> dict[str, str]:
    names = [part.split(">")[0].split(":")[-1] for part in route.pattern.split("<")[1:]]
    return dict.fromkeys(names, "0")
