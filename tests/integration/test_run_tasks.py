"""Run tasks, driven by a stand-in of the platform over real HTTPS, signed, at every stage."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections

from enforcement.gate.ask import TimeBudget
from enforcement.models import Decision, LedgerEntry, RunTask
from enforcement.run_tasks.operations import LEASE, claim_next
from enforcement.run_tasks.working import Worker, work_due
from governance.models import Approval
from tests.client import Api
from tests.factories.headroom import PROJECT, Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import World
from tests.preflight import build_estimate, build_plan, build_preflight
from tests.standin import LOOPBACK, Asked, Reply, StandIn, stand_in
from tests.waiting import wait_until
from valdrix.jobs import turns
from valdrix.jobs.tasks import work_run_tasks
from valdrix.kernel import outbound
from valdrix.kernel.addresses import read_host_list
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.outbound import Client

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "atlas-v1-of-the-platform"
BUDGET = TimeBudget(total_ms=10_000, lock_ms=5_000)
BASE_URL = "https://valdrix.test"


@dataclass
class Platform:
    """The platform's side of one organisation: it asks, serves plans and takes callbacks."""

    server: StandIn
    integration_id: str
    secret: str
    plan: dict[str, Any] = field(default_factory=build_plan)
    callback: Callable[[int], Reply] = lambda number: Reply()
    plan_reply: Callable[[int], Reply] | None = None
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    plans_served: int = 0

    def answer(self, asked: Asked) -> Reply:
        """Answer what the server under test asks."""
        assert asked.headers["authorization"] == f"Bearer {TOKEN}"
        if asked.method == "PATCH":
            assert asked.headers["content-type"] == "application/vnd.api+json"
            self.callbacks.append(json.loads(asked.body)["data"])
            return self.callback(len(self.callbacks))
        self.plans_served += 1
        if self.plan_reply is not None:
            return self.plan_reply(self.plans_served)
        return Reply(body=json.dumps(self.plan).encode())

    def payload(self, stage: str = "post_plan", **members: Any) -> dict[str, Any]:
        """Build a call as the platform sends it, fields included that nobody reads."""
        return {
            "payload_version": 1,
            "stage": stage,
            "access_token": TOKEN,
            "capabilities": {"outcomes": True},
            "configuration_version_download_url": None,
            "configuration_version_id": "cv-1",
            "is_speculative": False,
            "organization_name": "acme",
            "plan_json_api_url": f"{self.server.url}/api/v2/plans/plan-1/json-output",
            "run_app_url": f"{self.server.url}/app/acme/web/runs/run-1",
            "run_created_at": "2026-11-26T12:00:00Z",
            "run_created_by": "jane",
            "run_id": "run-1",
            "run_message": "Triggered",
            "task_result_callback_url": f"{self.server.url}/api/v2/task-results/t/callback",
            "task_result_enforcement_level": "mandatory",
            "task_result_id": f"taskrs-{uuid.uuid4().hex[:16]}",
            "vcs_branch": "main",
            "vcs_commit_url": None,
            "workspace_id": "ws-1",
            "workspace_name": "web",
            "workspace_working_directory": None,
            "a_field_of_next_year": {"deep": [1, 2.5, None]},
        } | members

    def send(self, payload: Any, *, signature: str | None = "right") -> Any:
        """Send a call, signed unless told otherwise."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        headers = {"User-Agent": "TFC/1.0 (+https://app.terraform.io; TFC)"}
        if signature == "right":
            signature = sign(body, self.secret)
        if signature is not None:
            headers["X-TFC-Task-Signature"] = signature
        return Api().post(f"gate/terraform/run-task/{self.integration_id}", body, headers=headers)

    def ask(self, stage: str = "post_plan", **members: Any) -> Any:
        """Send a call that must be taken."""
        response = self.send(self.payload(stage, **members))
        assert (response.status_code, response.content) == (200, b"")
        return response


def sign(body: bytes, secret: str) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha512).hexdigest()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("platform")


@pytest.fixture
def server(directory: Path) -> Iterator[StandIn]:
    with stand_in(directory, lambda asked: Reply()) as running:
        yield running


@pytest.fixture
def platform(server: StandIn, tenant: World, settings: Any) -> Platform:
    settings.RUN_TASK_HOSTS = read_host_list([server.host])
    return connect(server, tenant)


def connect(server: StandIn, tenant: World) -> Platform:
    """Register a tenant's run task, and let the stand-in be its platform."""
    made = (
        Api()
        .post(
            "integrations",
            {
                "kind": "run_task",
                "name": "tfc",
                "project_id": PROJECT,
                "settings": {"environment": "dev"},
            },
            key=tenant.owner.key,
        )
        .json()
    )
    made_platform = Platform(server, made["id"], made["secret"])
    server.answer = made_platform.answer
    return made_platform


@pytest.fixture
def shop(tenant: World) -> Iterator[Shop]:
    made = Shop(tenant, thresholds={"nonprod": {"require_approval_from_usd": "500.00"}})
    made.budget("1500.00")
    yield made
    if decisions(tenant):
        assert find_differences(tenant.id) == []
        check_chain(tenant.id)


def worker(platform: Platform, **terms: Any) -> Worker:
    client = Client(
        allowed_networks=LOOPBACK, ca_file=platform.server.ca_file, pause=lambda _: None
    )
    defaults = {
        "clock": lambda: datetime.now(UTC),
        "send": client.send,
        "hosts": read_host_list([platform.server.host]),
        "base_url": BASE_URL,
        "budget": BUDGET,
    }
    return Worker(**(defaults | terms))


def work(platform: Platform, tenant: World, **terms: Any) -> int:
    return work_due(worker=worker(platform, **terms), tenant_id=tenant.id)["calls"]


def at(moment: timedelta) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + moment


def rows(tenant: World) -> list[RunTask]:
    with reading(tenant.id):
        return list(RunTask.objects.filter(tenant_id=tenant.id).order_by("pk"))


def decisions(tenant: World) -> list[Decision]:
    with reading(tenant.id):
        return list(Decision.objects.filter(tenant_id=tenant.id).order_by("pk"))


def counts(tenant: World) -> dict[str, int]:
    with reading(tenant.id):
        return {
            "decisions": Decision.objects.filter(tenant_id=tenant.id).count(),
            "entries": LedgerEntry.objects.filter(
                tenant_id=tenant.id, decision_id__isnull=False
            ).count(),
            "run tasks": RunTask.objects.filter(tenant_id=tenant.id).count(),
        }


def estimate(monthly: str) -> dict[str, Any]:
    hourly = str(Decimal(monthly) / 730)
    return {"format": "infracost", "document": build_estimate(monthly, hourly)}


def post_estimate(shop: Shop, monthly: str, **members: Any) -> dict[str, Any]:
    body = build_preflight(
        **{"project_id": PROJECT, "environment": "dev", "cost_estimate": estimate(monthly)}
        | members
    )
    answer = shop.api.post("gate/terraform/preflight", body, key=shop.world.key)
    assert answer.status_code == 200, answer.content
    return answer.json()


def price(shop: Shop, platform: Platform, monthly: str) -> dict[str, Any]:
    """Post what the platform's plan costs, as a pipeline does that names the workspace."""
    return post_estimate(
        shop,
        monthly,
        plan=platform.plan,
        run_id=f"ci-{uuid.uuid4()}",
        stage="post_plan",
        resource_reference="acme/web",
    )


# --- the door -----------------------------------------------------------------------------------


def test_the_registration_call_is_answered_and_does_nothing(
    platform: Platform, tenant: World
) -> None:
    body = platform.payload(access_token="test-token", task_result_enforcement_level="test")
    body["task_result_callback_url"] = "https://example.invalid/callback"
    response = platform.send(body)
    assert (response.status_code, response.content) == (200, b"")
    assert rows(tenant) == []
    assert work(platform, tenant) == 0
    assert platform.server.asked == []


def test_only_the_right_signature_is_taken(
    platform: Platform, tenant: World, other_tenant: World
) -> None:
    body = json.dumps(platform.payload()).encode()
    good = sign(body, platform.secret)
    foreign = (
        Api()
        .post("integrations", {"kind": "run_task", "name": "x"}, key=other_tenant.owner.key)
        .json()
    )
    for signature in (
        "", good[:-1], good[:-1] + ("0" if good[-1] != "0" else "1"), good + "00", "x" * 128,
        sign(body + b" ", platform.secret), sign(body, ""), sign(body, foreign["secret"]),
        hmac.new(platform.secret.encode(), body, hashlib.sha256).hexdigest(),
    ):  # fmt: skip
        response = platform.send(body, signature=signature)
        assert (response.status_code, response.json()["code"]) == (401, "authentication_failed")
    unsigned = platform.send(body, signature=None)
    assert (unsigned.status_code, unsigned.json()["code"]) == (401, "not_authenticated")
    assert rows(tenant) == []
    assert platform.send(body, signature=good.upper()).status_code == 200


@pytest.mark.parametrize("what", ["unknown", "revoked", "rotated", "of another kind"])
def test_an_integration_that_does_not_speak_is_one_answer(
    platform: Platform, tenant: World, what: str
) -> None:
    key = tenant.owner.key
    if what == "unknown":
        platform.integration_id = str(uuid.uuid4())
    elif what == "of another kind":
        made = Api().post("integrations", {"kind": "cluster", "name": "c"}, key=key).json()
        platform.integration_id, platform.secret = made["id"], made["secret"]
    else:
        ending = "revoke" if what == "revoked" else "rotate"
        assert (
            Api().post(f"integrations/{platform.integration_id}/{ending}", key=key).status_code
            == 200
        )
    response = platform.send(platform.payload())
    assert (response.status_code, response.json()["code"]) == (401, "authentication_failed")
    assert rows(tenant) == []


def test_an_api_key_does_not_open_this_door(platform: Platform, tenant: World) -> None:
    response = Api().post(
        f"gate/terraform/run-task/{platform.integration_id}",
        platform.payload(),
        key=tenant.owner.key,
    )
    assert response.status_code == 401


NO_CALLS: list[tuple[dict[str, Any], str]] = [
    ({"stage": "mid_plan"}, "/stage"),
    ({"stage": None}, "/stage"),
    ({"run_id": ""}, "/run_id"),
    ({"run_id": "a b"}, "/run_id"),
    ({"run_id": "r" * 171}, "/run_id"),
    ({"task_result_id": 7}, "/task_result_id"),
    ({"workspace_name": "w" * 201}, "/workspace_name"),
    ({"workspace_name": "a\tb"}, "/workspace_name"),
    ({"is_speculative": "no"}, "/is_speculative"),
    ({"capabilities": []}, "/capabilities"),
    ({"access_token": None}, "/access_token"),
]


def test_a_call_that_is_none_is_refused(platform: Platform, tenant: World) -> None:
    for members, pointer in NO_CALLS:
        response = platform.send(platform.payload(**members))
        assert (response.status_code, response.json()["code"]) == (422, "invalid_request"), members
        assert pointer in {error["pointer"] for error in response.json()["errors"]}
    assert rows(tenant) == []


def test_hosts_that_are_not_allowed_are_refused(platform: Platform, tenant: World) -> None:
    for member in ("task_result_callback_url", "plan_json_api_url"):
        for url in (
            "https://169.254.169.254/latest", "http://localhost/x", "https://evil.test/x",
            "https://localhost/x", "file:///etc/passwd", "https://u:p@localhost/x",
        ):  # fmt: skip
            response = platform.send(platform.payload(**{member: url}))
            assert response.status_code == 422, url
            assert response.json()["code"] == "run_task_host_not_allowed"
            assert response.json()["errors"][0]["pointer"] == f"/{member}"
    assert rows(tenant) == []


def test_bodies_are_strict_and_bounded(platform: Platform, tenant: World) -> None:
    for body, status in (
        (b"{", 400), (b'{"a":1,"a":2}', 400), (b"[]", 422), (b" " * (1024 * 1024 + 1), 413),
    ):  # fmt: skip
        assert platform.send(body).status_code == status
    assert rows(tenant) == []


def test_a_repeated_call_is_stored_once(platform: Platform, shop: Shop, tenant: World) -> None:
    payload = platform.payload()
    for _ in range(3):
        assert platform.send(payload).status_code == 200
    assert len(rows(tenant)) == 1
    work(platform, tenant)
    assert platform.send(payload).status_code == 200
    assert work(platform, tenant) == 0
    assert len(platform.callbacks) == len(decisions(tenant)) == 1


def test_the_token_is_sealed_and_forgotten_and_never_logged(
    platform: Platform, shop: Shop, tenant: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    platform.callback = lambda number: Reply(503 if number < 4 else 200)
    platform.ask()
    (row,) = rows(tenant)
    assert TOKEN not in str(dict(vars(row).items()))
    assert TOKEN.encode() not in bytes(row.sealed_token or b"")
    work(platform, tenant)
    assert rows(tenant)[0].sealed_token is not None
    work(platform, tenant, clock=at(timedelta(minutes=3)))
    assert (rows(tenant)[0].state, rows(tenant)[0].sealed_token) == ("reported", None)
    assert TOKEN not in caplog.text
    assert platform.secret not in caplog.text


# --- stages -------------------------------------------------------------------------------------


def test_three_stages_of_one_run_are_one_charge(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    price(shop, platform, "120.00")
    platform.ask("post_plan")
    platform.ask("pre_apply")
    platform.ask("post_apply")
    assert work(platform, tenant) == 3
    statuses = [one["attributes"]["status"] for one in platform.callbacks]
    assert statuses == ["passed"] * 3
    assert platform.callbacks[2]["attributes"]["message"] == "The reservation is confirmed."
    made = decisions(tenant)[1:]
    assert [(one.decision, str(one.monthly_delta_usd)) for one in made] == [
        ("ALLOW", "120.0000")
    ] * 2
    assert {one.change_fingerprint for one in made} == {made[0].change_fingerprint}
    assert [one.actor for one in made] == [f"integration:{platform.integration_id}"] * 2
    responses = [json.loads(one.response_json) for one in made]
    assert responses[1]["reservation_shared"] is True
    assert responses[1]["shared_reserved_usd"] == "120.0000"
    with reading(tenant.id):
        confirmed = LedgerEntry.objects.filter(tenant_id=tenant.id, event="confirmed")
        assert confirmed.count() == 1
    assert [row.state for row in rows(tenant)] == ["reported"] * 3


def test_the_callback_says_what_was_decided_and_why(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    price(shop, platform, "2000.00")
    platform.ask()
    work(platform, tenant)
    (data,) = platform.callbacks
    made = decisions(tenant)[-1]
    assert made.decision == "DENY"
    assert data["type"] == "task-results"
    assert data["attributes"]["status"] == "failed"
    assert data["attributes"]["message"].startswith("Denied: ")
    assert data["attributes"]["message"].count("Denied") == 1
    assert data["attributes"]["url"] == f"{BASE_URL}/admin/enforcement/decision/{made.pk}/change/"
    (outcome,) = data["relationships"]["outcomes"]["data"]
    assert outcome["type"] == "task-result-outcomes"
    assert outcome["attributes"]["tags"] == {"Status": [{"label": "Denied", "level": "error"}]}
    assert "2000.0000 USD" in outcome["attributes"]["body"]
    assert len(json.dumps(data)) < 100_000


def test_outcomes_are_sent_only_where_they_are_taken(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    for capabilities in ({"outcomes": False}, {}, None):
        platform.ask(capabilities=capabilities)
    assert work(platform, tenant) == 3
    assert not any("relationships" in one for one in platform.callbacks)


@pytest.mark.parametrize("monthly", ["120.00", "600.00", "5000.00"])
def test_a_speculative_run_leaves_nothing_behind(
    platform: Platform, shop: Shop, tenant: World, monthly: str
) -> None:
    post_estimate(shop, monthly, run_id="run-1", stage="pre_plan", plan=None, environment="prod")
    before = counts(tenant)
    platform.ask(is_speculative=True)
    work(platform, tenant)
    after = counts(tenant)
    assert (after["decisions"], after["entries"]) == (before["decisions"], before["entries"])
    (data,) = platform.callbacks
    assert "url" not in data["attributes"]
    assert data["attributes"]["status"] == ("failed" if monthly == "5000.00" else "passed")
    if monthly == "600.00":
        message = data["attributes"]["message"]
        assert message.startswith("Applying this will need approval: ")
        assert "Needs approval" not in message


def test_before_the_plan_only_what_is_denied_fails(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    freeze = {
        "id": "all", "from": "2026-01-01T00:00:00Z", "to": "2036-01-01T00:00:00Z",
        "environments": ["nonprod"], "effect": "deny",
    }  # fmt: skip
    platform.ask("pre_plan")
    work(platform, tenant)
    shop.publish(freezes=[freeze])
    platform.ask("pre_plan", run_id="run-2")
    work(platform, tenant)
    assert [one["attributes"]["status"] for one in platform.callbacks] == ["passed", "failed"]
    assert platform.plans_served == 0
    assert decisions(tenant) == []


def test_the_cost_is_the_plan_s_else_the_run_s_else_unknown(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    platform.ask(run_id="run-a")
    work(platform, tenant)
    post_estimate(shop, "70.00", run_id="run-b", stage="pre_plan", plan=None)
    platform.ask(run_id="run-b")
    work(platform, tenant)
    price(shop, platform, "80.00")
    platform.ask(run_id="run-b")
    work(platform, tenant)
    made = [one for one in decisions(tenant) if one.actor.startswith("integration:")]
    assert [(one.cost_state, one.monthly_delta_usd and str(one.monthly_delta_usd)) for one in made] == [
        ("unknown", None), ("known", "70.0000"), ("known", "80.0000"),
    ]  # fmt: skip
    assert json.loads(made[0].response_json)["cost_state_reasons"] == ["no_estimate"]


def test_a_declared_digest_prices_nothing(platform: Platform, shop: Shop, tenant: World) -> None:
    digest = price(shop, platform, "900.00")["continuation"]["binding"]["change_digest"]
    body = {
        "project_id": PROJECT, "environment": "dev", "resource_reference": "x",
        "estimated_monthly_delta_usd": "1.00", "change_digest": digest,
    }  # fmt: skip
    assert shop.api.post("gate/terraform", body, key=tenant.key).status_code == 200
    platform.ask()
    work(platform, tenant)
    assert str(decisions(tenant)[-1].monthly_delta_usd) == "900.0000"


def test_an_estimate_for_another_plan_of_the_run_says_nothing(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    other = build_plan("m5.24xlarge")
    post_estimate(shop, "1.00", plan=other, run_id="run-1", stage="post_plan")
    platform.ask()
    work(platform, tenant)
    assert decisions(tenant)[-1].cost_state == "unknown"


def test_another_project_s_estimate_says_nothing(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    body = build_preflight(
        project_id="other",
        environment="dev",
        plan=platform.plan,
        cost_estimate=estimate("1.00"),
    )
    assert shop.api.post("gate/terraform/preflight", body, key=tenant.key).status_code == 200
    platform.ask()
    work(platform, tenant)
    assert decisions(tenant)[-1].cost_state == "unknown"


def test_a_plan_that_changed_since_planning_is_refused(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    price(shop, platform, "120.00")
    platform.ask("post_plan")
    work(platform, tenant)
    made = len(decisions(tenant))
    platform.plan = build_plan("m5.24xlarge")
    platform.ask("pre_apply")
    platform.plan_reply = None
    work(platform, tenant)
    platform.plan_reply = lambda number: Reply(404)
    platform.ask("pre_apply")
    work(platform, tenant)
    for data in platform.callbacks[1:]:
        assert data["attributes"]["status"] == "failed"
        assert "not the one" in data["attributes"]["message"]
    assert len(decisions(tenant)) == made


def test_in_shadow_another_plan_is_reported_only(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    shop.publish(modes={"terraform": {"default": "shadow"}})
    platform.ask("post_plan")
    work(platform, tenant)
    platform.plan = build_plan("m5.24xlarge")
    platform.ask("pre_apply")
    work(platform, tenant)
    assert [one["attributes"]["status"] for one in platform.callbacks] == ["passed", "passed"]
    assert "shadow" in platform.callbacks[1]["attributes"]["message"]


def test_what_needs_approval_fails_with_a_link(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    price(shop, platform, "600.00")
    platform.ask()
    work(platform, tenant)
    made = decisions(tenant)[-1]
    (data,) = platform.callbacks
    assert made.decision == "REQUIRE_APPROVAL"
    assert data["attributes"]["status"] == "failed"
    assert data["attributes"]["url"] == (
        f"{BASE_URL}/admin/governance/approval/{made.approval_request_id}/change/"
    )


def test_a_later_run_with_the_same_plan_spends_the_approval(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    price(shop, platform, "600.00")
    platform.ask(run_id="run-1")
    work(platform, tenant)
    approval_id = decisions(tenant)[-1].approval_request_id
    approved = shop.api.post(f"approvals/{approval_id}/approve", {}, key=tenant.owner.key)
    assert approved.status_code == 200, approved.content
    platform.ask(run_id="run-2")
    work(platform, tenant)
    assert [one["attributes"]["status"] for one in platform.callbacks] == ["failed", "passed"]
    assert decisions(tenant)[-1].decision == "ALLOW"
    with reading(tenant.id):
        assert Approval.objects.get(pk=approval_id).status == "consumed"
    platform.plan = build_plan("m5.metal")
    price(shop, platform, "600.00")
    platform.ask(run_id="run-3")
    work(platform, tenant)
    assert platform.callbacks[-1]["attributes"]["status"] == "failed"


def test_a_run_without_a_project_lands_in_its_workspace(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    made = (
        Api()
        .post("integrations", {"kind": "run_task", "name": "wide"}, key=tenant.owner.key)
        .json()
    )
    platform.integration_id, platform.secret = made["id"], made["secret"]
    platform.ask(workspace_name="billing-api")
    work(platform, tenant)
    one = decisions(tenant)[-1]
    assert (one.project_id, one.environment) == ("billing-api", "prod")
    assert one.resource_reference == "acme/billing-api"


# --- failures -----------------------------------------------------------------------------------


def test_a_failing_callback_is_told_again_until_it_is_heard(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    platform.callback = lambda number: Reply(500 if number <= 5 else 200)
    platform.ask()
    work(platform, tenant)
    (row,) = rows(tenant)
    assert (row.state, row.failures, len(platform.callbacks)) == ("decided", 1, 3)
    assert work(platform, tenant) == 0  # Not due yet.
    work(platform, tenant, clock=at(timedelta(minutes=2)))
    assert rows(tenant)[0].state == "reported"
    assert len(platform.callbacks) == 6
    assert len({json.dumps(one, sort_keys=True) for one in platform.callbacks}) == 1
    assert len(decisions(tenant)) == 1


def test_a_refused_callback_ends_the_call(platform: Platform, shop: Shop, tenant: World) -> None:
    refusals = (401, 404, 422)
    platform.callback = lambda number: Reply(refusals[number - 1])
    for number in range(len(refusals)):
        platform.ask(run_id=f"run-{number}")
    work(platform, tenant)
    for row, status in zip(rows(tenant), refusals, strict=True):
        assert (row.state, row.sealed_token) == ("given_up", None)
        assert str(status) in (row.last_error or "")
    assert len(platform.callbacks) == len(refusals)


def test_a_slow_callback_does_not_hold_another_call(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    """Two workers: one waits for a slow answer, the other goes on with the next call."""
    release = threading.Event()

    def slow(number: int) -> Reply:
        if number == 1:
            assert release.wait(20)
        return Reply()

    platform.callback = slow
    platform.ask(run_id="slow")

    def work_apart() -> None:
        work(platform, tenant)
        connections.close_all()

    first = threading.Thread(target=work_apart)
    first.start()
    wait_until(lambda: bool(platform.callbacks))
    platform.ask(run_id="quick")
    assert work(platform, tenant) == 1
    assert [row.state for row in rows(tenant)] == ["decided", "reported"]
    release.set()
    first.join(30)
    assert [row.state for row in rows(tenant)] == ["reported", "reported"]


def test_a_silent_platform_holds_other_tenants_for_a_turn_only(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    passed = [0.0]

    def send(call: outbound.Call) -> outbound.Answer:
        passed[0] += 90.0
        raise outbound.OutboundFailed("timed out")

    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=passed[0])

    for number in range(3):
        platform.ask(run_id=f"run-{number}")
    assert work(platform, tenant, clock=clock, send=send) == 1
    assert [row.attempts for row in rows(tenant)] == [1, 0, 0]
    # The others come first when it is the tenant's turn again.
    assert work(platform, tenant) == 2
    assert sorted((row.attempts, row.state) for row in rows(tenant)) == [
        (1, "received"), (1, "reported"), (1, "reported"),
    ]  # fmt: skip


def test_a_token_that_no_header_may_hold_ends_the_call(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    platform.ask(access_token="t\u0102k")
    assert work(platform, tenant) == 1
    (row,) = rows(tenant)
    assert (row.state, row.sealed_token) == ("given_up", None)
    assert platform.callbacks == []


def test_a_late_plan_is_waited_for_with_signs_of_life(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    price(shop, platform, "120.00")
    platform.plan_reply = lambda number: Reply(204, body=b"")
    platform.ask()
    minutes = 0.0
    while minutes < 20:
        work(platform, tenant, clock=at(timedelta(minutes=minutes)))
        minutes += 1
    running = [one for one in platform.callbacks if one["attributes"]["status"] == "running"]
    assert 4 <= len(running) <= 6
    assert all("relationships" not in one for one in running)
    assert rows(tenant)[0].state == "received"
    platform.plan_reply = None
    work(platform, tenant, clock=at(timedelta(minutes=22)))
    assert platform.callbacks[-1]["attributes"]["status"] == "passed"
    assert rows(tenant)[0].state == "reported"


def test_a_plan_that_never_comes_is_an_unknown_cost(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    price(shop, platform, "120.00")
    platform.plan_reply = lambda number: Reply(503)
    platform.ask()
    work(platform, tenant)
    work(platform, tenant, clock=at(timedelta(minutes=46)))
    one = decisions(tenant)[-1]
    assert one.cost_state == "unknown"
    assert json.loads(one.response_json)["cost_state_reasons"] == ["diff_unavailable"]
    assert rows(tenant)[0].state == "reported"


def test_a_plan_that_is_none_is_an_unknown_cost(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    bodies = [b"not json", b'{"format_version":"9.0"}', b'{"a":1,"a":2}', b"[]"]
    platform.plan_reply = lambda number: Reply(body=bodies[number - 1])
    for number in range(len(bodies)):
        platform.ask(run_id=f"run-{number}")
    assert work(platform, tenant) == len(bodies)
    assert [one.cost_state for one in decisions(tenant)] == ["unknown"] * len(bodies)
    assert {row.state for row in rows(tenant)} == {"reported"}


def test_after_an_hour_nothing_is_told(platform: Platform, shop: Shop, tenant: World) -> None:
    platform.callback = lambda number: Reply(500)
    platform.ask()
    work(platform, tenant)
    told = len(platform.callbacks)
    work(platform, tenant, clock=at(timedelta(minutes=61)))
    (row,) = rows(tenant)
    assert (row.state, row.sealed_token, len(platform.callbacks)) == ("given_up", None, told)


def test_a_killed_worker_s_call_is_taken_up_and_decided_once(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    """The worker dies after its decision and before the callback: the decision is found again."""
    price(shop, platform, "120.00")
    platform.ask()

    class Killed(BaseException):
        """Ends a worker as a kill does: nothing of it catches this."""

    client = worker(platform).send

    def die(call: outbound.Call) -> outbound.Answer:
        if call.method == "PATCH":
            raise Killed
        return client(call)

    with pytest.raises(Killed):
        work(platform, tenant, send=die)
    assert len(decisions(tenant)) == 2
    assert work(platform, tenant) == 0  # The lease still runs.
    work(platform, tenant, clock=at(LEASE + timedelta(seconds=1)))
    assert rows(tenant)[0].state == "reported"
    assert len(decisions(tenant)) == 2
    assert [one["attributes"]["status"] for one in platform.callbacks] == ["passed"]


def test_a_decision_whose_worker_died_before_noting_it_is_found(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    price(shop, platform, "120.00")
    platform.ask()
    work(platform, tenant)
    before = len(decisions(tenant))
    with transaction(tenant.id):
        RunTask.objects.filter(tenant_id=tenant.id).update(
            state="received", verdict_json=None, finished_at=None,
            sealed_token=resealed(tenant), due_at=datetime.now(UTC),
        )  # fmt: skip
    price(shop, platform, "130.00")
    work(platform, tenant)
    assert len(decisions(tenant)) == before + 1  # The price's own.
    assert len({json.dumps(one) for one in platform.callbacks}) == 1


def resealed(tenant: World) -> bytes:
    from django.conf import settings

    from enforcement.run_tasks.operations import token_context
    from valdrix.kernel.sealing import seal

    (row,) = RunTask.objects.filter(tenant_id=tenant.id)
    return seal(TOKEN.encode(), context=token_context(row.pk), keys=settings.SECRET_SEALING_KEYS)


def test_many_workers_share_the_calls(
    platform: Platform, shop: Shop, tenant: World, run_in_threads: Callable[..., list[object]]
) -> None:
    for number in range(12):
        platform.ask(run_id=f"run-{number}")
    done = run_in_threads(4, lambda number: work(platform, tenant))
    assert sum(int(str(one)) for one in done) == 12
    assert len(platform.callbacks) == len(decisions(tenant)) == 12
    assert {row.attempts for row in rows(tenant)} == {1}


def test_a_call_is_taken_by_one_worker_only(platform: Platform, tenant: World) -> None:
    platform.ask()
    now = datetime.now(UTC)
    assert claim_next(tenant_id=tenant.id, now=now) is not None
    assert claim_next(tenant_id=tenant.id, now=now) is None
    assert claim_next(tenant_id=tenant.id, now=now + LEASE) is not None


@pytest.mark.first
def test_the_job_works_in_every_tenant(
    other_tenant: World,
    platform: Platform,
    shop: Shop,
    tenant: World,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbound, "send", worker(platform).send)
    platform.ask()
    assert "calls=" in work_run_tasks()
    assert rows(tenant)[0].state == "reported"


@pytest.mark.first
def test_a_slow_callback_of_one_tenant_holds_no_run_task_of_another(
    platform: Platform, shop: Shop, tenant: World, other_tenant: World, directory: Path,
    settings: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Nor does its tenant get a second thread: its next call waits for its own turn."""
    release = threading.Event()

    def slow(number: int) -> Reply:
        assert release.wait(60)
        return Reply()

    monkeypatch.setattr(outbound, "send", worker(platform).send)
    monkeypatch.setattr(turns, "WAITED_SECONDS", 1.0)
    platform.callback = slow
    platform.ask(run_id="slow")
    platform.ask(run_id="next")
    with stand_in(directory, lambda asked: Reply()) as server:
        other = connect(server, other_tenant)
        settings.RUN_TASK_HOSTS = read_host_list([platform.server.host, server.host])
        try:
            wait_until(lambda: bool(work_run_tasks() and platform.callbacks), seconds=30)
            other.ask()
            wait_until(lambda: bool(work_run_tasks() and other.callbacks), seconds=30)
            assert [(row.state, row.attempts) for row in rows(tenant)] == [
                ("decided", 1), ("received", 0),
            ]  # fmt: skip
        finally:
            release.set()
            wait_until(lambda: "unfinished=0" in work_run_tasks(), seconds=30)
    assert {row.state for row in [*rows(tenant), *rows(other_tenant)]} == {"reported"}


@pytest.mark.first
def test_the_runner_is_prompted_and_survives_a_kill(
    platform: Platform, shop: Shop, tenant: World
) -> None:
    """The real runner, in a process of its own: killed in the middle of a callback, then again.

    It works within seconds of a call, though its interval is a minute.
    """
    database = connection.settings_dict
    url = "postgresql://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**database)
    environment = os.environ | {
        "DATABASE_URL": url,
        "OUTBOUND_ALLOWED_NETWORKS": "127.0.0.0/8",
        "OUTBOUND_CA_FILE": platform.server.ca_file,
        "ENFORCEMENT_RUN_TASK_HOSTS": platform.server.host,
    }
    environment.pop("DATABASE_OWNER_URL", None)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "manage.py", "run_jobs", "--job", "work-run-tasks"],
            cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    held = threading.Event()
    platform.callback = lambda number: Reply(pause_seconds=30 if number == 1 else 0)
    platform.server.stopping = held
    runner = start()
    try:
        wait_until(is_heard, seconds=30)
        platform.ask()
        wait_until(lambda: bool(platform.callbacks), seconds=20)
        runner.send_signal(signal.SIGKILL)
        runner.wait()
        assert rows(tenant)[0].state == "decided"
        with transaction(tenant.id):  # The lease is over.
            RunTask.objects.filter(tenant_id=tenant.id).update(due_at=datetime.now(UTC))
        runner = start()
        wait_until(lambda: rows(tenant)[0].state == "reported", seconds=30)
        assert len(decisions(tenant)) == 1
    finally:
        held.set()
        runner.kill()
        runner.wait()


def is_heard() -> bool:
    """Tell whether somebody listens to prompts in this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN valdrix_jobs%'"
        )
        return bool(cursor.fetchone()[0])
