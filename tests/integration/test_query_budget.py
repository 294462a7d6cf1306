"""The gate's path in statements: adding one is a decision, made by changing a number here."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.assumed import assume_for_long, note_uses_ahead
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.preflight import build_preflight

BUDGET = {
    "allow": 4,
    "deny": 4,
    "replay": 10,
    "preflight": 4,
    "dry run": 7,
}
"""Two of each are Django's own BEGIN and COMMIT, which are sent together with other statements."""


@pytest.fixture
def shop(tenant: World, monkeypatch: pytest.MonkeyPatch) -> Shop:
    assume_for_long(monkeypatch)
    made = Shop(tenant)
    made.budget("1000.00")
    note_uses_ahead(tenant)
    made.ask("1.00", key="warm")
    return made


def statements(captured: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in captured.captured_queries]


@pytest.mark.parametrize("kind", BUDGET)
def test_a_gate_keeps_to_its_statements(shop: Shop, kind: str) -> None:
    with CaptureQueriesContext(connection) as captured:
        if kind == "preflight":
            response = Api().post(
                "gate/terraform/preflight", build_preflight(), key=shop.world.member.key
            )
            assert response.json()["decision"] == "ALLOW"
        elif kind == "dry run":
            shop.ask("10.00", dry_run=True)
        elif kind == "replay":
            assert shop.ask("1.00", key="warm")["replayed"]
        else:
            answer = shop.ask("10.00" if kind == "allow" else "10000.00", key="k")
            assert answer["decision"] == kind.upper()

    assert len(captured) == BUDGET[kind], "\n".join(statements(captured))


def test_the_statements_do_not_grow_with_the_past(shop: Shop) -> None:
    for number in range(20):
        shop.ask("1.00", key=f"past-{number}")

    with CaptureQueriesContext(connection) as captured:
        shop.ask("1.00", key="now")

    assert len(captured) == BUDGET["allow"]
