"""The application's routes, and beside them the view that does nothing."""

from __future__ import annotations

from typing import Final

from django.urls import URLPattern, URLResolver, path
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from valdrix.kernel.http.letting_go import ApiView
from valdrix.urls import urlpatterns as _application


class Anybody:
    """Who asks the view that does nothing: somebody known, whom no limit of an address counts."""

    is_authenticated = True


class TakeAnybody(BaseAuthentication):
    """Takes any request as somebody's, without looking at it."""

    def authenticate(self, request: Request) -> tuple[Anybody, None]:
        """Return the one who is known."""
        return _ANYBODY, None


_ANYBODY: Final = Anybody()


class EmptyView(ApiView):
    """Answers without looking: what is left is the server, the middleware and the framework."""

    authentication_classes = (TakeAnybody,)
    permission_classes = (AllowAny,)

    def post(self, request: Request) -> Response:
        """Answer nothing in particular."""
        return Response({"status": "ok"})


urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/bench/empty", EmptyView.as_view()),
    *_application,
]
