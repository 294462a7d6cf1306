"""Rollout: modes rise on measured figures and two people's word (SPEC 10, BSAFE-003)."""

from __future__ import annotations

import json
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError

from enforcement.models import Promotion
from enforcement.rollout import domain
from enforcement.rollout.domain import Figures, Thresholds, find_missing
from governance.identity.domain import ADMIN, OWNER
from governance.models import AuditEntry
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import Person, World
from valdrix.kernel.db import reading, transaction

SHADOW = {"terraform": {"default": "shadow"}, "k8s_admission": {"default": "hard"}}
SCOPE = ("--source", "terraform", "--environment", "nonprod")


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for few decisions, and as long as a loaded machine needs."""
    for name, decisions in (("soft", 4), ("hard", 6)):
        asked = domain.THRESHOLDS[name]
        few = Thresholds(
            decisions=decisions,
            false_positive_rate=asked.false_positive_rate,
            error_rate=asked.error_rate,
            p95_ms=60_000,
        )
        monkeypatch.setitem(domain.THRESHOLDS, name, few)


@pytest.fixture
def shop(tenant: World) -> Shop:
    made = Shop(tenant, modes=SHADOW)
    made.budget("1000.00")
    Api().patch("rollout", {"promotion_required": True}, key=tenant.owner.key)
    return made


def ask(shop: Shop, number: int, amount: str = "1.00") -> list[dict[str, Any]]:
    return [
        shop.ask(amount, resource_reference=f"module.{amount}.{place}") for place in range(number)
    ]


def standing(world: World, source: str = "terraform", environment: str = "nonprod") -> Any:
    body = Api().get("rollout", key=world.admin.key).json()
    return next(
        one
        for one in body["results"]
        if (one["source"], one["environment"]) == (source, environment)
    )


def promote(by: Person, *more: str) -> str:
    out = StringIO()
    slug = by.username.split("@")[1].removesuffix(".test")
    call_command(
        "rollout", "promote", "--tenant", slug, *SCOPE, "--by", by.username, *more, stdout=out
    )
    return out.getvalue()


def refused(by: Person, *more: str) -> str:
    with pytest.raises(CommandError) as refusal:
        promote(by, *more)
    assert refusal.value.returncode == 1
    return str(refusal.value)


def live_mode(shop: Shop) -> tuple[int, str]:
    body = Api().get("policies", key=shop.world.admin.key).json()
    modes = body["policy_document"]["modes"]["terraform"]
    return body["policy_version"], modes.get("nonprod", modes["default"])


def test_a_step_is_proposed_by_one_and_signed_by_another(shop: Shop) -> None:
    ask(shop, 4)
    world = shop.world

    assert "shadow to soft is proposed" in promote(world.admin)
    assert live_mode(shop) == (1, "shadow"), "a proposal changes nothing"
    assert standing(world)["proposal"]["to_mode"] == "soft"
    assert "promotion_needs_another_person" in refused(world.admin)
    assert live_mode(shop) == (1, "shadow")

    assert "policy version 2 raises it to soft" in promote(world.owner)

    assert live_mode(shop) == (2, "soft")
    assert shop.ask("1.00", resource_reference="next")["mode"] == "soft"
    assert shop.ask("1.00", resource_reference="p", environment="prod")["mode"] == "shadow"
    with reading(world.id):
        made = Promotion.objects.get(tenant_id=world.id)
        actions = set(
            AuditEntry.objects.filter(tenant_id=world.id).values_list("action", flat=True)
        )
    assert (made.state, made.policy_version) == ("signed", 2)
    assert made.signer_person_id != made.proposer_person_id
    assert set(json.loads(made.figures_json)) == {"proposed", "signed"}
    assert {"promotion.propose", "policy.promote", "tenant.require-promotion"} <= actions


def test_every_missing_figure_is_named(shop: Shop) -> None:
    ask(shop, 2)
    assert refused(shop.world.admin) == (
        "promotion_not_ready: volume is 2 decisions, 4 are needed."
    )
    assert standing(shop.world)["missing"] == ["volume is 2 decisions, 4 are needed"]
    with reading(shop.world.id):
        assert not Promotion.objects.filter(tenant_id=shop.world.id).exists()


def test_false_positives_hold_a_step_back(shop: Shop) -> None:
    """What shadow would have refused, and people then applied, should not have been refused."""
    ask(shop, 4)
    would_deny = shop.ask("5000.00", resource_reference="wrongly")
    assert would_deny["would_have_been"] == "DENY"
    assert standing(shop.world)["missing"] == []
    for one in ask(shop, 1, "900.00"):
        Api().post(f"reservations/{one['decision_id']}/confirm", {}, key=shop.world.key)
    found = standing(shop.world)
    assert (found["figures"]["refusals"], found["figures"]["false_positives"]) == (1, 0)


def test_errors_hold_a_step_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(shop, 4)

    def broken(*arguments: Any, **names: Any) -> None:
        raise RuntimeError("planted")

    with monkeypatch.context() as patched:
        patched.setattr("enforcement.gate.evaluate.decide", broken)
        shop.ask("1.00", resource_reference="failing")
    assert "error rate is 0.2000, at most 0.01 is allowed" in refused(shop.world.admin)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({}, ()),
        ({"decisions": 3}, ("volume is 3 decisions, 4 are needed",)),
        ({"false_positives": 6}, ("false-positive rate is 0.0600, at most 0.05 is allowed",)),
        ({"false_positives": 5}, ()),
        ({"errors": 2}, ("error rate is 0.0200, at most 0.01 is allowed",)),
        ({"p95_ms": 60_001}, ("p95 is 60001 ms, at most 60000 ms is allowed",)),
        ({"p95_ms": None, "decisions": 0}, ("volume is 0 decisions, 4 are needed",)),
    ],
)
def test_each_figure_flips_the_answer(changes: dict[str, Any], missing: tuple[str, ...]) -> None:
    figures = {
        "decisions": 100,
        "refusals": 6,
        "false_positives": 0,
        "errors": 0,
        "p95_ms": 10,
    }
    assert find_missing(Figures(**figures | changes), "soft") == missing
    assert Figures(**figures | {"decisions": 0}).error_rate == Decimal(0)


def test_figures_are_measured_again_when_it_is_signed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(shop, 4)
    promote(shop.world.admin)

    def broken(*arguments: Any, **names: Any) -> None:
        raise RuntimeError("planted")

    with monkeypatch.context() as patched:
        patched.setattr("enforcement.gate.evaluate.decide", broken)
        shop.ask("1.00", resource_reference="failing")

    assert "error rate" in refused(shop.world.owner)
    assert live_mode(shop) == (1, "shadow")


def test_publishing_cannot_go_around_it(shop: Shop) -> None:
    key = shop.world.owner.key
    document = Api().get("policies", key=key).json()["policy_document"]
    document["modes"]["terraform"] = {"default": "soft"}
    body = {"policy_document": document, "comment": "x", "base_version": 1}
    answer = Api().put("policies", body, key=key)
    assert (answer.status_code, answer.json()["code"]) == (409, "mode_promotion_required")
    assert "terraform.prod" in answer.json()["detail"]
    assert live_mode(shop) == (1, "shadow")


def test_a_proposal_can_be_withdrawn_and_lapses(shop: Shop) -> None:
    ask(shop, 4)
    promote(shop.world.admin)
    assert "withdrawn" in promote(shop.world.owner, "--withdraw")
    assert "promotion_not_applicable" in refused(shop.world.owner, "--withdraw")
    promote(shop.world.admin)
    with transaction(shop.world.id):
        rows = Promotion.objects.filter(tenant_id=shop.world.id, state="proposed")
        row = rows.get()
        rows.update(expires_at=row.proposed_at)
    assert "is proposed" in promote(shop.world.owner), "a lapsed proposal is proposed anew"


def test_there_is_nothing_above_hard(tenant: World) -> None:
    Shop(tenant)
    assert standing(tenant)["next_mode"] is None
    assert "there is no higher one" in refused(tenant.admin)


def test_a_mode_that_moved_meanwhile_is_proposed_anew(shop: Shop) -> None:
    ask(shop, 4)
    promote(shop.world.admin)
    Api().patch("rollout", {"promotion_required": False}, key=shop.world.owner.key)
    shop.publish(modes={**SHADOW, "terraform": {"default": "soft"}})
    ask(shop, 6, "2.00")
    assert "promotion_not_applicable" in refused(shop.world.owner)


def test_the_database_refuses_one_person_for_both(shop: Shop) -> None:
    ask(shop, 4)
    promote(shop.world.admin)
    with reading(shop.world.id):
        row = Promotion.objects.get(tenant_id=shop.world.id)
    row.state, row.signer_person_id = "signed", row.proposer_person_id

    def sign_alone() -> None:
        with transaction(shop.world.id):
            row.save(update_fields=["state", "signer_person_id"])

    with pytest.raises(IntegrityError, match="by_two_people"):
        sign_alone()


def test_the_setting_is_the_owners_and_audited_once(tenant: World) -> None:
    body = {"promotion_required": True}
    for key in (tenant.admin.key, tenant.member.key):
        assert Api().patch("rollout", body, key=key).status_code == 403
    assert Api().get("rollout", key=tenant.member.key).status_code == 403
    for _ in range(2):
        assert Api().patch("rollout", body, key=tenant.owner.key).json() == body
    assert Api().get("rollout", key=tenant.admin.key).json()["promotion_required"] is True
    with reading(tenant.id):
        rows = AuditEntry.objects.filter(tenant_id=tenant.id, action="tenant.require-promotion")
        assert [row.after for row in rows] == [body]


@pytest.mark.parametrize(
    "body", [{}, {"promotion_required": "yes"}, {"promotion_required": None}, {"x": 1}, []]
)
def test_a_bad_setting_is_a_422(tenant: World, body: Any) -> None:
    assert Api().patch("rollout", body, key=tenant.owner.key).status_code == 422


def test_status_and_misuse(shop: Shop) -> None:
    out = StringIO()
    call_command("rollout", "status", "--tenant", shop.world.slug, stdout=out)
    assert "modes rise by promotion only" in out.getvalue()
    assert "terraform.nonprod: shadow, next soft; 0 decisions" in out.getvalue()
    assert "missing: volume is 0 decisions" in out.getvalue()
    out = StringIO()
    call_command("rollout", "status", "--tenant", shop.world.slug, "--json", stdout=out)
    assert len(json.loads(out.getvalue())["results"]) == 6
    for arguments in (
        ("status", "--tenant", "nobody"),
        ("promote", "--tenant", shop.world.slug, *SCOPE, "--by", "nobody"),
        ("promote", "--tenant", shop.world.slug, *SCOPE, "--by", shop.world.member.username),
    ):
        with pytest.raises(CommandError) as refusal:
            call_command("rollout", *arguments)
        assert refusal.value.returncode == 2
    assert {shop.world.admin.role, shop.world.owner.role} == {ADMIN, OWNER}
