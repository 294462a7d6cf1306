"""The edge of every request: its id, and what is left of a body that nobody read.

An id is taken from ``X-Request-ID`` when sound, made otherwise, and always answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponse

from valdrix.kernel import request_context
from valdrix.kernel.http.bodies import refuse_unknown_length
from valdrix.kernel.ids import new_id

HEADER: Final = "X-Request-ID"
_SOUND: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


class RequestIdMiddleware:
    """Gives each request its id and puts the same one on the response."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer the request with its id in force and in the response's header."""
        request_id = choose_id(request.headers.get(HEADER, ""))
        token = request_context.request_id.set(request_id)
        try:
            response = refuse_unknown_length(request) or self._get_response(request)
        finally:
            request_context.request_id.reset(token)
        response[HEADER] = request_id
        return response


def choose_id(offered: str) -> str:
    """Return the id that a request offers, where it is sound, or a new one."""
    return offered if _SOUND.fullmatch(offered) else str(new_id())
