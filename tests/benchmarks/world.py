"""The tenants of a benchmark: a policy with rules, budgets, a month of costs, and keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson

from billing.costs.domain import DayAmount
from billing.costs.operations import record_daily_costs
from tests.benchmarks.policies import SECTIONS
from tests.client import Api
from tests.factories.headroom import PROJECT, Shop
from tests.factories.tenants import World, create_world
from tests.kubernetes import MONTHLY, a_review, an_object
from tests.preflight import build_preflight
from valdrix.kernel.db import transaction
from valdrix.kernel.ids import new_id

COST_DAYS = 30
BATCH = 20

GATE_BODY: dict[str, Any] = {
    "project_id": PROJECT,
    "environment": "dev",
    "action": "terraform.apply",
    "resource_reference": "module.checkout.aws_instance.web-@N@",
    "estimated_monthly_delta_usd": "0.5000",
    "run_id": "run-@N@",
    "metadata": {"family": "m5", "region": "eu-central-1", "owner": "checkout", "count": 3},
}


@dataclass(frozen=True)
class Tenants:
    """One tenant that everybody asks, and many that are asked in turn."""

    hot: World
    spread: tuple[World, ...]


def create_tenants(count: int) -> Tenants:
    """Commit a hot tenant and ``count`` others, all with the same policy, budgets and costs."""
    return Tenants(create_tenant(), tuple(create_tenant() for _ in range(count)))


def create_tenant() -> World:
    """Commit one tenant that allows what the benchmark asks, from its budgets."""
    world = create_world()
    shop = Shop(world, **SECTIONS, k8s={"trust_object_annotations": True})
    shop.budget("500000000.00")
    shop.budget("400000000.00", environment="nonprod")
    today = datetime.now(UTC).date()
    days = [
        DayAmount(
            project_id=PROJECT,
            date=today - timedelta(days=back),
            amount_usd=Decimal(100 + back % 7),
            is_final=back > 2,
        )
        for back in range(COST_DAYS)
    ]
    with transaction(world.id):
        record_daily_costs(tenant_id=world.id, days=days, ingested_at=datetime.now(UTC))
    return world


def gate_body() -> str:
    """Return the body of a gate, with the places for a number of its own."""
    return orjson.dumps(GATE_BODY).decode()


def preflight_body(estimate: dict[str, Any]) -> str:
    """Return the body of a preflight with a real estimate."""
    body = build_preflight(
        run_id="run-@N@",
        resource_reference="module.checkout-@N@",
        cost_estimate={"format": "infracost", "document": estimate},
    )
    return orjson.dumps(body).decode()


def batch_body() -> str:
    """Return the body of a batch of gates, each with a key and a change of its own."""
    items = [
        orjson.loads(gate_body().replace("@N@", f"@N@-{place}"))
        | {"idempotency_key": f"bench-@N@-{place}"}
        for place in range(BATCH)
    ]
    return orjson.dumps({"items": items}).decode()


def review_body() -> str:
    """Return what an API server sends about a new Deployment, each with a uid of its own."""
    placed = {"valdrix.io/project": PROJECT, "valdrix.io/environment": "dev", MONTHLY: "0.5000"}
    thing = an_object(name="web-@N@", annotations=placed)
    return orjson.dumps(a_review(thing, uid="@N@", name="web-@N@")).decode()


def ask_once(world: World) -> str:
    """Ask the gate once and return the decision's id: the rows that floors are cut from.

    :raises AssertionError: when it was not allowed, for which nothing would be held.
    """
    number = new_id().hex
    body = orjson.loads(gate_body().replace("@N@", number))
    headers = {"Idempotency-Key": number}
    response = Api().post("gate/terraform", body, key=world.key, headers=headers).json()
    assert response["decision"] == "ALLOW", response
    return str(response["decision_id"])
