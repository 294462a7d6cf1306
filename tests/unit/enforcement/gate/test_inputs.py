"""The question: costs, amounts and the two fingerprints (SPEC 2, 3.1, 3.2)."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcement.gate.decision import encode
from enforcement.gate.inputs import DeltaMismatch, GateInput, build_cost, normalise
from tests.builders import a_context, a_cost, a_request, an_input, usd
from valdrix.kernel import strict_json
from valdrix.kernel.canonical import NotCanonicalError
from valdrix.kernel.money import AmountError

DECISIONS = Path(__file__).parents[4] / "docs" / "decisions.md"


@pytest.mark.parametrize(
    ("monthly", "hourly", "expected"),
    [
        ("730", None, ("730.0000", "1.000000")),
        (None, "1", ("730.0000", "1.000000")),
        ("100", None, ("100.0000", "0.136986")),
        (None, "0.136986", ("99.9998", "0.136986")),
        ("-100", None, ("-100.0000", "-0.136986")),
        (None, "-0.000001", ("-0.0007", "-0.000001")),
        ("0", None, ("0.0000", "0.000000")),
        ("100.0000", "0.136986", ("100.0000", "0.136986")),
    ],
)
def test_the_missing_delta_follows_from_730_hours(
    monthly: str | None, hourly: str | None, expected: tuple[str, str]
) -> None:
    cost = build_cost(
        monthly=None if monthly is None else Decimal(monthly),
        hourly=None if hourly is None else Decimal(hourly),
    )
    assert cost.state == "known"
    assert (cost.monthly_delta_usd, cost.hourly_delta_usd) == tuple(map(Decimal, expected))


def test_with_neither_the_cost_is_unknown_and_not_zero() -> None:
    cost = build_cost(monthly=None, hourly=None)
    assert (cost.state, cost.reasons) == ("unknown", ("no_estimate",))
    assert (cost.monthly_delta_usd, cost.hourly_delta_usd) == (None, None)


@pytest.mark.parametrize(
    ("monthly", "hourly", "agrees"),
    [
        ("730.0004", "1.000000", True),
        ("730.0005", "1.000000", False),
        ("729.9996", "1.000000", True),
        ("729.9995", "1.000000", False),
        ("-730", "1.000000", False),
        ("0", "0.000001", False),
    ],
)
def test_two_deltas_agree_within_rounding(monthly: str, hourly: str, *, agrees: bool) -> None:
    if agrees:
        assert build_cost(monthly=Decimal(monthly), hourly=Decimal(hourly)).state == "known"
        return
    with pytest.raises(DeltaMismatch) as caught:
        build_cost(monthly=Decimal(monthly), hourly=Decimal(hourly))
    assert caught.value.code == "delta_mismatch"
    assert [error.pointer for error in caught.value.errors] == ["/estimated_monthly_delta_usd"]


@given(units=st.integers(-(10**15), 10**15))
def test_a_derived_delta_always_agrees_with_its_source(units: int) -> None:
    monthly = Decimal(units).scaleb(-4)
    derived = build_cost(monthly=monthly, hourly=None)
    assert build_cost(monthly=monthly, hourly=derived.hourly_delta_usd).state == "known"


def test_an_hourly_delta_whose_month_no_column_holds_is_refused() -> None:
    with pytest.raises(AmountError):
        build_cost(monthly=None, hourly=Decimal(10**10))


@pytest.mark.parametrize(
    ("cost", "amount"),
    [(a_cost("5"), "5"), (a_cost("-5"), "0"), (a_cost(0), "0"), (a_cost(None), "0")],
)
def test_a_saving_and_an_unknown_cost_add_nothing(cost: Any, amount: str) -> None:
    assert an_input(cost=cost).amount_usd == usd(amount)


FULL = a_request(
    team="web",
    metadata={"family": "p5"},
    change_digest="sha256:1",
    parent_decision_id="00000000-0000-7000-8000-000000000077",
)
REQUEST_ONLY = {
    "source": "k8s_admission",
    "cost": a_cost("100.0001"),
    "team": "data",
    "metadata": {"family": "t3"},
    "parent_decision_id": None,
}
OF_BOTH = {
    "project_id": "shop2",
    "action": "terraform.destroy",
    "resource_reference": "module.other",
    "change_digest": "sha256:2",
}
OF_NEITHER = {
    "idempotency_key": "k",
    "idempotency_namespace": "surface",
    "retry_seconds": 60,
    "expected_request_fingerprint": "0" * 64,
    "dry_run": True,
    "actor": "key:other",
    "run_id": "run-1",
    "stage": "post_plan",
    "change_digest_is_computed": True,
    "environment": "production",
}


def fingerprints(**changes: Any) -> tuple[str, str]:
    environment = changes.pop("normalised", "prod")
    found = normalise(msgspec.structs.replace(FULL, **changes), environment=environment)
    return found.request_fingerprint, found.change_fingerprint


@pytest.mark.parametrize("name", REQUEST_ONLY)
def test_a_fact_of_the_request_only(name: str) -> None:
    request, change = fingerprints()
    other_request, other_change = fingerprints(**{name: REQUEST_ONLY[name]})
    assert (request != other_request, change == other_change) == (True, True)


@pytest.mark.parametrize("name", [*OF_BOTH, "normalised"])
def test_a_fact_of_request_and_change(name: str) -> None:
    request, change = fingerprints()
    other_request, other_change = fingerprints(
        **{name: (OF_BOTH | {"normalised": "nonprod"})[name]}
    )
    assert (request != other_request, change != other_change) == (True, True)


@pytest.mark.parametrize("name", OF_NEITHER)
def test_a_fact_of_the_attempt_only(name: str) -> None:
    assert fingerprints() == fingerprints(**{name: OF_NEITHER[name]})


def test_every_fact_of_a_request_is_placed() -> None:
    assert {*REQUEST_ONLY, *OF_BOTH, *OF_NEITHER} == set(FULL.__struct_fields__)


@pytest.mark.parametrize(
    "cost",
    [
        a_cost(None),
        a_cost(None, reasons=("price_not_found",)),
        a_cost(0),
        a_cost(state="partial"),
        a_cost(state="partial", reasons=("price_not_found",)),
    ],
)
def test_a_cost_state_is_part_of_the_request(cost: Any) -> None:
    assert fingerprints()[0] != fingerprints(cost=cost)[0]


def test_the_order_of_metadata_is_no_fact_but_its_types_are() -> None:
    def of(**metadata: Any) -> str:
        return fingerprints(metadata=metadata)[0]

    assert of(a=1, b=[1, 2]) == of(b=[1, 2], a=1)
    assert of(a=1) == of(a=1.0) == of(a=Decimal("1.00")), "JSON has one kind of number"
    assert len({of(a=1), of(a="1"), of(a=True), of(a=None), of(a=[1]), of()}) == 6


def test_metadata_that_no_double_holds_is_refused() -> None:
    with pytest.raises(NotCanonicalError):
        an_input(metadata={"a": Decimal("0.1000000000000000000001")})
    with pytest.raises(NotCanonicalError):
        an_input(metadata={"a": 2**53})


NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(metadata=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON))
def test_a_stored_question_is_the_question(metadata: dict[str, Any]) -> None:
    asked = an_input(metadata=metadata)
    stored = msgspec.json.encode(asked, order="sorted")
    again = msgspec.json.decode(stored, type=GateInput)
    assert again == asked
    assert msgspec.json.encode(again, order="sorted") == stored


def test_vectors_of_the_documentation() -> None:
    blocks = re.findall(r"```json vector\n(.*?)```", DECISIONS.read_text(), re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        vector = strict_json.loads(block.encode())
        request = vector["request"]
        given_cost = request.pop("cost")
        cost = a_cost(
            given_cost["monthly_delta_usd"],
            state=given_cost["state"],
            reasons=tuple(given_cost["reasons"]),
        )
        found = normalise(
            a_request(**request, cost=cost), environment=vector["normalised_environment"]
        )
        assert found.request_fingerprint == vector["request_fingerprint"], request
        assert found.change_fingerprint == vector["change_fingerprint"], request


def test_numbers_of_metadata_are_stored_as_the_values_that_rules_see() -> None:
    parsed = strict_json.loads(b'{"ratio": 0.30, "deep": [{"whole": 2.0}], "count": 3}')
    metadata = an_input(metadata=parsed).metadata
    assert metadata == {"ratio": 0.3, "deep": [{"whole": 2.0}], "count": 3}
    assert [type(metadata[name]) for name in ("ratio", "count")] == [float, int]
    assert type(metadata["deep"][0]["whole"]) is float


def test_the_order_in_which_metadata_was_sent_does_not_reach_what_is_stored() -> None:
    one = a_context(metadata={"a": {"x": 1, "y": 2}, "b": 3})
    other = a_context(metadata={"b": 3, "a": {"y": 2, "x": 1}})
    assert encode(one) == encode(other)
