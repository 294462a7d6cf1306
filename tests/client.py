"""A client that speaks to the application through its whole WSGI stack."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from django.http import HttpResponse
from django.test import Client

BASE = "/api/v1/enforcement/"


class Api:
    """Sends requests; a path without a leading slash is below ``/api/v1/enforcement/``.

    An unhandled exception in a view is raised in the test: no test passes over a 500.
    """

    def __init__(self, *, remote_addr: str = "127.0.0.1") -> None:
        self.http = Client(REMOTE_ADDR=remote_addr)

    def get(self, path: str, **options: Any) -> HttpResponse:
        """Send a GET request."""
        return self.send("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> HttpResponse:
        """Send a POST request."""
        return self.send("POST", path, body, **options)

    def put(self, path: str, body: Any = None, **options: Any) -> HttpResponse:
        """Send a PUT request."""
        return self.send("PUT", path, body, **options)

    def patch(self, path: str, body: Any = None, **options: Any) -> HttpResponse:
        """Send a PATCH request."""
        return self.send("PATCH", path, body, **options)

    def delete(self, path: str, **options: Any) -> HttpResponse:
        """Send a DELETE request."""
        return self.send("DELETE", path, **options)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> HttpResponse:
        """Send one request.

        :param body: bytes go out as they are; anything else as JSON, decimals as strings.
        :param key: an API key's text.
        """
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        data = b"" if body is None else body
        if not isinstance(data, bytes):
            data = json.dumps(data, default=_to_json).encode()
        return self.http.generic(
            method,
            path if path.startswith("/") else BASE + path,
            data,
            content_type=content_type,
            headers=sent,
            query_params=query,
        )


def _to_json(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value)
