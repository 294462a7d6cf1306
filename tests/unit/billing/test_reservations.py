"""The names a change is locked by, and what a charge still has to give (SPEC 3.10)."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from billing.reservations.domain import Change, ChargeState
from tests.builders import usd


def a_change(**changes: Any) -> Change:
    facts: dict[str, Any] = {
        "tenant_id": uuid.UUID(int=1),
        "project_id": "shop",
        "environment": "prod",
        "action": "terraform.apply",
        "resource_reference": "module.shop",
        "fingerprint": "f" * 64,
        "digest": "d",
        "is_computed": False,
        "run_id": None,
        "is_shadow": False,
    }
    return Change(**facts | changes)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ()),
        ({"is_computed": True}, (f"change:{'f' * 64}",)),
        ({"run_id": "r-1"}, ("run:r-1",)),
        ({"is_computed": True, "run_id": "r-1"}, (f"change:{'f' * 64}", "run:r-1")),
    ],
)
def test_a_change_is_locked_by_what_it_may_share_by(
    changes: dict[str, Any], names: tuple[str, ...]
) -> None:
    assert a_change(**changes).lock_names() == names


def test_a_run_cannot_spell_a_change() -> None:
    computed = a_change(is_computed=True).lock_names()
    named = a_change(run_id=f"change:{'f' * 64}").lock_names()
    assert not set(computed) & set(named)


@pytest.mark.parametrize(
    ("held", "taken", "unspent"),
    [("100", "0", "100"), ("100", "99.9999", "0.0001"), ("100", "100", "0"), ("40", "100", "0")],
)
def test_each_part_of_a_charge_is_taken_once(held: str, taken: str, unspent: str) -> None:
    charge = ChargeState(
        charge_id=uuid.UUID(int=2),
        family_id=uuid.UUID(int=2),
        # What it took of its own parent is held and is not its to give.
        held_usd=usd(held) + usd("7"),
        own_usd=usd(held),
        taken_usd=usd(taken),
        change_is_computed=True,
    )
    assert charge.unspent_usd == usd(unspent)
