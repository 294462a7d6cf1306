"""Rendering: JSON responses by orjson. Amounts are strings before they come here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from rest_framework.renderers import BaseRenderer


class OrjsonRenderer(BaseRenderer):
    """Renders a response's data; a float among it is a defect and stays visible as one."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the data as JSON bytes; no data is an empty body."""
        return b"" if data is None else orjson.dumps(data)
