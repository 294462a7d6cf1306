"""How JSON and plain values become structs, safely in many threads.

The library of structs looks at a type's fields when it first reads one, runs Python meanwhile, and lets
other threads find what is only half filled: two threads that are the first to read a type can end the
whole process. Here types are looked at when the module that reads them is imported, which one
thread does; the source is held to it by a rule (``tests/architecture``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def json_reader(kind: type[T]) -> Callable[[bytes | str], T]:
    """Return what reads JSON as a type; for the top of a module.

    :param kind: a struct, or a container of structs.

    What it returns raises ``msgspec.DecodeError`` for what is no JSON or not of the type.
    """
    return msgspec.json.Decoder(kind).decode


def converter(kind: type[T]) -> Callable[[Any], T]:
    """Return what makes a type's value of mappings and plain values; for the top of a module.

    What it returns raises ``msgspec.ValidationError`` for what is not of the type.
    """
    msgspec.json.Decoder(kind)  # looks at the type and at all that it is made of

    def convert(value: Any) -> T:
        return msgspec.convert(value, kind)

    return convert
