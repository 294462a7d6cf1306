"""Pages: cursor pagination over a unique, ordered key (SPEC 17)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from django.http import HttpRequest

from valdrix.kernel.fields import TEXT_LIMIT
from valdrix.kernel.problems import FieldError, InvalidRequest, escape_pointer

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500
_MOST_PARAMETERS: Final = 40
_MOST_CURSOR_TEXT: Final = 300


class InvalidPage(InvalidRequest):
    """``limit`` or ``cursor`` is not one that this list gave or takes (422)."""

    code = "invalid_cursor"


def read_limit(request: HttpRequest, *, default: int = DEFAULT_LIMIT) -> int:
    """Return the page size that the query asks for, between 1 and 500.

    :raises InvalidPage: for anything else.
    """
    text = request.GET.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_LIMIT):
        detail = f"must be a whole number between 1 and {MAX_LIMIT}"
        raise InvalidPage(
            "The limit is not valid.", errors=(FieldError("/limit", "out_of_range", detail),)
        )
    return int(text)


def read_cursor(request: HttpRequest) -> str | None:
    """Return the key after which the page starts, or None for the first page.

    :raises InvalidPage: for a cursor that no list has given.
    """
    text = request.GET.get("cursor")
    if text is None:
        return None
    try:
        if 0 < len(text) <= _MOST_CURSOR_TEXT:
            key = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
            return key.decode("ascii")
    except (ValueError, binascii.Error):
        pass
    raise InvalidPage(
        "The cursor is not valid.",
        errors=(FieldError("/cursor", "invalid_cursor", "was not given by this list"),),
    )


def read_filter(request: HttpRequest, name: str, *, max_length: int = TEXT_LIMIT) -> str | None:
    """Return a query parameter that rows are compared with, or None without it.

    :raises InvalidRequest: when no row can hold it: blank, too long, or unprintable.
    """
    text = request.GET.get(name)
    if text is None:
        return None
    if not text.strip() or len(text) > max_length or not text.isprintable():
        detail = f"must be 1 to {max_length} printable characters"
        raise InvalidRequest(
            "A filter is not valid.", errors=(FieldError(f"/{name}", "invalid_value", detail),)
        )
    return text


def refuse_unknown_query(request: HttpRequest, *known: str) -> None:
    """Refuse query parameters that the route does not read: a typo is not a wider list.

    :raises InvalidRequest: with one error for each, and for each that is given twice.
    """
    errors = []
    for name, values in list(request.GET.lists())[:_MOST_PARAMETERS]:
        pointer = "/" + escape_pointer(name[:80])
        if name not in known:
            errors.append(FieldError(pointer, "unknown_field", "is not a parameter of this route"))
        elif len(values) > 1:
            errors.append(FieldError(pointer, "invalid_value", "is given more than once"))
    if errors:
        raise InvalidRequest("The query has invalid parameters.", errors=tuple(errors))


def build_page(
    request: HttpRequest,
    rows: Sequence[Any],
    *,
    limit: int,
    key: Callable[[Any], str],
    render: Callable[[Any], Any],
) -> dict[str, Any]:
    """Return ``{results, next}`` from up to ``limit + 1`` rows.

    :param key: gives the row's place in the list's order, as ASCII.
    """
    shown = rows[:limit]
    following = None
    if len(rows) > limit:
        cursor = base64.urlsafe_b64encode(key(shown[-1]).encode()).decode()
        query = {name: request.GET[name] for name in request.GET if name != "cursor"}
        following = f"{request.path}?{urlencode({**query, 'cursor': cursor})}"
    return {"results": [render(row) for row in shown], "next": following}
