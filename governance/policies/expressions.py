"""Custom rules in CEL: compiled once, checked for cost before they are published, then evaluated.

An expression has no loops, no regular expressions and no map literals, so that one evaluation
costs at most its own length times the size of the metadata (docs/adr/0004-rule-expressions.md).
Evaluation is a pure function of the expression and the facts.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import msgspec
from cel_expr_python import cel  # type: ignore[import-untyped]  # ships no py.typed

from governance.policies import syntax
from governance.policies.syntax import Node

MAX_LENGTH: Final = 1000
MAX_NODES: Final = 200
MAX_SCANS: Final = 4
MAX_SEARCH_TEXT: Final = 64
"""How long a text may be that ``contains`` looks for."""
_MAX_DETAIL: Final = 300
_MAX_TOGETHER: Final = 62
"""Expressions that have a bit of a 64-bit number."""
_MAX_LENGTH_TOGETHER: Final = 8_000

AMOUNT_FIELDS: Final = frozenset(
    {
        "estimated_monthly_delta_usd",
        "estimated_hourly_delta_usd",
        "mtd_spend_usd",
        "burn_rate_daily_usd",
        "forecast_eom_usd",
        "anomaly_delta_usd",
    }
)
"""Amounts: each comes as a number and, exactly, as whole micro-dollars (``…_micros``)."""
_USD: Final = "_usd"
_MICROS: Final = "_micros"


def _with_micros(*names: str) -> tuple[str, ...]:
    amounts = [name.removesuffix(_USD) + _MICROS for name in names if name in AMOUNT_FIELDS]
    return (*names, *amounts)


INPUT_FIELDS: Final = _with_micros(
    "source",
    "project_id",
    "environment",
    "environment_original",
    "action",
    "resource_reference",
    "estimated_monthly_delta_usd",
    "estimated_hourly_delta_usd",
    "cost_state",
    "cost_state_reasons",
    "team",
    "metadata",
    "actor",
    "change_digest",
    "change_digest_is_computed",
    "parent_decision_id",
    "run_id",
    "stage",
    "dry_run",
)
CONTEXT_FIELDS: Final = _with_micros(
    "mtd_spend_usd",
    "burn_rate_daily_usd",
    "forecast_eom_usd",
    "anomaly_kind",
    "anomaly_delta_usd",
    "anomaly_percent",
    "risk_class",
    "risk_score",
    "risk_factors",
    "context_version",
    "generated_at",
    "month_start",
    "month_end",
    "month_elapsed_days",
    "month_total_days",
    "observed_cost_days",
    "latest_cost_date",
    "data_source_mode",
)
_FIELDS_BY_VARIABLE: Final = {
    "input": frozenset(INPUT_FIELDS),
    "context": frozenset(CONTEXT_FIELDS),
}

_AMOUNT_BY_MICROS: Final = {name.removesuffix(_USD) + _MICROS: name for name in AMOUNT_FIELDS}

_EQUALITY: Final = frozenset({"_==_", "_!=_"})
_OPERATORS: Final = frozenset(
    {"_&&_", "_||_", "!_", "_?_:_", "_<_", "_<=_", "_>_", "_>=_", "@in"}
    | {"_+_", "_-_", "_*_", "_/_", "_%_", "-_", "_[_]"}
    | _EQUALITY
)
FUNCTIONS: Final = ("contains", "double", "endsWith", "int", "size", "startsWith", "string")
_SCANNING: Final = frozenset({"contains", "double", "int", "size", "string"})
_MISSING: Final = "NOT_FOUND: Key not found in map"
_INT64_LIMIT: Final = 2**63


class ExpressionError(ValueError):
    """A text is not an expression that a rule may hold; the message says why."""

    code = "invalid_expression"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one evaluation said.

    :ivar matched: True when the expression was true. False when it was false, when it asked for
        a metadata key that is not there, and when it failed.
    :ivar missing: the expression asked for a metadata key that is not there.
    :ivar error: why it could not be evaluated; whoever decides takes that as a match.
    """

    matched: bool
    missing: bool = False
    error: str | None = None


class Asked(msgspec.Struct, frozen=True):
    """The fields of ``input`` and ``context`` that expressions name; an amount comes in both forms."""

    input: frozenset[str]
    context: frozenset[str]

    def covers(self, other: Asked) -> bool:
        """Tell whether all of another's fields are among these."""
        return self.input >= other.input and self.context >= other.context


EVERYTHING: Final = Asked(frozenset(INPUT_FIELDS), frozenset(CONTEXT_FIELDS))


class Expression:
    """One compiled expression; immutable, and safe to evaluate from several threads."""

    __slots__ = ("asked", "program", "text")

    def __init__(self, text: str, program: cel.Expression, asked: Asked) -> None:
        self.text = text
        self.program = program
        self.asked = asked


class Together:
    """The expressions of one policy, and the fields that they name.

    :ivar program: gives a whole number with a bit for each expression that is true, or an error where
        one of them gives one; None where they are too many or too long for one program.
    """

    __slots__ = ("asked", "expressions", "program")

    def __init__(self, expressions: tuple[Expression, ...], program: cel.Expression | None) -> None:
        self.expressions = expressions
        self.asked = Asked(
            frozenset().union(*(one.asked.input for one in expressions)),
            frozenset().union(*(one.asked.context for one in expressions)),
        )
        self.program = program


class Facts:
    """What expressions are evaluated over, made once for a request and used by all its rules."""

    __slots__ = ("activation", "asked")

    def __init__(self, activation: cel.Activation, asked: Asked) -> None:
        self.activation = activation
        self.asked = asked


_MATCHED: Final = Verdict(matched=True)
_NOT_MATCHED: Final = Verdict(matched=False)
_ASKED_FOR_MISSING: Final = Verdict(matched=False, missing=True)
_ASKED_TOO_LITTLE: Final = Verdict(matched=False, error="the facts lack a field that it names")


def _new_environment() -> cel.Env:
    anything = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    return cel.NewEnv(variables={"input": anything, "context": anything})


_ENVIRONMENT: Final = _new_environment()
_BOOL: Final = cel.Type.BOOL
_INT: Final = cel.Type.INT
_COMPILER_LOCK: Final = threading.Lock()


@lru_cache(maxsize=1024)
def compile_expression(text: str) -> Expression:
    """Return the compiled form of a rule's ``when``, from a bounded cache by text.

    :raises ExpressionError: when it does not compile, is not bool, names an unknown field, or
        could cost too much.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"must have at most {MAX_LENGTH} characters")
    if not text.replace("\n", " ").replace("\t", " ").isprintable():
        raise ExpressionError("must not hold control or other unprintable characters")
    # The library builds its compiler and its runtime on first use, without a lock of its own:
    # the evaluation below is that first use for each program.
    with _COMPILER_LOCK:
        try:
            program = _ENVIRONMENT.compile(text)
            returns, tree = program.return_type(), syntax.read_tree(program.serialize())
        except (RuntimeError, syntax.SyntaxTreeError) as error:
            raise ExpressionError(_readable(str(error))) from None
        if returns != cel.Type.BOOL:
            raise ExpressionError(
                f"must be true or false, but is {returns.name().lower()};"
                " compare it with something, such as == true"
            )
        _check_tree(tree)
        expression = Expression(text, program, _asked_by(tree))
        evaluate(expression, _NO_FACTS)
    return expression


def compile_together(texts: tuple[str, ...]) -> Together:
    """Return the compiled form of the rules of one policy; for the caller to keep.

    :raises ExpressionError: as :func:`compile_expression`.
    """
    expressions = tuple(map(compile_expression, texts))
    if not 1 < len(texts) <= _MAX_TOGETHER or sum(map(len, texts)) > _MAX_LENGTH_TOGETHER:
        return Together(expressions, None)
    bits = [f"(({text}\n) ? {1 << place} : 0)" for place, text in enumerate(texts)]
    with _COMPILER_LOCK:
        try:
            program = _ENVIRONMENT.compile(_sum_of(bits))
            program.eval(_NO_FACTS.activation)
        except RuntimeError:
            # Each compiled by itself: what the compiler does not take as one is evaluated so, too.
            program = None
    return Together(expressions, program)


def _sum_of(terms: list[str]) -> str:
    """Return the sum of some terms, no deeper than it has to be: the compiler goes 32 levels down."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return f"({_sum_of(terms[:half])} + {_sum_of(terms[half:])})"


def evaluate_together(together: Together, facts: Facts) -> list[Verdict]:
    """Return what each of several expressions says about the facts, as :func:`evaluate` does.

    Most often none of them fails, and one evaluation says it of all.
    """
    bits = _bits_of(together, facts)
    if bits is None:
        return [evaluate(expression, facts) for expression in together.expressions]
    places = range(len(together.expressions))
    return [_MATCHED if bits >> place & 1 else _NOT_MATCHED for place in places]


def _bits_of(together: Together, facts: Facts) -> int | None:
    """Return a bit for each expression that is true; None where one fails, or all are asked apart."""
    if together.program is None or not facts.asked.covers(together.asked):
        return None
    try:
        result = together.program.eval(facts.activation)
        return int(result.value()) if result.type() == _INT else None
    except Exception:  # noqa: BLE001 - each is asked by itself then, and says what it is
        return None


def evaluate(expression: Expression, facts: Facts) -> Verdict:
    """Return what an expression says about the facts; never raises.

    A metadata key that is not there is no match and no error (``has(input.metadata.x)`` asks
    for it); any other failure sets ``error``, and the gate then takes the rule as matched. So do facts
    that were made for other expressions and lack a field.
    """
    if not facts.asked.covers(expression.asked):
        return _ASKED_TOO_LITTLE
    try:
        result = expression.program.eval(facts.activation)
        # Only bools, and whole numbers above, are ever turned into Python objects: the binding drops
        # a reference to None each time that it converts CEL's null.
        if result.type() == _BOOL:
            return _MATCHED if result.value() else _NOT_MATCHED
        is_error = result.type() == cel.Type.ERROR
        detail = repr(result) if is_error else "the result is not true or false"
    except Exception as error:  # noqa: BLE001 - whatever it is, the strict side is taken
        detail = str(error)
    if detail.startswith(_MISSING):
        return _ASKED_FOR_MISSING
    return Verdict(matched=False, error=detail[:_MAX_DETAIL])


def build_facts(
    *,
    input_document: Mapping[str, Any],
    context_document: Mapping[str, Any],
    asked: Asked = EVERYTHING,
) -> Facts:
    """Return the facts that a request's rules see; every field asked for is there, null if not given.

    :param input_document: names of ``INPUT_FIELDS``; amounts as ``Decimal``, decimal text or
        None.
    :param context_document: names of ``CONTEXT_FIELDS``, likewise.
    :param asked: the fields that the expressions name.
    :raises ValueError: for a field that nobody asked for, NUL or a lone surrogate.
    """
    return Facts(
        _ENVIRONMENT.Activation(
            {
                "input": _facts_of(input_document, asked.input),
                "context": _facts_of(context_document, asked.context),
            }
        ),
        asked,
    )


def _facts_of(document: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    facts: dict[str, Any] = dict.fromkeys(names)
    for name, value in document.items():
        if name not in names:
            raise ValueError(f"expressions do not know the field {name!r}")
        if value is None:
            continue
        if name in AMOUNT_FIELDS:
            amount = Decimal(value)
            # A double is exact enough to compare an amount with a literal: rounding to the
            # nearest keeps order, and 15 digits apart never meet. Sums belong to the micros.
            facts[name] = float(amount)
            facts[name.removesuffix(_USD) + _MICROS] = int(amount.scaleb(6))
        else:
            facts[name] = _plain(value)
    return facts


def _plain(value: Any) -> Any:
    """Return a JSON value in types that the binding converts without loss or harm."""
    kind = type(value)
    if kind is str:
        # The binding reads C strings: it would cut at a NUL and fall over a lone surrogate.
        if "\x00" in value:
            raise ValueError("a text holds NUL")
        if not value.isascii():
            value.encode()
        return value
    if value is None or kind is bool or kind is float:
        return value
    if kind is int:
        return value if -_INT64_LIMIT <= value < _INT64_LIMIT else float(value)
    if kind is Decimal:
        return float(value)
    if kind is dict:
        return {_plain(key): _plain(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_plain(item) for item in value]
    raise ValueError(f"a fact has the type {kind.__name__}")


_NO_FACTS: Final = build_facts(input_document={}, context_document={})


def _readable(message: str) -> str:
    """Return the compiler's message without its status words and picture of the source."""
    first = message.partition("\n")[0]
    text = first.removeprefix("INVALID_ARGUMENT: ").removeprefix("CANCELLED: ")
    return text.removeprefix("ERROR: <input>:").strip()[:_MAX_DETAIL]


def _asked_by(tree: Node) -> Asked:
    named: dict[str, set[str]] = {variable: set() for variable in _FIELDS_BY_VARIABLE}
    for node in tree.walk():
        if node.kind == syntax.SELECT and node.children[0].kind == syntax.NAME:
            amount = _AMOUNT_BY_MICROS.get(node.text, node.text)
            named[node.children[0].text].update(_with_micros(amount))
    return Asked(frozenset(named["input"]), frozenset(named["context"]))


def _check_tree(tree: Node) -> None:
    nodes = list(tree.walk())
    if len(nodes) > MAX_NODES:
        raise ExpressionError(f"has {len(nodes)} parts; at most {MAX_NODES} are allowed")
    selected = {id(node.children[0]) for node in nodes if node.kind == syntax.SELECT}
    for node in nodes:
        _check_node(node, is_selected=id(node) in selected)
    scans = sum(_scans(node) for node in nodes)
    if scans > MAX_SCANS:
        raise ExpressionError(
            "could take too long: each in, contains, size, string, int and double counts 1, each"
            f" ==, != and + of two fields counts 2; together {scans}, at most {MAX_SCANS} are"
            " allowed. Make two rules of it"
        )


def _check_node(node: Node, *, is_selected: bool) -> None:
    if node.kind == syntax.NAME:
        if node.text not in _FIELDS_BY_VARIABLE or not is_selected:
            raise ExpressionError(f"{node.text} must be followed by a field, as in input.action")
    elif node.kind == syntax.SELECT:
        _check_field(node)
    elif node.kind == syntax.CALL:
        _check_call(node)
    elif node.kind == syntax.LIST:
        if any(child.kind != syntax.LITERAL for child in node.children):
            raise ExpressionError("a list must hold literals only")
    elif node.kind == syntax.LOOP:
        raise ExpressionError("all, exists, exists_one, map and filter are not available in rules")
    elif node.kind == syntax.MAP:
        raise ExpressionError("map and message literals are not available in rules")
    elif node.kind != syntax.LITERAL:
        raise ExpressionError("holds something that is not available in rules")


def _check_field(node: Node) -> None:
    operand = node.children[0]
    known = _FIELDS_BY_VARIABLE.get(operand.text) if operand.kind == syntax.NAME else None
    if known is not None and node.text not in known:
        raise ExpressionError(f"{operand.text} has no field {node.text}")


def _check_call(node: Node) -> None:
    if node.text not in _OPERATORS and node.text not in FUNCTIONS:
        raise ExpressionError(f"the function {node.text} is not available in rules")
    if node.text == "contains":
        sought = node.children[-1]
        if sought.kind != syntax.LITERAL or len(sought.text) > MAX_SEARCH_TEXT:
            raise ExpressionError(
                f"contains takes a literal text of at most {MAX_SEARCH_TEXT} characters"
            )


def _scans(node: Node) -> int:
    """Return how often a node may walk over a whole value of the metadata."""
    if node.kind != syntax.CALL:
        return 0
    if node.text == "@in":
        return 0 if node.children[-1].kind == syntax.LIST else 1
    kinds = {child.kind for child in node.children}
    if node.text in _EQUALITY:
        return 0 if kinds & {syntax.LITERAL, syntax.LIST} else 2
    if node.text == "_+_":
        return 0 if syntax.LITERAL in kinds else 2
    return 1 if node.text in _SCANNING else 0
