"""Nobody gives more than they have: roles, scopes and projects, one fact at a time."""

import uuid

import pytest

from governance.identity.domain import (
    ADMIN,
    EVERYTHING,
    MEMBER,
    OWNER,
    ROLES,
    SCOPE_APPROVE,
    Principal,
    Rights,
    weaker_role,
)

APPROVE = frozenset({SCOPE_APPROVE})
SHOP = frozenset({"shop"})


@pytest.mark.parametrize(
    ("wanted", "held", "code"),
    [
        (Rights(ADMIN), Rights(ADMIN), None),
        (Rights(OWNER), Rights(ADMIN), "role_missing"),
        (Rights(MEMBER), Rights(OWNER), None),
        (Rights(MEMBER, APPROVE), Rights(MEMBER), "scope_missing"),
        (Rights(MEMBER, APPROVE), Rights(MEMBER, APPROVE), None),
        (Rights(MEMBER, projects=SHOP), Rights(MEMBER), None),
        (Rights(MEMBER, projects=SHOP), Rights(MEMBER, projects=SHOP), None),
        (Rights(MEMBER, projects=frozenset()), Rights(MEMBER, projects=SHOP), None),
        (Rights(MEMBER), Rights(MEMBER, projects=SHOP), "project_not_allowed"),
        (
            Rights(MEMBER, projects=SHOP | {"x"}),
            Rights(MEMBER, projects=SHOP),
            "project_not_allowed",
        ),
        (Rights(OWNER, APPROVE), EVERYTHING, None),
    ],
)
def test_excess_has_the_code_of_what_is_missing(
    wanted: Rights, held: Rights, code: str | None
) -> None:
    assert wanted.excess_over(held) == code


@pytest.mark.parametrize("first", ROLES)
@pytest.mark.parametrize("second", ROLES)
def test_the_weaker_role_is_below_both(first: str, second: str) -> None:
    weaker = weaker_role(first, second)
    assert weaker in {first, second}
    assert Rights(weaker).excess_over(Rights(first)) is None
    assert Rights(weaker).excess_over(Rights(second)) is None


def test_a_principal_has_its_role_and_the_weaker_ones() -> None:
    principal = Principal(uuid.UUID(int=1), "key:x", 1, ADMIN, projects=SHOP)
    assert [principal.has_role(role) for role in ROLES] == [True, True, False]
    assert principal.can_use_project("shop")
    assert not principal.can_use_project("Shop")
    assert not Principal(uuid.UUID(int=1), "key:x", 1, ADMIN, projects=frozenset()).can_use_project(
        ""
    )
