"""Costs over HTTP and by command: taken whole and once, restated, kept totals, what is spent."""

from __future__ import annotations

import io
import threading
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from billing.costs import operations
from billing.costs.domain import DayAmount
from billing.costs.operations import record_daily_costs
from billing.costs.schema import KEEP_ALL
from billing.models import CostHistory, CostIngestion, CostUnit, DailyCost
from enforcement.controls import costs as use_cases
from enforcement.integrity.queries import INVARIANTS, run_checks
from governance.models import AuditEntry
from tests.client import Api
from tests.factories.tenants import World
from tests.threads import run_in_threads
from tests.unit.billing.costs.samples import FOCUS_ROW, csv_of
from tests.unit.billing.costs.test_focus import REAL
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.money import MONTHLY_PLACES, round_amount

CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
_WRONG_TOTALS = """
SELECT coalesce(k.project_id, s.project_id), coalesce(k.date, s.date), k.amount_usd, s.amount
  FROM (SELECT * FROM billing_daily_cost WHERE tenant_id = %(tenant)s) k
  FULL JOIN (SELECT project_id, date, round(sum(amount_usd), 4) AS amount,
                    bool_and(is_final) AS is_final
               FROM billing_cost_unit WHERE tenant_id = %(tenant)s GROUP BY 1, 2) s
         USING (project_id, date)
 WHERE k.amount_usd IS DISTINCT FROM s.amount OR k.is_final IS DISTINCT FROM s.is_final
"""
_HISTORY = [one for one in INVARIANTS if one.name == "cost_history_equals_days"]


def post(api: Api, world: World, body: Any, content_type: str = CSV, **query: str) -> Any:
    return api.post("costs", body, key=world.admin.key, content_type=content_type, query=query)


def days_of(world: World) -> dict[tuple[str, str], str]:
    """Return the kept totals of a tenant, after checking them and the histories of months."""
    report = run_checks(world.id, invariants=_HISTORY)
    assert report.violated == (), report
    with reading(world.id):
        with connection.cursor() as cursor:
            cursor.execute(_WRONG_TOTALS, {"tenant": world.id})
            assert cursor.fetchall() == []
        rows = DailyCost.objects.filter(tenant_id=world.id)
        return {(row.project_id, row.date.isoformat()): str(row.amount_usd) for row in rows}


def everything(world: World) -> list[Any]:
    """Return all rows that a file can change."""
    with reading(world.id):
        return [
            list(model.objects.filter(tenant_id=world.id).order_by("pk").values())
            for model in (CostIngestion, CostUnit, DailyCost, CostHistory, AuditEntry)
        ]


def audits(world: World, action: str) -> list[AuditEntry]:
    with reading(world.id):
        return list(AuditEntry.objects.filter(tenant_id=world.id, action=action).order_by("at"))


def test_a_focus_file_is_taken(api: Api, tenant: World) -> None:
    content = csv_of(
        {"BilledCost": "0.00004"},
        {"BilledCost": "1E-05"},
        {"BilledCost": "-3", "Tags": "", "ChargeCategory": "Credit"},
    )
    answer = post(api, tenant, content)
    assert answer.status_code == 201, answer.json()
    body = answer.json()
    assert {name: body[name] for name in body if name not in {"ingestion_id", "content_sha256"}} == {
        "status": "ingested", "format": "focus", "rows": 3,
        "units_added": 2, "units_restated": 0, "units_unchanged": 0, "units_absent": 0,
        "first_date": "2026-11-03", "last_date": "2026-11-03",
        "total_usd": "-3.0000", "difference_usd": "0.0000",
    }  # fmt: skip
    # Half a ten-thousandth is rounded up, once: 0.00004 alone would be nothing.
    assert days_of(tenant) == {
        ("shop", "2026-11-03"): "0.0001",
        ("unassigned", "2026-11-03"): "-3.0000",
    }
    (audit,) = audits(tenant, "costs.ingest")
    assert audit.actor == f"key:{tenant.admin.key_id}"
    assert (audit.object_id, audit.after["total_usd"]) == (body["ingestion_id"], "-2.99995")
    assert audits(tenant, "costs.restate") == []


def test_the_sum_over_bills_is_rounded_once(api: Api, tenant: World) -> None:
    rows = [{"BilledCost": "0.00002", "ProviderName": name} for name in ("AWS", "GCP", "OCI")]
    assert post(api, tenant, csv_of(*rows)).status_code == 201
    assert days_of(tenant) == {("shop", "2026-11-03"): "0.0001"}


def test_the_same_file_again_changes_nothing_and_says_so(api: Api, tenant: World) -> None:
    first = post(api, tenant, csv_of({}))
    before = everything(tenant)
    again = post(api, tenant, csv_of({}))
    assert again.status_code == 200
    assert again.json() == first.json() | {
        "status": "already_ingested", "units_added": 0, "units_unchanged": 1,
    }  # fmt: skip
    assert everything(tenant) == before


def test_a_file_is_one_tenant_s_own(api: Api, tenant: World, other_tenant: World) -> None:
    assert post(api, tenant, csv_of({})).status_code == 201
    assert days_of(other_tenant) == {}
    assert post(api, other_tenant, csv_of({"BilledCost": "9"})).status_code == 201
    assert post(api, other_tenant, csv_of({})).json()["status"] == "ingested"
    assert days_of(tenant) == {("shop", "2026-11-03"): "1.2500"}


def test_a_restated_unit_is_replaced_and_audited(api: Api, tenant: World) -> None:
    other_bill = {"ProviderName": "Microsoft", "BilledCost": "100"}
    next_day = {"ChargePeriodStart": "2026-11-04T00:00:00Z"}
    assert post(api, tenant, csv_of({}, other_bill, next_day)).status_code == 201
    body = post(api, tenant, csv_of({"BilledCost": "2"}, {"BilledCost": "0.5"}, next_day)).json()
    assert (body["units_added"], body["units_restated"], body["units_unchanged"]) == (0, 1, 1)
    assert body["difference_usd"] == "1.2500"
    assert days_of(tenant) == {
        ("shop", "2026-11-03"): "102.5000",
        ("shop", "2026-11-04"): "1.2500",
    }
    (audit,) = audits(tenant, "costs.restate")
    assert (audit.before["total_usd"], audit.after["total_usd"]) == ("1.25", "2.5")
    assert audit.after["shown"] == [
        {
            "provider": "AWS", "billing_account_id": "1234", "project_id": "shop",
            "date": "2026-11-03", "amount_usd": "2.5", "is_final": True,
        }
    ]  # fmt: skip


def test_a_correction_adds_to_the_day_it_corrects_and_is_replaced_by_its_own(
    api: Api, tenant: World
) -> None:
    october = {"ChargePeriodStart": "2026-10-05T00:00:00Z", "BilledCost": "10"}
    correction = october | {
        "ChargeClass": "Correction", "BillingPeriodStart": "2026-11-01T00:00:00Z",
    }  # fmt: skip
    post(api, tenant, csv_of(october))
    post(api, tenant, csv_of(correction | {"BilledCost": "-4"}, {}))
    assert days_of(tenant)["shop", "2026-10-05"] == "6.0000"
    post(api, tenant, csv_of(correction | {"BilledCost": "-3"}, {}))
    assert days_of(tenant)["shop", "2026-10-05"] == "7.0000"


def test_costs_that_moved_are_told_of_and_with_whole_days_taken_back(
    api: Api, tenant: World
) -> None:
    shop, other_bill = {}, {"BillingAccountId": "other", "BilledCost": "3"}
    moved = {"Tags": '{"project": "payments"}', "BilledCost": "9"}
    assert post(api, tenant, csv_of(shop, other_bill)).json()["units_absent"] == 0
    post(api, tenant, b"2026-11-03,shop,100")
    # The file says nothing of the project any more, which alone proves nothing.
    told = post(api, tenant, csv_of(moved)).json()
    assert (told["units_added"], told["units_restated"], told["units_absent"]) == (1, 0, 1)
    assert days_of(tenant)["shop", "2026-11-03"] == "104.2500"
    body = post(api, tenant, csv_of(moved, moved), whole_days="true").json()
    assert (body["units_restated"], body["units_absent"], body["difference_usd"]) == (
        2, 1, "7.7500",
    )  # fmt: skip
    assert days_of(tenant) == {
        ("shop", "2026-11-03"): "103.0000",
        ("payments", "2026-11-03"): "18.0000",
    }


def test_a_bad_row_refuses_the_file_and_nothing_is_written(api: Api, tenant: World) -> None:
    assert post(api, tenant, csv_of({})).status_code == 201
    before = everything(tenant)
    answer = post(api, tenant, csv_of({"BilledCost": "5"}, {"BillingCurrency": "EUR"}))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"] == [
        {
            "pointer": "/lines/3/BillingCurrency", "code": "currency_mismatch",
            "detail": "must be USD: nothing is converted",
        }
    ]  # fmt: skip
    assert everything(tenant) == before


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"", CSV, 422, "invalid_request"),
        (b"\xff\xff", CSV, 400, "malformed_body"),
        (b"a,b\n1,2\n", CSV, 422, "invalid_request"),
        (b"date,project\n2026-11-03,shop\n", CSV, 422, "invalid_request"),
        (b"2026-11-03,shop," + b"9" * 5000, CSV, 422, "invalid_request"),
        (b"2026-11-03,sh\x00op,1", CSV, 422, "invalid_request"),
        (b"PAR1", PARQUET, 400, "malformed_body"),
        (b"{", "application/json", 400, "malformed_json"),
        (b'{"rows": [{"date": "2026-11-03", "project": "\\u0000", "amount": "1"}]}',
         "application/json", 400, "malformed_json"),
        (b"date,project,amount", "text/plain", 415, "unsupported_media_type"),
        (b"x" * (10 * 1024 * 1024 + 1), CSV, 413, "body_too_large"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_costs_is_refused(
    api: Api, tenant: World, body: bytes, content_type: str, status: int, code: str
) -> None:
    answer = post(api, tenant, body, content_type)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert everything(tenant)[:3] == [[], [], []]


def test_a_day_beyond_what_a_total_holds_is_refused(api: Api, tenant: World) -> None:
    rows = [{"BilledCost": "900000000000", "ProviderName": name} for name in ("AWS", "GCP")]
    answer = post(api, tenant, csv_of(*rows))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert everything(tenant)[:3] == [[], [], []]


def test_plain_rows_are_taken_as_csv_and_json(api: Api, tenant: World) -> None:
    content = b"\xef\xbb\xbfproject,date,amount\r\nshop,2026-11-03,1.50\r\nshop,2026-11-03,2\r\n"
    assert post(api, tenant, content).json()["format"] == "plain"
    rows = [{"date": "2026-11-03", "project": "shop", "amount": "4"}]
    body = post(api, tenant, {"rows": rows}, "application/json").json()
    assert (body["units_restated"], body["difference_usd"]) == (1, "0.5000")
    assert days_of(tenant) == {("shop", "2026-11-03"): "4.0000"}


def test_parquet_is_taken(api: Api, tenant: World) -> None:
    stream = io.BytesIO()
    columns = {name: pa.array([text] * 3) for name, text in FOCUS_ROW.items()}
    pq.write_table(pa.table(columns | {"BilledCost": pa.array([0.1, 0.2, -0.05])}), stream)
    assert post(api, tenant, stream.getvalue(), PARQUET).json()["total_usd"] == "0.2500"
    assert days_of(tenant) == {("shop", "2026-11-03"): "0.2500"}


def test_projects_come_from_chosen_tags_and_the_sub_account_map(api: Api, tenant: World) -> None:
    put = {"sub_account_id": "sub-1", "project_id": "payments"}
    assert api.put("costs/sub-accounts", put, key=tenant.admin.key).json() == put
    listed = api.get("costs/sub-accounts", key=tenant.admin.key).json()
    assert listed == {"results": [put], "next": None}
    content = csv_of({"Tags": '{"team": "core"}'}, {"Tags": ""})
    assert post(api, tenant, content, project_tags="team,project").status_code == 201
    assert set(days_of(tenant)) == {("core", "2026-11-03"), ("payments", "2026-11-03")}
    forget = put | {"project_id": None}
    assert api.put("costs/sub-accounts", forget, key=tenant.admin.key).status_code == 200
    assert api.put("costs/sub-accounts", forget, key=tenant.admin.key).status_code == 200
    assert post(api, tenant, csv_of({"Tags": "", "BilledCost": "8"})).status_code == 201
    assert days_of(tenant)["unassigned", "2026-11-03"] == "8.0000"
    changes = [(one.before, one.after) for one in audits(tenant, "costs.map_sub_account")]
    assert changes == [(None, put), (put, None)]


@pytest.mark.parametrize(
    "query",
    [
        {"format": "xml"},
        {"project_tags": ""},
        {"project_tags": "a,,b"},
        {"whole_days": "1"},
        {"x": "1"},
    ],
)
def test_a_query_that_is_not_valid_is_refused(
    api: Api, tenant: World, query: dict[str, str]
) -> None:
    answer = post(api, tenant, csv_of({}), **query)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/{next(iter(query))}"
    assert days_of(tenant) == {}


@pytest.mark.parametrize("path", ["costs", "costs/summary", "costs/sub-accounts"])
def test_costs_are_for_admins_of_the_whole_tenant(api: Api, tenant: World, path: str) -> None:
    method = "POST" if path == "costs" else "GET"
    assert api.send(method, path, csv_of({}), content_type=CSV).status_code == 401
    answer = api.send(method, path, csv_of({}), content_type=CSV, key=tenant.member.key)
    assert (answer.status_code, answer.json()["code"]) == (403, "role_missing")
    assert days_of(tenant) == {}


def test_the_same_file_at_once_is_taken_once(tenant: World) -> None:
    content = csv_of(
        *({"ChargePeriodStart": f"2026-11-{day:02}T00:00:00Z"} for day in range(1, 20))
    )
    answers = run_in_threads(6, lambda _: post(Api(), tenant, content).json()["status"])
    assert sorted(answers) == ["already_ingested"] * 5 + ["ingested"]
    assert set(days_of(tenant).values()) == {"1.2500"}
    assert len(days_of(tenant)) == 19


def test_a_file_that_another_is_taking_is_waited_for(
    tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding, release = threading.Event(), threading.Event()
    find_units = operations.find_units

    def slowly(*args: Any) -> Any:
        if not holding.is_set():
            holding.set()
            assert release.wait(10)
        return find_units(*args)

    monkeypatch.setattr(operations, "find_units", slowly)

    def send(number: int) -> str:
        if number:
            assert holding.wait(10)
            threading.Timer(0.5, release.set).start()
        return post(Api(), tenant, csv_of({})).json()["status"]

    assert run_in_threads(2, send) == ["ingested", "already_ingested"]
    assert days_of(tenant) == {("shop", "2026-11-03"): "1.2500"}


def test_bills_of_the_same_days_at_once_are_all_in_the_totals(tenant: World) -> None:
    def send(number: int) -> int:
        rows = [
            {
                "ProviderName": f"provider {number}",
                "ChargePeriodStart": f"2026-11-{day:02}T00:00:00Z",
                "Tags": f'{{"project": "p{project}"}}',
            }
            for day in range(1, 6)
            for project in range(3)
        ]
        return post(Api(), tenant, csv_of(*rows)).status_code

    assert run_in_threads(6, send) == [201] * 6
    assert set(days_of(tenant).values()) == {"7.5000"}
    assert len(days_of(tenant)) == 15


def test_other_days_of_the_same_months_at_once_are_all_in_the_history(tenant: World) -> None:
    """What a gate reads is one row, which both write, though no day is the same."""

    def send(number: int) -> int:
        days = [
            {"ChargePeriodStart": f"2026-{10 + one}-{number + 1:02}T00:00:00Z"} for one in (0, 1)
        ]
        return post(Api(), tenant, csv_of(*days)).status_code

    assert run_in_threads(6, send) == [201] * 6
    assert len(days_of(tenant)) == 12
    with reading(tenant.id):
        kept = dict(CostHistory.objects.values_list("month", "days"))
    assert {month.isoformat(): days.count("2026-") for month, days in kept.items()} == {
        "2026-10-01": 6,
        "2026-11-01": 12,
        "2026-12-01": 12,
        "2027-01-01": 6,
    }


@pytest.mark.parametrize("step", ["_replace", "sum_units", "_keep_history", "record"])
def test_a_failure_before_the_commit_leaves_nothing(
    tenant: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    api = Api()
    assert post(api, tenant, csv_of({})).status_code == 201
    before = everything(tenant)

    def fail(*args: Any, **options: Any) -> Any:
        raise RuntimeError("killed")

    if step == "record":
        monkeypatch.setattr(use_cases, "record_change", fail)
    else:
        monkeypatch.setattr(operations, step, fail)
    answer = post(api, tenant, csv_of({"BilledCost": "77"}, {"Tags": ""}))
    assert answer.status_code == 500
    assert everything(tenant) == before
    monkeypatch.undo()
    assert post(api, tenant, csv_of({"BilledCost": "77"}, {"Tags": ""})).status_code == 201
    assert days_of(tenant)["shop", "2026-11-03"] == "77.0000"


AMOUNTS = st.decimals(-(10**6), 10**6, places=9)
FILES = st.lists(
    st.dictionaries(st.tuples(st.sampled_from("ab"), st.integers(1, 3)), AMOUNTS, min_size=1),
    min_size=1,
    max_size=4,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(files=FILES)
def test_totals_are_the_last_word_of_each_bill(
    make_tenant: Callable[[], World], files: list[dict[tuple[str, int], Decimal]]
) -> None:
    """Any sequence of files leaves each unit as the last file that named it said."""
    api, tenant = Api(), make_tenant()
    last: dict[tuple[str, int], Decimal] = {}
    for number, file in enumerate(files):
        rows = [
            {
                "BilledCost": f"{amount:f}",
                "BillingAccountId": account,
                "ChargePeriodStart": f"2026-11-{day:02}T00:00:00Z",
                "Number": str(number),
            }
            for (account, day), amount in file.items()
        ]
        assert post(api, tenant, csv_of(*rows)).status_code == 201
        last |= file
    expected: dict[tuple[str, str], Fraction] = defaultdict(Fraction)
    for (_, day), amount in last.items():
        expected["shop", f"2026-11-{day:02}"] += Fraction(amount)
    found = days_of(tenant)
    assert set(found) == set(expected)
    for day_of_shop, total in expected.items():
        # Half up, away from zero, at four places.
        rounded = int(abs(total) * 10_000 + Fraction(1, 2))
        assert abs(Fraction(found[day_of_shop])) == Fraction(rounded, 10_000)
        assert (Fraction(found[day_of_shop]) < 0) == (total < 0 and rounded > 0)


def test_recorded_days_are_units_of_plain_rows(api: Api, tenant: World) -> None:
    day = DayAmount(project_id="shop", date=date(2026, 11, 3), amount_usd=Decimal("5.0000"))
    now = datetime.now(UTC)
    for written in (1, 0):
        with transaction(tenant.id):
            assert record_daily_costs(tenant_id=tenant.id, days=[day], ingested_at=now) == written
    assert post(api, tenant, csv_of({})).status_code == 201
    assert days_of(tenant) == {("shop", "2026-11-03"): "6.2500"}
    assert post(api, tenant, b"2026-11-03,shop,1").status_code == 201
    assert days_of(tenant) == {("shop", "2026-11-03"): "2.2500"}


def this_month(*amounts: str) -> bytes:
    """Return plain rows of the newest days up to yesterday, the newest last."""
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=back) for back in range(len(amounts), 0, -1)]
    lines = [f"{day},shop,{amount}" for day, amount in zip(days, amounts, strict=True)]
    return "\n".join(["date,project,amount", *lines]).encode()


def test_the_summary_says_what_the_gate_says(api: Api, tenant: World) -> None:
    assert post(api, tenant, this_month(*["10.00"] * 40)).status_code == 201
    body = {
        "project_id": "shop", "environment": "nonprod", "action": "terraform.apply",
        "resource_reference": "module.web", "estimated_monthly_delta_usd": "1.00", "dry_run": True,
    }  # fmt: skip
    computed = api.post("gate/terraform", body, key=tenant.key).json()["computed_context"]
    page = api.get("costs/summary", key=tenant.admin.key, query={"project": "shop"}).json()
    (shown,) = page["results"]
    figures = (
        "mtd_spend_usd", "burn_rate_daily_usd", "forecast_eom_usd", "observed_cost_days",
        "latest_cost_date", "data_source_mode", "anomaly_kind", "context_version",
    )  # fmt: skip
    assert {name: shown[name] for name in figures} == {name: computed[name] for name in figures}
    assert shown["data_source_mode"] == "final"


def test_the_summary_lists_projects_page_by_page(
    api: Api, tenant: World, other_tenant: World
) -> None:
    post(api, other_tenant, b"2026-10-03,foreign,1")
    rows = b"2026-10-03,a,1.5\n2026-10-04,a,2.5\n2026-10-03,b,3\n2026-09-30,c,7"
    assert post(api, tenant, rows).status_code == 201
    path, shown = "costs/summary?month=2026-10&limit=2", []
    while path:
        page = api.get(path, key=tenant.admin.key).json()
        shown += page["results"]
        path = page["next"]
    assert [
        (one["project_id"], one["mtd_spend_usd"], one["forecast_eom_usd"]) for one in shown
    ] == [
        ("a", "4.0000", "62.0000"),
        ("b", "3.0000", "93.0000"),
        ("c", "0.0000", "0.0000"),
    ]
    assert {one["month"] for one in shown} == {"2026-10"}
    assert [one["latest_cost_date"] for one in shown] == ["2026-10-04", "2026-10-03", "2026-09-30"]


def test_the_summary_of_an_unknown_or_foreign_project_is_empty(
    api: Api, tenant: World, other_tenant: World
) -> None:
    post(api, other_tenant, b"2026-11-03,foreign,1")
    page = api.get("costs/summary", key=tenant.admin.key, query={"project": "foreign"}).json()
    (shown,) = page["results"]
    assert (shown["mtd_spend_usd"], shown["data_source_mode"]) == ("0.0000", "none")
    assert api.get("costs/summary", key=tenant.admin.key).json() == {"results": [], "next": None}


@pytest.mark.parametrize(
    "query",
    [
        {"month": "2026-13"}, {"month": "9999-12"}, {"month": "1999-12"}, {"month": "2026-1"},
        {"month": "٢٠٢٦-١١"}, {"project": ""}, {"project": "a\x00"}, {"cursor": "LTE="},
        {"cursor": "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OQ=="}, {"limit": "0"},
    ],
)  # fmt: skip
def test_a_summary_that_cannot_be_is_refused(
    api: Api, tenant: World, query: dict[str, str]
) -> None:
    answer = api.get("costs/summary", key=tenant.admin.key, query=query)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/{next(iter(query))}"


class Terminal(io.StringIO):
    """An output that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def run(*arguments: str, terminal: bool = False) -> tuple[int, str, str]:
    out, err = io.StringIO(), Terminal() if terminal else io.StringIO()
    try:
        call_command("ingest_costs", *arguments, stdout=out, stderr=err)
    except CommandError as error:
        return error.returncode, out.getvalue(), err.getvalue() + str(error)
    return 0, out.getvalue(), err.getvalue()


def test_the_command_takes_a_file_once(tenant: World, tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_bytes(csv_of({}, {"BilledCost": "2"}))
    code, out, err = run(str(path), "--tenant", tenant.slug)
    assert (code, err) == (0, "")
    assert "total            3.2500 USD" in out
    assert "units added      1" in out
    assert "units absent     0" in out
    assert days_of(tenant) == {("shop", "2026-11-03"): "3.2500"}
    (audit,) = audits(tenant, "costs.ingest")
    assert audit.actor == "system:ingest-costs"
    code, out, _ = run(str(path), "--tenant", tenant.slug)
    assert (code, "already ingested: nothing changed" in out) == (0, True)


def test_the_command_takes_parquet_and_other_tags(tenant: World, tmp_path: Path) -> None:
    path = tmp_path / "bill"
    columns = FOCUS_ROW | {"Tags": '{"team": "core", "owner": "x"}'}
    pq.write_table(pa.table({name: [text] for name, text in columns.items()}), path)
    tags = ("--project-tag", "none", "--project-tag", "team")
    assert post(Api(), tenant, csv_of({})).status_code == 201
    options = ("--format", "focus", "--whole-days", *tags)
    assert run(str(path), "--tenant", tenant.slug, *options)[0] == 0
    assert days_of(tenant) == {("core", "2026-11-03"): "1.2500", ("shop", "2026-11-03"): "0.0000"}


def test_the_command_draws_a_bar_on_a_terminal(tenant: World, tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_bytes(csv_of(*({} for _ in range(5000))))
    _, _, err = run(str(path), "--tenant", tenant.slug, terminal=True)
    drawn = [int(part.split("]")[1].strip(" %\n")) for part in err.split("\r")[1:]]
    assert drawn == sorted(set(drawn))
    assert len(drawn) > 2
    assert drawn[-1] == 100


def test_the_command_names_bad_lines_and_writes_nothing(tenant: World, tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_bytes(csv_of({}, {"BilledCost": "x"}))
    code, out, err = run(str(path), "--tenant", tenant.slug)
    assert (code, out) == (1, "")
    assert "lines/3/BilledCost: must be a decimal number (invalid_amount)" in err
    assert days_of(tenant) == {}


def test_the_command_used_wrongly_exits_2(tenant: World, tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_bytes(csv_of({}))
    assert run(str(path), "--tenant", "no-such-tenant")[0] == 2
    assert run(str(tmp_path / "none.csv"), "--tenant", tenant.slug)[0] == 2
    assert run(str(tmp_path), "--tenant", tenant.slug)[0] == 2
    assert days_of(tenant) == {}


def test_a_file_that_changes_while_it_is_read_is_refused(
    api: Api, tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = iter(["a" * 64, "b" * 64])
    monkeypatch.setattr(use_cases, "digest_of", lambda file: next(digests))
    answer = post(api, tenant, csv_of({}))
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")
    assert days_of(tenant) == {}


def test_the_real_sample_is_taken_whole(api: Api, tenant: World) -> None:
    if not REAL.exists():
        pytest.skip(f"the real FOCUS sample is not there: {REAL}")
    body = post(api, tenant, REAL.read_bytes()).json()
    assert (body["rows"], body["total_usd"], body["last_date"]) == (1000, "20.5202", "2024-09-30")
    with reading(tenant.id):
        units = list(CostUnit.objects.filter(tenant_id=tenant.id))
        ingestion = CostIngestion.objects.get(tenant_id=tenant.id)
    assert sum(Fraction(unit.amount_usd) for unit in units) == Fraction("20.52022672899")
    assert Fraction(ingestion.total_usd) == Fraction("20.52022672899")
    assert round_amount(ingestion.total_usd, places=MONTHLY_PLACES) == Decimal("20.5202")
    assert {project for project, _ in days_of(tenant)} == {"Foo", "unassigned"}
    assert post(api, tenant, REAL.read_bytes()).json()["status"] == "already_ingested"


_HISTORIES = """
SELECT tenant_id, project_id, month, days FROM billing_cost_history
 WHERE tenant_id = ANY(%s) ORDER BY tenant_id, project_id, month
"""


def test_days_from_before_there_were_histories_get_what_ingestion_keeps(
    api: Api, tenant: World, other_tenant: World, owner_cursor: psycopg.Cursor
) -> None:
    """The migration runs as the tables' owner, over all tenants at once."""
    days = ("2026-08-31", "2026-09-30", "2026-10-01", "2026-11-03", "2026-11-19")
    for number, world in enumerate((tenant, other_tenant), start=1):
        rows = [
            {"ChargePeriodStart": f"{day}T10:00:00Z", "BilledCost": f"{number}.5{place}"}
            for place, day in enumerate(days)
        ]
        elsewhere = {"Tags": f'{{"project": "only-{number}"}}', "BilledCost": f"-0.2{number}"}
        assert post(api, world, csv_of(*rows, elsewhere)).status_code == 201
    tenants = [tenant.id, other_tenant.id]
    kept = owner_cursor.execute(_HISTORIES, [tenants]).fetchall()
    mine, theirs = ({row[3] for row in kept if row[0] == one} for one in tenants)
    assert (len(kept), mine & theirs) == (18, set())
    with owner_cursor.connection.transaction(force_rollback=True):
        owner_cursor.execute("DELETE FROM billing_cost_history")
        owner_cursor.execute(KEEP_ALL)
        assert owner_cursor.execute(_HISTORIES, [tenants]).fetchall() == kept
    assert days_of(tenant).keys() & days_of(other_tenant).keys() == {("shop", day) for day in days}
