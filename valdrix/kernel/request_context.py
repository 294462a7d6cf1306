"""The request being answered, for whatever writes about it: logs, problems, audit."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

request_id: Final[ContextVar[str | None]] = ContextVar("valdrix_request_id", default=None)


def current_request_id() -> str | None:
    """Return the id of the request being answered, or None outside a request."""
    return request_id.get()
