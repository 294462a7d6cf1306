"""One request over one connection, so that a crash is seen as a pipeline would see it."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

BASE = "/api/v1/enforcement/"
TIMEOUT_SECONDS = 15.0


@dataclass(frozen=True)
class Target:
    """A port of this machine, and the API key to go there with."""

    port: int
    key: str


@dataclass(frozen=True)
class Reply:
    """What came back, whole."""

    status: int
    body: Any
    replayed_header: bool = False


def send(
    target: Target, method: str, path: str, body: object = None, *, idempotency_key: str = ""
) -> Reply:
    """Send one request and return the whole answer.

    :raises OSError: when the connection could not be made, broke, or was silent for too long.
    :raises http.client.HTTPException: when it broke in the middle of the answer.
    """
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {target.key}"}
    if idempotency_key:
        headers["Idempotency-Key"] = idempotency_key
    data = b"" if body is None else json.dumps(body).encode()
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(
            method, path if path.startswith("/") else BASE + path, data, headers=headers
        )
        response = connection.getresponse()
        content = response.read()
        replayed = response.headers.get("Idempotent-Replayed") == "true"
        return Reply(response.status, json.loads(content) if content else None, replayed)
    finally:
        connection.close()
