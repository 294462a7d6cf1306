"""Whom an approval demands that a further question joins: never less than before."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from governance.approvals.domain import Demand, combine

LAX = Demand(
    rule_id=None,
    trace=(),
    required=1,
    reviewer_roles=("owner", "admin"),
    reviewer_groups_all=(),
    separate_requester=False,
)
STRICT = Demand(
    rule_id="strict",
    trace=(),
    required=3,
    reviewer_roles=("owner",),
    reviewer_groups_all=("finance",),
    separate_requester=True,
)


@pytest.mark.parametrize("is_larger", [True, False])
@pytest.mark.parametrize(("held", "joining"), [(LAX, STRICT), (STRICT, LAX)])
def test_the_stricter_terms_hold_whoever_came_first(
    held: Demand, joining: Demand, is_larger: bool
) -> None:
    combined = combine(held, joining, is_larger=is_larger)
    assert replace(combined, rule_id="strict") == STRICT


def test_the_same_terms_stay_what_they_are() -> None:
    for demand, is_larger in product((LAX, STRICT), (True, False)):
        assert combine(demand, demand, is_larger=is_larger) == demand


@pytest.mark.parametrize(
    ("held", "joining", "expected"),
    [
        ({"reviewer_groups_all": ("a", "b")}, {"reviewer_groups_all": ("b", "c")}, {"a", "b", "c"}),
        ({"reviewer_groups_all": ()}, {"reviewer_groups_all": ("c",)}, {"c"}),
    ],
)
def test_the_groups_of_either_are_demanded(
    held: dict[str, Any], joining: dict[str, Any], expected: set[str]
) -> None:
    combined = combine(replace(LAX, **held), replace(LAX, **joining), is_larger=True)
    assert set(combined.reviewer_groups_all) == expected
    assert len(combined.reviewer_groups_all) == len(expected)


@pytest.mark.parametrize(("is_larger", "roles"), [(True, ("member",)), (False, ("admin",))])
def test_where_no_role_is_let_by_both_the_larger_question_s_hold(
    is_larger: bool, roles: tuple[str, ...]
) -> None:
    """Else whoever asks once more for the same, or less, would choose their reviewers."""
    held, joining = (replace(LAX, reviewer_roles=(role,)) for role in ("admin", "member"))
    assert combine(held, joining, is_larger=is_larger).reviewer_roles == roles
