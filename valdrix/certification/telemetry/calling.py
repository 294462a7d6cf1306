"""Calls over HTTP, as a pipeline and a browser make them, with how long each took."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any, Final

from valdrix.kernel import strict_json

_TIMEOUT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """A server, and who calls it: an API key, or a cookie of the console."""

    host: str
    port: int
    key: str = ""
    cookie: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; the body is JSON where it is, otherwise text."""

    status: int
    body: Any
    took_ms: int


def call(
    place: Place, method: str, path: str, body: object = None, *, idempotency_key: str = ""
) -> Answer:
    """Send one request and return the whole answer.

    :raises OSError: when the connection could not be made, broke, or was silent for too long.
    :raises http.client.HTTPException: when it broke in the middle of the answer.
    """
    headers = {"Content-Type": "application/json"}
    if place.key:
        headers["Authorization"] = f"Bearer {place.key}"
    if place.cookie:
        headers["Cookie"] = place.cookie
    if idempotency_key:
        headers["Idempotency-Key"] = idempotency_key
    data = b"" if body is None else json.dumps(body).encode()
    connection = http.client.HTTPConnection(place.host, place.port, timeout=_TIMEOUT_SECONDS)
    began = time.monotonic()
    try:
        connection.request(method, path, data, headers=headers)
        response = connection.getresponse()
        content = response.read()
        took_ms = round((time.monotonic() - began) * 1000)
        is_json = (response.headers.get("Content-Type") or "").startswith("application/json")
        return Answer(
            response.status,
            strict_json.loads(content) if is_json else content.decode(),
            took_ms,
        )
    finally:
        connection.close()
