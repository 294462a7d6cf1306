"""The console's content security policy: what a page may load, and who may show it in a frame.

Free text is escaped where it is written into a page; were that forgotten once, a script in it
still would not run, and could send nothing anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponse

_CONSOLE: Final = "/admin/"
# The theme's scripts evaluate expressions of its own pages (unsafe-eval) and it sets its colours
# in a style element; inline scripts, handlers and other hosts are refused.
POLICY: Final = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)


class ContentPolicyMiddleware:
    """Adds the policy to every answer of the console."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request, with the policy when it is the console's."""
        response = self._get_response(request)
        if request.path.startswith(_CONSOLE):
            response["Content-Security-Policy"] = POLICY
        return response
