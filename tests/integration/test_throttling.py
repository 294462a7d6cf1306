"""Limits over HTTP: by tenant and over all tenants for gates, by address for strangers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from billing.plans.domain import API_CALLS_PER_MINUTE, FREE, PRO, STARTER
from governance.api import authentication, throttling
from governance.identity.domain import Principal, read_key_text
from governance.identity.queries import find_key_principal
from governance.models import ApiKey
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import World, put_on_tier
from valdrix.kernel.addresses import read_networks
from valdrix.kernel.db import transaction
from valdrix.kernel.http import throttling as by_address
from valdrix.kernel.http.client_address import client_address
from valdrix.kernel.http.probes import PROBES
from valdrix.kernel.metrics import render_metrics
from valdrix.kernel.throttling.limiter import Limiter
from valdrix.kernel.throttling.shared_file import SharedFile
from valdrix.routes import PUBLIC_ROUTES

ROOT = Path(__file__).resolve().parents[2]
BODY = {
    "project_id": "shop", "environment": "dev", "resource_reference": "x",
    "estimated_monthly_delta_usd": "1.00", "dry_run": True,
}  # fmt: skip


class Clock:
    """A clock that goes only when it is told to."""

    now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Let limits count for this test alone, by a clock of its own."""
    made = Clock()
    counts = Limiter(in_redis=None, in_file=SharedFile(tmp_path / "counts", clock=made), clock=made)
    monkeypatch.setattr(throttling, "limiter", lambda: counts)
    monkeypatch.setattr(by_address, "limiter", lambda: counts)
    yield made
    counts.close()


def ask(world: World) -> Any:
    return Api().post("gate/terraform", BODY, key=world.key)


def refused(response: Any) -> int:
    assert (response.status_code, response.json()["code"]) == (429, "throttled")
    assert response["Content-Type"] == "application/problem+json"
    assert response["Retry-After"].isdigit()
    return int(response["Retry-After"])


def metric(name: str) -> float:
    lines = [line for line in render_metrics().decode().splitlines() if line.startswith(name)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_a_tenant_s_flood_is_stopped_and_leaves_another_alone(
    clock: Clock, tenant: World, other_tenant: World, settings: Any
) -> None:
    settings.ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP = 5
    rejections = metric("rate_limit_rejections_total")
    answers = [ask(tenant) for _ in range(9)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 4
    assert refused(answers[-1]) in {1, 2}
    assert metric("rate_limit_rejections_total") == rejections + 4
    assert ask(other_tenant).status_code == 200
    clock.now += 1.06
    assert ask(tenant).status_code == 200


def test_one_tenant_cannot_use_up_what_all_share(
    clock: Clock, tenant: World, other_tenant: World, settings: Any
) -> None:
    settings.ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP = 8
    assert [ask(tenant).status_code for _ in range(6)] == [200] * 4 + [429] * 2
    assert [ask(other_tenant).status_code for _ in range(5)] == [200] * 4 + [429]
    assert metric("valdrix_ops_enforcement_gate_saturation_ratio") == 1.0


def test_a_refused_gate_costs_no_statement(clock: Clock, tenant: World, settings: Any) -> None:
    settings.ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP = 1
    ask(tenant)
    with CaptureQueriesContext(connection) as queries:
        refused(ask(tenant))
    assert len(queries) == 0
    # Another key of the tenant is not known yet; beyond whose it is nothing is asked.
    with CaptureQueriesContext(connection) as queries:
        refused(Api().post("gate/terraform", BODY, key=tenant.admin.key))
    assert ["governance_authenticate_key" in query["sql"] for query in queries] == [True]


def test_a_known_credential_pays_once(clock: Clock, tenant: World, settings: Any) -> None:
    settings.ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP = 5
    assert [ask(tenant).status_code for _ in range(6)] == [200] * 5 + [429]


def test_a_revoked_key_costs_at_most_one_token_more(
    clock: Clock, tenant: World, settings: Any
) -> None:
    settings.ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP = 3
    assert ask(tenant).status_code == 200
    with transaction(tenant.id):
        ApiKey.objects.filter(pk=tenant.member.key_id).update(revoked_at=datetime.now(UTC))
    assert [ask(tenant).status_code for _ in range(5)] == [401] * 5
    other = Api().post("gate/terraform", BODY, key=tenant.admin.key)
    assert other.status_code == 200


def test_a_flood_of_one_workload_s_token_is_refused_before_it_is_verified(
    clock: Clock, tenant: World, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP = 1
    asked = []

    def find(text: str, *, now: datetime) -> Principal:
        asked.append(text)
        return tenant.member.principal

    monkeypatch.setattr(authentication, "find_workload_principal", find)
    statuses = [
        Api().post("gate/terraform", BODY, key=f"a.{tenant.id}.c").status_code for _ in range(3)
    ]
    assert statuses == [200, 429, 429]
    assert len(asked) == 1


def test_a_limiter_that_is_down_stops_no_gate(
    tenant: World, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counts").write_text("")
    broken = Limiter(in_redis=None, in_file=SharedFile(tmp_path / "counts"))
    monkeypatch.setattr(throttling, "limiter", lambda: broken)
    settings.ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP = 1
    failures = metric("valdrix_ops_throttle_failures_total")
    assert [ask(tenant).status_code for _ in range(3)] == [200] * 3
    assert metric("valdrix_ops_throttle_failures_total") == failures + 3


def test_other_calls_have_the_tenant_s_own_limit(
    clock: Clock, tenant: World, other_tenant: World, settings: Any
) -> None:
    settings.TENANT_API_PER_MINUTE = 3
    answers = [Api().get("policies", key=tenant.member.key) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 57 <= refused(answers[-1]) <= 63
    assert ask(tenant).status_code == 200
    assert Api().get("policies", key=other_tenant.member.key).status_code == 200


def test_other_calls_are_limited_by_the_tier(
    clock: Clock,
    tenant: World,
    other_tenant: World,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.TENANT_API_PER_MINUTE = None
    # In the tiers' own order, and few enough to be used up.
    for tier, amount in ((FREE, 4), (STARTER, 7)):
        assert API_CALLS_PER_MINUTE[tier] > amount
        monkeypatch.setitem(API_CALLS_PER_MINUTE, tier, amount)
    put_on_tier(other_tenant, STARTER)

    def calls(world: World, count: int) -> list[int]:
        return [Api().get("budgets", key=world.owner.key).status_code for _ in range(count)]

    # Who has no subscription is on the free tier.
    few, more = API_CALLS_PER_MINUTE[FREE], API_CALLS_PER_MINUTE[STARTER]
    assert calls(tenant, few + 1) == [200] * few + [429]
    assert calls(other_tenant, few + 1) == [200] * (few + 1)
    put_on_tier(tenant, STARTER)
    # A process knows for a minute what the owner's key was good for; the admin's it has not seen.
    again = [Api().get("budgets", key=tenant.admin.key).status_code for _ in range(more - few + 1)]
    assert again == [200] * (more - few) + [429]


def test_the_tier_costs_no_statement(clock: Clock, tenant: World, settings: Any) -> None:
    settings.TENANT_API_PER_MINUTE = None
    put_on_tier(tenant, PRO)
    with CaptureQueriesContext(connection) as queries:
        assert Api().get("policies/schema", key=tenant.member.key).status_code == 200
    assert [query["sql"] for query in queries if "governance_auth" not in query["sql"]] == []
    read = read_key_text(tenant.member.key)
    assert read is not None
    found = find_key_principal(read)
    assert found is not None
    assert found.plan == PRO


def test_strangers_are_limited_by_address(clock: Clock, tenant: World, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 4
    near, far = Api(remote_addr="198.51.100.7"), Api(remote_addr="198.51.100.8")
    assert [near.get("policies").status_code for _ in range(5)] == [401] * 4 + [429]
    refused(near.get("/api/schema"))
    refused(near.post("/admin/login/", b"username=a&password=b"))
    assert far.get("policies").status_code == 401
    # Whoever has a good credential is no stranger, and probes are never refused.
    assert near.get("policies", key=tenant.member.key).status_code == 200
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert near.get(path).status_code == 200
    clock.now += 63
    assert near.get("policies").status_code == 401


@pytest.mark.parametrize(
    "path", ["/healthX", "/health/nope", "/health/live/", "/metricsX", "/static/nope.css"]
)
def test_what_is_no_probe_and_no_file_counts_against_the_address(
    clock: Clock, settings: Any, path: str
) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 3
    near = Api(remote_addr="198.51.100.10")
    answers = [near.get(path) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [404] * 3 + [429]
    refused(answers[-1])
    for known in ("/health", "/health/live", "/metrics", "/static/admin/css/base.css"):
        answer = near.get(known)
        assert answer.status_code == 200
        answer.close()


def test_every_route_that_tells_how_a_process_is_is_a_probe() -> None:
    assert {path for path in PUBLIC_ROUTES if path.startswith(("/health", "/metrics"))} == PROBES


def test_bad_credentials_count_against_the_address(
    clock: Clock, tenant: World, settings: Any
) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 3
    near = Api(remote_addr="198.51.100.9")
    tries = [
        near.get("policies", key="vdx_nobody"),
        near.get("policies", headers={"Authorization": "Basic YTpi"}),
        near.get("policies", key=tenant.key[:-1] + ("1" if tenant.key.endswith("0") else "0")),
        near.get("policies", key="vdx_nobody"),
    ]
    assert [answer.status_code for answer in tries] == [401, 401, 401, 429]
    assert near.get("policies", key=tenant.key).status_code == 200


SIGNATURE = "X-TFC-Task-Signature"
NOBODY = "00000000-0000-7000-8000-000000000000"
RUN_TASK = f"gate/terraform/run-task/{NOBODY}"
CLUSTER = f"gate/k8s/admission/review/{NOBODY}"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("gate/terraform", {SIGNATURE: "x"}, 401),
        (RUN_TASK, {"X-API-Key": "x"}, 401),
        (RUN_TASK, {SIGNATURE: "x"}, 401),
        (CLUSTER, {"Authorization": "Bearer vds_nobody"}, 401),
        (CLUSTER, {"Authorization": "Basic YTpi"}, 401),
        ("/admin/login/", {"Authorization": "Bearer x"}, 200),
        ("/admin/login/", {"X-API-Key": "x"}, 200),
    ],
)
def test_what_is_no_credential_where_it_is_sent_lifts_no_limit(
    clock: Clock, settings: Any, path: str, headers: dict[str, str], status: int
) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 3
    near = Api(remote_addr="198.51.100.11")
    answers = [near.post(path, {}, headers=headers) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [status] * 3 + [429] * 2


def test_a_good_credential_counts_against_no_address(
    clock: Clock, tenant: World, settings: Any
) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 2
    near = Api(remote_addr="198.51.100.12")
    for path in ("policies", "ledger", "gate/terraform", "nowhere", f"decisions/{NOBODY}"):
        assert near.get(path, key=tenant.member.key).status_code in {200, 403, 404, 405}
    assert [near.get("policies").status_code for _ in range(3)] == [401, 401, 429]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "gate/terraform", {"Accept": "text/html"}),
        ("POST", "gate/terraform", {"Content-Type": "text/plain"}),
        ("POST", "gate/terraform", {"Content-Encoding": "gzip"}),
        ("PUT", "gate/terraform", {}),
        ("POST", "gate/cloud-event", {"Content-Type": "application/cloudevents+xml"}),
        ("GET", "decisions/no-id", {}),
    ],
)
def test_what_is_refused_of_a_good_credential_counts_against_no_address(
    clock: Clock, tenant: World, settings: Any, method: str, path: str, headers: dict[str, str]
) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 2
    near = Api(remote_addr="198.51.100.13")
    for _ in range(4):
        answer = near.send(method, path, {}, key=tenant.member.key, headers=headers)
        assert answer.status_code in {200, 404, 405, 406, 413, 415, 422}


def test_an_ipv6_network_is_one_address(clock: Clock, settings: Any) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 2
    statuses = [
        Api(remote_addr=f"2001:db8:1:2::{number}").get("policies").status_code
        for number in range(1, 4)
    ]
    assert statuses == [401, 401, 429]
    assert Api(remote_addr="2001:db8:1:3::1").get("policies").status_code == 401


@pytest.mark.parametrize(
    ("peer", "header", "expected"),
    [
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),  # No proxy of ours.
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "2001:db8::5", "2001:db8::5"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", ", ".join(["6.6.6.6"] * 500), "6.6.6.6"),
        ("", "203.0.113.9", None),
    ],
)
def test_forwarded_addresses_are_believed_as_far_as_our_proxies_wrote_them(
    settings: Any, peer: str, header: str, expected: str | None
) -> None:
    settings.TRUST_PROXY_HEADERS = True
    settings.TRUSTED_PROXY_CIDRS = read_networks(["10.0.0.0/8"])
    request = RequestFactory().get("/", REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR=header)
    assert client_address(request) == expected


def test_without_trust_no_header_is_believed(settings: Any) -> None:
    settings.TRUST_PROXY_HEADERS = False
    settings.TRUSTED_PROXY_CIDRS = read_networks(["10.0.0.0/8"])
    request = RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="6.6.6.6")
    assert client_address(request) == "10.0.0.1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP", "0"),
        ("ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP", "59"),
        ("ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP", "10000001"),
        ("ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP", "many"),
        ("ENFORCEMENT_GLOBAL_ABUSE_GUARD_ENABLED", "perhaps"),
        ("ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP", "-1"),
        ("RATE_LIMIT_PER_MINUTE", "0"),
        ("TRUST_PROXY_HEADERS", "yes please"),
        ("TRUST_PROXY_HEADERS", "true"),
        ("TRUSTED_PROXY_CIDRS", "10.0.0.1/8"),
        ("TRUSTED_PROXY_CIDRS", "proxies"),
        ("OUTBOUND_ALLOWED_NETWORKS", "10.0.0.0/64"),
        ("ENFORCEMENT_RUN_TASK_HOSTS", "https://app.terraform.io"),
        ("SECRET_SEALING_KEYS", "short"),
        ("PUBLIC_URL", "valdrix.test"),
        ("WEB_REQUESTS_AT_ONCE", "1"),
        ("WEB_OTHERS_AT_ONCE", "64"),
        ("WEB_TENANT_AT_ONCE", "0"),
    ],
)
def test_a_bad_setting_refuses_to_start_and_is_named(name: str, value: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import valdrix.settings"],
        cwd=ROOT,
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert f"ImproperlyConfigured: {name}" in result.stderr


def test_the_gate_s_limits_come_before_any_work(clock: Clock, tenant: World, settings: Any) -> None:
    shop = Shop(tenant)
    shop.budget("100.00")
    settings.ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP = 2
    body = BODY | {"dry_run": False}
    statuses = [Api().post("gate/terraform", body, key=tenant.key).status_code for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
