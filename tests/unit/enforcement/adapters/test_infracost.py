"""What an Infracost document becomes: every rule with a pair of documents that flips it."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcement.adapters.infracost import read_cost
from enforcement.gate.inputs import COST_STATE_REASONS, Cost
from valdrix.kernel import strict_json
from valdrix.kernel.money import HOURLY_PLACES, MONTHLY_PLACES
from valdrix.kernel.problems import InvalidRequest

FIXTURES = Path(__file__).resolve().parents[5] / "shared" / "fixtures" / "infracost"
WIDE = Context(prec=3000)


def totals(monthly: Any, hourly: Any = None) -> dict[str, Any]:
    return {"resources": [], "totalMonthlyCost": monthly, "totalHourlyCost": hourly}


def project(diff: Any = "10", **changes: Any) -> dict[str, Any]:
    return {
        "name": "shop",
        "metadata": {"path": ".", "type": "terraform_dir"},
        "pastBreakdown": totals("90"),
        "breakdown": totals("100"),
        "diff": None if diff is None else totals(diff),
        **changes,
    }


def document(*projects: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "version": "0.2",
        "currency": "USD",
        "metadata": {"infracostCommand": "diff"},
        "projects": list(projects),
        **changes,
    }


def directory(diff: Any = "0", present: Any = "100", **changes: Any) -> dict[str, Any]:
    return project(diff, pastBreakdown=totals(present), breakdown=totals(present), **changes)


def with_errors(*errors: Any, diff: Any = "0") -> dict[str, Any]:
    return project(diff, metadata={"type": "terraform_dir", "errors": list(errors)})


def read(value: object) -> Cost:
    return read_cost(value, pointer="/cost_estimate/document")


def pointers(value: object) -> list[str]:
    with pytest.raises(InvalidRequest) as refusal:
        read(value)
    assert refusal.value.status == 422
    return [error.pointer.removeprefix("/cost_estimate/document") for error in refusal.value.errors]


BREAKDOWN = {"infracostCommand": "breakdown"}
PLAN = {"path": "plan.json", "type": "terraform_plan_json"}
ERROR = {"code": 102, "message": "No files", "isError": True}
NO_PRICE = {"resources": [{"name": "x", "costComponents": [{"priceNotFound": True}]}]}

FROM_OTHERS = [
    ("breakdown_directory_diff_is_zero", "unknown", "price_not_found diff_unavailable", None, None),
    ("breakdown_format_json", "known", "", "1361.3075", "1.864805"),
    ("diff_negative", "known", "", "-742.6400", "-1.017315"),
    ("errors", "unknown", "estimate_error", None, None),
    ("example_diff_out", "known", "", "1361.3075", "1.864805"),
    ("example_out", "known", "", "1361.3075", "1.864805"),
    ("no_project", "unknown", "no_estimate", None, None),
    ("terraform_v0.14_breakdown", "partial", "price_not_found", "40.5610", "0.055563"),
    (
        "terraform_v0.14_nochange_breakdown",
        "partial",
        "unsupported_resources",
        "0.0000",
        "0.000000",
    ),
]


@pytest.mark.parametrize(("name", "state", "reasons", "monthly", "hourly"), FROM_OTHERS)
def test_documents_made_by_others(name, state, reasons, monthly, hourly):
    path = FIXTURES / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is absent: the documents of others are not part of the project")
    cost = read(strict_json.loads(path.read_bytes()))
    assert (cost.state, " ".join(cost.reasons)) == (state, reasons)
    found = (cost.monthly_delta_usd, cost.hourly_delta_usd)
    assert tuple(None if amount is None else str(amount) for amount in found) == (monthly, hourly)


STATES = {
    "every project priced": (document(project("10"), project("-4")), "known", "", "6.0000"),
    "a diff of nothing": (document(project("0")), "known", "", "0.0000"),
    "a saving": (document(project("-12.5")), "known", "", "-12.5000"),
    "no project": (document(), "unknown", "no_estimate", None),
    "null for the projects": (document(projects=None), "unknown", "no_estimate", None),
    "euro": (document(project(), currency="EUR"), "unknown", "currency_mismatch", None),
    "no currency": (document(project(), currency=None), "unknown", "currency_mismatch", None),
    "no currency and no project": (
        document(currency=""),
        "unknown",
        "currency_mismatch no_estimate",
        None,
    ),
    "one project failed": (
        document(project("10"), with_errors(ERROR)),
        "partial",
        "estimate_error",
        "10.0000",
    ),
    "the only project failed": (document(with_errors(ERROR)), "unknown", "estimate_error", None),
    "a failed project's saving is not believed": (
        document(project("10"), with_errors(ERROR, diff="-500")),
        "partial",
        "estimate_error",
        "10.0000",
    ),
    "a failed project's increase counts": (
        document(project("10"), with_errors(ERROR, diff="5")),
        "partial",
        "estimate_error",
        "15.0000",
    ),
    "an older output without isError": (
        document(with_errors({"code": 102, "message": "x"})),
        "unknown",
        "estimate_error",
        None,
    ),
    "no error after all": (
        document(with_errors({"code": 105, "isError": False})),
        "known",
        "",
        "0.0000",
    ),
    "an error by its type": (
        document(with_errors({"isError": False, "type": "error"})),
        "unknown",
        "estimate_error",
        None,
    ),
    "a project of type error": (
        document(project("0", metadata={"type": "error"})),
        "unknown",
        "estimate_error",
        None,
    ),
    "quota by code": (
        document(with_errors({"code": 401, "isError": True})),
        "unknown",
        "estimator_quota_exceeded",
        None,
    ),
    "quota by message": (
        document(with_errors({"code": 0, "message": "free monthly run limit exceeded"})),
        "unknown",
        "estimator_quota_exceeded",
        None,
    ),
    "an error of today": (
        document(project("0", metadata={"currentErrors": [ERROR]})),
        "unknown",
        "estimate_error",
        None,
    ),
    "an error of the past": (
        document(project("0", metadata={"pastErrors": [ERROR]})),
        "unknown",
        "estimate_error",
        None,
    ),
    "a directory's breakdown": (
        document(directory(), metadata=BREAKDOWN),
        "unknown",
        "diff_unavailable",
        None,
    ),
    "a plan's breakdown": (
        document(directory(metadata=PLAN), metadata=BREAKDOWN),
        "known",
        "",
        "0.0000",
    ),
    "a directory's breakdown that costs nothing": (
        document(directory(present="0"), metadata=BREAKDOWN),
        "known",
        "",
        "0.0000",
    ),
    "such a breakdown under a root that costs": (
        document(directory(present="0"), metadata=BREAKDOWN, totalMonthlyCost="70"),
        "unknown",
        "estimate_error diff_unavailable",
        None,
    ),
    "a directory's breakdown with a real diff": (
        document(directory("7"), metadata=BREAKDOWN),
        "known",
        "",
        "7.0000",
    ),
    "a directory's breakdown without a past": (
        document(project("7", pastBreakdown=None), metadata=BREAKDOWN),
        "unknown",
        "diff_unavailable",
        None,
    ),
    "a diff without a past": (document(project("7", pastBreakdown=None)), "known", "", "7.0000"),
    "a breakdown that was combined": (
        document(directory(), metadata={"infracostCommand": "output"}),
        "unknown",
        "diff_unavailable",
        None,
    ),
    "a diff that was combined": (
        document(directory(), project("3"), metadata={"infracostCommand": "output"}),
        "known",
        "",
        "3.0000",
    ),
    "breakdown of a plan beside a directory": (
        document(project("3", metadata=PLAN), directory(), metadata=BREAKDOWN),
        "partial",
        "diff_unavailable",
        "3.0000",
    ),
    "no diff": (document(project(None)), "unknown", "diff_unavailable", None),
    "no diff beside one": (
        document(project(None), project("3")),
        "partial",
        "diff_unavailable",
        "3.0000",
    ),
    "null for the needed total": (
        document(project() | {"diff": totals(None, "1")}),
        "unknown",
        "diff_unavailable",
        None,
    ),
    "unsupported, in total": (
        document(project(), summary={"totalUnsupportedResources": 2}),
        "partial",
        "unsupported_resources",
        "10.0000",
    ),
    "unsupported, by type, in a project": (
        document(project(summary={"unsupportedResourceCounts": {"aws_x": 1}})),
        "partial",
        "unsupported_resources",
        "10.0000",
    ),
    "unsupported, none": (
        document(project(), summary={"totalUnsupportedResources": 0}),
        "known",
        "",
        "10.0000",
    ),
    "without a price, in total": (
        document(project(), summary={"totalNoPriceResources": 1}),
        "partial",
        "price_not_found",
        "10.0000",
    ),
    "without a price, one component": (
        document(project(breakdown={**totals("100"), **NO_PRICE})),
        "partial",
        "price_not_found",
        "10.0000",
    ),
    "without a price, far below": (
        document(
            project(
                breakdown={
                    **totals("100"),
                    "resources": [{"subresources": [{"subresources": NO_PRICE["resources"]}]}],
                }
            )
        ),
        "partial",
        "price_not_found",
        "10.0000",
    ),
    "root says more": (
        document(project("10"), diffTotalMonthlyCost="14"),
        "partial",
        "estimate_error",
        "14.0000",
    ),
    "root says less": (
        document(project("10"), diffTotalMonthlyCost="4"),
        "partial",
        "estimate_error",
        "10.0000",
    ),
    "root says the same": (
        document(project("10"), diffTotalMonthlyCost="10.000", totalMonthlyCost=100),
        "known",
        "",
        "10.0000",
    ),
    "root's present is not the sum": (
        document(project("10"), totalMonthlyCost="101"),
        "partial",
        "estimate_error",
        "10.0000",
    ),
    "root's past is not the sum": (
        document(project("10"), pastTotalMonthlyCost="91"),
        "partial",
        "estimate_error",
        "10.0000",
    ),
    "root's hour is not the sum": (
        document(project("10"), diffTotalHourlyCost="1"),
        "partial",
        "estimate_error",
        "10.0000",
    ),
    "root has null only": (
        document(project("10"), diffTotalMonthlyCost=None, totalMonthlyCost=None),
        "known",
        "",
        "10.0000",
    ),
    "an old document without metadata": (
        document({"diff": totals("5")}, metadata=None),
        "known",
        "",
        "5.0000",
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_state_and_delta(name):
    value, state, reasons, monthly = STATES[name]
    cost = read(value)
    assert (cost.state, " ".join(cost.reasons)) == (state, reasons)
    assert (cost.monthly_delta_usd is None) == (cost.hourly_delta_usd is None)
    assert monthly == (None if monthly is None else str(cost.monthly_delta_usd))
    if monthly is None:
        assert cost.monthly_delta_usd is None


def test_all_reasons_come_once_and_in_order():
    cost = read(
        document(
            with_errors(ERROR),
            with_errors({"code": 401}),
            with_errors(ERROR),
            project(None),
            currency="EUR",
            summary={"totalUnsupportedResources": 1, "totalNoPriceResources": 1},
        )
    )
    assert cost.reasons == tuple(
        reason for reason in COST_STATE_REASONS if reason not in ("targeted_plan", "no_estimate")
    )


@pytest.mark.parametrize(
    ("monthly", "hourly", "expected"),
    [
        ("73", "0.1", "0.100000"),
        ("73", "0.1000004", "0.100000"),
        ("73", None, "0.100000"),
        ("73", "5", "0.100000"),  # a usage cost that only the month has: the month decides
        ("0", "5", "0.000000"),
    ],
)
def test_month_is_the_authority(monthly, hourly, expected):
    cost = read(document(project() | {"diff": totals(monthly, hourly)}))
    assert str(cost.hourly_delta_usd) == expected
    assert cost.state == "known"


def test_a_sum_is_rounded_once_at_its_end():
    cost = read(document(*[project("0.00004")] * 5))
    assert str(cost.monthly_delta_usd) == "0.0002"


def test_a_negative_zero_is_zero():
    assert str(read(document(project("-0.00001"))).monthly_delta_usd) == "0.0000"


def test_very_long_decimals_are_exact():
    third = "0." + "3" * 900
    rest = "0.0000" + "6" * 896 + "7"
    cost = read(document(project(third), project(third), project(third), project(rest)))
    assert str(cost.monthly_delta_usd) == "1.0001"


@pytest.mark.parametrize("value", [1361.3075, "x", "1e3", "1_0", "+5", " 5", "٣", "", "5.", ".5"])
def test_a_total_that_is_no_plain_decimal(value):
    assert pointers(document(project(value))) == ["/projects/0/diff/totalMonthlyCost"]


@pytest.mark.parametrize(
    "value",
    ["1000000000000.01", "-1000000000001", 10**13, Decimal("1E+999999"), "9" * 1001, True, [], {}],
)
def test_a_total_that_no_column_holds(value):
    assert pointers(document(project(value))) == ["/projects/0/diff/totalMonthlyCost"]


@pytest.mark.parametrize("value", [Decimal("12.50"), 12, Decimal("0E-999999"), Decimal("1E+1")])
def test_json_numbers_are_decimals(value):
    assert read(document(project(value))).monthly_delta_usd == Decimal(value)


def test_a_sum_above_the_limit():
    assert pointers(document(project("900000000000"), project("900000000000"))) == ["/projects"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [""]),
        ([], [""]),
        ("{}", [""]),
        ({}, ["/version", "/projects"]),
        ({"version": "1.0", "projects": []}, ["/version"]),
        ({"version": 0.2, "projects": []}, ["/version"]),
        (document(projects={}), ["/projects"]),
        (document("x", None), ["/projects/0", "/projects/1"]),
        (document(currency=1), ["/currency"]),
        (document(metadata=[]), ["/metadata"]),
        (document(metadata={"infracostCommand": 1}), ["/metadata/infracostCommand"]),
        (document(project(metadata="x")), ["/projects/0/metadata"]),
        (document(project(metadata={"type": 1})), ["/projects/0/metadata/type"]),
        (document(project(metadata={"errors": {}})), ["/projects/0/metadata/errors"]),
        (document(project(metadata={"errors": ["x"]})), ["/projects/0/metadata/errors/0"]),
        (document(project() | {"diff": []}), ["/projects/0/diff"]),
        (document(project(summary=[])), ["/projects/0/summary"]),
        (
            document(summary={"totalNoPriceResources": "1", "noPriceResourceCounts": {"a/b": "1"}}),
            ["/summary/totalNoPriceResources", "/summary/noPriceResourceCounts/a~1b"],
        ),
        (
            document(
                project(breakdown={"resources": [{"costComponents": [{"priceNotFound": 1}]}]})
            ),
            ["/projects/0/breakdown/resources/0/costComponents/0/priceNotFound"],
        ),
    ],
)
def test_what_is_no_infracost_document(value, expected):
    assert pointers(value) == expected


def test_a_document_of_faults_gets_a_short_answer():
    assert len(pointers(document(*["x"] * 5000))) == 20


def test_ten_thousand_projects_are_summed_in_a_moment():
    value = document(*[directory()] * 10_000, metadata=BREAKDOWN)
    assert read(value).reasons == ("diff_unavailable",)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["0", "12.5", "USD", "breakdown", "terraform_plan_json", "0.2"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
PROJECTS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("metadata", "diff", "breakdown", "pastBreakdown", "summary", "name"), JSON
    ),
)
DOCUMENTS = st.fixed_dictionaries(
    {"version": st.just("0.2")},
    optional={
        "projects": st.lists(PROJECTS | JSON, max_size=4),
        "currency": st.just("USD") | JSON,
        "metadata": JSON,
        "summary": JSON,
        "diffTotalMonthlyCost": JSON,
        "totalMonthlyCost": JSON,
    },
)


def outcome(value: object) -> Cost | InvalidRequest:
    try:
        return read(value)
    except InvalidRequest as refusal:
        return refusal


@given(JSON | DOCUMENTS)
def test_any_json_value_is_a_cost_or_a_refusal(value):
    cost = outcome(value)
    if isinstance(cost, InvalidRequest):
        assert cost.errors
        assert all(error.pointer.startswith("/cost_estimate/document") for error in cost.errors)
        return
    assert (cost.state == "unknown") == (cost.monthly_delta_usd is None)
    assert (cost.state == "known") == (not cost.reasons)


AMOUNTS = st.builds(
    "{}{}.{}".format,
    st.sampled_from(["", "-"]),
    st.integers(0, 10**9),
    st.text("0123456789", min_size=1, max_size=300),
)


@settings(max_examples=200)
@given(st.lists(AMOUNTS, min_size=1, max_size=8))
def test_random_decimal_strings_add_up_exactly(amounts):
    total = Decimal(0)
    for amount in amounts:
        total = WIDE.add(total, Decimal(amount))
    cost = read(document(*[project(amount) for amount in amounts]))
    unit = Decimal(1).scaleb(-MONTHLY_PLACES)
    assert cost.monthly_delta_usd == total.quantize(unit, ROUND_HALF_UP, context=WIDE)
    assert cost.monthly_delta_usd.as_tuple().exponent == -MONTHLY_PLACES
    assert cost.hourly_delta_usd.as_tuple().exponent == -HOURLY_PLACES
    assert abs(cost.hourly_delta_usd * 730 - cost.monthly_delta_usd) <= Decimal("0.000415")
