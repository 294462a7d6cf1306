"""Every entry about a decision says where it belongs and which approval is about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from enforcement.models import Decision, LedgerEntry
from enforcement.reconciliation.expiry import expire_approvals
from enforcement.reconciliation.operations import reconcile_overdue
from governance.audit.operations import Actor
from governance.models import Approval
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.reviews import act, approve, check_books, open_shop
from valdrix.kernel.db import reading

STATUS_BY_EVENT = {
    "approval_requested": {"pending"},
    "approval_approved": {"approved"},
    "approval_denied": {"denied"},
    "approval_withdrawn": {"withdrawn"},
    "approval_expired": {"expired"},
    "approval_consumed": {"consumed"},
    "token_issued": {"approved"},
    "token_consumed": {"consumed"},
    "token_revoked": {"approved", "withdrawn", "expired", "consumed"},
    "confirmed": {"consumed"},
    "reconciled": {"consumed"},
    "released": {"denied", "withdrawn", "expired", "approved"},
}


def in_days(world: World, days: int) -> Actor:
    return Actor(world.id, "system:tests", None, datetime.now(UTC) + timedelta(days=days))


def claim(shop: Shop, asked: dict[str, Any]) -> str:
    path = f"approvals/{asked['approval_request_id']}/token"
    return str(Api().post(path, {}, key=shop.world.key).json()["approval_token"])


def test_every_transition_names_its_approval(tenant: World) -> None:
    shop = open_shop(tenant)
    shop.budget("50000.00")
    names = ("denied", "withdrawn", "expired", "unused", "consumed", "waiting")
    asked = {name: shop.ask("200.00", key=name, resource_reference=name) for name in names}
    plain = shop.ask("20.00", key="plain", resource_reference="plain")
    act(tenant.owner, asked["denied"]["approval_request_id"], "deny", reason="no")
    for name in ("unused", "consumed", "withdrawn"):
        approve(tenant.owner, asked[name]["approval_request_id"])
    claim(shop, asked["unused"])
    claim(shop, asked["withdrawn"])
    act(tenant.member, asked["withdrawn"]["approval_request_id"], "withdraw")
    token = claim(shop, asked["consumed"])
    spent = {
        "approval_token": token,
        "monthly_delta_usd": "200.00",
        "expected_request_fingerprint": asked["consumed"]["request_fingerprint"],
    }
    assert Api().post("approvals/consume", spent, key=tenant.key).status_code == 200
    path = f"reservations/{asked['consumed']['decision_id']}/reconcile"
    settled = Api().post(path, {"actual_monthly_delta_usd": "190.00"}, key=tenant.admin.key)
    assert settled.status_code == 200
    assert expire_approvals(actor=in_days(tenant, 3))["expired"] == 3
    assert reconcile_overdue(actor=in_days(tenant, 90))["released"] == 1

    with reading(tenant.id):
        decisions = Decision.objects.in_bulk()
        approvals = Approval.objects.in_bulk()
        entries = list(LedgerEntry.objects.filter(decision_id__isnull=False).order_by("sequence"))
    seen = set()
    for entry in entries:
        decision = decisions[entry.decision_id]
        where = (entry.source, entry.project_id, entry.environment)
        assert where == (decision.source, decision.project_id, decision.environment), entry.event
        assert entry.approval_request_id == decision.approval_request_id, entry.event
        if decision.approval_request_id is None:
            assert entry.approval_status is None, entry.event
        elif entry.event in STATUS_BY_EVENT:
            assert entry.approval_status in STATUS_BY_EVENT[entry.event], entry.event
            seen.add(entry.event)
    assert seen == set(STATUS_BY_EVENT), "the history has every kind of entry"
    last: dict[Any, Any] = {one.decision_id: one for one in entries}
    for decision_id, entry in last.items():
        approval = approvals.get(decisions[decision_id].approval_request_id)
        assert entry.approval_status == (None if approval is None else approval.status)
    assert str(last[next(d for d in last if str(d) == plain["decision_id"])].event) == "released"
    check_books(tenant)
