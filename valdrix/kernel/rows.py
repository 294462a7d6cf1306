"""Rows of a table as the server's JSON, read back with the attributes of their model.

A list of fifty rows then takes one value from the server and one pass of a compiled decoder,
where the ORM compiles a statement, the driver loads each cell by itself, and a model is made.

Whoever looks at a list looks at the same rows again and again. What is made of a row's text depends on
nothing else, so that it is made once for as long as the row reads the same (:func:`remembering`), and
so is what is shown of that (:func:`rendering`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

import msgspec
import orjson
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.fields.json import JSONField

ONE_PLAN: Final = (
    "SET plan_cache_mode = force_generic_plan"
    " SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off"
)
"""Of a function of the database that reads a page: one plan for as long as a session lasts, by keys,
so that it stays right however the tables grow meanwhile."""

M = TypeVar("M", bound=models.Model)
T = TypeVar("T")

REMEMBERED_ROWS: Final = 1_024
_SHORT: Final = 4_000
"""Longer rows are read each time: what is remembered has a bound in bytes, too."""

# The first that fits: subclasses come before their bases.
_TYPES: Final[tuple[tuple[type[models.Field[Any, Any]], Any], ...]] = (
    # Ids are compared and shown; to make each a UUID and a text again would cost more than all else.
    (models.UUIDField, str),
    (models.DecimalField, Decimal),
    (models.DateTimeField, datetime),
    (models.DateField, date),
    (models.BooleanField, bool),
    (models.IntegerField, int),
    (models.CharField, str),
    (models.TextField, str),
    (ArrayField, list[Any]),
    (JSONField, Any),
)


class RowsOf(Generic[M]):
    """How the rows of one model travel: as arrays of its columns, in the model's order.

    What comes of one has the attributes of the model's instances, and ``pk``: exact decimals, aware
    moments, ids as their text. It is read-only, and to ask it for a column that was left out is an error.

    :ivar type: what one array is to a decoder of ``msgspec``.
    """

    def __init__(
        self, model: type[M], *, only: Collection[str] | None = None, without: Collection[str] = ()
    ) -> None:
        """Take these columns of a model.

        :param only: None takes all of them but those in ``without``.
        """
        fields = [
            one
            for one in model._meta.concrete_fields
            if one.attname not in without and (only is None or one.attname in only)
        ]
        self._names = [one.attname for one in fields]
        key = model._meta.pk.attname
        self.type: Any = msgspec.defstruct(
            f"{model.__name__}Row",
            [(one.attname, _type_of(one)) for one in fields],
            namespace={"pk": property(lambda row: getattr(row, key))},
            array_like=True,
            frozen=True,
            eq=False,
        )

    def sql(self, alias: str) -> str:
        """Return the expression that makes a row's array."""
        return f"json_build_array({', '.join(f'{alias}.{name}' for name in self._names)})"


def remembering(build: Callable[[bytes], T]) -> Callable[[msgspec.Raw], T]:
    """Return a function of a row that remembers what was made of the text of short ones.

    :param build: makes a value that nobody changes of the text, and of nothing else.
    """
    kept = lru_cache(maxsize=REMEMBERED_ROWS)(build)

    def build_or_find(row: msgspec.Raw) -> T:
        text = bytes(row)
        return kept(text) if len(text) <= _SHORT else build(text)

    return build_or_find


def rendering(render: Callable[[T], Any]) -> Callable[[T], orjson.Fragment]:
    """Return a function that renders a value to JSON, and remembers that for the same object.

    :param render: makes a document of the value, and of nothing else.
    """

    @lru_cache(maxsize=REMEMBERED_ROWS)
    def render_or_find(value: T) -> orjson.Fragment:
        return orjson.Fragment(orjson.dumps(render(value)))

    return render_or_find


def _type_of(field: models.Field[Any, Any]) -> Any:
    if isinstance(field, models.ForeignKey):
        field = field.target_field
    found = next(kind for known, kind in _TYPES if isinstance(field, known))
    return found | None if field.null else found
