"""Bills in the FOCUS column set: which rows are charges of what, and which are refused."""

from __future__ import annotations

import csv
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.costs.domain import FOCUS, CostFileRefused, CostFileUnreadable, ProjectRules
from tests.unit.billing.costs.samples import FOCUS_ROW, csv_of, read, units_of

REAL = Path(__file__).parents[5] / "shared" / "fixtures" / "focus" / "focus_sample.csv"


def faults(content: bytes) -> list[tuple[str, str]]:
    with pytest.raises(CostFileRefused) as caught:
        read(content)
    return [(error.pointer, error.code) for error in caught.value.errors]


def test_rows_of_one_bill_project_and_day_are_one_unit() -> None:
    batch = read(
        csv_of(
            {"BilledCost": "0.00001605990"},
            {"BilledCost": "1E-05", "ChargePeriodStart": "2026-11-03T23:59:59Z"},
            {"BilledCost": "-2.5", "ChargeCategory": "Credit"},
            {"BilledCost": "7", "ChargePeriodStart": "2026-11-04T00:00:00Z"},
            {"BilledCost": "9", "ProviderName": "Microsoft"},
            {"BilledCost": "11", "BillingAccountId": "other"},
        )
    )
    found = [
        (unit.key.provider, unit.key.billing_account_id, unit.key.date.day, unit.amount_usd)
        for unit in batch.units
    ]
    assert found == [
        ("AWS", "1234", 3, Decimal("-2.4999739401")),
        ("AWS", "other", 3, Decimal(11)),
        ("Microsoft", "1234", 3, Decimal(9)),
        ("AWS", "1234", 4, Decimal(7)),
    ]
    assert (batch.format, batch.rows, batch.units[0].charges) == (FOCUS, 6, 3)


@given(st.lists(st.tuples(st.decimals(-(10**9), 10**9, places=20), st.integers(1, 3)), min_size=1))
def test_units_are_the_exact_sum_of_their_rows(rows: list[tuple[Decimal, int]]) -> None:
    batch = read(
        csv_of(
            *(
                {"BilledCost": f"{cost:f}", "ChargePeriodStart": f"2026-11-0{day}T00:00:00Z"}
                for cost, day in rows
            )
        )
    )
    expected: dict[int, Fraction] = defaultdict(Fraction)
    for cost, day in rows:
        expected[day] += Fraction(cost)
    assert {unit.key.date.day: Fraction(unit.amount_usd) for unit in batch.units} == expected
    assert Fraction(batch.total_usd) == sum(expected.values())


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1E-05", "0.00001"), ("1.5e2", "150"), ("-0", "0"), ("+3", "3"), (".5", "0.5"), ("4.", "4"),
        ("0E-900", "0"), ("1000000000000", "1000000000000"), ("0." + "0" * 49 + "1", "1E-50"),
        ("1." + "0" * 60, "1"), (" 2.5 ", "2.5"),
    ],
)  # fmt: skip
def test_amounts_of_real_exports_are_read_exactly(text: str, amount: str) -> None:
    (unit,) = read(csv_of({"BilledCost": text})).units
    assert unit.amount_usd == Decimal(amount)


@pytest.mark.parametrize(
    "text",
    [
        "NaN", "Infinity", "-inf", "1e13", "1E+9999", "1E-51", "1_000", "1,000.00", "$5", "٣", "9" * 5000,
        "0x10", "1e", "--1", "", "NULL", "1 2", "\x00", "1\x00",
    ],
)  # fmt: skip
def test_what_is_no_amount_refuses_the_file_by_line(text: str) -> None:
    ((pointer, code),) = faults(csv_of({}, {"BilledCost": text}, {}))
    assert pointer == "/lines/3/BilledCost"
    assert code == ("required" if text in {"", "NULL"} else "invalid_amount")


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-11-03T22:00:00Z", 3), ("2026-11-03T22:00:00.123Z", 3), ("2026-11-03 22:00:00", 3),
        ("2026-11-03T22:00Z", 3), ("2026-11-03 22:00:00 UTC", 3), ("2026-11-03", 3),
        ("2026-11-03T22:00:00-05:00", 4), ("2026-11-03T01:00:00+02:00", 2),
        ("2026-11-03 22:00:00.000000000 UTC", 3),
    ],
)  # fmt: skip
def test_days_are_utc(text: str, day: int) -> None:
    (unit,) = read(csv_of({"ChargePeriodStart": text})).units
    assert unit.key.date == date(2026, 11, day)


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "11/03/2026", "2026-02-30", "2026-11-03T25:00:00Z", "1999-12-31", "2100-01-01",
     "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-W01-1", "20261103"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    ((pointer, code),) = faults(csv_of({"ChargePeriodStart": text}))
    assert pointer == "/lines/2/ChargePeriodStart"
    assert code in {"invalid_date", "required"}


def test_another_currency_is_refused_by_its_rows() -> None:
    content = csv_of({}, {"BillingCurrency": "EUR"}, {}, {"BillingCurrency": "usd"})
    assert faults(content) == [
        ("/lines/3/BillingCurrency", "currency_mismatch"),
        ("/lines/5/BillingCurrency", "currency_mismatch"),
    ]


def test_the_first_hundred_faults_are_told_and_all_are_counted() -> None:
    with pytest.raises(CostFileRefused, match="150 of 151 rows") as caught:
        read(csv_of({}, *({"BilledCost": "x"} for _ in range(150))))
    assert len(caught.value.errors) == 100


def test_a_file_of_nothing_but_faults_is_not_read_to_its_end() -> None:
    with pytest.raises(CostFileRefused, match="10000 of the first 10001 rows") as caught:
        read(b"2026-11-03,shop,1\n" + b"x,y,z\n" * 1_000_000)
    assert len(caught.value.errors) == 100


@pytest.mark.parametrize(
    ("tags", "keys", "project"),
    [
        ('{"project": "shop"}', ("project",), "shop"),
        ('{"Project": " shop "}', ("project",), "shop"),
        ('{"PROJECT": "a", "project": "b"}', ("project",), "b"),
        ('{"team": "core", "project": "shop"}', ("team", "project"), "core"),
        ('{"project": "shop"}', ("team", "project"), "shop"),
        ('{"project": ""}', ("project",), "mapped"),
        ('{"project": 7}', ("project",), "mapped"),
        ('{"project": "a\\u0007b"}', ("project",), "mapped"),
        ('{"project": "' + "x" * 201 + '"}', ("project",), "mapped"),
        ('{"application": "shop"}', ("project",), "mapped"),
        ("NULL", ("project",), "mapped"),
        ("", ("project",), "mapped"),
    ],
)
def test_the_project_is_the_tag_s_or_the_sub_account_s(
    tags: str, keys: tuple[str, ...], project: str
) -> None:
    rules = ProjectRules(tag_keys=keys, sub_accounts={"sub-1": "mapped"})
    (unit,) = read(csv_of({"Tags": tags}), rules=rules).units
    assert unit.key.project_id == project


def test_without_tag_and_map_costs_are_unassigned() -> None:
    rules = ProjectRules(sub_accounts={"another": "mapped"})
    for row in ({"Tags": ""}, {"Tags": "", "SubAccountId": ""}):
        assert {key for key, _ in units_of(read(csv_of(row), rules=rules))} == {"unassigned"}
    without = csv_of({}).replace(b"Tags", b"Labels").replace(b"SubAccountId", b"Sub")
    assert {key for key, _ in units_of(read(without))} == {"unassigned"}


@pytest.mark.parametrize("tags", ["{", "[]", '"shop"', '{"a": 1, "a": 2}', '{"a": NaN}', "a=b"])
def test_tags_that_are_no_object_are_refused(tags: str) -> None:
    assert faults(csv_of({"Tags": tags})) == [("/lines/2/Tags", "invalid_tags")]


@pytest.mark.parametrize("column", ["ProviderName", "BillingAccountId"])
@pytest.mark.parametrize("text", ["", "NULL", "x" * 201, "a\x00b"])
def test_a_bill_is_named(column: str, text: str) -> None:
    ((pointer, _),) = faults(csv_of({column: text}))
    assert pointer == f"/lines/2/{column}"


def test_the_provider_s_newer_column_is_read() -> None:
    content = csv_of({}).replace(b"ProviderName", b"ServiceProviderName")
    assert [unit.key.provider for unit in read(content).units] == ["AWS"]


@pytest.mark.parametrize(
    ("start", "invoice", "is_final"),
    [
        ("2026-11-16T23:59:59Z", "", True),
        ("2026-11-17T00:00:00Z", "", False),
        ("2026-11-19T00:00:00Z", "INV-1", True),
        ("2026-11-19T00:00:00Z", "NULL", False),
    ],
)
def test_a_charge_is_final_by_age_or_invoice(start: str, invoice: str, is_final: bool) -> None:
    (unit,) = read(csv_of({"ChargePeriodStart": start, "InvoiceId": invoice})).units
    assert unit.is_final is is_final


def test_a_unit_is_final_when_all_its_charges_are() -> None:
    day = {"ChargePeriodStart": "2026-11-19T00:00:00Z"}
    (unit,) = read(csv_of(day | {"InvoiceId": "INV-1"}, day)).units
    assert unit.is_final is False


def test_a_correction_of_an_invoiced_month_is_a_unit_of_its_own() -> None:
    row = {"ChargePeriodStart": "2026-10-05T00:00:00Z"}
    correction = {"ChargeClass": "Correction", "BillingPeriodStart": "2026-11-01T00:00:00Z"}
    plain, corrected = read(csv_of(row, row | correction | {"BilledCost": "-1"})).units
    assert (plain.key.correction_month, plain.amount_usd) == (None, Decimal("1.25"))
    assert (corrected.key.correction_month, corrected.amount_usd) == (date(2026, 11, 1), -1)
    assert faults(csv_of({"ChargeClass": "Correction"})) == [
        ("/lines/2/BillingPeriodStart", "required")
    ]


def test_columns_are_found_in_any_order_and_case() -> None:
    names = list(reversed(FOCUS_ROW))
    lines = [
        ",".join(f" {name.upper()} " for name in names),
        ",".join('"' + FOCUS_ROW[name].replace('"', '""') + '"' for name in names),
    ]
    content = "\ufeff" + "\r\n".join(lines) + "\r\n\r\n"
    assert units_of(read(content.encode())) == {("shop", "2026-11-03"): "1.25"}


@pytest.mark.parametrize("column", ["BillingCurrency", "ChargePeriodStart", "BillingAccountId"])
def test_a_missing_column_is_named(column: str) -> None:
    content = csv_of({}).replace(column.encode(), b"Other")
    assert faults(content) == [(f"/header/{column}", "missing_column")]


def test_a_file_without_the_cost_is_not_known() -> None:
    assert faults(csv_of({}).replace(b"BilledCost", b"Cost")) == [
        ("/header/BilledCost", "missing_column")
    ]


def test_a_column_twice_is_refused() -> None:
    content = csv_of({"Other": "1"}).replace(b"Other", b"billedcost")
    assert faults(content) == [("/header/BilledCost", "duplicate_column")]


def test_lines_are_counted_over_quoted_line_breaks() -> None:
    content = csv_of({"Note": "one\r\ntwo\nthree"}, {"BilledCost": "x"})
    assert faults(content) == [("/lines/5/BilledCost", "invalid_amount")]


def test_a_row_cut_short_is_refused() -> None:
    content = csv_of({}, {})
    cut = content[: content.rindex(b',"sub-1"')]
    assert faults(cut) == [("/lines/3", "wrong_number_of_cells")]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n\n", csv_of({}) + b'"open', b"\xff\xfe" + csv_of({}), csv_of({}) + b"\xc3(,\n",
        b"BilledCost," + b"x" * 2_000_000, csv_of({"Note": "x" * 200_000}), csv_of({})[:-1] + b'"x\n',
    ],
    ids=["empty", "blank", "quote", "utf-16", "utf-8", "line", "cell", "after quote"],
)  # fmt: skip
def test_what_is_not_csv_is_unreadable(content: bytes) -> None:
    with pytest.raises(CostFileUnreadable):
        read(content)


def test_a_header_alone_is_refused() -> None:
    with pytest.raises(CostFileRefused, match="no rows"):
        read(csv_of({}).split(b"\n")[0])


def test_a_sum_beyond_the_column_is_refused() -> None:
    with pytest.raises(CostFileRefused, match="above 1000000000000"):
        read(csv_of({"BilledCost": "999999999999"}, {"BilledCost": "2"}))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for start in (b"", csv_of({}), b"date,project,amount\n"):
        with suppress(CostFileRefused, CostFileUnreadable):
            assert read(start + content).rows > 0


def test_the_real_sample_is_summed_exactly() -> None:
    if not REAL.exists():
        pytest.skip(f"the real FOCUS sample is not there: {REAL}")
    content = REAL.read_bytes()
    batch = read(content, now=datetime(2026, 11, 20, tzinfo=UTC))
    rows = list(csv.DictReader(content.decode().splitlines()))
    total = sum(Fraction(row["BilledCost"]) for row in rows)
    assert batch.rows == len(rows) == 1000
    assert Fraction(batch.total_usd) == total
    days: dict[tuple[str, str, str], Fraction] = defaultdict(Fraction)
    for row in rows:
        key = (row["ProviderName"], row["BillingAccountId"], row["ChargePeriodStart"][:10])
        days[key] += Fraction(row["BilledCost"])
    found: dict[tuple[str, str, str], Fraction] = defaultdict(Fraction)
    for unit in batch.units:
        key = (unit.key.provider, unit.key.billing_account_id, unit.key.date.isoformat())
        found[key] += Fraction(unit.amount_usd)
    assert found == days
    assert all(unit.is_final for unit in batch.units)
