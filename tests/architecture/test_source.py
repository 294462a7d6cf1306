"""Rules of style that no linter knows; each is a function that is also shown a violation."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

import pytest

from tests.architecture.source import Source, read_sources

MONEY_ROOMS = ("billing", "enforcement/gate", "valdrix/kernel/money.py")
ROOMS = ("enforcement", "billing", "governance", "telemetry")
NOT_LOCKING = {"aggregate", "count"}
HOLDING_INTERPRETER = {"get_result", "get_copy_data", "send_query"}
READERS = {"Decoder", "json_reader", "converter"}
READING = {"convert", "decode", "json", "Decoder", "*"}
LOOKING = {
    "msgspec.convert",
    "msgspec.msgpack",
    "msgspec.yaml",
    "msgspec.toml",
    "msgspec.inspect",
    "msgspec.json.schema",
    "msgspec.json.schema_components",
}
TRANSACTIONS = {
    "answer_to",
    "atomic",
    "platform_transaction",
    "read_at_once",
    "reading",
    "snapshot_reading",
    "snapshot_together",
    "transaction",
    "transaction_together",
}
DOORS = {"api", "admin", "management"}


def find_locks_that_do_not_lock(source: Source) -> Iterator[str]:
    """Find ``select_for_update().aggregate()`` and ``.count()``, which lock nothing."""
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in NOT_LOCKING
            and "select_for_update" in called_names(node.func.value)
        ):
            yield f"{source.at(node)} {node.func.attr}() does not lock"


def find_locks_elsewhere(source: Source) -> Iterator[str]:
    """Find row locks that are not taken in a function named ``lock…``."""
    for function in source.functions():
        if function.name.lstrip("_").startswith("lock"):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and node.attr == "select_for_update":
                yield f"{source.at(node)} a lock outside a function named lock…"


def find_floats(source: Source) -> Iterator[str]:
    """Find float literals, ``float()`` and annotations with float."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield f"{source.at(node)} the float {node.value}"
        elif isinstance(node, ast.Name) and node.id == "float":
            yield f"{source.at(node)} float"
        elif isinstance(node, ast.Attribute) and node.attr == "FloatField":
            yield f"{source.at(node)} FloatField"


def find_undocumented(source: Source) -> Iterator[str]:
    """Find public functions and classes without a docstring."""
    if not ast.get_docstring(source.tree) and source.text.strip():
        yield f"{source.path} has no docstring"
    for node in source.tree.body:
        public = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if not public or node.name.startswith("_") or is_overload(node):
            continue
        if not ast.get_docstring(node):
            yield f"{source.at(node)} {node.name} has no docstring"


def is_overload(node: ast.stmt) -> bool:
    """Tell whether a definition only adds a signature to the documented one that follows."""
    decorators = getattr(node, "decorator_list", [])
    return any(isinstance(one, ast.Name) and one.id == "overload" for one in decorators)


def find_code_in_room(source: Source) -> Iterator[str]:
    """Find anything but a docstring in the ``__init__`` of an app or a room."""
    if not source.path.endswith("__init__.py") or source.path.startswith("valdrix"):
        return
    if not DOORS.isdisjoint(source.path.split("/")):
        return
    if not ast.get_docstring(source.tree) or len(source.tree.body) != 1:
        yield f"{source.path} holds something else than a docstring"


def find_signals(source: Source) -> Iterator[str]:
    """Find signal receivers: a call says what it calls."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in {"receiver", "post_save", "pre_save", "post_delete", "pre_delete"}:
                yield f"{source.at(node)} the signal {name}"


def find_positional(source: Source) -> Iterator[str]:
    """Find public operations whose calls would not say what each argument is."""
    if not source.path.endswith("operations.py"):
        return
    for node in source.tree.body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        if len(node.args.args) + len(node.args.posonlyargs) > 1:
            yield f"{source.at(node)} {node.name} takes positional arguments"


def find_held_interpreters(source: Source) -> Iterator[str]:
    """Find calls of libpq in which the driver waits for the server and lets no other thread run."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr in HOLDING_INTERPRETER:
            yield f"{source.at(node)} {node.attr}() keeps the interpreter while it waits"


def find_cursors_around_transactions(source: Source) -> Iterator[str]:
    """Find cursors that outlive a transaction begun within: their session is anybody's by then."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.With):
            continue
        opened = [ends_in(item.context_expr) for item in node.items]
        if "cursor" not in opened:
            continue
        after = opened[opened.index("cursor") + 1 :]
        calls = (call for one in node.body for call in ast.walk(one) if isinstance(call, ast.Call))
        within = {*after, *map(ends_in, calls)}
        for name in sorted(TRANSACTIONS & within):
            yield f"{source.at(node)} {name}() within a cursor that outlives it"


def ends_in(node: ast.AST) -> str | None:
    """Return the last name of what is called, or None where nothing is."""
    return ast.unparse(node.func).split(".")[-1] if isinstance(node, ast.Call) else None


def find_types_read_late(source: Source) -> Iterator[str]:
    """Find structs that would be looked at by the threads that are the first to read them."""
    if source.path == "valdrix/kernel/structs.py":
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (f"{source.at(node)} {name} under another name" for name in hidden_in(node))
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in LOOKING:
            yield f"{source.at(node)} {ast.unparse(node)} looks at a type when it is called"
        elif isinstance(node, ast.Call) and reads_a_type(node):
            yield f"{source.at(node)} msgspec.json.decode looks at a type when it is called"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] in READERS:
                    yield f"{source.at(call)} {ast.unparse(call.func)}() is not at a module's top"


def hidden_in(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Give what reads structs and would not be known by its name after an import."""
    module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
    for one in node.names:
        is_library = f"{module}.{one.name}".lstrip(".").startswith("msgspec")
        is_hidden = one.asname is not None or (is_library and one.name in READING)
        if is_hidden and (is_library or one.name in READERS):
            yield one.name


def reads_a_type(call: ast.Call) -> bool:
    """Tell whether ``msgspec.json.decode`` is called, or passed on, with more than a text."""
    has_type = len(call.args) > 1 or bool(call.keywords)
    return has_type and "msgspec.json.decode" in map(ast.unparse, (call.func, *call.args))


def called_names(node: ast.AST) -> set[str]:
    """Return the attributes that a chain of calls goes through."""
    names = set()
    while isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        node = node.func if isinstance(node, ast.Call) else node.value
    return names


Rule = Callable[[Source], Iterator[str]]
RULES: dict[Rule, tuple[str, ...]] = {
    find_locks_that_do_not_lock: (),
    find_locks_elsewhere: (),
    find_floats: MONEY_ROOMS,
    find_undocumented: (),
    find_code_in_room: ROOMS,
    find_signals: (),
    find_positional: ROOMS,
    find_held_interpreters: (),
    find_types_read_late: (),
    find_cursors_around_transactions: (),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_keeps(rule: Rule) -> None:
    assert [line for source in read_sources(*RULES[rule]) for line in rule(source)] == []


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (find_locks_that_do_not_lock, "a.py", "Row.objects.select_for_update().count()"),
        (
            find_locks_that_do_not_lock,
            "a.py",
            "rows.select_for_update(of=('self',)).filter(a=1).order_by('pk').aggregate(Sum('x'))",
        ),
        (find_locks_elsewhere, "a.py", "def get_rows():\n    rows.select_for_update()"),
        (find_floats, "a.py", "limit = 0.1"),
        (find_floats, "a.py", "limit = float(text)"),
        (find_floats, "a.py", "def f(limit: float | None): ..."),
        (find_floats, "a.py", "limit = models.FloatField()"),
        (find_undocumented, "a.py", "def f(): ..."),
        (find_undocumented, "a.py", '"""Text."""\nclass A: ...'),
        (find_code_in_room, "billing/plans/__init__.py", '"""Text."""\nimport os'),
        (find_code_in_room, "billing/plans/__init__.py", ""),
        (find_signals, "a.py", "@receiver(x)\ndef f(): ..."),
        (find_positional, "a/operations.py", "def grant(amount, to, *, now): ..."),
        (find_held_interpreters, "a.py", "pgconn.send_query(text)\nresult = pgconn.get_result()"),
        (find_types_read_late, "a.py", "call = msgspec.json.decode(text, type=Call)"),
        (find_types_read_late, "a.py", "call = msgspec.json.decode(text, Call)"),
        (find_types_read_late, "a.py", "rule = msgspec.convert(values, Rule)"),
        (find_types_read_late, "a.py", "from msgspec import convert"),
        (find_types_read_late, "a.py", "def f(text):\n    return json_reader(Call)(text)"),
        (find_types_read_late, "a.py", "def f(text):\n    msgspec.json.Decoder(Call).decode(text)"),
        (find_types_read_late, "a.py", "read = lambda text: json_reader(Call)(text)"),
        (find_types_read_late, "a.py", "import msgspec as m"),
        (find_types_read_late, "a.py", "import msgspec.json as reading"),
        (find_types_read_late, "a.py", "from msgspec import *"),
        (find_types_read_late, "a.py", "from valdrix.kernel.structs import json_reader as r"),
        (find_types_read_late, "a.py", "read = partial(msgspec.json.decode, type=Call)"),
        (find_types_read_late, "a.py", "make = partial(msgspec.convert, type=Call)"),
        (find_types_read_late, "a.py", "call = msgspec.json.decode(text, **how)"),
        (find_types_read_late, "a.py", "call = msgspec.msgpack.decode(text, type=Call)"),
        (find_types_read_late, "a.py", "msgspec.json.schema(Call)"),
        (
            find_cursors_around_transactions,
            "a.py",
            "with connection.cursor() as cursor, reading(tenant):\n    cursor.execute(text)",
        ),
        (
            find_cursors_around_transactions,
            "a.py",
            "with connection.cursor() as cursor:\n    with db.transaction(tenant):\n        act()",
        ),
    ],
)
def test_a_violation_is_found(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text))) != []


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (find_locks_that_do_not_lock, "list(Row.objects.select_for_update().order_by('pk'))"),
        (find_locks_that_do_not_lock, "Row.objects.count()"),
        (find_locks_elsewhere, "def lock_rows():\n    rows.select_for_update()"),
        (find_floats, "limit = Decimal('0.1')\ncount = 1"),
        (find_undocumented, '"""Text."""\ndef _f(): ...'),
        (find_positional, "def grant(amount, *, to): ..."),
        (find_held_interpreters, "result = pgconn.exec_(text)"),
        (find_types_read_late, "read = json_reader(Call)\ndef f(text):\n    return read(text)"),
        (find_types_read_late, "document = msgspec.json.decode(text)"),
        (
            find_cursors_around_transactions,
            "with transaction(tenant), connection.cursor() as cursor:\n    cursor.execute(text)",
        ),
    ],
)
def test_what_is_right_is_not_found(rule: Rule, text: str) -> None:
    assert list(rule(Source("a/operations.py", text))) == []
