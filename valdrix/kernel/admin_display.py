"""How the console shows values: amounts, times, badges and bars. Knows no table and no request.

Everything returned as HTML was escaped on the way; nothing uses an inline style or script, so
that a strict content security policy can stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString

from valdrix.kernel.money import ZERO

NOTHING: Final = "–"

GOOD: Final = "good"
INFO: Final = "info"
WARN: Final = "warn"
BAD: Final = "bad"
NEUTRAL: Final = "neutral"
_SIGNS: Final = {GOOD: "✓", INFO: "+", WARN: "!", BAD: "✕", NEUTRAL: "•"}

_HUNDRED: Final = Decimal(100)
_PERCENT: Final = Decimal("0.01")
_NEARLY_FULL: Final = Decimal("0.8")


@dataclass(frozen=True, slots=True)
class Panel:
    """A titled group of labelled values on a record's page.

    :ivar rows: label and value; plain text is escaped by the template.
    :ivar document: JSON shown below the rows, as text.
    """

    title: str
    rows: Sequence[tuple[str, Any]] = ()
    document: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar: its kind names its colour, its place is in percent of the whole."""

    kind: str
    start: str
    width: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A horizontal bar: segments on a track, and the same in words for who cannot see it.

    :ivar limit_at: where the limit lies, in percent, when the segments pass it.
    """

    label: str
    segments: tuple[Segment, ...] = ()
    limit_at: str | None = None


@dataclass(slots=True)
class _Scale:
    whole: Decimal
    taken: Decimal = field(default=ZERO)

    def segment(self, kind: str, amount: Decimal) -> Segment:
        start = self.taken
        self.taken += amount
        return Segment(kind, _percent(start, self.whole), _percent(amount, self.whole))


def build_bar(parts: Iterable[tuple[str, Decimal]], *, limit: Decimal | None, label: str) -> Bar:
    """Return the bar of some amounts, one after the other, against a limit.

    :param limit: None makes the amounts' sum the whole.
    :param label: the same in words.
    """
    shown = [(kind, amount) for kind, amount in parts if amount > 0]
    total = sum((amount for _, amount in shown), ZERO)
    whole = max(total, limit or ZERO)
    if whole <= 0:
        return Bar(label)
    scale = _Scale(whole)
    segments = tuple(scale.segment(kind, amount) for kind, amount in shown)
    passed = limit is not None and total > limit
    return Bar(label, segments, _percent(limit or ZERO, whole) if passed else None)


def render_bar(bar: Bar) -> SafeString:
    """Return a bar as HTML."""
    return render_to_string("valdrix/bar.html", {"bar": bar})


def measure(bar: Bar, text: str) -> SafeString:
    """Return a bar and what it stands for, for a cell of a list."""
    return format_html('<div class="vx-measure">{}<span>{}</span></div>', render_bar(bar), text)


def number(text: str) -> SafeString:
    """Return a figure, for a cell of a list."""
    return format_html('<span class="vx-number">{}</span>', text)


def fullness(taken: Decimal, limit: Decimal) -> SafeString:
    """Return how much of a limit is taken, as a badge."""
    if taken >= limit:
        return badge("full", BAD)
    return badge("nearly full", WARN) if taken >= limit * _NEARLY_FULL else badge("open", GOOD)


def usd(amount: Decimal | str | None) -> str:
    """Return an amount of US dollars for people: grouped, two decimals unless there are more."""
    value = to_decimal(amount)
    if value is None:
        return NOTHING
    text = f"{value:,.6f}".rstrip("0")
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals.ljust(2, '0')}"


def delta_usd(amount: Decimal | str | None) -> str:
    """Return a change of cost for people, with its sign."""
    value = to_decimal(amount)
    if value is None:
        return "unknown"
    return f"+{usd(value)}" if value > 0 else usd(value)


def to_decimal(amount: Decimal | str | None) -> Decimal | None:
    """Return the amount that a stored document holds as text."""
    return amount if amount is None or isinstance(amount, Decimal) else Decimal(amount)


def utc(moment: datetime | None) -> str:
    """Return a moment for people: to the second, in UTC, and saying so."""
    return NOTHING if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def age(span: timedelta) -> str:
    """Return a span of time for people, in its two biggest units."""
    seconds = max(0, int(span.total_seconds()))
    if seconds < 60:
        return "less than a minute"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if hours == 0:
        return f"{minutes} min"
    if days == 0:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"


def words(name: str | None) -> str:
    """Return a code such as ``project_allocation`` as words."""
    return NOTHING if not name else name.replace("_", " ")


def badge(text: str, tone: str) -> SafeString:
    """Return a short word in a coloured pill; a sign says the tone to who sees no colour."""
    return format_html(
        '<span class="vx-badge vx-badge--{}"><span aria-hidden="true">{}</span> {}</span>',
        tone,
        _SIGNS[tone],
        text,
    )


def mono(text: str | None) -> SafeString | str:
    """Return an identifier or digest in a fixed-width face."""
    return format_html('<code class="vx-code">{}</code>', text) if text else NOTHING


def short(digest: str | None) -> SafeString | str:
    """Return a digest's first characters, the whole of it as a title."""
    if not digest:
        return NOTHING
    return format_html('<code class="vx-code" title="{}">{}…</code>', digest, digest[:12])


def link(url: str | None, text: str) -> SafeString | str:
    """Return a link, or only its text where there is nothing to go to."""
    return format_html('<a class="vx-link" href="{}">{}</a>', url, text) if url else text


def pretty_json(document: Any) -> str:
    """Return a document, or JSON text, indented for people; text that is no JSON as it is."""
    if isinstance(document, str):
        try:
            document = orjson.loads(document)
        except orjson.JSONDecodeError:
            return str(document)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def _percent(part: Decimal, whole: Decimal) -> str:
    return str((part * _HUNDRED / whole).quantize(_PERCENT))
