"""Differences between documents, and modes that a new policy raises."""

from __future__ import annotations

import pytest

from governance.policies.comparison import Change, diff, raised_modes
from governance.policies.document import empty_policy, parse_policy
from tests.unit.governance.policies.example import example_document


def test_equal_documents_do_not_differ() -> None:
    assert diff(example_document(), example_document()) == ()


def test_changes_have_pointers() -> None:
    old, new = example_document(), example_document()
    new["limits"]["plan_monthly_ceiling_usd"] = "40000.00"
    del new["context"]
    new["partial_cost"] = {"prod": "allow"}
    new["environments"]["nonprod"].append("qa")

    assert diff(old, new) == (
        Change(kind="removed", pointer="/context", old={"stale_cost_days": 3}),
        Change(
            kind="changed",
            pointer="/environments/nonprod",
            old=old["environments"]["nonprod"],
            new=new["environments"]["nonprod"],
        ),
        Change(
            kind="changed",
            pointer="/limits/plan_monthly_ceiling_usd",
            old="50000.00",
            new="40000.00",
        ),
        Change(kind="added", pointer="/partial_cost", new={"prod": "allow"}),
    )


def test_entries_with_ids_are_matched_by_id_and_their_order_counts() -> None:
    old = {"approval_routing_rules": [{"id": "a"}, {"id": "b", "required": 1}, {"id": "c"}]}
    new = {"approval_routing_rules": [{"id": "b", "required": 2}, {"id": "a"}, {"id": "d"}]}

    assert diff(old, new) == (
        Change(kind="removed", pointer="/approval_routing_rules/2", old={"id": "c"}),
        Change(kind="changed", pointer="/approval_routing_rules/0/required", old=1, new=2),
        Change(kind="added", pointer="/approval_routing_rules/2", new={"id": "d"}),
        Change(
            kind="reordered",
            pointer="/approval_routing_rules",
            old=["a", "b", "c"],
            new=["b", "a", "d"],
        ),
    )


def test_pointers_escape_and_types_count() -> None:
    assert diff({"a/b": 1}, {"a/b": True})[0].pointer == "/a~1b"


@pytest.mark.parametrize(
    ("old", "new", "raised"),
    [
        ({}, {}, ()),
        ({}, {"terraform": {"default": "shadow"}}, ()),
        ({"terraform": {"default": "shadow"}}, {}, ("terraform.prod", "terraform.nonprod")),
        (
            {"terraform": {"default": "soft"}},
            {"terraform": {"default": "soft", "prod": "hard", "nonprod": "shadow"}},
            ("terraform.prod",),
        ),
        (
            {"cloud_event": {"default": "shadow", "nonprod": "soft"}},
            {"cloud_event": {"default": "soft"}},
            ("cloud_event.prod",),
        ),
    ],
)
def test_raised_modes(
    old: dict[str, object], new: dict[str, object], raised: tuple[str, ...]
) -> None:
    assert raised_modes(parse_policy({"modes": old}), parse_policy({"modes": new})) == raised


def test_nothing_is_above_the_empty_policy() -> None:
    assert raised_modes(empty_policy(), parse_policy(example_document())) == ()
