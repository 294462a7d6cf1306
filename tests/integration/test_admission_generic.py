"""``POST gate/k8s/admission``: the generic gate for changes to a cluster."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.integration.test_gate_terraform import rows_of
from tests.kubernetes import HOURLY, MONTHLY

PATH = "gate/k8s/admission"


def annotated(**annotations: Any) -> dict[str, Any]:
    return {"annotations": annotations}


def test_it_is_a_gate_of_its_own_source(tenant: World) -> None:
    shop = Shop(tenant, modes={"k8s_admission": {"default": "soft"}})
    budget = shop.budget("100.00")

    allowed = shop.ask("60.00", path=PATH, key="k")
    waiting = shop.ask("60.00", path=PATH, action="k8s.update")

    assert (allowed["source"], allowed["action"]) == ("k8s_admission", "k8s.create")
    assert (allowed["mode"], allowed["mode_scope"]) == ("soft", "k8s_admission.default")
    assert shop.ask("60.00", path=PATH, key="k") == {**allowed, "replayed": True}
    assert (waiting["decision"], waiting["action"]) == ("REQUIRE_APPROVAL", "k8s.update")
    assert shop.budget_state(budget)["pending_usd"] == Decimal(60)
    # A key names an attempt of one source.
    assert not shop.ask("1.00", key="k")["replayed"]


@pytest.mark.parametrize(
    ("metadata", "monthly"),
    [
        (annotated(**{MONTHLY: "60.00"}), "60.0000"),
        (annotated(**{HOURLY: "0.1"}), "73.0000"),
        (annotated(**{MONTHLY: "73", HOURLY: "0.1"}), "73.0000"),
        ({"labels": {MONTHLY: "5"}, **annotated(**{MONTHLY: "6"})}, "6.0000"),
        ({"labels": {MONTHLY: "5"}}, "5.0000"),
        (annotated(other="x"), None),
        ({"annotations": "text"}, None),
    ],
)
def test_the_cost_may_stand_in_the_objects_annotations(
    tenant: World, metadata: dict[str, Any], monthly: str | None
) -> None:
    shop = Shop(tenant)
    shop.budget("100.00")

    answer = shop.ask(None, path=PATH, metadata=metadata)

    assert answer["estimated_monthly_delta_usd"] == monthly


@pytest.mark.parametrize(
    ("code", "members"),
    [
        ("invalid_request", {"metadata": annotated(**{MONTHLY: 5})}),
        ("invalid_request", {"metadata": annotated(**{MONTHLY: "-5"})}),
        ("invalid_request", {"metadata": annotated(**{MONTHLY: "5", HOURLY: "5"})}),
        ("invalid_request", {"cluster": "eu"}),
        (
            "delta_mismatch",
            {"metadata": annotated(**{MONTHLY: "5"}), "estimated_monthly_delta_usd": "6"},
        ),
    ],
)
def test_a_bad_annotation_is_422_and_changes_no_row(
    tenant: World, code: str, members: dict[str, Any]
) -> None:
    shop = Shop(tenant)
    before = rows_of(tenant)

    response = shop.send(None, path=PATH, **members)

    assert (response.status_code, response.json()["code"]) == (422, code)
    assert rows_of(tenant) == before
