"""The syntax tree of a rule's expression, read from the compiler's own serialised form.

The compiler offers no cost limit and no visitor, but it serialises what it compiled as a
``cel.expr.CheckedExpr`` (the CEL specification's ``checked.proto`` and ``syntax.proto``). Only
the few fields that the limits of ``expressions.py`` look at are read here; anything unknown is
a node of kind ``other``, which is refused there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

LITERAL: Final = "literal"
NAME: Final = "name"
SELECT: Final = "select"
CALL: Final = "call"
LIST: Final = "list"
MAP: Final = "map"
LOOP: Final = "loop"
OTHER: Final = "other"

_KIND_BY_FIELD: Final = {
    3: LITERAL, 4: NAME, 5: SELECT, 6: CALL, 7: LIST, 8: MAP, 9: LOOP,
}  # fmt: skip
_ANY_VALUE: Final = 2
_CHECKED_EXPRESSION: Final = 4
_CONSTANT_STRING: Final = 6


class SyntaxTreeError(ValueError):
    """The compiler's serialised form is not what the CEL specification says."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One node of an expression.

    :ivar text: a name's or function's name, a selected field, a literal string; else empty.
    :ivar children: a call's target (if any) and arguments, a selection's operand, a list's
        elements.
    :ivar is_member_call: whether the first child of a call is its target.
    """

    kind: str
    text: str = ""
    children: tuple[Node, ...] = ()
    is_member_call: bool = False

    def walk(self) -> Iterator[Node]:
        """Yield this node and every node below it."""
        open_nodes = [self]
        while open_nodes:
            node = open_nodes.pop()
            yield node
            open_nodes.extend(node.children)


def read_tree(serialised: bytes) -> Node:
    """Return the tree inside a serialised compiled expression.

    :raises SyntaxTreeError: when the bytes are not a checked expression.
    """
    try:
        checked = _only(serialised, _ANY_VALUE)
        return _read_node(_only(checked, _CHECKED_EXPRESSION))
    except (IndexError, UnicodeDecodeError) as error:
        raise SyntaxTreeError("not a checked expression") from error


def _read_node(message: bytes) -> Node:
    for number, value in _fields(message):
        if number in _KIND_BY_FIELD and isinstance(value, bytes):
            return _READERS[_KIND_BY_FIELD[number]](value)
    return Node(kind=OTHER)


def _read_literal(message: bytes) -> Node:
    for number, value in _fields(message):
        if number == _CONSTANT_STRING and isinstance(value, bytes):
            return Node(kind=LITERAL, text=value.decode())
    return Node(kind=LITERAL)


def _read_name(message: bytes) -> Node:
    return Node(kind=NAME, text=_only(message, 1).decode())


def _read_select(message: bytes) -> Node:
    operand, field = _only(message, 1), _only(message, 2)
    return Node(kind=SELECT, text=field.decode(), children=(_read_node(operand),))


def _read_call(message: bytes) -> Node:
    target, arguments = _all(message, 1), _all(message, 3)
    return Node(
        kind=CALL,
        text=_only(message, 2).decode(),
        children=tuple(_read_node(part) for part in (*target, *arguments)),
        is_member_call=bool(target),
    )


def _read_list(message: bytes) -> Node:
    return Node(kind=LIST, children=tuple(_read_node(part) for part in _all(message, 1)))


_READERS: Final[dict[str, Callable[[bytes], Node]]] = {
    LITERAL: _read_literal,
    NAME: _read_name,
    SELECT: _read_select,
    CALL: _read_call,
    LIST: _read_list,
    MAP: lambda _: Node(kind=MAP),
    LOOP: lambda _: Node(kind=LOOP),
}


def _all(message: bytes, wanted: int) -> list[bytes]:
    return [
        value for number, value in _fields(message) if number == wanted and isinstance(value, bytes)
    ]


def _only(message: bytes, wanted: int) -> bytes:
    found = _all(message, wanted)
    if len(found) != 1:
        raise SyntaxTreeError(f"field {wanted} occurs {len(found)} times")
    return found[0]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of one protocol buffer message: number, and integer or bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        value: int | bytes
        if wire_type == 0:
            value, position = _varint(message, position)
        elif wire_type in (1, 5):
            end = position + (8 if wire_type == 1 else 4)
            value, position = message[position:end], end
        elif wire_type == 2:
            length, position = _varint(message, position)
            value, position = message[position : position + length], position + length
        else:
            raise SyntaxTreeError(f"wire type {wire_type}")
        yield number, value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
