"""Invariants of approvals and tokens: every planted fault is found, and nothing where all is well."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from enforcement.integrity import reviews
from enforcement.integrity.queries import run_checks
from enforcement.reconciliation.expiry import expire_approvals
from governance.audit.operations import Actor
from governance.identity.reviewing import create_group, set_group_members
from governance.models import Approval, ApprovalToken
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import World, system_actor
from tests.integration.test_integrity import NOBODY, Fault, Vault, violated
from tests.preflight import build_preflight
from tests.reviews import ASKS, act, admit, approve, open_shop
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id

BOTH = {
    "id": "both",
    "action_prefix": "terraform.both",
    "reviewer_roles": ["owner", "admin", "member"],
    "reviewer_groups_all": ["finance", "platform"],
    "required": 2,
}
BY_TWO = {"nonprod": {"required": 2, "separate_requester": True}}


def put_in_group(world: World, name: str, *person_ids: int) -> None:
    actor = system_actor(world.id)
    group = create_group(actor=actor, group_id=new_id(), name=name)
    set_group_members(actor=actor, group_id=group.pk, person_ids=person_ids)


def claim(world: World, approval_id: str, **body: Any) -> str:
    response = Api().post(f"approvals/{approval_id}/token", body, key=world.key)
    assert response.status_code == 200, response.content
    return str(response.json()["approval_token"])


def expire(world: World, approval_id: str) -> None:
    with transaction(world.id):
        row = Approval.objects.get(pk=approval_id)
        Approval.objects.filter(pk=approval_id).update(expires_at=row.requested_at)
    actor = Actor(world.id, "system:tests", None, datetime.now(UTC) + timedelta(minutes=1))
    assert expire_approvals(actor=actor)["expired"] == 1


def arrange(world: World) -> dict[str, str]:
    """Commit an approval for every way that one can go; return the decisions' ids by name."""
    shop = open_shop(world, approval_routing_rules=[BOTH], approvals=BY_TWO)
    shop.budget("50000.00")
    other = admit(world, "owner", "other")
    put_in_group(world, "finance", world.owner.user_id, other.user_id)
    put_in_group(world, "platform", world.admin.user_id)
    ids: dict[str, str] = {"tenant": str(world.id), "nobody": NOBODY}
    open_now: dict[str, str] = {}
    for name in ("waiting", "half", "denied", "expired", "withdrawn", "again", "approved", "spent"):
        asked = shop.ask("200.00", key=name, resource_reference=name)
        ids[name], open_now[name] = asked["decision_id"], asked["approval_request_id"]
        if name == "spent":
            fingerprint = asked["request_fingerprint"]
    grouped = shop.ask("300.00", key="grouped", resource_reference="g", action="terraform.both")
    ids["grouped"], open_now["grouped"] = grouped["decision_id"], grouped["approval_request_id"]
    for name in ("withdrawn", "approved", "spent", "again", "grouped"):
        approve(world.owner, open_now[name])
        assert approve(world.admin, open_now[name])["status"] == "approved"
    approve(world.owner, open_now["half"])
    act(world.owner, open_now["denied"], "deny", reason="no")
    for name in ("withdrawn", "again", "approved"):
        claim(world, open_now[name])
    claim(world, open_now["approved"], rotate=True)
    for name in ("withdrawn", "again"):
        act(world.member, open_now[name], "withdraw")
    expire(world, open_now["expired"])
    spend = {
        "approval_token": claim(world, open_now["spent"]),
        "monthly_delta_usd": "200.00",
        "expected_request_fingerprint": fingerprint,
    }
    assert Api().post("approvals/consume", spend, key=world.key).status_code == 200
    ask_again(shop, ids, open_now)
    return ids | {f"a_{name}": approval_id for name, approval_id in open_now.items()}


def ask_again(shop: Shop, ids: dict[str, str], open_now: dict[str, str]) -> None:
    """Let one that ended, without a hold of its own, go through a second round."""
    shop.publish(thresholds=ASKS, approvals=BY_TWO, modes={"terraform": {"default": "soft"}})
    asked = shop.ask("90000.00", key="round", resource_reference="round")
    ids["round"], open_now["round"] = asked["decision_id"], asked["approval_request_id"]
    act(shop.world.member, open_now["round"], "withdraw")
    body = {"decision_id": ids["round"]}
    again = Api().post("approvals/requests", body, key=shop.world.key)
    assert again.status_code == 200, again.content
    approve(shop.world.owner, open_now["round"])
    approve(shop.world.admin, open_now["round"])
    claim(shop.world, open_now["round"])


@pytest.fixture
def vault(tenant: World, owner_cursor: psycopg.Cursor) -> Iterator[tuple[Vault, dict[str, str]]]:
    """Give a tenant's ids, and its rows to plant faults in; all are put back at the end."""
    ids = arrange(tenant)
    made = Vault(owner_cursor, ids["tenant"])
    yield made, ids
    if not made.is_whole:
        made.heal()


def on_approval(name: str, change: str) -> str:
    return f"UPDATE governance_approval SET {change} WHERE id = %(a_{name})s"


def on_token(name: str, change: str, status: str) -> str:
    return (
        f"UPDATE governance_approval_token SET {change}"
        f" WHERE approval_id = %(a_{name})s AND status = '{status}'"
    )


def on_review(name: str, change: str, person: str = "true") -> str:
    return f"UPDATE governance_review SET {change} WHERE approval_id = %(a_{name})s AND {person}"


def on_entry(name: str, event: str, change: str) -> str:
    return (
        f"UPDATE enforcement_ledger_entry SET {change} WHERE tenant_id = %(tenant)s"
        f" AND approval_request_id = %(a_{name})s AND event = '{event}'"
    )


_FIRST = "id = (SELECT min(id::text)::uuid FROM governance_review WHERE approval_id = {})"

FAULTS: dict[str, tuple[Fault, ...]] = {
    "given_approval_has_its_votes": (
        Fault(on_approval("approved", "required = 3")),
        Fault(on_review("spent", "round = 2")),
        Fault(on_review("approved", "monthly_delta_usd = 1")),
        Fault(on_review("round", "round = 1")),
        Fault(
            on_review("grouped", "groups = '{finance}'"),
        ),
        Fault(
            on_review("spent", "person_id = (SELECT requester_person_id FROM governance_approval"
                      " WHERE id = %(a_spent)s)", _FIRST.format("%(a_spent)s")),
        ),
        Fault(
            "UPDATE enforcement_decision SET person_id = (SELECT max(person_id)"
            " FROM governance_review WHERE approval_id = %(a_approved)s) WHERE id = %(approved)s"
        ),
    ),
    "votes_are_on_ledger": (
        Fault(on_entry("half", "approval_given", "event = 'approval_joined'")),
        Fault("DELETE FROM governance_review WHERE approval_id = %(a_half)s"),
        Fault(on_review("denied", "verdict = 'approve'")),
    ),
    "approval_is_on_ledger": (
        Fault(on_entry("expired", "approval_expired", "event = 'approval_withdrawn'")),
        Fault(on_entry("spent", "approval_consumed", "event = 'approval_joined'")),
        Fault(on_approval("round", "round = 3"), also="given_approval_has_its_votes"),
        Fault(on_approval("half", "status = 'denied', closed_at = now()")),
        Fault(on_entry("waiting", "approval_requested", "approval_request_id = %(nobody)s")),
    ),
    "ended_approval_holds_nothing": (
        Fault(
            on_approval("waiting", "status = 'withdrawn', closed_at = now() - interval '2 hours'"),
            also="approval_is_on_ledger",
        ),
        Fault(
            on_approval("half", "status = 'expired', closed_at = now() - interval '1 day'"),
            also="approval_is_on_ledger",
        ),
    ),
    "token_says_what_was_approved": (
        Fault(on_token("approved", "claims_json = replace(claims_json, '200.0000', '900.0000')",
                       "live")),
        Fault(on_token("spent", "claims_json = replace(claims_json, 'nonprod', 'prod')",
                       "consumed")),
        Fault(on_token("withdrawn", "claims_json = replace(claims_json, 'shop', 'else')",
                       "revoked")),
        Fault(on_approval("approved", "max_monthly_delta_usd = 900")),
        Fault(on_token("approved", "claims_json = replace(claims_json, jti::text, %(nobody)s)",
                       "live")),
    ),
    "token_fits_its_approval": (
        Fault(on_token("withdrawn", "status = 'live'", "revoked"), also="token_is_on_ledger"),
        Fault(on_token("spent", "status = 'live'", "consumed"), also="token_is_on_ledger"),
        Fault(on_token("approved", "status = 'consumed'", "live"), also="token_is_on_ledger"),
    ),
    "token_is_on_ledger": (
        Fault(on_entry("spent", "token_consumed", "event = 'token_revoked'")),
        Fault(on_entry("spent", "token_consumed", "approval_request_id = %(a_approved)s")),
        Fault(on_entry("approved", "token_issued", "subject_id = %(nobody)s")),
        Fault("DELETE FROM governance_approval_token WHERE approval_id = %(a_spent)s"),
    ),
}  # fmt: skip


def test_every_invariant_of_reviews_has_faults() -> None:
    assert list(FAULTS) == [invariant.name for invariant in reviews.INVARIANTS]
    assert all(len(faults) >= 2 for faults in FAULTS.values())


def test_every_planted_fault_is_found_by_its_invariants_alone(
    tenant: World, vault: tuple[Vault, dict[str, str]]
) -> None:
    """On a history in which approvals went every way, and no invariant is violated."""
    made, ids = vault
    report = run_checks(tenant.id)
    assert [(one.invariant.name, one.examples) for one in report.violated] == []
    seen = {one.invariant.name: one.inspected for one in report.findings}
    assert all(seen[name] > 0 for name in FAULTS)
    with reading(tenant.id):
        assert {one.status for one in Approval.objects.all()} == {
            "pending", "approved", "denied", "expired", "withdrawn", "consumed",
        }  # fmt: skip
        assert {one.status for one in ApprovalToken.objects.all()} == {
            "live", "consumed", "revoked",
        }  # fmt: skip
        assert Approval.objects.filter(round=2, status="approved").exists()
    for name, faults in FAULTS.items():
        for fault in faults:
            made.plant(fault, ids)
            assert violated(tenant) == {name, *fault.also.split()}, fault.sql
            made.heal()
    assert violated(tenant) == set()


def test_a_change_that_goes_ahead_by_its_approval_violates_nothing(tenant: World) -> None:
    """Spent without a token, joined by another run, confirmed by hand: all are sound histories."""
    shop = open_shop(tenant)
    shop.budget("5000.00")
    body = {"cost_estimate": None, "estimated_monthly_delta_usd": "300.00"}
    first = Api().post("gate/terraform/preflight", build_preflight(**body), key=tenant.key).json()
    joined = Api().post(
        "gate/terraform/preflight", build_preflight(run_id="run-2", **body), key=tenant.key
    ).json()  # fmt: skip
    assert joined["approval_request_id"] == first["approval_request_id"]
    assert violated(tenant) == set()
    approve(tenant.owner, first["approval_request_id"])
    path = f"reservations/{first['decision_id']}/confirm"
    assert Api().post(path, {}, key=tenant.key).status_code == 200
    assert violated(tenant) == set()
