"""Clusters and their namespaces: an owner says where a change belongs, and nobody else."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db import OperationalError
from django.http import HttpResponse

from enforcement.admission import queries as admission_queries
from enforcement.gate import evaluate as evaluate_module
from governance.models import AuditEntry, ClusterBinding
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import World, issue_key
from tests.integration.test_gate_terraform import rows_of
from tests.kubernetes import MONTHLY, REVIEW, a_review, an_object, send_review
from valdrix.kernel.db import reading

TRUSTING = {"trust_object_annotations": True}
LIES = {"valdrix.io/project": "rich", "valdrix.io/environment": "dev"}


@pytest.fixture
def shop(tenant: World) -> Shop:
    return Shop(tenant, k8s=TRUSTING)


def connect(shop: Shop, **terms: Any) -> dict[str, Any]:
    body = {"kind": "cluster", "name": "eu-1", **terms}
    response = Api().post("integrations", body, key=shop.world.owner.key)
    assert response.status_code == 201, response.content
    return response.json()


def bind(shop: Shop, cluster: dict[str, Any], **terms: Any) -> HttpResponse:
    body = {"namespace": "shop-dev", "project_id": "shop", "environment": "dev", **terms}
    path = f"integrations/{cluster['id']}/bindings"
    return Api().post(path, body, key=shop.world.owner.key)


def costing(monthly: str = "10.00", **annotations: str) -> dict[str, Any]:
    return an_object(annotations={MONTHLY: monthly, **annotations})


def review_of(
    cluster: dict[str, Any], thing: dict[str, Any], *, key: str | None = None, **request: Any
) -> dict[str, Any]:
    path = f"{REVIEW}/{cluster['id']}"
    return send_review(a_review(thing, **request), key=key or cluster["secret"], path=path)


def place_of(response: dict[str, Any]) -> tuple[str, str]:
    audit = response["auditAnnotations"]
    return audit["project"], audit["environment"]


def test_a_binding_wins_over_whatever_the_object_says(shop: Shop) -> None:
    budget, rich = shop.budget("1000.00"), shop.budget("1000.00", project_id="rich")
    cluster = connect(shop)
    assert bind(shop, cluster, environment="live").status_code == 201

    response = review_of(cluster, costing(**LIES))

    assert place_of(response) == ("shop", "prod")
    assert shop.budget_state(budget)["pending_usd"] == Decimal(10)
    assert shop.budget_state(rich)["pending_usd"] == 0


def test_the_namespace_itself_is_bound_before_all_others(shop: Shop) -> None:
    cluster = connect(shop)
    bind(shop, cluster, namespace="*", project_id="everyone", environment="sandbox")
    bind(shop, cluster)

    own = review_of(cluster, costing())
    other = review_of(cluster, costing(), namespace="elsewhere")
    # What belongs to no namespace is bound with all others.
    none = review_of(cluster, costing(), namespace="")

    assert place_of(own) == ("shop", "nonprod")
    assert place_of(other) == place_of(none) == ("everyone", "nonprod")


def test_without_a_binding_a_whole_cluster_may_be_one_projects(shop: Shop) -> None:
    project = connect(shop, project_id="shop", settings={"environment": "dev"})
    environment = connect(shop, name="eu-2", settings={"environment": "prod"})

    assert place_of(review_of(project, costing(**LIES))) == ("shop", "nonprod")
    # An owner's environment is not the object's to say, though its project may be.
    assert place_of(review_of(environment, costing(**LIES))) == ("rich", "prod")


def test_another_clusters_binding_says_nothing(shop: Shop) -> None:
    bound, other = connect(shop), connect(shop, name="us-1")
    bind(shop, bound)

    assert place_of(review_of(other, costing())) == ("unassigned", "prod")


def test_the_same_object_in_two_clusters_is_two_changes(shop: Shop) -> None:
    budget = shop.budget("1000.00")
    for name in ("eu-1", "us-1"):
        cluster = connect(shop, name=name)
        bind(shop, cluster)
        assert review_of(cluster, costing())["allowed"]

    assert shop.budget_state(budget)["pending_usd"] == Decimal(20)


def test_a_key_may_be_a_clusters_own(shop: Shop) -> None:
    world = shop.world
    key_id, key = issue_key(world.id, name="eu", role="member", person_id=world.member.user_id)
    cluster = connect(shop, settings={"api_key_id": str(key_id), "cluster": "eu"})
    bind(shop, cluster)

    named = send_review(a_review(costing()), key=key)
    unnamed = send_review(a_review(costing()), key=world.key)

    assert place_of(named) == ("shop", "nonprod")
    assert place_of(unnamed) == ("unassigned", "prod")


def test_a_member_key_does_at_a_clusters_address(shop: Shop) -> None:
    cluster = connect(shop)
    bind(shop, cluster)

    assert place_of(review_of(cluster, costing(), key=shop.world.key)) == ("shop", "nonprod")


def post(cluster_id: str, credential: str) -> HttpResponse:
    return Api().post(f"{REVIEW}/{cluster_id}", a_review(costing()), key=credential)


def test_a_secret_opens_its_own_clusters_address_only(shop: Shop, other_tenant: World) -> None:
    first, second = connect(shop), connect(shop, name="us-1")
    foreign = connect(Shop(other_tenant))
    before = rows_of(shop.world)

    for cluster_id, secret in [
        (second["id"], first["secret"]),
        (foreign["id"], first["secret"]),
        (first["id"], foreign["secret"]),
        (first["id"], first["secret"][:-1]),
        (first["id"], "vds_é"),
        ("00000000-0000-7000-8000-000000000001", first["secret"]),
    ]:
        response = post(cluster_id, secret)
        assert (response.status_code, response.json()["code"]) == (401, "authentication_failed")
    plain = Api().post(REVIEW, a_review(costing()), key=first["secret"])
    assert plain.status_code == 401
    assert rows_of(shop.world) == before


def test_another_tenants_cluster_is_none(shop: Shop, other_tenant: World) -> None:
    foreign = connect(Shop(other_tenant))

    response = post(foreign["id"], shop.world.key)

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_a_revoked_cluster_and_a_rotated_secret_stop_at_once(shop: Shop) -> None:
    cluster = connect(shop)
    assert post(cluster["id"], cluster["secret"]).status_code == 200
    owner = shop.world.owner.key

    rotated = Api().post(f"integrations/{cluster['id']}/rotate", {}, key=owner).json()
    assert post(cluster["id"], cluster["secret"]).status_code == 401
    assert post(cluster["id"], rotated["secret"]).status_code == 200
    Api().post(f"integrations/{cluster['id']}/revoke", {}, key=owner)

    assert post(cluster["id"], rotated["secret"]).status_code == 401
    assert post(cluster["id"], shop.world.key).status_code == 404


def test_a_secret_that_was_good_speaks_while_the_database_is_down(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last place and mode are still known: dev is soft here, and asks for an approval."""
    shop.publish(k8s=TRUSTING, modes={"k8s_admission": {"prod": "hard", "nonprod": "shadow"}})
    shop.budget("1000.00")
    cluster = connect(shop)
    bind(shop, cluster)
    assert review_of(cluster, costing())["allowed"]

    def down(*_: Any, **__: Any) -> None:
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr("governance.api.cluster_authentication.find_caller", down)
    monkeypatch.setattr(admission_queries, "read_at_once", down)
    monkeypatch.setattr(evaluate_module, "transaction_together", down)
    known = review_of(cluster, costing())
    unknown = review_of(cluster, costing(), namespace="never-seen")
    other = post(cluster["id"], "vds_other")

    assert (known["allowed"], place_of(known)) == (True, ("shop", "nonprod"))
    assert (unknown["allowed"], place_of(unknown)) == (False, ("unassigned", "prod"))
    assert other.status_code == 503


def test_bindings_are_listed_changed_and_removed(shop: Shop) -> None:
    cluster, owner = connect(shop), shop.world.owner.key
    made = bind(shop, cluster).json()
    path = f"integrations/{cluster['id']}/bindings"

    assert Api().get(path, key=owner).json() == {"results": [made], "next": None}
    again = bind(shop, cluster)
    assert (again.status_code, again.json()["code"]) == (409, "binding_exists")
    change = {"project_id": "shop", "environment": "prod"}
    changed = Api().put(f"{path}/{made['id']}", change, key=owner)
    assert changed.json() == {**made, **change}
    assert place_of(review_of(cluster, costing())) == ("shop", "prod")
    assert Api().delete(f"{path}/{made['id']}", key=owner).status_code == 204
    assert place_of(review_of(cluster, costing())) == ("unassigned", "prod")
    with reading(shop.world.id):
        entries = AuditEntry.objects.filter(object_type="cluster_binding").order_by("pk")
        assert [entry.action.partition(".")[2] for entry in entries] == [
            "create",
            "change",
            "delete",
        ]


@pytest.mark.parametrize(
    ("pointer", "terms"),
    [
        ("/namespace", {"namespace": "Shop"}),
        ("/namespace", {"namespace": "shop-*"}),
        ("/namespace", {"namespace": "-a"}),
        ("/namespace", {"namespace": "a" * 64}),
        ("/namespace", {"namespace": "ѕhop"}),
        ("/project_id", {"project_id": None}),
        ("/environment", {"environment": ""}),
        ("/team", {"team": "web"}),
    ],
)
def test_a_binding_that_is_not_well_formed_changes_no_row(
    shop: Shop, pointer: str, terms: dict[str, Any]
) -> None:
    cluster = connect(shop)

    response = bind(shop, cluster, **terms)

    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    with reading(shop.world.id):
        assert not ClusterBinding.objects.exists()


def test_a_cluster_of_one_project_has_no_namespace_of_another(shop: Shop) -> None:
    cluster = connect(shop, project_id="shop")

    response = bind(shop, cluster, project_id="rich")

    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/project_id")


@pytest.mark.parametrize("role", ["member", "admin"])
def test_only_an_owner_binds(shop: Shop, role: str) -> None:
    cluster = connect(shop)
    made = bind(shop, cluster).json()
    key = getattr(shop.world, role).key
    path = f"integrations/{cluster['id']}/bindings"

    for response in (
        Api().get(path, key=key),
        Api().post(path, {"namespace": "x", "project_id": "a", "environment": "dev"}, key=key),
        Api().put(f"{path}/{made['id']}", {"project_id": "a", "environment": "dev"}, key=key),
        Api().delete(f"{path}/{made['id']}", key=key),
    ):
        assert (response.status_code, response.json()["code"]) == (403, "role_missing")


def test_another_tenants_bindings_are_none(shop: Shop, other_tenant: World) -> None:
    cluster = connect(shop)
    made = bind(shop, cluster).json()
    stranger = other_tenant.owner.key
    path = f"integrations/{cluster['id']}/bindings"
    terms = {"project_id": "a", "environment": "dev"}

    for response in (
        Api().get(path, key=stranger),
        Api().post(path, {"namespace": "x", **terms}, key=stranger),
        Api().put(f"{path}/{made['id']}", terms, key=stranger),
        Api().delete(f"{path}/{made['id']}", key=stranger),
        bind(shop, {"id": made["id"]}),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_only_a_cluster_has_namespaces(shop: Shop) -> None:
    body = {"kind": "run_task", "name": "production"}
    run_task = Api().post("integrations", body, key=shop.world.owner.key).json()

    assert bind(shop, run_task).status_code == 404


def test_a_cluster_is_told_where_its_api_server_calls(shop: Shop) -> None:
    cluster = connect(shop)

    assert cluster["path"] == f"/api/v1/enforcement/{REVIEW}/{cluster['id']}"
