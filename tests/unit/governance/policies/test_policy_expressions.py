"""Rules in CEL: what compiles, what an evaluation says, and that none can be made expensive."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from governance.policies.expressions import (
    CONTEXT_FIELDS,
    EVERYTHING,
    INPUT_FIELDS,
    Asked,
    ExpressionError,
    Facts,
    Verdict,
    build_facts,
    compile_expression,
    compile_together,
    evaluate,
    evaluate_together,
)

METADATA = {
    "family": "p5",
    "count": 3,
    "tags": ["gpu", "batch"],
    "owner": {"team": "ml"},
    "on": True,
}


def facts(metadata: Any = METADATA, *, asked: Asked = EVERYTHING, **fields: Any) -> Facts:
    given = {
        "source": "terraform",
        "environment": "nonprod",
        "action": "terraform.apply",
        "estimated_monthly_delta_usd": Decimal("100.1000"),
        "team": None,
        "metadata": metadata,
    }
    known = {"risk_class": "high", "mtd_spend_usd": "12.5000", "risk_factors": []}
    return build_facts(
        input_document={name: it for name, it in (given | fields).items() if name in asked.input},
        context_document={name: it for name, it in known.items() if name in asked.context},
        asked=asked,
    )


def verdict(text: str, *, over: Facts | None = None) -> Verdict:
    """Return what an expression says, which is the same over all facts and over those it names."""
    expression = compile_expression(text)
    if over is not None:
        return evaluate(expression, over)
    found = evaluate(expression, facts())
    assert evaluate(expression, facts(asked=expression.asked)) == found
    return found


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        ("input.environment == 'nonprod' && input.metadata.family == 'p5'", True),
        ("input.environment == 'prod' || input.metadata.family != 'p5'", False),
        ("input.metadata.count >= 3 && input.metadata.count < 4", True),
        ("'gpu' in input.metadata.tags", True),
        ("'family' in input.metadata", True),
        ("input.metadata.family in ['p4', 'p5']", True),
        ("input.metadata['family'].startsWith('p')", True),
        ("input.metadata.owner.team == 'ml'", True),
        ("size(input.metadata.tags) == 2", True),
        ("input.metadata.on", None),
        ("input.metadata.on == true", True),
        ("has(input.metadata.ticket)", False),
        ("!has(input.metadata.ticket) || input.metadata.ticket == ''", True),
        ("input.team == null", True),
        ("context.risk_class in ['high', 'critical']", True),
        ("input.estimated_monthly_delta_usd >= 100.1", True),
        ("input.estimated_monthly_delta_usd > 100.1", False),
        ("input.estimated_monthly_delta_usd > 100", True),
        ("input.estimated_monthly_delta_micros == 100100000", True),
        ("input.estimated_monthly_delta_micros + context.mtd_spend_micros == 112600000", True),
        ("input.dry_run == null ? false : true", False),
        ("true", True),
    ],
)
def test_what_expressions_say(text: str, matched: bool | None) -> None:
    if matched is None:
        with pytest.raises(ExpressionError, match="must be true or false"):
            compile_expression(text)
    else:
        assert verdict(text) == Verdict(matched=matched)


@pytest.mark.parametrize(
    "text",
    [
        "input.metadata.ticket == 'T-1'",
        "input.metadata.ticket != 'T-1'",
        "input.metadata.owner.mail == 'x'",
        "input.metadata['ticket'] == 'T-1'",
        "!(input.metadata.approved == true)",
    ],
)
def test_a_metadata_key_that_is_not_there_is_no_match_and_no_error(text: str) -> None:
    assert verdict(text) == Verdict(matched=False, missing=True)


@pytest.mark.parametrize(
    "text",
    [
        "input.metadata.family > 3",
        "input.metadata.count.x == 1",
        "input.metadata.tags[7] == 'x'",
        "int(input.metadata.family) == 1",
        "input.metadata.count / 0 == 1",
        "input.metadata.count * 9223372036854775807 > 1",
        "input.estimated_hourly_delta_usd > 1.0",
        "input.team.startsWith('a')",
        "input.metadata.family || false",
    ],
)
def test_any_other_failure_is_an_error(text: str) -> None:
    found = verdict(text)

    assert found.matched is False
    assert found.missing is False
    assert found.error


def test_an_unknown_amount_is_an_error_and_never_zero() -> None:
    over = facts(estimated_monthly_delta_usd=None)

    assert verdict("input.estimated_monthly_delta_usd < 10.0", over=over).error
    assert verdict("input.estimated_monthly_delta_micros < 10", over=over).error
    assert verdict("input.estimated_monthly_delta_usd == null", over=over).matched


def test_a_failing_part_does_not_hide_a_certain_one() -> None:
    assert verdict("input.metadata.nope == 1 || input.environment == 'nonprod'").matched
    assert verdict("input.metadata.nope == 1 && input.environment == 'prod'") == Verdict(
        matched=False
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Syntax error"),
        ("input.", "Syntax error"),
        ("input.metadata.family ==", "Syntax error"),
        ("foo == 1", "undeclared reference"),
        ("1.5 > 1", "no matching overload"),
        ("1 + 1", "must be true or false"),
        ("'yes'", "must be true or false"),
        ("input.metadata.x", "must be true or false"),
        ("dyn(true)", "must be true or false"),
        ("input.dry_run == null ? input.metadata.x : false", "must be true or false"),
        ("input.enviroment == 'prod'", "input has no field enviroment"),
        ("context.risk == 'high'", "context has no field risk"),
        ("has(input.meta)", "input has no field meta"),
        ("input == context", "must be followed by a field"),
        ("input['environment'] == 'prod'", "must be followed by a field"),
        ("'a' in input", "must be followed by a field"),
        ("input.metadata.tags.exists(t, t == 'a')", "not available"),
        ("[1, 2].all(x, [3].exists(y, x == y))", "not available"),
        ("input.metadata.tags.map(t, t) == []", "not available"),
        ("{'a': 1}['a'] == 1", "not available"),
        ("input.metadata.family.matches('(a+)+$')", "matches is not available"),
        ("timestamp('2026-01-01T00:00:00Z') == timestamp('2026-01-01T00:00:00Z')", "not available"),
        ("type(1) == int", "must be followed by a field"),
        ("[input.team, 'a'] == []", "literals only"),
        ("input.metadata.a.contains(input.metadata.b)", "contains takes a literal"),
        ("input.metadata.a.contains('" + "a" * 65 + "')", "contains takes a literal"),
        ("input.team == 'a\x00b'", "unprintable"),
        ("input.team == '\ud800'", "unprintable"),
        ("true" + " " * 997, "at most 1000 characters"),
        ("(" * 100 + "true" + ")" * 100, "recursion"),
        ("&&".join(["1<2"] * 190), "at most 200"),
        (" || ".join(["'x' in input.metadata.l"] * 5), "could take too long"),
        (" || ".join(["input.metadata.a == input.metadata.b"] * 3), "could take too long"),
        ("input.metadata.l" + " + [1]" * 3 + " == [1]", "could take too long"),
    ],
)
def test_what_does_not_compile(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message) as caught:
        compile_expression(text)
    assert "\n" not in str(caught.value)


def test_every_known_field_is_there_and_unknown_ones_are_refused() -> None:
    nothing = build_facts(input_document={}, context_document={})
    for variable, names in (("input", INPUT_FIELDS), ("context", CONTEXT_FIELDS)):
        for name in names:
            assert verdict(f"{variable}.{name} == null", over=nothing) == Verdict(matched=True)
    with pytest.raises(ValueError, match="do not know"):
        build_facts(input_document={"cost": {}}, context_document={})


@pytest.mark.parametrize(
    ("text", "of_input", "of_context"),
    [
        ("true", set(), set()),
        ("has(input.metadata.ticket) || input.team == null", {"metadata", "team"}, set()),
        (
            "input.estimated_monthly_delta_micros > 1 && context.mtd_spend_usd > 1.0",
            {"estimated_monthly_delta_usd", "estimated_monthly_delta_micros"},
            {"mtd_spend_usd", "mtd_spend_micros"},
        ),
        (
            "'p' in input.metadata.tags ? input.dry_run == true : false",
            {"metadata", "dry_run"},
            set(),
        ),
    ],
)
def test_an_expression_tells_what_it_asks_for(
    text: str, of_input: set[str], of_context: set[str]
) -> None:
    assert compile_expression(text).asked == Asked(frozenset(of_input), frozenset(of_context))


def test_several_expressions_ask_for_what_each_does() -> None:
    texts = ("input.team == null", "context.risk_class == 'high'", "input.dry_run == true")
    assert compile_together(texts).asked == Asked(
        frozenset({"team", "dry_run"}), frozenset({"risk_class"})
    )


TRUE = "input.environment == 'nonprod'"
FALSE = "input.environment == 'prod' // and no more"
MISSING = "input.metadata.ticket == 'T-1'"
FAILING = "input.metadata.count / 0 == 1"
CHOOSING = "input.environment == 'prod' ? false : true"
DEEP = "!(" * 28 + TRUE + ")" * 28
"""As deep as the compiler goes, with nothing around it."""


@pytest.mark.parametrize(
    "texts",
    [
        (TRUE,),
        (TRUE, FALSE),
        (FALSE, TRUE, CHOOSING, TRUE, FALSE),
        (TRUE, MISSING, FALSE),
        (FAILING, TRUE, MISSING, FALSE),
        (TRUE, TRUE, TRUE),
        (FALSE,) * 61 + (TRUE,),
        (TRUE,) * 62,
        (TRUE,) * 63,
        (FALSE, TRUE) * 50,
        (DEEP, FALSE),
        (f"{TRUE} || input.team == '{'x' * 900}'",) * 10,
    ],
    ids=lambda texts: f"{len(texts)} of {len(''.join(texts))}",
)
def test_expressions_say_the_same_together(texts: tuple[str, ...]) -> None:
    """In one program or apart, where one fails or they are too many or too long."""
    together = compile_together(texts)
    for over in (facts(), facts(asked=together.asked)):
        found = evaluate_together(together, over)
        assert found == [evaluate(compile_expression(text), over) for text in texts]


@pytest.mark.parametrize(
    ("texts", "is_one"),
    [
        ((TRUE,), False),
        ((TRUE, FALSE), True),
        ((TRUE,) * 62, True),
        ((TRUE,) * 63, False),
        ((DEEP, FALSE), False),
        ((f"{TRUE} || input.team == '{'x' * 900}'",) * 8, True),
        ((f"{TRUE} || input.team == '{'x' * 900}'",) * 9, False),
    ],
    ids=lambda it: str(it) if isinstance(it, bool) else f"{len(it)} of {len(''.join(it))}",
)
def test_what_is_one_program(texts: tuple[str, ...], is_one: bool) -> None:
    assert (compile_together(texts).program is not None) is is_one


def test_no_text_reaches_beyond_its_own_place() -> None:
    for text in ("true) || (true", "true) ? 1 : 0) + ((true", "true // ", "true\n"):
        try:
            compile_expression(text)
        except ExpressionError:
            with pytest.raises(ExpressionError):
                compile_together((TRUE, text))
        else:
            found = evaluate_together(compile_together((FALSE, text, FALSE)), facts())
            assert found == [Verdict(matched=False), Verdict(matched=True), Verdict(matched=False)]


def test_facts_made_for_others_are_an_error_of_those_alone_that_lack_a_field() -> None:
    others = facts(asked=compile_expression(TRUE).asked)
    first, second = evaluate_together(compile_together((TRUE, MISSING)), others)
    assert first == Verdict(matched=True)
    assert second.error == "the facts lack a field that it names"


def test_facts_that_were_made_for_others_are_an_error_and_no_missing_key() -> None:
    others = facts(asked=compile_expression("input.team == null").asked)
    assert verdict("input.team == null", over=others) == Verdict(matched=True)
    for text in ("input.metadata.family == 'x'", "context.risk_class == 'x'"):
        found = verdict(text, over=others)
        assert (found.matched, found.missing) == (False, False)
        assert found.error == "the facts lack a field that it names"
    with pytest.raises(ValueError, match="do not know the field 'action'"):
        build_facts(input_document={"action": "x"}, context_document={}, asked=others.asked)


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_texts_that_the_binding_would_cut_or_choke_on_are_refused(text: str) -> None:
    for metadata in ({"k": text}, {text: 1}, {"l": [{"m": text}]}):
        with pytest.raises(ValueError, match=r"NUL|surrogates"):
            facts(metadata)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (2**70, "input.metadata.n > 1000000.0"),
        (Decimal("0.5"), "input.metadata.n == 0.5"),
        (-(2**63), "input.metadata.n == -9223372036854775808"),
    ],
)
def test_numbers_of_metadata(number: Any, text: str) -> None:
    assert verdict(text, over=facts({"n": number})) == Verdict(matched=True)


@pytest.mark.parametrize(
    ("amount", "literal", "is_at_least"),
    [
        ("0.0001", "0.0001", True),
        ("99999999999.9999", "99999999999.9999", True),
        ("99999999999.9998", "99999999999.9999", False),
        ("1000000000000.0000", "1000000000000.0", True),
        ("0.3000", "0.3", True),
    ],
)
def test_amounts_compare_exactly_with_literals(
    amount: str, literal: str, is_at_least: bool
) -> None:
    over = facts(estimated_monthly_delta_usd=Decimal(amount))

    assert (
        verdict(f"input.estimated_monthly_delta_usd >= {literal}", over=over).matched is is_at_least
    )


HOSTILE_METADATA = {
    "ones": {"l": [1] * 7900},
    "maps": {"l": [{}] * 5400},
    "keys": {f"k{number:04d}": number for number in range(1200)},
    "text": {"t": "a" * 16_000},
}
HOSTILE_EXPRESSIONS = [
    " && ".join(["!(7 in input.metadata.l)"] * 4),
    " && ".join(["input.metadata.l == input.metadata.l"] * 2),
    "input.metadata.l + input.metadata.l == input.metadata.l",
    "input.metadata.l" + " + [1]" * 2 + " == [1]",
    " && ".join(["input.metadata == input.metadata"] * 2),
    " || ".join(["input.metadata.t.contains('" + "a" * 63 + "b')"] * 4),
    " && ".join(["size(input.metadata.t) > 1"] * 4),
    " && ".join(["string(input.metadata.t) != ''"] * 4),
    " && ".join(["input.metadata.t <= input.metadata.t"] * 24),
    "input.metadata.t" + " + 'aaaaaaaaaaaa'" * 20 + " == 'b'",
    " && ".join(["input.metadata.k0007 == 7"] * 30),
]


@pytest.mark.parametrize("metadata", HOSTILE_METADATA)
def test_no_expression_costs_much_more_than_to_read_a_list(metadata: str) -> None:
    """A millisecond is twice to four times as long as it takes to read 7,900 numbers."""
    over = facts(HOSTILE_METADATA[metadata])
    floor = _seconds_of_reading()
    for text in HOSTILE_EXPRESSIONS:
        compiled = compile_expression(text)
        best = min(_seconds(partial(evaluate, compiled, over)) for _ in range(25))
        assert best < 8 * floor, text


def test_facts_of_the_largest_metadata_are_cheap_to_make() -> None:
    def judge(metadata: Any) -> None:
        verdict("input.environment == 'prod'", over=facts(metadata))

    floor = _seconds_of_reading()
    for metadata in HOSTILE_METADATA.values():
        assert min(_seconds(partial(judge, metadata)) for _ in range(5)) < 60 * floor


def _seconds_of_reading() -> float:
    text = json.dumps(HOSTILE_METADATA["ones"])
    return min(_seconds(partial(json.loads, text)) for _ in range(25))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_compiled_expressions_are_kept_by_text_and_bounded() -> None:
    assert compile_expression("input.team == 'x'") is compile_expression("input.team == 'x'")
    assert compile_expression.cache_info().maxsize == 1024


def test_threads_agree() -> None:
    compile_expression.cache_clear()
    texts = [f"input.metadata.n == {number} && input.metadata.n > -1" for number in range(8)]

    def work(worker: int) -> bool:
        over = facts({"n": worker % 8})
        return all(
            evaluate(compile_expression(text), over).matched is (number == worker % 8)
            for _ in range(50)
            for number, text in enumerate(texts)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))


def test_nulls_do_not_wear_out() -> None:
    over = facts({"n": None})
    compiled = compile_expression("input.metadata.n == null && input.team == null")
    before = sys.getrefcount(None)
    for _ in range(5000):
        assert evaluate(compiled, over).matched
    assert abs(sys.getrefcount(None) - before) < 1000
