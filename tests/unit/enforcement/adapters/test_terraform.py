"""The bodies of the Terraform gates: what they become, and all that can be wrong with them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.adapters.terraform import preflight_to_gate_request, to_gate_request
from enforcement.adapters.terraform_plan import read_plan
from enforcement.adapters.terraform_schema import GATE_BODY_SCHEMA, PREFLIGHT_BODY_SCHEMA
from enforcement.gate.inputs import UNESTIMATED, GateRequest
from valdrix.kernel.fields import Fields
from valdrix.kernel.problems import InvalidRequest

ACTOR = "key:0192"
MONTHLY = "estimated_monthly_delta_usd"
HOURLY = "estimated_hourly_delta_usd"
PARENT = "0192F0C1-2B3C-7D4E-8F50-617283940A1B"
PLAN = {
    "format_version": "1.2",
    "resource_changes": [{"address": "a.b", "mode": "managed", "change": {"actions": ["create"]}}],
}
DIGEST = read_plan(PLAN, pointer="").change_digest
ESTIMATE = {
    "format": "infracost",
    "document": {
        "version": "0.2",
        "currency": "USD",
        "metadata": {"infracostCommand": "diff"},
        "projects": [{"diff": {"totalMonthlyCost": "73", "totalHourlyCost": "0.1"}}],
    },
}


def gate_body(**changes: Any) -> dict[str, Any]:
    body = {"project_id": "shop", "environment": "prod", "resource_reference": "a.b"}
    return {**body, **changes}


def preflight_body(**changes: Any) -> dict[str, Any]:
    return {**gate_body(run_id="run-1", stage="post_plan"), **changes}


def gate(header_key: str | None = None, **changes: Any) -> GateRequest:
    return to_gate_request(gate_body(**changes), actor=ACTOR, header_key=header_key)


def preflight(header_key: str | None = None, **changes: Any) -> GateRequest:
    return preflight_to_gate_request(preflight_body(**changes), actor=ACTOR, header_key=header_key)


def errors_of(call: Any, *args: Any, **changes: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as refusal:
        call(*args, **changes)
    assert refusal.value.status == 422
    return [(error.pointer, error.code) for error in refusal.value.errors]


def test_the_smallest_body():
    assert gate() == GateRequest(
        source="terraform",
        project_id="shop",
        environment="prod",
        action="terraform.apply",
        resource_reference="a.b",
        cost=UNESTIMATED,
        actor=ACTOR,
    )


def test_the_fullest_body():
    found = gate(
        action="terraform.destroy",
        **{MONTHLY: "73", HOURLY: Decimal("0.1")},
        change_digest="sha256:abc",
        team="web",
        run_id="run-1",
        parent_decision_id=PARENT,
        metadata={"family": "m7g"},
        dry_run=False,
        expected_request_fingerprint="f" * 64,
        idempotency_key="mine",
    )
    assert found == GateRequest(
        source="terraform",
        project_id="shop",
        environment="prod",
        action="terraform.destroy",
        resource_reference="a.b",
        cost=found.cost,
        actor=ACTOR,
        team="web",
        metadata={"family": "m7g"},
        change_digest="sha256:abc",
        parent_decision_id=PARENT.lower(),
        run_id="run-1",
        idempotency_key="mine",
        expected_request_fingerprint="f" * 64,
    )
    assert str(found.cost.monthly_delta_usd) == "73.0000"
    assert str(found.cost.hourly_delta_usd) == "0.100000"
    assert found.cost.state == "known"


@pytest.mark.parametrize("environment", ["", "  ", "Prod", "dev\u200b", "dеv", "a" * 200])
def test_environment_is_kept_as_it_came(environment):
    assert gate(environment=environment).environment == environment


def test_an_environment_that_is_absent_is_empty():
    assert gate(environment=None).environment == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"project_id": None}, ("/project_id", "required")),
        ({"project_id": " "}, ("/project_id", "invalid_value")),
        ({"project_id": "x" * 201}, ("/project_id", "too_long")),
        ({"resource_reference": None}, ("/resource_reference", "required")),
        ({"resource_reference": "x" * 2001}, ("/resource_reference", "too_long")),
        ({"environment": 1}, ("/environment", "invalid_type")),
        ({"environment": "x" * 201}, ("/environment", "too_long")),
        ({"environment": "prod\n"}, ("/environment", "invalid_value")),
        ({"action": "apply"}, ("/action", "invalid_value")),
        ({"action": "Terraform.apply"}, ("/action", "invalid_value")),
        ({"action": "terraform."}, ("/action", "invalid_value")),
        ({"action": "terraform.apply\n"}, ("/action", "invalid_value")),
        ({"change_digest": "a b"}, ("/change_digest", "invalid_value")),
        ({"change_digest": "a" * 201}, ("/change_digest", "too_long")),
        ({"team": 7}, ("/team", "invalid_type")),
        ({"run_id": []}, ("/run_id", "invalid_type")),
        ({"parent_decision_id": "x"}, ("/parent_decision_id", "invalid_value")),
        ({"metadata": []}, ("/metadata", "invalid_type")),
        ({"metadata": {"x": "y" * 20_000}}, ("/metadata", "too_long")),
        ({"dry_run": "true"}, ("/dry_run", "invalid_type")),
        ({"idempotency_key": "é"}, ("/idempotency_key", "invalid_value")),
        ({"idempotency_key": ""}, ("/idempotency_key", "invalid_value")),
        ({"idempotency_key": "k" * 201}, ("/idempotency_key", "too_long")),
        ({"idempotency_key": "a\tb", "dry_run": True}, ("/idempotency_key", "invalid_value")),
        ({"surprise": 1}, ("/surprise", "unknown_field")),
        ({"stage": "post_plan"}, ("/stage", "unknown_field")),
        ({"plan": PLAN}, ("/plan", "unknown_field")),
        ({MONTHLY: "1e3"}, (f"/{MONTHLY}", "invalid_amount")),
        ({MONTHLY: "0.00001"}, (f"/{MONTHLY}", "invalid_amount")),
        ({HOURLY: "1000000000001"}, (f"/{HOURLY}", "invalid_amount")),
        ({HOURLY: "1000000000000"}, (f"/{HOURLY}", "invalid_amount")),
        ({MONTHLY: "73", HOURLY: "0.2"}, (f"/{MONTHLY}", "delta_mismatch")),
    ],
)
def test_one_fault_of_the_generic_body(changes, expected):
    assert errors_of(gate, **changes) == [expected]


@pytest.mark.parametrize("body", [None, [], "x", 1])
def test_a_body_that_is_no_object(body):
    found = errors_of(lambda: to_gate_request(body, actor=ACTOR, header_key=None))
    assert found[0] == ("", "invalid_type")


def test_every_fault_is_told_at_once():
    found = errors_of(
        gate, project_id=None, action="x", dry_run=1, surprise=1, **{MONTHLY: "73", HOURLY: "1"}
    )
    assert {pointer for pointer, _ in found} == {
        "/project_id",
        "/action",
        "/dry_run",
        "/surprise",
        f"/{MONTHLY}",
    }


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({MONTHLY: "73", HOURLY: "1"}, "delta_mismatch"),
        ({MONTHLY: "73", HOURLY: "1", "team": 1}, "invalid_request"),
        ({"cost_estimate": ESTIMATE, MONTHLY: "74"}, "delta_mismatch"),
        ({"plan": {}}, "invalid_plan"),
        ({"plan": {}, "team": 1}, "invalid_request"),
    ],
)
def test_the_code_of_a_refusal(changes, code):
    with pytest.raises(InvalidRequest) as refusal:
        preflight(**changes)
    assert refusal.value.problem_code == code


def test_keys_of_the_generic_gate():
    assert gate().idempotency_key is None
    assert gate(idempotency_key="body").idempotency_key == "body"
    found = gate("header", idempotency_key="body")
    assert (found.idempotency_key, found.idempotency_namespace) == ("header", "caller")


def test_keys_of_the_preflight():
    found = preflight()
    assert found.idempotency_key == "terraform:run-1:post_plan"
    assert found.idempotency_namespace == "terraform.preflight:shop"
    found = preflight(idempotency_key="terraform:run-1:post_plan")
    assert found.idempotency_namespace == "caller"
    assert preflight("header", idempotency_key="body").idempotency_key == "header"


def test_the_longest_run_id_still_makes_a_key():
    key = preflight(run_id="r" * 170).idempotency_key
    assert key is not None
    assert len(key) <= 200


@pytest.mark.parametrize("call", [gate, preflight])
@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("key", ["", "é", "k" * 201, "a\n"])
def test_a_bad_header_key_is_refused(call, dry_run, key):
    assert errors_of(call, key, dry_run=dry_run) == [("", "invalid_value")]


@pytest.mark.parametrize("call", [gate, preflight])
def test_a_dry_run_has_no_key(call):
    found = call("header", idempotency_key="body", dry_run=True)
    assert (found.dry_run, found.idempotency_key) == (True, None)


def test_a_cost_document_is_the_delta():
    cost = preflight(cost_estimate=ESTIMATE).cost
    assert (str(cost.monthly_delta_usd), str(cost.hourly_delta_usd)) == ("73.0000", "0.100000")
    assert cost.state == "known"
    same = preflight(cost_estimate=ESTIMATE, **{MONTHLY: "73.00", HOURLY: "0.1"})
    assert same.cost == cost


@pytest.mark.parametrize(("name", "value"), [(MONTHLY, "73.01"), (HOURLY, "0.2"), (MONTHLY, 0)])
def test_another_value_beside_a_cost_document(name, value):
    found = errors_of(preflight, cost_estimate=ESTIMATE, **{name: value})
    assert found == [(f"/{name}", "delta_mismatch")]


def test_a_value_beside_an_unknown_cost_document():
    unknown = {**ESTIMATE, "document": {**ESTIMATE["document"], "currency": "EUR"}}
    assert preflight(cost_estimate=unknown).cost.state == "unknown"
    found = errors_of(preflight, cost_estimate=unknown, **{MONTHLY: "1"})
    assert found == [(f"/{MONTHLY}", "delta_mismatch")]


def test_declared_deltas_without_a_document():
    assert str(preflight(**{HOURLY: "0.1"}).cost.monthly_delta_usd) == "73.0000"
    assert preflight().cost == UNESTIMATED


def test_a_plan_gives_the_computed_digest():
    found = preflight(plan=PLAN)
    assert (found.change_digest, found.change_digest_is_computed) == (DIGEST, True)
    assert preflight(plan=PLAN, change_digest=DIGEST).change_digest_is_computed
    declared = preflight(change_digest=DIGEST)
    assert (declared.change_digest, declared.change_digest_is_computed) == (DIGEST, False)


def test_a_declared_digest_beside_a_plan_must_be_the_plans():
    found = errors_of(preflight, plan=PLAN, change_digest="f" * 64)
    assert found == [("/change_digest", "invalid_value")]


def test_a_targeted_plan_makes_the_cost_partial():
    cost = preflight(plan={**PLAN, "complete": False}, cost_estimate=ESTIMATE).cost
    assert (cost.state, cost.reasons) == ("partial", ("targeted_plan",))
    assert str(cost.monthly_delta_usd) == "73.0000"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"run_id": None}, [("/run_id", "required")]),
        ({"run_id": "r" * 171}, [("/run_id", "too_long")]),
        ({"run_id": "é"}, [("/run_id", "invalid_value")]),
        ({"stage": None}, [("/stage", "required")]),
        ({"stage": "later"}, [("/stage", "invalid_choice")]),
        ({"stage": []}, [("/stage", "invalid_choice")]),
        ({"plan": []}, [("/plan", "invalid_type")]),
        ({"plan": {**PLAN, "format_version": "2.0"}}, [("/plan/format_version", "invalid_value")]),
        ({"cost_estimate": []}, [("/cost_estimate", "invalid_type")]),
        (
            {"cost_estimate": {}},
            [("/cost_estimate/format", "required"), ("/cost_estimate/document", "required")],
        ),
        (
            {"cost_estimate": {**ESTIMATE, "format": "x", "more": 1}},
            [("/cost_estimate/format", "invalid_choice"), ("/cost_estimate/more", "unknown_field")],
        ),
        (
            {"cost_estimate": {"format": "infracost", "document": {"version": "0.2"}}},
            [("/cost_estimate/document/projects", "required")],
        ),
    ],
)
def test_one_fault_of_the_preflight_body(changes, expected):
    assert errors_of(preflight, **changes) == expected


@pytest.mark.parametrize(
    ("call", "schema"),
    [(to_gate_request, GATE_BODY_SCHEMA), (preflight_to_gate_request, PREFLIGHT_BODY_SCHEMA)],
)
def test_schemas_name_what_is_read(call, schema, monkeypatch):
    asked: dict[str, set[str]] = {}
    original = Fields.raw

    def spy(self: Fields, name: str, *, required: bool = False) -> Any:
        asked.setdefault(self.pointer, set()).add(name)
        return original(self, name, required=required)

    monkeypatch.setattr(Fields, "raw", spy)
    body = schema["examples"][0]
    call(body, actor=ACTOR, header_key=None)
    assert asked[""] == set(schema["properties"])
    if "cost_estimate" in schema["properties"]:
        assert asked["/cost_estimate"] == set(schema["properties"]["cost_estimate"]["properties"])
    with pytest.raises(InvalidRequest) as refusal:
        call({}, actor=ACTOR, header_key=None)
    missing = {e.pointer[1:] for e in refusal.value.errors if e.code == "required"}
    assert missing == set(schema["required"])


@pytest.mark.parametrize("schema", [GATE_BODY_SCHEMA, PREFLIGHT_BODY_SCHEMA])
def test_schemas_are_schemas_and_take_their_examples(schema):
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema)
    for example in schema["examples"]:
        validator(schema).validate(example)
    assert not validator(schema).is_valid({**schema["examples"][0], "surprise": 1})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def outcome(call: Any, body: object, header_key: str | None) -> GateRequest | InvalidRequest:
    try:
        return call(body, actor=ACTOR, header_key=header_key)
    except InvalidRequest as refusal:
        return refusal


@given(
    st.dictionaries(st.sampled_from(sorted(PREFLIGHT_BODY_SCHEMA["properties"])), JSON) | JSON,
    st.none() | st.text(max_size=5),
)
def test_any_body_is_a_request_or_a_refusal(body, header_key):
    for call in (to_gate_request, preflight_to_gate_request):
        for value in (body, preflight_body(**body) if isinstance(body, dict) else body):
            found = outcome(call, value, header_key)
            assert isinstance(found, GateRequest) or found.errors
