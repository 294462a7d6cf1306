"""``POST gate/k8s/admission/review``: what an API server sends, gets, and what is left behind."""

from __future__ import annotations

import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing.models import Charge
from enforcement.admission import queries as admission_queries
from enforcement.gate import evaluate as evaluate_module
from enforcement.models import Decision
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World, issue_key
from tests.integration.test_gate_terraform import rows_of
from tests.kubernetes import (
    DECISION,
    HOURLY,
    MONTHLY,
    REVIEW,
    UID,
    CallFailed,
    a_review,
    an_object,
    send_review,
    shown_refusal,
    verify,
)
from valdrix.kernel.db import reading

TRUSTING = {"trust_object_annotations": True}
PLACED = {"valdrix.io/project": "shop", "valdrix.io/environment": "dev"}
FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "admission-review"
UPDATE = {"operation": "UPDATE"}
DELETE = {"operation": "DELETE"}


@pytest.fixture
def shop(tenant: World) -> Shop:
    """Give a shop whose policy trusts what objects say of their project and environment."""
    return Shop(tenant, k8s=TRUSTING)


def placed(monthly: str | None = None, *, kind: str = "Deployment", **more: Any) -> dict[str, Any]:
    """Return an object of the shop's, in dev."""
    annotations = {**PLACED, **({} if monthly is None else {MONTHLY: monthly})}
    return an_object(kind, annotations={**annotations, **more.pop("annotations", {})}, **more)


def ask(shop: Shop, *objects: dict[str, Any] | None, **request: Any) -> dict[str, Any]:
    """Send a review with the member's key; the answer is one that an API server accepts."""
    return send_review(a_review(*objects, **request), key=shop.world.key)


def why(response: dict[str, Any]) -> str:
    """Return why the gate was not asked."""
    assert response["allowed"]
    return response["auditAnnotations"]["exempt"]


def pending(shop: Shop, budget: str) -> Decimal:
    return shop.budget_state(budget)["pending_usd"]


def test_a_creation_is_charged_and_recorded(shop: Shop) -> None:
    budget = shop.budget("1000.00")

    response = ask(shop, placed("300.00"))

    assert response["allowed"]
    assert pending(shop, budget) == Decimal(300)
    assert check_chain(shop.world.id) == 4
    assert find_differences(shop.world.id) == []
    with reading(shop.world.id):
        stored = Decision.objects.get(id=response["auditAnnotations"]["decision-id"])
    asked = json.loads(stored.context_json)["gate_input"]
    assert asked["metadata"]["cost_basis"] == "declared"
    assert asked["change_digest_is_computed"] is True
    # The object itself is nobody's to read here.
    assert "replicas" not in stored.context_json


def test_what_is_refused_says_why_to_who_applied_it(shop: Shop) -> None:
    shop.budget("100.00")

    code, text = shown_refusal(ask(shop, placed("100.01")), resource="deployments.apps", name="web")

    assert code == 403
    assert 'deployments.apps "web" is forbidden: admission webhook' in text
    assert "Denied: the project's budget does not cover it." in text
    assert "100.0100 was asked of 100.0000 left" in text


@pytest.mark.parametrize(
    ("operation", "request_members"),
    [("CREATE", {}), ("UPDATE", UPDATE), ("DELETE", DELETE), ("CONNECT", {})],
)
def test_a_dry_run_leaves_no_row(
    shop: Shop, operation: str, request_members: dict[str, Any]
) -> None:
    budget = shop.budget("1000.00")
    ask(shop, placed("100.00"))
    before = (*rows_of(shop.world), pending(shop, budget))
    new = None if operation == "DELETE" else placed("300.00", name="other")
    old = placed("100.00") if operation in {"UPDATE", "DELETE"} else None

    response = ask(shop, new, old, dryRun=True, **{"operation": operation, **request_members})

    assert response["allowed"]
    assert "decision-id" not in response["auditAnnotations"]
    assert (*rows_of(shop.world), pending(shop, budget)) == before


def test_a_dry_run_says_what_would_be_refused(shop: Shop) -> None:
    shop.budget("100.00")
    before = rows_of(shop.world)

    assert not ask(shop, placed("100.01"), dryRun=True)["allowed"]
    assert rows_of(shop.world) == before


def test_an_update_is_charged_what_it_adds(shop: Shop) -> None:
    budget = shop.budget("1000.00")

    more = ask(shop, placed("300.00", spec={"replicas": 6}), placed("100.00"), **UPDATE)
    less = ask(shop, placed("50.00", spec={"replicas": 1}), placed("100.00"), **UPDATE)

    assert more["auditAnnotations"]["monthly-delta-usd"] == "200.0000"
    assert less["auditAnnotations"]["monthly-delta-usd"] == "-50.0000"
    assert pending(shop, budget) == Decimal(200)


def test_updates_one_after_the_other_are_each_charged(shop: Shop) -> None:
    """The same spec at another cost is another change: it shares nothing with the one before."""
    budget = shop.budget("1000.00")

    ask(shop, placed("300.00"), placed("100.00"), **UPDATE)
    ask(shop, placed("600.00"), placed("300.00"), **UPDATE)

    assert pending(shop, budget) == Decimal(500)


@pytest.mark.parametrize(
    ("spec", "labels"),
    [({"replicas": 3}, {"team": "web"}), ({"replicas": 3}, {})],
)
@pytest.mark.parametrize("monthly", ["100.00", None])
def test_an_update_that_changes_nothing_of_the_object_is_not_asked(
    shop: Shop, spec: dict[str, Any], labels: dict[str, str], monthly: str | None
) -> None:
    before = rows_of(shop.world)

    response = ask(shop, placed(monthly, spec=spec, labels=labels), placed(monthly), **UPDATE)

    assert why(response) == "unchanged"
    assert rows_of(shop.world) == before


@pytest.mark.parametrize("monthly", ["100.00", None])
def test_an_update_without_a_change_of_cost_reserves_nothing(
    shop: Shop, monthly: str | None
) -> None:
    """A new image costs nothing, whether or not the author says what the object costs."""
    budget = shop.budget("10.00")
    old = {"template": {"spec": {"containers": [{"name": "a", "image": "a:1"}]}}}
    new = {"template": {"spec": {"containers": [{"name": "a", "image": "a:2"}]}}}

    response = ask(shop, placed(monthly, spec=new), placed(monthly, spec=old), **UPDATE)

    assert response["allowed"]
    assert response["auditAnnotations"]["cost-state"] == "known"
    assert response["auditAnnotations"]["monthly-delta-usd"] == "0.0000"
    assert pending(shop, budget) == 0


def test_more_replicas_without_a_stated_cost_are_unknown_and_never_free(shop: Shop) -> None:
    shop.budget("1000.00")
    prod = {"valdrix.io/environment": "prod"}

    response = ask(
        shop,
        placed(spec={"replicas": 30}, annotations=prod),
        placed(annotations=prod),
        **UPDATE,
    )

    assert not response["allowed"]
    assert response["auditAnnotations"]["cost-state"] == "unknown"
    assert "Approval" in response["status"]["message"]


def test_a_deletion_is_never_refused_for_cost(shop: Shop) -> None:
    budget = shop.budget("100.00")
    ask(shop, placed("100.00"))

    known = ask(shop, None, placed("100.00"), **DELETE)
    unknown = ask(shop, None, placed(name="other", kind="Pod"), **DELETE)
    wrong = ask(shop, None, placed("a lot", name="third"), **DELETE)
    bare = ask(shop, None, None, **DELETE, object=None, oldObject=None)

    assert known["auditAnnotations"]["monthly-delta-usd"] == "-100.0000"
    assert why(unknown) == why(wrong) == why(bare) == "deletion-of-no-known-cost"
    # What was saved frees nothing until it is reconciled.
    assert pending(shop, budget) == Decimal(100)


OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "controller": True}


@pytest.mark.parametrize(
    ("reason", "thing", "members"),
    [
        ("controller-owned", placed(kind="Pod", ownerReferences=[OWNER]), {}),
        ("subresource", placed(kind="Pod"), {"subResource": "exec", "operation": "CONNECT"}),
        ("subresource", placed(kind="Pod"), {"subResource": "eviction"}),
        ("kind-not-priced", placed(kind="ConfigMap"), {}),
        ("namespace", placed(), {"namespace": "kube-system"}),
        ("namespace", placed(), {"namespace": "valdrix-system"}),
    ],
)
def test_what_is_exempt_leaves_no_row(
    shop: Shop, reason: str, thing: dict[str, Any], members: dict[str, Any]
) -> None:
    before = rows_of(shop.world)

    assert why(ask(shop, thing, **members)) == reason
    assert rows_of(shop.world) == before


@pytest.mark.parametrize(
    ("thing", "members"),
    [
        (placed("50.00", kind="Pod", ownerReferences=[OWNER]), {}),
        (placed("50.00", kind="ConfigMap"), {}),
        (placed("50.00"), {"namespace": "kube-system"}),
        (placed("50.00"), {"namespace": "valdrix-system"}),
        (placed("50.00"), {"subResource": "rollback"}),
    ],
)
def test_what_carries_a_cost_is_not_exempt(
    shop: Shop, thing: dict[str, Any], members: dict[str, Any]
) -> None:
    budget = shop.budget("1000.00")

    assert ask(shop, thing, **members)["auditAnnotations"]["decision"] == "ALLOW"
    assert pending(shop, budget) == Decimal(50)


def test_a_replica_set_that_copies_its_deployments_annotations_is_charged_once(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    owner = {**OWNER, "kind": "Deployment", "name": "web"}

    ask(shop, placed("300.00"))
    copied = ask(shop, placed("300.00", kind="ReplicaSet", name="web-1", ownerReferences=[owner]))

    assert why(copied) == "controller-owned"
    assert pending(shop, budget) == Decimal(300)


def test_a_made_up_controller_is_none(shop: Shop) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "mine", "controller": True}

    response = ask(shop, placed(kind="Pod", ownerReferences=[owner]))

    assert response["auditAnnotations"]["decision"] == "ALLOW"
    assert response["auditAnnotations"]["cost-state"] == "unknown"


def scale(replicas: int) -> dict[str, Any]:
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": "web", "namespace": "shop-dev", "resourceVersion": "7"},
        "spec": {"replicas": replicas} if replicas else {},
    }


SCALING = {
    "operation": "UPDATE",
    "subResource": "scale",
    "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
}


def test_a_scale_up_has_an_unknown_cost_and_a_scale_down_is_not_asked(shop: Shop) -> None:
    up = ask(shop, scale(9), scale(3), **SCALING)
    down = ask(shop, scale(0), scale(3), **SCALING)

    # Nothing says where it belongs, so that it is prod.
    assert not up["allowed"]
    assert up["auditAnnotations"]["cost-state"] == "unknown"
    assert why(down) == "scale-down"


def test_a_scale_of_what_is_not_priced_is_not_asked(tenant: World) -> None:
    shop = Shop(tenant, k8s={**TRUSTING, "priced_kinds": ["Job"]})

    assert why(ask(shop, scale(9), scale(3), **SCALING)) == "kind-not-priced"


def test_a_retry_is_one_charge_and_a_refusal_is_asked_anew(shop: Shop) -> None:
    budget = shop.budget("100.00")

    refused = [ask(shop, placed("150.00")) for _ in range(2)]
    change = {"monthly_limit_usd": "1000.00"}
    shop.api.patch(f"budgets/{budget}", change, key=shop.world.admin.key)
    allowed = [ask(shop, placed("150.00"), uid=f"round-trip-{n}") for n in range(2)]

    ids = [one["auditAnnotations"]["decision-id"] for one in (*refused, *allowed)]
    assert [one["allowed"] for one in (*refused, *allowed)] == [False, False, True, True]
    assert len(set(ids)) == 3
    assert ids[2] == ids[3]
    assert pending(shop, budget) == Decimal(150)


def test_a_retry_key_ends_with_its_minute_and_with_its_reservation(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.budget("1000.00")
    first = ask(shop, placed("150.00"))["auditAnnotations"]["decision-id"]
    monkeypatch.setattr("enforcement.adapters.kubernetes.RETRY_SECONDS", 0)
    lapsed = ask(shop, placed("150.00"))["auditAnnotations"]["decision-id"]
    monkeypatch.undo()
    body = {"actual_monthly_delta_usd": "150.00"}
    settled = shop.api.post(f"reservations/{first}/reconcile", body, key=shop.world.admin.key)
    assert settled.status_code == 200
    after = ask(shop, placed("150.00"))["auditAnnotations"]["decision-id"]

    assert len({first, lapsed, after}) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"name": "other"},
        {"spec": {"replicas": 4}},
        {"kind": "StatefulSet"},
    ],
)
def test_another_object_is_another_change(shop: Shop, other: dict[str, Any]) -> None:
    budget = shop.budget("1000.00")

    ask(shop, placed("100.00"))
    ask(shop, placed("100.00", **other))

    assert pending(shop, budget) == Decimal(200)


def test_objects_that_get_their_name_later_are_each_charged(shop: Shop) -> None:
    """Fifty equal jobs are fifty charges, though their manifests are the same."""
    budget = shop.budget("1000.00")
    for number in range(3):
        job = placed("100.00", kind="Job", uid=f"uid-{number}", generateName="batch-")
        del job["metadata"]["name"]
        ask(shop, job)

    assert pending(shop, budget) == Decimal(300)


def test_a_pipeline_and_the_admission_that_names_its_decision_are_one_charge(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    decision = shop.ask("300.00")["decision_id"]

    same = ask(shop, placed("200.00", annotations={DECISION: decision}))
    rest = ask(shop, placed("150.00", name="second", annotations={DECISION: decision}))
    none = ask(shop, placed("50.00", name="third", annotations={DECISION: decision}))

    assert all(one["allowed"] for one in (same, rest, none))
    # 200 and 100 are the pipeline's; 50 and 50 are new.
    assert pending(shop, budget) == Decimal(400)
    assert "nothing to share" in none["warnings"][0]
    assert find_differences(shop.world.id) == []


def other_projects_decision(shop: Shop) -> str:
    shop.budget("1000.00", project_id="rich")
    return str(shop.ask("300.00", project_id="rich")["decision_id"])


def refused_decision(shop: Shop) -> str:
    return str(shop.ask("5000.00")["decision_id"])


def prod_decision(shop: Shop) -> str:
    return str(shop.ask("300.00", environment="prod")["decision_id"])


@pytest.mark.parametrize(
    "name",
    [
        other_projects_decision,
        refused_decision,
        prod_decision,
        lambda shop: str(uuid.uuid4()),
        lambda shop: "not-a-decision",
        lambda shop: "٠" * 8 + "-0000-0000-0000-" + "0" * 12,
    ],
)
def test_a_decision_that_cannot_be_named_gains_nothing(shop: Shop, name: Any) -> None:
    budget = shop.budget("2000.00", environment="nonprod")
    shop.budget("1000.00", environment="prod")
    decision = name(shop)

    response = ask(shop, placed("300.00", annotations={DECISION: decision}))

    assert response["allowed"]
    assert response["warnings"]
    assert pending(shop, budget) == Decimal(300)


def test_another_tenants_decision_gains_nothing(shop: Shop, other_tenant: World) -> None:
    foreign = Shop(other_tenant)
    foreign.budget("1000.00")
    decision = foreign.ask("300.00")["decision_id"]
    budget = shop.budget("1000.00")

    ask(shop, placed("300.00", annotations={DECISION: decision}))

    assert pending(shop, budget) == Decimal(300)
    with reading(other_tenant.id):
        assert Charge.objects.get(tenant_id=other_tenant.id).taken_usd == 0


def test_annotations_say_nothing_of_the_project_unless_the_policy_trusts_them(
    tenant: World,
) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")

    response = ask(shop, placed("10.00"))

    audit = response["auditAnnotations"]
    assert (audit["project"], audit["environment"]) == ("unassigned", "prod")
    assert not response["allowed"]
    assert "no_budget_configured" in audit["reason-codes"]
    assert pending(shop, budget) == 0


def bound_key(world: World, *projects: str) -> str:
    terms: dict[str, Any] = {"name": "cluster", "role": "member", "person_id": world.member.user_id}
    return issue_key(world.id, projects=list(projects), **terms)[1]


@pytest.mark.parametrize("claim", ["rich", "ѕhop", "shop\u200b"])
def test_a_credential_for_one_project_is_that_projects_whatever_the_object_says(
    shop: Shop, claim: str
) -> None:
    budget, rich = shop.budget("1000.00"), shop.budget("1000.00", project_id="rich")
    review = a_review(placed("10.00", annotations={"valdrix.io/project": claim}))

    response = send_review(review, key=bound_key(shop.world, "shop"))

    audit = response["auditAnnotations"]
    # A claim that is false in one thing is not believed in another.
    assert (audit["project"], audit["environment"]) == ("shop", "prod")
    assert (pending(shop, budget), pending(shop, rich)) == (Decimal(10), 0)


@pytest.mark.parametrize(("mode", "allowed"), [("hard", False), ("soft", False), ("shadow", True)])
def test_a_credential_for_other_projects_is_refused_within_the_review(
    tenant: World, mode: str, allowed: bool
) -> None:
    shop = Shop(tenant, k8s=TRUSTING, modes={"k8s_admission": {"default": mode}})
    before = rows_of(tenant)

    response = send_review(a_review(placed("10.00")), key=bound_key(tenant, "a", "b"))

    assert response["allowed"] is allowed
    assert response["auditAnnotations"]["reason-codes"] == "project_not_allowed"
    assert rows_of(tenant) == before
    assert shop.world is tenant


@pytest.mark.parametrize("environment", ["dеv", "dev\u200b", "ｄｅｖ", "", "prod-dev"])
def test_an_environment_that_only_looks_like_one_is_prod(shop: Shop, environment: str) -> None:
    response = ask(shop, placed("10.00", annotations={"valdrix.io/environment": environment}))

    assert response["auditAnnotations"]["environment"] == "prod"


@pytest.mark.parametrize(
    "text", ["1" * 400, "1000000000000.01", "Infinity", "-0.01", "1,5", "５", "0x10", " 5", "5 "]
)
def test_a_cost_that_no_column_holds_is_refused(shop: Shop, text: str) -> None:
    budget = shop.budget("1000.00")

    for name in (MONTHLY, HOURLY):
        response = ask(shop, placed(annotations={name: text}))
        assert (response["allowed"], response["status"]["code"]) == (False, 422)
    assert pending(shop, budget) == 0


def test_a_lie_in_the_old_object_frees_nothing(shop: Shop) -> None:
    """What an old object is said to have cost was charged then, or is not believed now."""
    budget = shop.budget("1000.00")

    huge = ask(shop, placed("1.00"), placed("1000000000000"), **UPDATE)
    wrong = ask(shop, placed("300.00", name="b"), placed("-5", name="b"), **UPDATE)

    assert huge["allowed"]
    assert wrong["allowed"]
    assert "counts as nothing" in wrong["warnings"][0]
    assert pending(shop, budget) == Decimal(300)


def test_policy_may_take_declared_costs_for_unknown(tenant: World) -> None:
    shop = Shop(
        tenant,
        k8s={**TRUSTING, "declared_costs": "unknown"},
        unknown_cost={"nonprod": "deny"},
    )
    shop.budget("1000.00")

    created = ask(shop, placed("10.00"))
    deleted = ask(shop, None, placed("10.00"), **DELETE)

    assert (created["allowed"], created["auditAnnotations"]["cost-state"]) == (False, "unknown")
    assert deleted["allowed"]


def test_a_rule_sees_that_a_cost_is_declared(tenant: World) -> None:
    rule = {
        "id": "no-claims",
        "when": "input.metadata.cost_basis == 'declared'",
        "effect": "deny",
        "message": "Costs come from the pipeline.",
    }
    shop = Shop(tenant, k8s=TRUSTING, rules=[rule])
    shop.budget("1000.00")

    response = ask(shop, placed("10.00"))

    assert "Costs come from the pipeline." in response["status"]["message"]


def test_shadow_lets_through_and_warns_of_what_hard_would_say(tenant: World) -> None:
    shop = Shop(tenant, k8s=TRUSTING, modes={"k8s_admission": {"default": "shadow"}})
    budget = shop.budget("10.00")

    response = ask(shop, placed("300.00"))

    assert response["allowed"]
    assert response["warnings"][0].startswith("Valdrix: hard mode would say DENY")
    assert pending(shop, budget) == 0


@pytest.mark.parametrize(("mode", "allowed"), [("hard", False), ("soft", False), ("shadow", True)])
def test_what_cannot_be_evaluated_fails_safe_by_its_mode(
    tenant: World, monkeypatch: pytest.MonkeyPatch, mode: str, allowed: bool
) -> None:
    shop = Shop(tenant, k8s=TRUSTING, modes={"k8s_admission": {"default": mode}})
    budget = shop.budget("1000.00")

    def break_down(**_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(evaluate_module, "read_snapshot", break_down)
    response = ask(shop, placed("10.00"))
    monkeypatch.undo()

    assert response["allowed"] is allowed
    assert response["auditAnnotations"]["reason-codes"] == "gate_evaluation_error"
    assert pending(shop, budget) == 0
    # Nothing was claimed: the retry is evaluated.
    assert ask(shop, placed("10.00"))["auditAnnotations"]["decision"] == "ALLOW"


def test_the_evaluation_keeps_within_what_the_api_server_waits(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    budgets = []
    evaluate = evaluate_module.evaluate

    def note(*args: Any, budget: Any) -> Any:
        budgets.append((budget.total_ms, budget.lock_ms))
        return evaluate(*args, budget=budget)

    monkeypatch.setattr("enforcement.api.gates.evaluate", note)
    for wait in ("1s", "30s", "1m30s", "500ms", "soon", "0s"):
        Api().post(REVIEW, a_review(placed("1.00")), key=shop.world.key, query={"timeout": wait})

    assert budgets == [
        (500, 500),
        (2000, 1500),
        (2000, 1500),
        (250, 250),
        (2000, 1500),
        (50, 50),
    ]


def test_a_review_keeps_to_its_statements(shop: Shop) -> None:
    """What is exempt by itself costs the look-up of the credential and nothing more."""
    shop.budget("1000.00")
    ask(shop, placed("1.00", name="warm"))
    counts = []
    for send in (
        lambda: ask(shop, placed("10.00")),
        lambda: ask(shop, placed(kind="Pod"), subResource="binding"),
    ):
        with CaptureQueriesContext(connection) as captured:
            send()
        counts.append(len(captured))

    # One reads the policy and the cluster beforehand; its retry and its approval are looked for in
    # the call that begins the gate: adding one is a decision, made by changing the number.
    assert counts == [6, 1]


def test_an_old_object_that_was_reserved_confirms_it(shop: Shop) -> None:
    shop.budget("1000.00")
    first = ask(shop, placed("100.00"))["auditAnnotations"]["decision-id"]

    ask(shop, placed("150.00"), placed("100.00", spec={"replicas": 99}), **UPDATE)
    assert confirmed(shop) == []
    ask(shop, placed("150.00"), placed("100.00"), dryRun=True, **UPDATE)
    assert confirmed(shop) == []
    ask(shop, placed("150.00", spec={"replicas": 4}), placed("100.00"), **UPDATE)

    assert confirmed(shop) == [first]
    # An update that is itself asked nothing proves as much.
    assert why(ask(shop, placed("150.00"), placed("150.00"), **UPDATE)) == "unchanged"
    assert len(confirmed(shop)) == 2


def test_a_status_confirms_what_runs(shop: Shop) -> None:
    """The API server's controllers write it as soon as the object is in force."""
    shop.budget("1000.00")
    first = ask(shop, placed("100.00"))["auditAnnotations"]["decision-id"]
    running = {**placed("100.00"), "status": {"availableReplicas": 3}}

    assert (
        why(ask(shop, running, placed("100.00"), subResource="status", **UPDATE)) == "subresource"
    )
    assert confirmed(shop) == [first]


def test_terms_that_cannot_be_read_in_time_are_the_last_that_were(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = shop.budget("1000.00")
    ask(shop, placed("10.00"))

    slow = admission_queries._TERMS.replace("SELECT", "SELECT pg_sleep(30),", 1)
    monkeypatch.setattr(admission_queries, "_TERMS", slow)
    review = a_review(placed("20.00", name="other"))
    response = send_review(review, key=shop.world.key, query={"timeout": "1s"})

    # The policy is known, and trusts what the object says of its place.
    assert response["allowed"]
    assert shop.budget_state(budget)["pending_usd"] == Decimal(30)


def confirmed(shop: Shop) -> list[str]:
    """Return the decisions whose charges are confirmed."""
    with reading(shop.world.id):
        charges = Charge.objects.filter(tenant_id=shop.world.id, confirmed_at__isnull=False)
        return sorted(
            str(one) for one in charges.values_list("reservations__decision_id", flat=True)
        )


def test_what_was_approved_passes_when_it_is_applied_again_and_only_once(tenant: World) -> None:
    shop = Shop(
        tenant, k8s=TRUSTING, thresholds={"nonprod": {"require_approval_from_usd": "50.00"}}
    )
    budget = shop.budget("1000.00")
    refused = ask(shop, placed("100.00"))
    approval = refused["auditAnnotations"]["approval-request-id"]
    assert f"Approval {approval} waits for a reviewer" in refused["status"]["message"]
    approved = shop.api.post(
        f"approvals/{approval}/approve", {"reason": "ok"}, key=tenant.owner.key
    )
    assert approved.status_code == 200, approved.content

    other = ask(shop, placed("100.00", spec={"replicas": 4}))
    dearer = ask(shop, placed("100.01"))
    declared = shop.ask(
        "100.00",
        path="gate/k8s/admission",
        change_digest="of-the-caller",
        resource_reference="shop-dev/deployments.apps/web",
    )
    rehearsed = ask(shop, placed("100.00"), dryRun=True)
    again = ask(shop, placed("100.00"), uid="another-round-trip")

    assert (other["allowed"], dearer["allowed"], declared["decision"]) == (
        False,
        False,
        "REQUIRE_APPROVAL",
    )
    assert (rehearsed["allowed"], again["allowed"]) == (True, True)
    spent = shop.api.get(f"approvals/{approval}", key=tenant.owner.key).json()
    assert spent["status"] == "consumed"
    assert find_differences(tenant.id) == []
    assert shop.budget_state(budget)["pending_usd"] >= Decimal(100)


MALFORMED: dict[str, Any] = {
    "an older version": {"apiVersion": "admission.k8s.io/v1beta1"},
    "another kind": {"kind": "Status"},
    "no request": {"request": None},
    "no uid": {"request.uid": None},
    "an empty uid": {"request.uid": ""},
    "a uid that is no text": {"request.uid": 7},
    "a uid with a line break": {"request.uid": "a\nb"},
    "no operation": {"request.operation": None},
    "an unknown operation": {"request.operation": "PATCH"},
    "no kind": {"request.kind": None},
    "no resource": {"request.resource": {}},
    "no object": {"request.object": None},
    "an object that is a list": {"request.object": []},
    "an old object that is text": {"request.oldObject": "x"},
    "annotations that are no map": {"request.object": {"metadata": {"annotations": []}}},
    "an annotation that is no text": {
        "request.object": {"metadata": {"annotations": {MONTHLY: 5}}}
    },
    "a dry run that is text": {"request.dryRun": "true"},
    "a name that is no text": {"request.name": {"a": 1}},
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_review_is_400_and_never_an_allow(shop: Shop, fault: str) -> None:
    review = a_review(placed("10.00"))
    for path, value in MALFORMED[fault].items():
        *parents, name = path.split(".")
        (review[parents[0]] if parents else review)[name] = value
    before = rows_of(shop.world)

    response = Api().post(REVIEW, review, key=shop.world.key)

    assert (response.status_code, response.json()["code"]) == (400, "malformed_review")
    assert response.json()["errors"]
    assert b"allowed" not in response.content
    assert rows_of(shop.world) == before


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"a": NaN}', b'{"kind": 1, "kind": 2}', b"\xff"]
)
def test_what_is_no_review_at_all_is_400(shop: Shop, body: bytes) -> None:
    response = Api().post(REVIEW, body, key=shop.world.key)

    assert response.status_code == 400


def test_members_that_nobody_knows_are_welcome(shop: Shop) -> None:
    shop.budget("1000.00")
    review = a_review(placed("10.00"), futureField={"a": [1, 2]})
    review["response"] = {"uid": "other", "allowed": True}

    assert send_review(review, key=shop.world.key)["uid"] == UID


def test_the_largest_objects_are_read(shop: Shop) -> None:
    shop.budget("1000.00")
    rows = {f"key-{number:05}": "x" * 60 for number in range(40_000)}
    nested: dict[str, Any] = {}
    for _ in range(200):
        nested = {"properties": nested}

    response = ask(
        shop,
        placed("300.00", spec={"data": rows, "schema": nested, "big": 2**63, "half": 0.1}),
        placed("100.00", spec={"data": rows}),
        **UPDATE,
    )

    assert response["auditAnnotations"]["monthly-delta-usd"] == "200.0000"


@pytest.mark.parametrize("name", ["app_deployment", "pod_with_privileged_containers"])
def test_recorded_requests_are_answered(tenant: World, name: str) -> None:
    path = FIXTURES / f"{name}.request.json"
    if not path.exists():
        pytest.skip(f"{path} is absent: the documents of others are not part of the project")
    shop = Shop(tenant)
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": json.loads(path.read_text()),
    }

    refused = send_review(review, key=tenant.key)
    shop.publish(unknown_cost={"prod": "allow"}, no_budget={"prod": "allow"})
    allowed = send_review(review, key=tenant.key)

    assert allowed["auditAnnotations"]["cost-state"] == "unknown"
    assert (allowed["allowed"], refused["allowed"]) == (True, False)
    assert allowed["uid"] == refused["uid"] == review["request"]["uid"]


ANSWER = {
    "apiVersion": "admission.k8s.io/v1",
    "kind": "AdmissionReview",
    "response": {"uid": UID, "allowed": True},
}
REJECTED: dict[str, Any] = {
    "no object": [],
    "an older version": {**ANSWER, "apiVersion": "admission.k8s.io/v1beta1"},
    "no version": {**ANSWER, "apiVersion": ""},
    "another kind": {**ANSWER, "kind": "Status"},
    "no response": {**ANSWER, "response": None},
    "no uid": {**ANSWER, "response": {"allowed": True}},
    "another uid": {**ANSWER, "response": {"uid": "other", "allowed": True}},
    "a patch": {**ANSWER, "response": {"uid": UID, "allowed": True, "patch": "W10="}},
    "a patch's type": {**ANSWER, "response": {"uid": UID, "allowed": True, "patchType": "J"}},
    "allowed as text": {**ANSWER, "response": {"uid": UID, "allowed": "true"}},
    "a status that is text": {**ANSWER, "response": {"uid": UID, "allowed": False, "status": "x"}},
    "a code that is text": {
        **ANSWER,
        "response": {"uid": UID, "allowed": False, "status": {"code": "403"}},
    },
    "an audit key with a slash": {
        **ANSWER,
        "response": {"uid": UID, "allowed": True, "auditAnnotations": {"a/b": "c"}},
    },
    "an audit value that is no text": {
        **ANSWER,
        "response": {"uid": UID, "allowed": True, "auditAnnotations": {"a": 1}},
    },
    "a warning too long": {
        **ANSWER,
        "response": {"uid": UID, "allowed": True, "warnings": ["x" * 121]},
    },
    "a warning twice": {
        **ANSWER,
        "response": {"uid": UID, "allowed": True, "warnings": ["x", "x"]},
    },
}


@pytest.mark.parametrize("fault", REJECTED)
def test_the_rules_by_which_answers_are_judged_reject(fault: str) -> None:
    with pytest.raises(CallFailed):
        verify(REJECTED[fault], UID)


@pytest.mark.parametrize(
    ("response", "code", "text"),
    [
        ({"allowed": False}, 403, "denied the request without explanation"),
        ({"allowed": False, "status": {"reason": "Why"}}, 403, "denied the request: Why"),
        ({"allowed": False, "status": {"code": 422, "message": "m"}}, 422, "denied the request: m"),
        ({}, 403, "without explanation"),
    ],
)
def test_the_rules_by_which_answers_are_judged_accept(
    response: dict[str, Any], code: int, text: str
) -> None:
    accepted = verify({**ANSWER, "response": {"uid": UID, **response}}, UID)

    shown = shown_refusal(accepted, resource="pods", name="a")
    assert (shown[0], text in shown[1]) == (code, True)
