"""Bodies: read within a bound, parsed strictly, before any field is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, Final

from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import BaseParser

from valdrix.kernel import strict_json
from valdrix.kernel.http.problem_response import problem_response
from valdrix.kernel.problems import Refused

MAX_BODY_BYTES: Final = 10 * 1024 * 1024
MAX_BODY_VALUES: Final = 100_000
"""How many values a JSON body may hold: what takes the time and the memory is their number."""


class BodyTooLarge(Refused):
    """A request's body is above the bound of its route (413)."""

    code = "body_too_large"


class MalformedBody(Refused):
    """A request's body cannot be parsed (400)."""

    code = "malformed_json"


class StrictJsonParser(BaseParser):
    """Parses ``application/json`` with the strict parser, within the view's bound.

    A view sets ``max_body_bytes`` to take more or less than 10 MiB, ``max_body_values`` to take more
    or fewer than 100,000 values, and ``max_body_depth`` to take another depth of nesting.
    """

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the parsed document.

        :raises BodyTooLarge: when the body is longer than the view allows.
        :raises MalformedBody: when it is not strict JSON.
        """
        context = parser_context or {}
        _refuse_encoding(context)
        _refuse_charset(context)
        view = context.get("view")
        return parse_json(
            _read_body(stream, context),
            max_values=getattr(view, "max_body_values", MAX_BODY_VALUES),
            max_depth=getattr(view, "max_body_depth", strict_json.MAX_DEPTH),
        )


class WholeBodyParser(BaseParser):
    """Gives a body of any type as its bytes, within the view's bound; the view then reads it."""

    media_type = "*/*"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the body.

        :raises BodyTooLarge: when it is longer than the view allows.
        """
        context = parser_context or {}
        _refuse_encoding(context)
        return _read_body(stream, context)


def parse_json(
    body: bytes, *, max_values: int = MAX_BODY_VALUES, max_depth: int = strict_json.MAX_DEPTH
) -> Any:
    """Return the document that a body is.

    :raises BodyTooLarge: when it holds more values than the route takes.
    :raises MalformedBody: when it is not strict JSON.
    """
    try:
        return strict_json.loads(body, max_values=max_values, max_depth=max_depth)
    except strict_json.TooManyValuesError as error:
        raise BodyTooLarge(f"The body {error}.") from None
    except strict_json.StrictJsonError as error:
        raise MalformedBody(
            f"The body is {error}."
            if str(error).startswith("not JSON")
            else f"The body cannot be read: {error}."
        ) from None


def _read_body(stream: IO[bytes], context: Mapping[str, Any]) -> bytes:
    limit = getattr(context.get("view"), "max_body_bytes", MAX_BODY_BYTES)
    return read_bounded(stream, declared_bytes=_declared_length(context), limit_bytes=limit)


def read_bounded(stream: IO[bytes], *, declared_bytes: int | None, limit_bytes: int) -> bytes:
    """Return the whole body, or refuse it; what the client still sends is the server's to discard.

    :raises BodyTooLarge: above ``limit_bytes``.
    """
    if declared_bytes is None or declared_bytes <= limit_bytes:
        body = stream.read(limit_bytes + 1)
        if len(body) <= limit_bytes:
            return body
    raise BodyTooLarge(f"The body is larger than {limit_bytes} bytes.")


def refuse_unknown_length(request: HttpRequest) -> HttpResponse | None:
    """Return the refusal of a body whose length is not declared, or None (RFC 9110, 15.5.12).

    WSGI shows such a body as an empty one: a gate would answer something that was never asked.
    """
    if "HTTP_TRANSFER_ENCODING" not in request.META:
        return None
    return problem_response("length_required", "Send the body with a Content-Length.")


def _refuse_encoding(context: Mapping[str, Any]) -> None:
    """Refuse a body that says it is compressed.

    :raises UnsupportedMediaType: for what would be read as something else (415).
    """
    request = context.get("request")
    if request is None:
        return
    if request.META.get("HTTP_CONTENT_ENCODING", "").strip().lower() not in {"", "identity"}:
        raise UnsupportedMediaType(request.content_type)


def _refuse_charset(context: Mapping[str, Any]) -> None:
    """Refuse JSON that says it is in another charset than UTF-8.

    :raises UnsupportedMediaType: for what would be read as something else (415).
    """
    request = context.get("request")
    if request is None:
        return
    charset = request.content_type.lower().partition("charset=")[2].strip(' "')
    if charset.partition(";")[0].strip(' "') not in {"", "utf-8", "utf8"}:
        raise UnsupportedMediaType(request.content_type)


def _declared_length(context: Mapping[str, Any]) -> int | None:
    request = context.get("request")
    text = request.META.get("CONTENT_LENGTH", "") if request is not None else ""
    return int(text) if text.isascii() and text.isdigit() else None
