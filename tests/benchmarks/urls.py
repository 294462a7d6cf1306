"""The application's routes, and beside them the view that does nothing."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from valdrix.urls import urlpatterns as _application


class EmptyView(APIView):
    """Answers without looking: what is left is the server, the middleware and the framework."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def post(self, request: Request) -> Response:
        """Answer nothing in particular."""
        return Response({"status": "ok"})


urlpatterns: list[URLPattern | URLResolver] = [
    path("bench/empty", EmptyView.as_view()),
    *_application,
]
