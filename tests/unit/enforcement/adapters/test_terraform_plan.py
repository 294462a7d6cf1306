"""What is kept of a plan: its digest changes with the change, and with nothing else."""

from __future__ import annotations

import copy
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcement.adapters.terraform_plan import (
    DIGEST_SCHEMA,
    InvalidPlan,
    Plan,
    qualify_cost,
    read_plan,
)
from enforcement.gate.inputs import UNESTIMATED, build_cost
from valdrix.kernel import strict_json
from valdrix.kernel.canonical import sha256_hex
from valdrix.kernel.strict_json import StrictJsonError

FIXTURES = Path(__file__).resolve().parents[5] / "shared" / "fixtures" / "terraform-plan"


def resource(address: str = "aws_instance.web", after: Any = None, **change: Any) -> dict[str, Any]:
    return {
        "address": address,
        "mode": "managed",
        "type": "aws_instance",
        "name": "web",
        "change": {"actions": ["create"], "before": None, "after": after, **change},
    }


def plan(*resources: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"format_version": "1.2", "resource_changes": list(resources), **members}


def read(value: object) -> Plan:
    return read_plan(value, pointer="/plan")


def digest(*resources: dict[str, Any], **members: Any) -> str:
    return read(plan(*resources, **members)).change_digest


def pointers(value: object) -> list[str]:
    with pytest.raises(InvalidPlan) as refusal:
        read(value)
    assert (refusal.value.status, refusal.value.problem_code) == (422, "invalid_plan")
    return [error.pointer.removeprefix("/plan") for error in refusal.value.errors]


def fixture(name: str) -> bytes:
    path = FIXTURES / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is absent: the documents of others are not part of the project")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("110_sensitive_values", 7),
        ("120_basic", 7),
        ("basic", 7),
        ("has_changes", 0),
        ("no_changes", 0),
    ],
)
def test_plans_made_by_others(name, count):
    found = read(strict_json.loads(fixture(name)))
    assert (found.resource_count, found.is_complete, found.is_errored) == (count, True, False)


def test_one_module_planned_by_three_versions_is_one_change():
    names = ("110_sensitive_values", "120_basic", "basic")
    assert len({read(strict_json.loads(fixture(name))).change_digest for name in names}) == 1


def test_a_file_with_something_after_its_end_is_not_json():
    with pytest.raises(StrictJsonError):
        strict_json.loads(fixture("invalid"))


BASE = resource(
    after={"size": "m7g.large", "tags": {"a": "1"}, "count": 2, "ratio": Decimal("0.5")}
)


def changed(**members: Any) -> dict[str, Any]:
    other = copy.deepcopy(BASE)
    other["change"].update(members)
    return other


@pytest.mark.parametrize(
    "other",
    [
        {**BASE, "address": "aws_instance.db"},
        {**BASE, "deposed": "00000001"},
        changed(actions=["update"]),
        changed(actions=["delete", "create"]),
        changed(actions=["create", "delete"]),
        changed(after=None),
        changed(after={**BASE["change"]["after"], "size": "m7g.xlarge"}),
        changed(after={**BASE["change"]["after"], "tags": {"a": "2"}}),
        changed(after={**BASE["change"]["after"], "tags": {"b": "1"}}),
        changed(after={**BASE["change"]["after"], "tags": ["1"]}),
        changed(after={**BASE["change"]["after"], "count": 3}),
        changed(after={**BASE["change"]["after"], "count": "2"}),
        changed(after={**BASE["change"]["after"], "ratio": Decimal("0.51")}),
        changed(after={**BASE["change"]["after"], "ratio": None}),
        changed(after={**BASE["change"]["after"], "ratio": "5e-1"}),
        changed(after_unknown={"id": True}),
        changed(after_sensitive={"size": True}),
    ],
)
def test_another_change_has_another_digest(other):
    assert digest(other) != digest(BASE)


@pytest.mark.parametrize(
    "members",
    [
        {"timestamp": "2026-01-31T12:00:00Z"},
        {"terraform_version": "1.9.9"},
        {"prior_state": {"values": {"secret": 1}}},
        {"output_changes": {"x": {"actions": ["create"]}}},
        {"resource_drift": [resource("aws_instance.drifted")]},
        {"variables": {"x": {"value": 1}}},
        {"format_version": "0.1"},
        {"something_new": [1, 2, 3]},
        {"complete": False},
    ],
)
def test_what_is_no_change_leaves_the_digest(members):
    assert digest(BASE, **members) == digest(BASE)


@pytest.mark.parametrize(
    "other",
    [
        resource("aws_instance.same", actions=["no-op"]),
        resource("aws_instance.same", actions=["read"]),
        {**resource("data.aws_ami.x"), "mode": "data"},
    ],
)
def test_reads_and_no_ops_are_no_changes(other):
    assert digest(BASE, other) == digest(BASE)
    assert read(plan(BASE, other)).resource_count == 1


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Decimal("1.50"), Decimal("1.5")),
        (Decimal("15E-1"), Decimal("1.5")),
        (Decimal("2.0"), 2),
        (Decimal("-0.0"), 0),
        (Decimal("1E+20"), 10**20),
        (Decimal("9007199254740991.0"), 2**53 - 1),
        (Decimal("9007199254740992.0"), 2**53),
    ],
)
def test_equal_numbers_are_equal_however_written(left, right):
    assert digest(resource(after={"n": left})) == digest(resource(after={"n": right}))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (2**53, 2**53 + 1),
        (10**400, 10**400 + 1),
        (Decimal("0.1"), Decimal("0.10000000000000000000000001")),
        (Decimal("1E+999999"), Decimal("1E+999998")),
        (Decimal("0.5"), None),
        (1, True),
    ],
)
def test_numbers_wider_than_doubles_are_told_apart(left, right):
    assert digest(resource(after={"n": left})) != digest(resource(after={"n": right}))


def secret(value: Any, mask: Any, **after: Any) -> dict[str, Any]:
    return resource(after={"password": value, **after}, after_sensitive=mask)


def test_a_changed_secret_is_a_changed_change():
    mask = {"password": True}
    assert digest(secret("one", mask)) != digest(secret("two", mask))
    assert digest(secret("one", mask)) == digest(secret("one", {**mask, "tags": {}}))
    assert digest(secret({"a": [1]}, mask)) != digest(secret({"a": [2]}, mask))
    assert digest(secret(Decimal("0.5"), mask)) != digest(secret(Decimal("0.6"), mask))


def test_a_secret_in_another_place_is_another_change():
    two = {"a": "x", "b": "y"}
    swapped = {"a": "y", "b": "x"}
    mask = {"a": True, "b": True}
    assert digest(resource(after=two, after_sensitive=mask)) != digest(
        resource(after=swapped, after_sensitive=mask)
    )


@pytest.mark.parametrize("mask", [{"password": [True]}, True, "x", {"password": "yes"}, [True]])
def test_a_mask_that_does_not_fit_hides_the_value(mask, monkeypatch):
    hashed: list[bytes] = []
    monkeypatch.setattr(
        "enforcement.adapters.terraform_plan.hashlib.pbkdf2_hmac",
        lambda *args: hashed.append(args[1]) or b"\x00" * 32,
    )
    digest(secret("hunter2", mask))
    assert len(hashed) == 1


def test_secrets_are_hashed_together_and_never_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "enforcement.adapters.terraform_plan.hashlib.pbkdf2_hmac",
        lambda *args: calls.append(args) or b"\x00" * 32,
    )
    mask = {"password": True}
    first = digest(secret("one", mask), secret("two", mask) | {"address": "aws_instance.db"})
    second = digest(secret("uno", mask), secret("dos", mask) | {"address": "aws_instance.db"})
    assert len(calls) == 2
    assert calls[0][1] != calls[1][1]
    assert calls[0][2] == calls[1][2]  # the salt is public
    assert first == second  # with the stretched hash held fixed, nothing else sees a secret


def test_nothing_of_a_plan_is_kept_or_told_but_the_digest():
    shown = repr(read(plan(secret("hunter2", {"password": True}))))
    assert "hunter2" not in shown
    with pytest.raises(InvalidPlan) as refusal:
        read(plan(secret("hunter2", {"password": True}), {"address": "x", "change": "hunter2"}))
    assert "hunter2" not in repr(refusal.value.errors)


@pytest.mark.parametrize(
    ("members", "is_complete", "is_errored"),
    [
        ({}, True, False),
        ({"complete": True, "errored": False}, True, False),
        ({"complete": False}, False, False),
        ({"deferred_changes": [{"reason": "x"}]}, False, False),
        ({"deferred_changes": []}, True, False),
        ({"errored": True, "complete": False}, False, True),
    ],
)
def test_completeness(members, is_complete, is_errored):
    found = read(plan(BASE, **members))
    assert (found.is_complete, found.is_errored) == (is_complete, is_errored)


def test_a_part_of_a_plan_has_a_part_of_the_cost():
    known = build_cost(monthly=Decimal("7.3"), hourly=None)
    whole, part = read(plan(BASE)), read(plan(BASE, complete=False))
    failed = read(plan(BASE, complete=False, errored=True))
    assert qualify_cost(known, plan=whole) == known
    assert qualify_cost(known, plan=part).state == "partial"
    assert qualify_cost(known, plan=part).reasons == ("targeted_plan",)
    assert qualify_cost(known, plan=part).monthly_delta_usd == Decimal("7.3")
    assert qualify_cost(known, plan=failed).reasons == ("estimate_error",)
    assert qualify_cost(UNESTIMATED, plan=part).state == "unknown"
    assert qualify_cost(UNESTIMATED, plan=part).reasons == ("targeted_plan", "no_estimate")


@pytest.mark.parametrize("version", ["0.1", "0.2", "1.0", "1", "1.2", "1.99", "1.2.3"])
def test_accepted_format_versions(version):
    assert digest(BASE, format_version=version) == digest(BASE)


@pytest.mark.parametrize("version", ["0.0", "0", "2.0", "10.0", "", "1.x", "v1.0", " 1.0", "1.0-a"])
def test_refused_format_versions(version):
    assert pointers(plan(BASE, format_version=version)) == ["/format_version"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [""]),
        ([], [""]),
        ("x", [""]),
        ({}, ["/format_version", ""]),
        ({"format_version": "1.0", "values": {}}, [""]),  # a state, not a plan
        (plan(format_version=1.2), ["/format_version"]),
        (plan(resource_changes={}), ["/resource_changes"]),
        (plan("x"), ["/resource_changes/0"]),
        (plan({"change": {"actions": ["create"]}}), ["/resource_changes/0/address"]),
        (plan({**BASE, "address": 7}), ["/resource_changes/0/address"]),
        (plan({**BASE, "deposed": 7}), ["/resource_changes/0/deposed"]),
        (plan({**BASE, "mode": 7}), ["/resource_changes/0/mode"]),
        (plan({"address": "x"}), ["/resource_changes/0/change"]),
        (plan({"address": "x", "change": []}), ["/resource_changes/0/change"]),
        (plan(changed(actions=[])), ["/resource_changes/0/change/actions"]),
        (plan(changed(actions="create")), ["/resource_changes/0/change/actions"]),
        (plan(changed(actions=["create", 1])), ["/resource_changes/0/change/actions"]),
        (plan(changed(after={"x": "\ud800"})), ["/resource_changes/0/change"]),
        (plan(changed(after={"x": Decimal("NaN")})), ["/resource_changes/0/change"]),
        (plan(complete="no"), ["/complete"]),
        (plan(errored=1), ["/errored"]),
    ],
)
def test_what_is_no_plan(value, expected):
    assert pointers(value) == expected


def test_a_plan_that_is_nested_too_deeply():
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    assert pointers(plan(changed(after=deep))) == ["/resource_changes/0/change"]


def test_a_large_plan_takes_time_in_proportion():
    def seconds(count: int) -> float:
        after = {"tags": {str(n): "v" for n in range(20)}, "password": "x", "n": Decimal("0.5")}
        value = plan(
            *(
                resource(f"a.b[{n}]", after=after, after_sensitive={"password": True})
                for n in range(count)
            )
        )
        started = time.perf_counter()
        read(value)
        return time.perf_counter() - started

    small = min(seconds(1000) for _ in range(3))
    assert seconds(8000) < 8 * small * 4


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS | st.decimals(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
CHANGES = st.builds(
    resource,
    st.sampled_from(["a.b", "a.c", "a.d[0]", "module.x.a.b"]),
    after=st.dictionaries(st.text(max_size=3), JSON, max_size=4),
    after_sensitive=JSON,
    after_unknown=JSON,
    actions=st.sampled_from([["create"], ["update"], ["no-op"], ["delete"]]),
)


def outcome(value: object) -> Plan | InvalidPlan:
    try:
        return read(value)
    except InvalidPlan as refusal:
        return refusal


@settings(deadline=None)
@given(JSON | st.fixed_dictionaries({"format_version": st.just("1.0"), "resource_changes": JSON}))
def test_any_json_value_is_a_plan_or_a_refusal(value):
    found = outcome(value)
    if isinstance(found, InvalidPlan):
        assert found.errors
        assert all(error.pointer.startswith("/plan") for error in found.errors)
    else:
        assert len(found.change_digest) == 64


@settings(deadline=None)
@given(st.lists(CHANGES, max_size=5), st.randoms(), st.text())
def test_the_digest_knows_neither_order_nor_time(changes, random, moment):
    try:
        expected = digest(*changes)
    except InvalidPlan:
        return  # a lone surrogate
    shuffled = [dict(reversed(change.items())) for change in changes]
    random.shuffle(shuffled)
    assert digest(*shuffled, timestamp=moment) == expected


@settings(deadline=None)
@given(JSON, JSON, st.booleans())
def test_any_other_value_is_another_digest(left, right, is_secret):
    mask = {"password": is_secret}
    try:
        is_same = digest(secret(left, mask)) == digest(secret(right, mask))
    except InvalidPlan:
        return  # a lone surrogate
    assert is_same == (typed(left) == typed(right))


def typed(value: Any) -> Any:
    """Tell 1 from true, as JSON does and Python does not."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return (isinstance(value, bool), value)


def test_the_digest_is_the_documented_one():
    entry = {
        "address": "a.b",
        "deposed": "",
        "actions": ["create"],
        "after": {"n": 2, "ratio": None},
        "after_numbers": {"/ratio": "5e-1"},
        "after_sensitive": [],
        "after_unknown": {"id": True},
        "after_unknown_numbers": {},
    }
    after = {"n": 2, "ratio": Decimal("0.50")}
    assert digest(resource("a.b", after=after, after_unknown={"id": True})) == sha256_hex(
        {"resources": [entry], "schema": DIGEST_SCHEMA, "sensitive": None}
    )
