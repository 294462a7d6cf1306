"""The policy document: lint, meaning, canonical form, and agreement with the published schema."""

from __future__ import annotations

import copy
import hashlib
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.policies.document import (
    InvalidPolicy,
    canonical_policy,
    empty_policy,
    lint,
    parse_policy,
)
from governance.policies.domain import SOURCES, Policy
from governance.policies.schema import json_schema
from tests.unit.governance.policies.example import example_document

PUBLISHED_SCHEMA = Path(__file__).parents[4] / "docs" / "policy.schema.json"

# What a schema can say, too: document, pointers that lint names.
WRONG_IN_FORM: list[tuple[Any, set[str]]] = [
    (None, {""}),
    ([], {""}),
    ("{}", {""}),
    ({"mode": {}}, {"/mode"}),
    ({"a/b~c": 1}, {"/a~1b~0c"}),
    ({"schema_version": "valdrix.enforcement.policy.v2"}, {"/schema_version"}),
    ({"modes": None}, {"/modes"}),
    ({"modes": {"lambda": {"default": "soft"}}}, {"/modes/lambda"}),
    ({"modes": {"terraform": {"default": "off"}}}, {"/modes/terraform/default"}),
    ({"modes": {"terraform": {"prod": "HARD"}}}, {"/modes/terraform/prod"}),
    ({"modes": {"terraform": "soft"}}, {"/modes/terraform"}),
    ({"unknown_cost": {"prod": "ignore"}}, {"/unknown_cost/prod"}),
    ({"partial_cost": {"staging": "allow"}}, {"/partial_cost/staging"}),
    ({"no_budget": {"prod": None}}, {"/no_budget/prod"}),
    (
        {"limits": {"plan_monthly_ceiling_usd": 50000}},
        {"/limits/plan_monthly_ceiling_usd"},
    ),
    ({"limits": {"plan_montly_ceiling_usd": "5"}}, {"/limits/plan_montly_ceiling_usd"}),
    *(
        (
            {"thresholds": {"prod": {"deny_from_usd": amount}}},
            {"/thresholds/prod/deny_from_usd"},
        )
        for amount in ("-1", "-0", "1e3", "1_000", "+5", " 5", "5.", "05", "1.00001", "", "NaN")
    ),
    (
        {"thresholds": {"prod": {"deny_from_usd": "1000000000000.0001"}}},
        {"/thresholds/prod/deny_from_usd"},
    ),
    (
        {"thresholds": {"nonprod": {"deny_from_usd": "٣"}}},
        {"/thresholds/nonprod/deny_from_usd"},
    ),
    ({"approvals": {"prod": {"required": 0}}}, {"/approvals/prod/required"}),
    ({"approvals": {"prod": {"required": 6}}}, {"/approvals/prod/required"}),
    ({"approvals": {"prod": {"required": True}}}, {"/approvals/prod/required"}),
    ({"approvals": {"prod": {"ttl_seconds": 59}}}, {"/approvals/prod/ttl_seconds"}),
    ({"approvals": {"prod": {"ttl_seconds": 2_592_001}}}, {"/approvals/prod/ttl_seconds"}),
    (
        {"approvals": {"nonprod": {"separate_requester": "false"}}},
        {"/approvals/nonprod/separate_requester"},
    ),
    ({"approval_routing_rules": {}}, {"/approval_routing_rules"}),
    ({"approval_routing_rules": ["x"]}, {"/approval_routing_rules/0"}),
    ({"approval_routing_rules": [{}]}, {"/approval_routing_rules/0/id"}),
    (
        {"approval_routing_rules": [{"id": "a", "reviewer_roles": ["root"]}]},
        {"/approval_routing_rules/0/reviewer_roles/0"},
    ),
    (
        {"approval_routing_rules": [{"id": "a", "reviewer_roles": []}]},
        {"/approval_routing_rules/0/reviewer_roles"},
    ),
    (
        {"approval_routing_rules": [{"id": "a", "risk_levels": ["high", "high"]}]},
        {"/approval_routing_rules/0/risk_levels/1"},
    ),
    ({"rules": [{"id": "a b", "when": "true", "effect": "deny"}]}, {"/rules/0/id"}),
    ({"rules": [{"id": "a", "effect": "deny"}]}, {"/rules/0/when"}),
    ({"rules": [{"id": "a", "when": "true"}]}, {"/rules/0/effect"}),
    ({"rules": [{"id": "a", "when": "true", "effect": "warn"}]}, {"/rules/0/effect"}),
    (
        {"rules": [{"id": "a", "when": "true", "effect": "deny", "message": " "}]},
        {"/rules/0/message"},
    ),
    ({"credits": {"emergency": {"prod": "always"}}}, {"/credits/emergency/prod"}),
    ({"k8s": {"priced_kinds": ["pod"]}}, {"/k8s/priced_kinds/0"}),
    ({"k8s": {"priced_kinds": ["Pod", "Pod"]}}, {"/k8s/priced_kinds/1"}),
    ({"k8s": {"trust_object_annotations": 1}}, {"/k8s/trust_object_annotations"}),
    ({"freezes": [{"id": "a", "from": "2026-01-01T00:00:00Z"}]}, {"/freezes/0/to"}),
    (
        {"freezes": [{"id": "a", "from": "2026-01-01", "to": "2026-01-02T00:00:00Z"}]},
        {"/freezes/0/from"},
    ),
    (
        {
            "freezes": [
                {"id": "a", "from": "2026-01-01T00:00:00", "to": "2026-01-02T00:00:00Z"},
            ]
        },
        {"/freezes/0/from"},
    ),
    (
        {"exceptions": [{"id": "a", "project_id": "shop"}]},
        {"/exceptions/0/until", "/exceptions/0/max_monthly_delta_usd", "/exceptions/0/reason"},
    ),
    (
        {"reservations": {"drift_threshold_percent": "20%"}},
        {"/reservations/drift_threshold_percent"},
    ),
    ({"reservations": {"sla_hours": 0}}, {"/reservations/sla_hours"}),
    ({"context": {"stale_cost_days": "3"}}, {"/context/stale_cost_days"}),
    ({"actions": {"max_attempts": 21}}, {"/actions/max_attempts"}),
    ({"environments": {"nonprod": "dev"}}, {"/environments/nonprod"}),
    ({"environments": {"nonprod": ["dev", "dev"]}}, {"/environments/nonprod/1"}),
    ({"environments": {"nonprod": ["d*v"]}}, {"/environments/nonprod/0"}),
    ({"environments": {"nonprod": ["dév"]}}, {"/environments/nonprod/0"}),
]  # fmt: skip

# What only lint can say.
WRONG_IN_MEANING: list[tuple[Any, set[str]]] = [
    (
        {
            "limits": {
                "plan_monthly_ceiling_usd": "2",
                "enterprise_monthly_ceiling_usd": "1",
            }
        },
        {"/limits/plan_monthly_ceiling_usd"},
    ),
    (
        {"thresholds": {"prod": {"require_approval_from_usd": "2", "deny_from_usd": "1.99"}}},
        {"/thresholds/prod/deny_from_usd"},
    ),
    (
        {"approval_routing_rules": [{"id": "a"}, {"id": "b"}, {"id": "a"}]},
        {"/approval_routing_rules/2/id"},
    ),
    (
        {"freezes": [{"id": "a", "from": "2026-13-01T00:00:00Z", "to": "2026-02-30T00:00:00Z"}]},
        {"/freezes/0/from", "/freezes/0/to"},
    ),
    (
        {"freezes": [{"id": "a", "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T01:00:00+01:00"}]},
        {"/freezes/0/to"},
    ),
    ({"environments": {"nonprod": ["dev", "pre-live"]}}, {"/environments/nonprod/1"}),
    ({"environments": {"nonprod": ["PROD"]}}, {"/environments/nonprod/0"}),
    ({"environments": {"nonprod": ["pro*"]}}, {"/environments/nonprod/0"}),
    ({"environments": {"nonprod": ["de*"]}}, {"/environments/nonprod/0"}),
    ({"rules": [{"id": "a", "when": "input.", "effect": "deny"}]}, {"/rules/0/when"}),
    ({"rules": [{"id": "a", "when": "1 + 1", "effect": "deny"}]}, {"/rules/0/when"}),
    ({"rules": [{"id": "a", "when": "input.metadata.x", "effect": "deny"}]}, {"/rules/0/when"}),
    ({"rules": [{"id": "a", "when": "input.enviroment == 'prod'", "effect": "deny"}]},
     {"/rules/0/when"}),
]  # fmt: skip

RIGHT: list[Any] = [
    {},
    {"schema_version": "valdrix.enforcement.policy.v1"},
    example_document(),
    {"environments": {"nonprod": []}},
    {"environments": {"nonprod": ["dev*", "review-*", "acme-eu-1", "Sandbox"]}},
    {"modes": {}, "limits": {}, "thresholds": {"prod": {}}, "rules": []},
    {"partial_cost": {"prod": "allow"}},
    {"thresholds": {"prod": {"require_approval_from_usd": "0", "deny_from_usd": "1000000000000"}}},
    {"approvals": {"prod": {"required": 5, "ttl_seconds": 60}}},
    {"approval_routing_rules": [{"id": "all"}]},
    {"rules": [{"id": "t", "when": "context.risk_class\n == 'high'", "effect": "tag"}]},
    {"freezes": [{"id": "a", "from": "2026-01-01T00:00:00.5Z", "to": "2026-01-01T00:00:01Z"}]},
    {"k8s": {"priced_kinds": []}},
]


@pytest.mark.parametrize(("document", "pointers"), WRONG_IN_FORM + WRONG_IN_MEANING)
def test_lint_names_the_place_and_nothing_is_parsed(document: Any, pointers: set[str]) -> None:
    errors = lint(document)

    assert {error.pointer for error in errors} == pointers
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy(document)
    assert caught.value.problem_code == "invalid_policy"
    assert caught.value.status == 422
    assert caught.value.errors == errors
    with pytest.raises(InvalidPolicy):
        canonical_policy(document)


@pytest.mark.parametrize("document", RIGHT)
def test_valid_documents_have_no_errors(document: Any) -> None:
    assert lint(document) == ()


@pytest.mark.parametrize(
    ("document", "is_valid"),
    [(document, False) for document, _ in WRONG_IN_FORM]
    + [(document, True) for document in RIGHT]
    + [(document, True) for document, _ in WRONG_IN_MEANING],
)
def test_schema_says_what_a_schema_can_say(document: Any, is_valid: bool) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())

    assert validator.is_valid(document) is is_valid


def test_schema_is_valid_and_is_the_published_file() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json.loads(PUBLISHED_SCHEMA.read_text()) == json_schema()


def _objects(document: Any, pointer: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = []
    if isinstance(document, dict):
        found.append((pointer, document))
        for name, value in document.items():
            found += _objects(value, f"{pointer}/{name}")
    elif isinstance(document, list):
        for place, value in enumerate(document):
            found += _objects(value, f"{pointer}/{place}")
    return found


def test_unknown_members_are_refused_at_every_level() -> None:
    pointers = [pointer for pointer, _ in _objects(example_document())]
    assert len(pointers) > 20
    for place, pointer in enumerate(pointers):
        document = example_document()
        _objects(document)[place][1]["unheard_of"] = "1"

        assert [(e.pointer, e.code) for e in lint(document)] == [
            (f"{pointer}/unheard_of", "unknown_field")
        ]
        assert not jsonschema.Draft202012Validator(json_schema()).is_valid(document)


def test_null_is_refused_at_every_level() -> None:
    for place, (pointer, members) in enumerate(_objects(example_document())):
        for name in members:
            document = example_document()
            _objects(document)[place][1][name] = None

            assert f"{pointer}/{name}" in {error.pointer for error in lint(document)}
            assert not jsonschema.Draft202012Validator(json_schema()).is_valid(document)


def test_every_error_is_found_in_one_pass() -> None:
    document = example_document()
    document["modes"]["terraform"]["prod"] = "off"
    document["limits"]["plan_monthly_ceiling_usd"] = 1
    document["rules"][0]["when"] = "1"
    document["typo"] = True

    assert {error.pointer for error in lint(document)} == {
        "/modes/terraform/prod",
        "/limits/plan_monthly_ceiling_usd",
        "/rules/0/when",
        "/typo",
    }


def test_an_empty_document_is_the_strictest_policy() -> None:
    policy = empty_policy()

    for source in SOURCES:
        for environment in ("prod", "nonprod"):
            choice = policy.mode(source, environment)
            assert (choice.mode, choice.scope) == ("hard", "builtin.default")
    for environment in ("prod", "nonprod"):
        threshold = policy.threshold(environment)
        assert threshold.finding(Decimal("0.0001")) == "require_approval"
        assert threshold.finding(Decimal(0)) == "allow"
        assert threshold.finding(Decimal(-5)) == "allow"
    assert policy.cost_verb("unknown", "prod") == "require_approval"
    assert policy.cost_verb("unknown", "nonprod") == "allow"
    assert policy.cost_verb("partial", "prod") == "require_approval"
    assert policy.cost_verb("unheard-of", "prod") == "require_approval"
    assert policy.cost_verb("known", "prod") == "allow"
    assert policy.no_budget.prod == "require_approval"
    assert policy.approval_terms("prod").separate_requester is True
    assert policy.approval_terms("nonprod").separate_requester is False
    assert policy.emergency_credits.of("prod") == "approval"
    assert policy.emergency_credits.of("anything") == "approval"
    assert policy.emergency_credits.of("nonprod") == "automatic"
    assert policy.kubernetes.trust_object_annotations is False
    assert len(policy.kubernetes.priced_kinds) == 8
    assert policy.limits.plan_monthly_ceiling_usd is None
    assert policy.reservations.drift_threshold_usd == 0


def test_the_example_means_what_it_says() -> None:
    policy = parse_policy(example_document())

    assert policy.mode("terraform", "prod").scope == "terraform.prod"
    assert policy.mode("terraform", "nonprod").mode == "hard"
    assert policy.mode("k8s_admission", "nonprod").scope == "k8s_admission.default"
    assert policy.mode("cloud_event", "prod").mode == "shadow"
    assert policy.mode("unheard_of", "prod").mode == "hard"
    assert policy.limits.enterprise_monthly_ceiling_usd == Decimal("80000.0000")
    prod = policy.threshold("prod")
    assert prod.finding(Decimal("499.9999")) == "allow"
    assert prod.finding(Decimal("500.0000")) == "require_approval"
    assert prod.finding(Decimal("19999.9999")) == "require_approval"
    assert prod.finding(Decimal("20000.0000")) == "deny"
    assert policy.threshold("nonprod").finding(Decimal(1000000)) == "require_approval"
    assert policy.rules[0].effect == "deny"
    assert policy.routing_rules[0].required == 2
    assert policy.reservations.drift_threshold_percent == 20
    assert policy.actions.lease_ttl_seconds == 300


def test_partial_cost_falls_back_to_unknown_cost_side_by_side() -> None:
    policy = parse_policy({"unknown_cost": {"nonprod": "deny"}, "partial_cost": {"prod": "allow"}})

    assert policy.cost_verb("partial", "prod") == "allow"
    assert policy.cost_verb("unknown", "prod") == "require_approval"
    assert policy.cost_verb("partial", "nonprod") == "deny"


def test_a_freeze_starts_inclusive_ends_exclusive_and_defaults_to_deny_everywhere() -> None:
    policy = parse_policy(
        {
            "freezes": [
                {"id": "f", "from": "2026-12-20T00:00:00+01:00", "to": "2026-12-21T00:00:00Z"}
            ]
        }
    )
    start, end = datetime(2026, 12, 19, 23, tzinfo=UTC), datetime(2026, 12, 21, tzinfo=UTC)

    assert policy.freezes[0].effect == "deny"
    for environment in ("prod", "nonprod"):
        assert len(policy.active_freezes(environment=environment, at=start)) == 1
        assert policy.active_freezes(environment=environment, at=end) == ()
    before = start.replace(hour=22, minute=59, second=59)
    assert policy.active_freezes(environment="prod", at=before) == ()
    yearly = parse_policy(example_document())
    inside = datetime(2026, 12, 25, tzinfo=UTC)
    assert [f.id for f in yearly.active_freezes(environment="prod", at=inside)] == ["year-end"]
    assert yearly.active_freezes(environment="nonprod", at=inside) == ()


@pytest.mark.parametrize(
    ("change", "is_covered"),
    [
        ({}, True),
        ({"project_id": "shop2"}, False),
        ({"monthly_delta_usd": Decimal("900.0001")}, False),
        ({"at": datetime(2026, 12, 1, tzinfo=UTC)}, False),
        ({"environment": "nonprod"}, True),
    ],
)
def test_an_exception_covers_its_project_up_to_its_amount_and_end(
    change: dict[str, Any], is_covered: bool
) -> None:
    policy = parse_policy(example_document())
    question: dict[str, Any] = {
        "project_id": "shop",
        "environment": "prod",
        "monthly_delta_usd": Decimal("900.0000"),
        "at": datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC),
    }

    found = policy.find_exception(**{**question, **change})

    assert (found is not None) is is_covered


def test_an_exception_may_be_bound_to_an_environment() -> None:
    document = example_document()
    document["exceptions"][0]["environment"] = "nonprod"
    policy = parse_policy(document)
    at = datetime(2026, 11, 1, tzinfo=UTC)
    question = {"project_id": "shop", "monthly_delta_usd": Decimal(1), "at": at}

    assert policy.find_exception(environment="nonprod", **question) is not None
    assert policy.find_exception(environment="prod", **question) is None


def test_the_hash_is_of_the_stored_text_and_ignores_only_key_order() -> None:
    document = example_document()
    reordered = dict(reversed(list(document.items())))
    canonical = canonical_policy(document)

    assert canonical == canonical_policy(reordered)
    assert canonical.sha256 == hashlib.sha256(canonical.canonical_json.encode()).hexdigest()
    assert json.loads(canonical.canonical_json) == document
    document["limits"]["plan_monthly_ceiling_usd"] = "50000.0"
    assert canonical_policy(document).sha256 != canonical.sha256


@pytest.mark.parametrize("document", RIGHT)
def test_a_policy_survives_storage(document: Any) -> None:
    policy = parse_policy(document)

    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy


_AMOUNTS = st.decimals(0, 10**6, places=2).map(lambda value: format(value, "f"))
_DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "environments": st.fixed_dictionaries(
            {"nonprod": st.lists(st.from_regex(r"[b-k]{3,8}", fullmatch=True), unique=True)}
        ),
        "modes": st.dictionaries(
            st.sampled_from(SOURCES),
            st.dictionaries(
                st.sampled_from(["default", "prod", "nonprod"]),
                st.sampled_from(["shadow", "soft", "hard"]),
            ),
        ),
        "thresholds": st.dictionaries(
            st.sampled_from(["prod", "nonprod"]),
            st.fixed_dictionaries({}, optional={"require_approval_from_usd": _AMOUNTS}),
        ),
        "approval_routing_rules": st.lists(
            st.fixed_dictionaries(
                {"id": st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)},
                optional={"monthly_delta_from_usd": _AMOUNTS, "required": st.integers(1, 5)},
            ),
            unique_by=lambda rule: rule["id"],
            max_size=5,
        ),
    },
)


@given(_DOCUMENTS)
def test_a_document_read_back_from_its_canonical_text_means_the_same(
    document: dict[str, Any],
) -> None:
    canonical = canonical_policy(document)
    again = json.loads(canonical.canonical_json)

    assert canonical_policy(again) == canonical
    assert parse_policy(again) == parse_policy(document)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.decimals(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.data())
def test_lint_never_raises_and_parse_agrees_with_it(data: st.DataObject) -> None:
    document = copy.deepcopy(example_document())
    places = _objects(document)
    _, members = places[data.draw(st.integers(0, len(places) - 1))]
    members[data.draw(st.sampled_from(sorted(members)))] = data.draw(_JSON)

    errors = lint(document)

    if errors:
        with pytest.raises(InvalidPolicy):
            parse_policy(document)
    else:
        parse_policy(document)
