"""Pages: read in one round trip, and nothing but what the tables and the ORM say of their rows."""

from __future__ import annotations

import itertools
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import orjson
import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext

from billing.accounts.queries import read_grants
from billing.models import Account
from enforcement.review.queue import see_queue
from governance.api.remembered import remembered
from governance.approvals.models import Approval, Review
from governance.identity.domain import read_key_text
from governance.identity.queries import find_key_principal
from governance.models import PolicyVersion
from tests.assumed import assume_for_long, note_uses_ahead
from tests.client import Api
from tests.factories.tenants import World
from tests.integration.exports.history import KEY, make_history
from tests.reviews import act, admit, approve, open_shop
from valdrix.kernel.db import (
    NotInTransaction,
    read_at_once,
    read_within,
    reading,
    to_array,
    transaction,
)
from valdrix.kernel.rows import RowsOf, remembering, rendering

ODD = ["a", "", 'quo"te', "back\\slash", "{curly}, comma", "NULL", "line\nbreak", "é%s"]
PAGES = ("policies", "budgets", "credits", "approvals/queue", "ledger", "exports/parity")


def read(tenant: World, text: str, *values: str | None) -> Any:
    answer = read_at_once(tenant.id, text, *values)
    return None if answer is None else msgspec.json.decode(answer)


def test_a_page_takes_one_statement_and_the_first_one_the_credential_s(
    tenant: World, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.EXPORT_SIGNING_KEY = KEY
    assume_for_long(monkeypatch)
    make_history(tenant)
    key = read_key_text(tenant.owner.key)
    assert key is not None
    for path in PAGES:
        note_uses_ahead(tenant)
        remembered.forget(key.digest)
        counts = []
        for _ in range(2):
            with CaptureQueriesContext(connection) as captured:
                response = Api().get(path, key=tenant.owner.key)
            assert response.status_code == 200, response.content
            counts.append(len(captured.captured_queries))
        assert counts == [2, 1], path


def test_values_are_literals_whatever_they_hold(tenant: World) -> None:
    text = "SELECT to_json(ARRAY[%s, %s, %s])"
    assert read(tenant, text, "it's", None, "%s \\ '); DROP TABLE x; --") == [
        "it's",
        None,
        "%s \\ '); DROP TABLE x; --",
    ]
    assert read(tenant, "SELECT to_json(%s::text[])", to_array(ODD)) == ODD
    assert read(tenant, "SELECT to_json(%s::text[])", to_array(())) == []
    assert read(tenant, "SELECT to_json(%s::text[])", to_array(None)) is None


def test_what_is_read_at_once_is_the_tenants_and_cannot_write(
    tenant: World, other_tenant: World
) -> None:
    count = "SELECT to_json((SELECT count(*) FROM governance_api_key))"
    assert read(tenant, count) == 3
    with pytest.raises(DatabaseError, match="read-only"):
        read_at_once(tenant.id, "DELETE FROM governance_api_key RETURNING 'true'")
    assert read(tenant, count) == 3
    with connection.cursor() as cursor, pytest.raises(DatabaseError, match="tenant"):
        cursor.execute("SELECT count(*) FROM governance_api_key")
    with transaction(tenant.id):  # Nothing of the reading stays with the session.
        assert Account.objects.filter(tenant_id=other_tenant.id).count() == 0
        with pytest.raises(RuntimeError, match="of its own"):
            read_at_once(tenant.id, count)
    with pytest.raises(NotInTransaction):
        read_within(count)


@pytest.mark.parametrize("model", [Account, Approval, Review, PolicyVersion])
def test_a_row_has_what_its_model_has(tenant: World, model: Any) -> None:
    shop = open_shop(tenant)
    shop.budget("5000.00", environment="prod", team="odd, \"team'")
    shop.grant("reserved", "10.00", expires_at="2040-01-01T00:00:00.5Z")
    asked = shop.ask("300.00", environment="prod")["approval_request_id"]
    approve(tenant.owner, asked)
    rows = RowsOf(model)
    decoder = msgspec.json.Decoder(list[rows.type])  # type: ignore[name-defined] # made at run time
    text = f"SELECT coalesce(json_agg({rows.sql('t')} ORDER BY t.id), '[]') FROM {{}} t"
    answer = read_at_once(tenant.id, text.format(model._meta.db_table))
    assert answer is not None
    with reading(tenant.id):
        expected = list(model.objects.filter(tenant_id=tenant.id).order_by("pk"))
    assert expected
    for row, instance in zip(decoder.decode(answer), expected, strict=True):
        assert row.pk == str(instance.pk)
        for field in model._meta.concrete_fields:
            value = getattr(instance, field.attname)
            same = str(value) if isinstance(value, uuid.UUID) else value
            assert getattr(row, field.attname) == same, field.attname


def test_a_column_that_was_left_out_is_no_silent_query() -> None:
    rows = RowsOf(Account, only=("id", "kind"))
    row = msgspec.json.decode(b'["5", "budget"]', type=rows.type)
    assert (row.pk, row.kind) == ("5", "budget")
    with pytest.raises(AttributeError):
        _ = row.project_id


def test_lists_show_what_each_row_shows_however_often_it_changes(tenant: World) -> None:
    shop = open_shop(tenant)
    for place, name in enumerate(ODD):
        if name:
            project = name.replace("\n", " ")
            terms = {"environment": "prod"} if place % 2 else {"team": f"{project}'s"}
            shop.budget("5000.00", project_id=project, **terms)
            shop.grant(
                "reserved",
                f"{place + 1}.00",
                reason=f"{name} é",
                expires_at="2040-01-01T00:00:00.5Z",
            )
    shop.grant("emergency", "20.00")

    def check(path: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = Api().get(path, key=tenant.owner.key).json()["results"]
        assert len(rows) >= 7
        for row in rows:
            assert row == Api().get(f"{path}/{row['id']}", key=tenant.owner.key).json()
        return rows

    budgets, grants = check("budgets"), check("credits")
    assert (check("budgets"), check("credits")) == (budgets, grants)
    changed = {"monthly_limit_usd": "7.00", "active": False}
    path = f"budgets/{budgets[0]['id']}"
    assert Api().patch(path, changed, key=tenant.owner.key).status_code == 200
    path = f"credits/{grants[0]['id']}/void"
    assert Api().post(path, {}, key=tenant.owner.key).status_code == 200
    shop.ask("3.00", project_id=budgets[1]["project_id"], environment="prod")
    after = check("budgets")
    assert after[0] == {
        **budgets[0],
        **changed,
        "monthly_limit_usd": "7.0000",
        "headroom_usd": "7.0000",
    }
    assert (after[0] != budgets[0], after[2:]) == (True, budgets[2:])
    assert [one["status"] for one in check("credits")[:2]] == ["voided", "active"]


def test_a_grant_that_reads_the_same_expires(tenant: World) -> None:
    open_shop(tenant).grant("reserved", "5.00", expires_at="2040-01-01T00:00:00Z")
    ends = datetime(2040, 1, 1, tzinfo=UTC)
    for moment, status in ((ends - timedelta(seconds=1), "active"), (ends, "expired")) * 2:
        found = read_grants(tenant.id, projects=None, after_id=None, limit=9, now=moment)
        assert [one.status for one in found] == [status]


def test_of_a_short_row_is_made_once_what_it_makes() -> None:
    made: list[bytes] = []
    shown: list[Any] = []
    build = remembering(lambda row: made.append(row) or (row,))
    render = rendering(lambda value: shown.append(value) or {"row": value[0].decode()})
    texts = [b'"one"', b'"two"', b'"one"', b'"' + b"x" * 5000 + b'"'] * 2
    rows = [build(msgspec.Raw(text)) for text in texts]
    assert [row[0] for row in rows] == texts
    assert rows[0] is rows[2] is rows[4]
    assert made == [b'"one"', b'"two"', texts[3], texts[3]]
    pages = [orjson.dumps([render(row) for row in rows[:3]]) for _ in range(2)]
    assert pages[0] == pages[1] == orjson.dumps([{"row": text.decode()} for text in texts[:3]])
    assert shown == [rows[0], rows[1]]


def test_a_queue_shows_what_the_list_shows(tenant: World) -> None:
    shop = open_shop(
        tenant,
        approvals={"prod": {"required": 2}, "nonprod": {"required": 1}},
        credits={"emergency": {"prod": "approval", "nonprod": "automatic"}},
    )
    shop.budget("310.00", environment="prod")
    shop.budget("10.00", environment="nonprod")
    shop.grant("emergency", "5000.00")
    olga = admit(tenant, "owner", "olga")
    asked = [
        shop.ask("300.00", environment="prod", resource_reference="plain"),
        shop.ask("400.00", environment="prod", resource_reference="by emergency"),
        shop.ask("500.00", resource_reference="burns emergency"),
        shop.ask(None, environment="prod", resource_reference="unknown"),
        shop.ask("350.00", environment="prod", resource_reference="given once"),
    ]
    approve(olga, asked[-1]["approval_request_id"], reason="yes")
    assert all(one["approval_request_id"] for one in asked), asked

    queue = Api().get("approvals/queue", key=tenant.owner.key).json()["results"]
    listed = Api().get("approvals", key=tenant.owner.key).json()["results"]

    shown = {one["id"]: one for one in listed if one["may_approve"]}
    assert [one["id"] for one in queue] == sorted(shown)
    assert queue == [shown[one["id"]] for one in queue]
    assert {one["reason_required"] for one in queue} == {True, False}
    assert 1 in {one["approvals_given"] for one in queue}
    assert asked[-1]["approval_request_id"] not in {
        one["id"] for one in Api().get("approvals/queue", key=olga.key).json()["results"]
    }


def test_a_queue_goes_on_behind_what_a_person_may_not_judge(tenant: World) -> None:
    shop = open_shop(tenant, approvals={"prod": {"required": 2}})
    shop.budget("50000.00")
    olga = admit(tenant, "owner", "olga")
    ids = [
        shop.ask("300.00", environment="prod", resource_reference=f"r{number}")
        for number in range(5)
    ]
    for one in ids[:4]:
        approve(olga, one["approval_request_id"])
    key = read_key_text(olga.key)
    assert key is not None
    principal = find_key_principal(key)
    assert principal is not None
    seen = see_queue(principal, limit=2, now=datetime.now(UTC))
    assert [one.approval.pk for one in seen] == [ids[4]["approval_request_id"]]
    assert act(olga, ids[4]["approval_request_id"], "approve").status_code == 200
    assert see_queue(principal, limit=2, now=datetime.now(UTC)) == []


def test_sessions_that_were_opened_together_end_one_after_the_other(database: None) -> None:
    age = connection.settings_dict["CONN_MAX_AGE"]
    ends = []
    for _ in range(4):
        opened = connection.copy()
        before = time.monotonic()
        opened.connect()
        assert opened.close_at is not None
        ends.append((opened.close_at - before) / age)
        opened.close()
    ends.sort()
    assert ends[0] >= 1
    assert ends[-1] < 2
    assert all(later - earlier > 0.1 for earlier, later in itertools.pairwise(ends))
