"""Kubernetes reviews as questions: exemptions, costs, places, digests and keys, without a database."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.adapters import kubernetes
from enforcement.adapters.admission_review import (
    OPERATIONS,
    MalformedReview,
    Review,
    Verdict,
    answer_review,
    read_review,
    shorten,
)
from enforcement.adapters.kubernetes import Binding, Place
from enforcement.adapters.kubernetes_object import (
    object_digest,
    priced_digest,
    read_claims,
    read_object_cost,
)
from enforcement.api.admission_schema import REVIEW_ANSWER_SCHEMA, REVIEW_BODY_SCHEMA
from enforcement.gate.inputs import GateRequest
from governance.policies.domain import Kubernetes
from tests.kubernetes import (
    DECISION,
    MONTHLY,
    UID,
    a_review,
    an_object,
    costing,
    verify,
)

TRUSTING = Kubernetes(trust_object_annotations=True)
KINDS = Kubernetes().priced_kinds


def review(*objects: dict[str, Any] | None, **request: Any) -> Review:
    return read_review(a_review(*objects, **request))


def update(new: dict[str, Any], old: dict[str, Any] | None, **request: Any) -> Review:
    return review(new, old, **{"operation": "UPDATE", **request})


def delta_of(one: Review) -> str | None:
    cost = kubernetes.find_cost(one).cost
    return None if cost.monthly_delta_usd is None else str(cost.monthly_delta_usd)


def ask(one: Review, **place: str) -> GateRequest:
    where = Place(**{"project_id": "shop", "environment": "dev", **place})
    assessment = kubernetes.find_cost(one)
    return kubernetes.to_gate_request(one, assessment, cluster="eu", place=where, actor="key:1")


@pytest.mark.parametrize(
    ("new", "old", "delta"),
    [
        (costing("30.00"), costing("10.00", spec={"replicas": 1}), "20.0000"),
        (costing("10.00"), costing("30.00", spec={"replicas": 1}), "-20.0000"),
        (costing("30.00"), costing("30.00", spec={"replicas": 1}), "0.0000"),
        (costing("30.00"), costing(None), "30.0000"),
        (costing("30.00"), costing("wrong"), "30.0000"),
        (costing("30.00"), None, "30.0000"),
        (costing(None), costing("30.00"), "0.0000"),
        (costing(None), costing("30.00", spec={"replicas": 1}), None),
        (costing("wrong"), costing("wrong", spec={"replicas": 3, "paused": True}), None),
        (costing("wrong"), costing("30.00"), None),
        (costing(None), None, None),
    ],
)
def test_an_update_costs_what_is_new_less_what_was(
    new: dict[str, Any], old: dict[str, Any] | None, delta: str | None
) -> None:
    assert delta_of(update(new, old)) == delta


def test_what_is_stated_wrongly_is_a_fault_only_when_it_is_new() -> None:
    old = an_object(annotations={MONTHLY: "wrong"}, spec={"template": {"image": "a:1"}})
    new = an_object(annotations={MONTHLY: "wrong"}, spec={"template": {"image": "a:2"}})

    assert kubernetes.find_cost(update(new, old)).fault is None
    assert delta_of(update(new, old)) == "0.0000"
    assert "plain decimal" in str(kubernetes.find_cost(review(new)).fault)


@given(st.decimals(0, 10**12, places=4), st.decimals(0, 10**12, places=4))
def test_the_change_of_a_cost_is_exact(new: Decimal, old: Decimal) -> None:
    one = update(costing(f"{new:f}"), costing(f"{old:f}", spec={"replicas": 1}))

    cost = kubernetes.find_cost(one).cost
    assert cost.monthly_delta_usd == new - old


@given(st.text(max_size=40))
def test_any_text_as_a_cost_is_an_amount_or_a_fault(text: str) -> None:
    cost = read_object_cost({MONTHLY: text})

    assert (cost.monthly_usd is None) != (cost.fault is None)
    assert cost.monthly_usd is None or 0 <= cost.monthly_usd <= 10**12


def test_an_annotation_wins_over_a_label() -> None:
    thing = an_object(annotations={MONTHLY: "5"}, labels={MONTHLY: "6", DECISION: "x"})

    assert read_claims(thing) == {MONTHLY: "5", DECISION: "x"}
    assert read_claims({}) == read_claims(None) == read_claims({"metadata": 5}) == {}


def test_an_objects_digest_is_of_itself_alone() -> None:
    thing = costing("5.00")
    same = copy.deepcopy(thing)
    same["status"] = {"replicas": 9}
    same["metadata"] |= {
        "resourceVersion": "9",
        "uid": "other",
        "managedFields": [{"manager": "kubectl"}],
        "labels": {"a": "b"},
    }
    same["metadata"]["annotations"][DECISION] = "other"

    assert object_digest(same) == object_digest(thing)
    for name, value in {"spec": {"replicas": 4}, "data": {}, "apiVersion": "v2"}.items():
        assert object_digest({**thing, name: value}) != object_digest(thing)
    assert object_digest(costing("5.01")) != object_digest(thing)
    # The same amount, spelled otherwise, is another statement; it costs an evaluation, no money.
    assert object_digest(costing("5.0")) != object_digest(thing)


POD = {"containers": [{"name": "a", "image": "a:1", "resources": {"limits": {"cpu": "1"}}}]}


@pytest.mark.parametrize(
    ("change", "is_free"),
    [
        ({"image": "a:2"}, True),
        ({"env": [{"name": "A", "value": "b"}]}, True),
        ({"livenessProbe": {"httpGet": {"path": "/"}}}, True),
        ({"resources": {"limits": {"cpu": "2"}}}, False),
        ({"unheard": "of"}, False),
    ],
)
def test_only_what_is_known_to_be_free_is_free(change: dict[str, Any], is_free: bool) -> None:
    old = an_object(spec={"template": {"spec": POD}})
    container = {**POD["containers"][0], **change}
    new = an_object(spec={"template": {"spec": {"containers": [container]}}})

    same = priced_digest(new, kind="Deployment") == priced_digest(old, kind="Deployment")
    assert same is is_free
    # Of a kind that is not known everything may cost.
    assert priced_digest(new, kind="Cluster") != priced_digest(old, kind="Cluster")


@pytest.mark.parametrize(
    ("spec", "is_free"),
    [
        ({"replicas": 3, "paused": True}, False),
        ({"replicas": 3, "strategy": {"type": "Recreate"}}, True),
        ({"replicas": 30}, False),
        ({}, False),
    ],
)
def test_more_replicas_are_never_free(spec: dict[str, Any], is_free: bool) -> None:
    assert (delta_of(update(an_object(spec=spec or {"x": 1}), an_object())) == "0.0000") is is_free


@pytest.mark.parametrize(
    ("binding", "terms", "projects", "claims", "place"),
    [
        (
            Binding("a", "dev"),
            TRUSTING,
            None,
            {"project": "b", "environment": "prod"},
            ("a", "dev"),
        ),
        (Binding("a"), TRUSTING, None, {"environment": "dev"}, ("a", "")),
        (Binding(None, "dev"), Kubernetes(), None, {}, ("unassigned", "dev")),
        (Binding(None, "prod"), TRUSTING, None, {"environment": "dev"}, ("unassigned", "prod")),
        (Binding(), Kubernetes(), None, {"project": "b", "environment": "dev"}, ("unassigned", "")),
        (Binding(), TRUSTING, None, {"project": "b", "environment": "dev"}, ("b", "dev")),
        (Binding(), TRUSTING, None, {}, ("unassigned", "")),
        (Binding(), TRUSTING, None, {"project": " "}, ("unassigned", "")),
        (Binding(), TRUSTING, None, {"project": "x" * 201}, ("unassigned", "")),
        (Binding(), TRUSTING, {"c"}, {"project": "b", "environment": "dev"}, ("c", "")),
        (Binding(), TRUSTING, {"c"}, {"environment": "dev"}, ("c", "dev")),
        (Binding(), Kubernetes(), {"c"}, {"environment": "dev"}, ("c", "")),
        (Binding(), TRUSTING, {"c", "d"}, {"project": "d"}, ("d", "")),
        (Binding(), TRUSTING, {"c", "d"}, {"project": "b"}, ("unassigned", "")),
    ],
)
def test_where_a_change_belongs(
    binding: Binding,
    terms: Kubernetes,
    projects: set[str] | None,
    claims: dict[str, str],
    place: tuple[str, str],
) -> None:
    annotations = {f"valdrix.io/{name}": text for name, text in claims.items()}
    one = review(an_object(annotations=annotations))

    found = kubernetes.place(
        one, binding, terms, projects=None if projects is None else frozenset(projects)
    )
    assert (found.project_id, found.environment) == place


def test_a_question_is_about_one_object_of_one_cluster() -> None:
    request = ask(review(costing("5.00")))

    assert request.resource_reference == "eu/shop-dev/deployments.apps/web"
    assert (request.action, request.source) == ("k8s.create", "k8s_admission")
    assert (request.idempotency_namespace, request.retry_seconds) == ("k8s.review", 60)
    assert request.change_digest_is_computed
    assert request.metadata["cost_basis"] == "declared"
    assert ask(review(an_object())).metadata["cost_basis"] == "none"
    scale = ask(update(an_object("Scale"), an_object("Scale"), subResource="scale"))
    assert scale.action == "k8s.scale"
    assert scale.resource_reference.endswith("/web/scale")


KEY_PARTS: dict[str, dict[str, Any]] = {
    "operation": {"operation": "CREATE"},
    "resource": {"resource": {"group": "apps", "resource": "statefulsets"}},
    "subresource": {"subResource": "scale"},
    "namespace": {"namespace": "other"},
    "name": {"name": "other"},
    "the old object's version": {"oldObject": costing("1.00", resourceVersion="2")},
    "the old object's cost": {"oldObject": costing("2.00")},
    "the spec": {"object": costing("5.00", spec={"replicas": 4})},
    "the cost": {"object": costing("6.00")},
}


@pytest.mark.parametrize("part", KEY_PARTS)
def test_a_key_holds_everything_that_makes_another_attempt(part: str) -> None:
    base = ask(update(costing("5.00"), costing("1.00"))).idempotency_key
    other = ask(update(costing("5.00"), costing("1.00"), **KEY_PARTS[part])).idempotency_key

    assert base is not None
    assert base != other
    assert ask(update(costing("5.00"), costing("1.00"), uid="other")).idempotency_key == base
    assert len(base) <= 400


def test_a_dry_run_has_no_key() -> None:
    assert ask(review(an_object(), dryRun=True)).idempotency_key is None


def test_an_object_without_a_name_is_known_by_its_uid() -> None:
    nameless = an_object(uid="u-1", generateName="job-")
    del nameless["metadata"]["name"]
    bare = copy.deepcopy(nameless)
    del bare["metadata"]["uid"]

    assert ask(review(nameless, name="")).resource_reference.endswith("/u-1")
    assert ask(review(bare, name="")).resource_reference.endswith(f"/{UID}")
    assert ask(review(nameless, name="job-x7")).resource_reference.endswith("/job-x7")


@pytest.mark.parametrize(
    ("text", "parent"),
    [
        ("0192F0C1-2B3C-7D4E-8F50-617283940A1B", "0192f0c1-2b3c-7d4e-8f50-617283940a1b"),
        ("{0192f0c1-2b3c-7d4e-8f50-617283940a1b}", None),
        ("0192f0c12b3c7d4e8f50617283940a1b", None),
        ("none", None),
        ("", None),
    ],
)
def test_only_a_decisions_id_is_a_parent(text: str, parent: str | None) -> None:
    one = review(an_object(annotations={DECISION: text}))

    assert ask(one).parent_decision_id == parent
    assert bool(kubernetes.find_notes(one, kubernetes.find_cost(one))) is (parent is None)


def test_a_deletion_names_no_parent() -> None:
    assert ask(review(None, costing("5.00"), operation="DELETE")).parent_decision_id is None


@pytest.mark.parametrize(
    ("kind", "resource", "subresource", "is_priced"),
    [
        ("Deployment", "deployments", "", True),
        ("ConfigMap", "configmaps", "", False),
        ("deployment", "deployments", "", False),
        ("Scale", "deployments", "scale", True),
        ("Scale", "replicasets", "scale", False),
    ],
)
def test_kinds_are_the_policys(kind: str, resource: str, subresource: str, is_priced: bool) -> None:
    one = review(kind={"kind": kind}, resource={"resource": resource}, subResource=subresource)

    assert kubernetes.is_priced(one, KINDS) is is_priced


@pytest.mark.parametrize(
    "owners", [None, "text", [], [1], [{}], [{"controller": "true"}], [{"kind": "ReplicaSet"}]]
)
def test_what_is_no_controller_is_none(owners: Any) -> None:
    one = review(an_object("Pod", ownerReferences=owners))

    assert kubernetes.find_exemption(one, own_namespace="valdrix") is None


@given(st.text(max_size=300), st.integers(1, 200))
def test_a_shortened_text_is_one_printable_line(text: str, limit: int) -> None:
    short = shorten(text, limit)

    assert len(short) <= limit
    assert short == "" or short.isprintable()


@given(
    st.booleans(),
    st.text(max_size=1500),
    st.lists(st.text(max_size=200), max_size=20),
    st.dictionaries(st.sampled_from(["decision", "reason-codes", "mode"]), st.text(max_size=900)),
)
def test_every_verdict_is_an_answer_that_an_api_server_takes(
    allowed: bool, message: str, warnings: list[str], audit: dict[str, str]
) -> None:
    verdict = Verdict(allowed=allowed, message=message, warnings=tuple(warnings), audit=audit)

    answer = answer_review(UID, verdict)

    assert verify(answer, UID)["allowed"] is allowed
    assert ("status" in answer["response"]) is not allowed
    assert sum(map(len, answer["response"].get("warnings", ()))) <= 4096


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=10,
)


def is_read_or_refused(body: dict[str, Any]) -> bool:
    """Tell whether a review is refused with its faults, or can be asked about."""
    try:
        one = read_review(body)
    except MalformedReview as refusal:
        return refusal.status == 400 and bool(refusal.errors)
    return kubernetes.find_exemption(one, own_namespace="valdrix") is not None or bool(ask(one))


@given(st.sampled_from(sorted(a_review()["request"])), _JSON)
def test_any_value_in_any_place_is_read_or_refused(name: str, value: Any) -> None:
    body = a_review(costing("5.00"))
    body["request"][name] = value

    assert is_read_or_refused(body)


@given(st.sampled_from(["metadata", "spec", "status", "data"]), _JSON)
def test_any_value_in_any_place_of_an_object_is_read_or_refused(name: str, value: Any) -> None:
    thing = {**costing("5.00"), name: value}

    for operation in ("CREATE", "UPDATE", "DELETE"):
        body = a_review(costing("5.00"), costing("1.00"), operation=operation)
        body["request"]["object"] = thing
        assert is_read_or_refused(body)


_PLACES = (
    ("uid",), ("operation",), ("dryRun",), ("name",), ("namespace",), ("subResource",), ("object",),
    ("oldObject",), ("kind",), ("kind", "kind"), ("kind", "group"), ("kind", "version"),
    ("resource",), ("resource", "resource"), ("resource", "group"), ("resource", "version"),
    ("object", "metadata"), ("object", "metadata", "labels"),
    ("object", "metadata", "annotations"), ("object", "metadata", "annotations", "a"),
    ("oldObject", "metadata", "labels", "a"),
)  # fmt: skip
_TEXTS = ("", "*", "apps", "Apps", "a b", "-", "DELETE", "CONNECT", "a\nb", "a" * 254, "a" * 64)
_IS_PUBLISHED = jsonschema.Draft202012Validator(REVIEW_BODY_SCHEMA)


@given(st.sampled_from(_PLACES), st.sampled_from(_TEXTS) | _JSON, st.sampled_from(OPERATIONS))
def test_what_the_published_schema_refuses_is_refused_and_nothing_else(
    place: tuple[str, ...], value: Any, operation: str
) -> None:
    body = a_review(costing("5.00"), costing("1.00"), operation=operation)
    *parents, name = ("request", *place)
    holder: Any = body
    for parent in parents:
        holder = holder.setdefault(parent, {})
    holder[name] = value

    try:
        read_review(body)
        is_read = True
    except MalformedReview:
        is_read = False

    assert is_read == _IS_PUBLISHED.is_valid(body), body


def test_the_published_schema_takes_what_the_reader_takes() -> None:
    for one in (a_review(), *REVIEW_BODY_SCHEMA["examples"]):
        jsonschema.validate(one, REVIEW_BODY_SCHEMA)
        read_review(one)
    verdict = Verdict(allowed=False, message="no", warnings=("w",), audit={"reason-codes": "x"})
    for answered in (verdict, Verdict(allowed=True)):
        jsonschema.validate(answer_review(UID, answered), REVIEW_ANSWER_SCHEMA)
