"""``/metrics``: the names operators rely on, moved by what really happens."""

from __future__ import annotations

import pytest

from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from valdrix.metrics import state


def scrape() -> dict[str, float]:
    text = Api().get("/metrics").content.decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_a_decision_moves_the_gate_s_metrics_and_names_nobody(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("100.00")
    decided = (
        "valdrix_ops_enforcement_gate_decisions_total"
        '{decision="ALLOW",mode="hard",source="terraform"}'
    )
    count = "valdrix_ops_enforcement_gate_latency_seconds_count"
    before = scrape()

    shop.ask("10.00", key="k")
    shop.ask("10.00", key="k")

    after = scrape()
    assert after[decided] - before.get(decided, 0) == 1, "a replay is no decision"
    assert after[count] - before.get(count, 0) == 1
    acquired = 'valdrix_ops_enforcement_gate_lock_events_total{event="acquired"}'
    assert after[acquired] - before.get(acquired, 0) == 1
    text = Api().get("/metrics").content.decode()
    assert tenant.slug not in text
    assert "shop" not in text


def test_requests_and_authentications_are_counted_by_route(api: Api, tenant: World) -> None:
    failed = 'auth_attempts_total{outcome="failed"}'
    before = scrape().get(failed, 0)

    api.get("budgets", key="vdx_nonsense")
    api.get("/no/such/path")

    after = scrape()
    assert after[failed] - before == 1
    assert any('route="unmatched"' in name for name in after)
    assert any('route="api/v1/enforcement/budgets"' in name for name in after)


def test_the_state_that_was_read_is_kept_by_no_process(
    database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(*_: object, **__: object) -> None:
        pytest.fail("several processes would add up what each read at its last scrape")

    monkeypatch.setattr("prometheus_client.values.ValueClass", keep)
    state.forget()
    lines = state.render().decode().splitlines()
    state.forget()
    samples = [line.split(" ")[0] for line in lines if not line.startswith("#")]
    assert samples == [
        "valdrix_ops_database_up", "valdrix_ops_pending_migrations",
        "valdrix_ops_enforcement_approval_queue_backlog", "valdrix_ops_open_incidents",
    ]  # fmt: skip
