"""Letting go: what a request holds is freed with its end, and not when the collector comes.

Django and the REST framework tie knots: a request holds the storage of its messages and a look-up of
its user, which hold the request; a view's request holds the view, and a view its own method. Whatever
hangs from them, a body, a decision and its answer, would lie in memory until the garbage collector looks
through everything that is new, for ten to twenty milliseconds in which no thread of the process runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

_KNOTS: Final = ("_messages", "auser", "user")
"""What middleware of Django puts on a request and holds the request itself."""


class LettingGoMiddleware:
    """Outermost of all: cuts what ties a request to itself, once its answer is ready."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer the request; a stream's request is left as it is."""
        response = self._get_response(request)
        if not response.streaming:
            held = vars(request)
            for name in _KNOTS:
                held.pop(name, None)
        return response


class ApiView(APIView):
    """A view of the API, which its request lets go of."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer a request."""
        response: HttpResponseBase = super().dispatch(request, *args, **kwargs)
        # Its own method, bound to it: Django's way to answer HEAD where only GET is written.
        vars(self).pop("head", None)
        if isinstance(response, Response):
            response.add_post_render_callback(_let_go_rendered)
        else:
            _let_go(self.request)
        return response


def _let_go_rendered(response: Response) -> None:
    held = vars(response)
    _let_go(held.pop("renderer_context")["request"])


def _let_go(request: Request) -> None:
    request.parser_context = {}
