"""The readings: always 200, with data or with the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.urls import URLPattern, path
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from telemetry.readings.board import read_board
from telemetry.readings.domain import DEFAULT_WINDOW, WINDOWS, build_window
from telemetry.readings.queries import READINGS
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.http.pages import refuse_unknown_query
from valdrix.kernel.problems import FieldError, InvalidRequest

_READING_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "available": {"type": "boolean"},
        "reason": {"type": ["string", "null"], "description": "Why there is no data."},
        "window_start": {"type": "string", "format": "date-time"},
        "window_end": {"type": "string", "format": "date-time"},
        "skipped_rows": {"type": "integer", "description": "Rows that make no sense."},
        "partial": {"type": "boolean", "description": "Not everything is in the figures."},
        "data": {"type": ["object", "null"]},
    },
    "required": [
        "available", "reason", "window_start", "window_end", "skipped_rows", "partial", "data",
    ],
    "additionalProperties": False,
}  # fmt: skip
_BOARD_SCHEMA: Final = {
    "type": "object",
    "properties": dict.fromkeys(READINGS, _READING_SCHEMA),
    "required": list(READINGS),
    "additionalProperties": False,
}
_WINDOW: Final = OpenApiParameter("window", str, enum=list(WINDOWS), default=DEFAULT_WINDOW)
_TAGS: Final = ["telemetry"]


class BoardView(ApiView):
    """All readings at once."""

    @extend_schema(
        operation_id="read_telemetry",
        tags=_TAGS,
        parameters=[_WINDOW],
        responses={200: _BOARD_SCHEMA},
    )
    def get(self, request: Request) -> Response:
        """Read every aggregate of a window that ends now."""
        return Response(_read(request, tuple(READINGS)))


def build_urls(permissions: Sequence[type[BasePermission]]) -> list[URLPattern]:
    """Return the routes, for callers whom these permissions let in.

    Who a caller is, is not telemetry's to know: ``valdrix`` binds it.
    """
    bound: dict[str, Any] = {"permission_classes": tuple(permissions)}
    return [
        path("readings", BoardView.as_view(**bound)),
        *(path(name, _view_of(name).as_view(**bound)) for name in READINGS),
    ]


def _view_of(name: str) -> type[ApiView]:
    class OneReadingView(ApiView):
        """One reading."""

        @extend_schema(
            operation_id=f"read_{name.replace('-', '_')}",
            tags=_TAGS,
            parameters=[_WINDOW],
            responses={200: _READING_SCHEMA},
        )
        def get(self, request: Request) -> Response:
            """Read one aggregate of a window that ends now."""
            return Response(_read(request, (name,))[name])

    return OneReadingView


def _read(request: Request, names: Sequence[str]) -> dict[str, Any]:
    refuse_unknown_query(request, "window")
    wanted = request.GET.get("window", DEFAULT_WINDOW)
    if wanted not in WINDOWS:
        error = FieldError("/window", "unknown_value", f"must be one of {', '.join(WINDOWS)}")
        raise InvalidRequest("There is no such window.", errors=(error,))
    window = build_window(wanted, now=timezone.now())
    tenant_id = request.user.tenant_id  # type: ignore[union-attr]
    found = read_board(tenant_id, window, names=names)
    return {name: reading.to_document(window) for name, reading in found.items()}
