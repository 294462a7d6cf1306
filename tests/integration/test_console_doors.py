"""The console's pages of doors: workload issuers, run tasks and their calls."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from enforcement.adapters.run_task import Verdict
from enforcement.models import RunTask
from enforcement.run_tasks.operations import encode_call
from governance.integrations.queries import read_secret
from governance.models import AuditEntry, Integration, User, WorkloadIssuer
from governance.workloads.domain import audience_of
from tests.factories.rows import build_run_task_call
from tests.factories.tenants import Person, World
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id
from valdrix.kernel.signing import encode

GITHUB = "https://token.actions.githubusercontent.com"
CLAIMS = "repository_id = 74\nref = refs/heads/main\n\nref = refs/heads/next"


def signed_in(person: Person) -> Client:
    client = Client()
    client.force_login(User.objects.get(pk=person.user_id))
    return client


def text_of(response: HttpResponse) -> str:
    return response.content.decode()


def url_of(name: str, *arguments: object) -> str:
    return reverse(f"admin:{name}", args=[str(one) for one in arguments])


def a_key_set(kid: str = "k1") -> str:
    public = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    key = {"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": encode(public)}
    return json.dumps({"keys": [key]})


def an_issuer(world: World, **changes: str) -> dict[str, str]:
    fields = {
        "name": "checkout's pipeline",
        "issuer": GITHUB,
        "project_id": "checkout",
        "conditions": CLAIMS,
        "person_id": str(world.member.user_id),
    }
    return fields | changes


def register(world: World, **changes: str) -> HttpResponse:
    url = url_of("governance_workloadissuer_register")
    return signed_in(world.owner).post(url, an_issuer(world, **changes))


def audited(world: World, kind: str) -> list[tuple[str, str]]:
    with reading(world.id):
        rows = AuditEntry.objects.filter(object_type=kind).order_by("pk")
        return list(rows.values_list("action", "actor"))


# Workload issuers


def test_an_issuer_is_registered_seen_and_ended(tenant: World) -> None:
    client = signed_in(tenant.owner)
    form = text_of(client.get(url_of("governance_workloadissuer_register")))
    assert audience_of(tenant.id) in form
    response = register(tenant)
    with reading(tenant.id):
        row = WorkloadIssuer.objects.get(tenant_id=tenant.id)
    page = url_of("governance_workloadissuer_change", row.pk)
    assert (response.status_code, response["Location"]) == (302, page)
    assert row.conditions == {
        "repository_id": ["74"],
        "ref": ["refs/heads/main", "refs/heads/next"],
    }
    assert (row.person_id, row.jwks) == (tenant.member.user_id, None)
    text = text_of(client.get(page))
    for shown in (GITHUB, audience_of(tenant.id), "refs/heads/main or refs/heads/next"):
        assert shown in text
    assert "fetched from the issuer" in text
    replaced = client.post(
        url_of("governance_workloadissuer_keys", row.pk), {"jwks": a_key_set("first")}
    )
    assert replaced.status_code == 302
    assert "uploaded: first" in text_of(client.get(page))
    client.post(url_of("governance_workloadissuer_revoke", row.pk))
    assert "revoked" in text_of(client.get(url_of("governance_workloadissuer_changelist")))
    again = client.post(url_of("governance_workloadissuer_keys", row.pk), {"jwks": a_key_set()})
    assert again.status_code == 409
    by = f"user:{tenant.owner.user_id}"
    assert audited(tenant, "workload-issuer") == [
        ("workload-issuer.register", by),
        ("workload-issuer.replace-keys", by),
        ("workload-issuer.revoke", by),
    ]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("conditions", "ref = refs/heads/main", "must demand one of repository_id"),
        ("conditions", "repository_id", "is not a claim = value"),
        ("conditions", "repository_id = 1\nbad name = 2", "cannot be a claim"),
        ("conditions", "", "This field is required"),
        ("issuer", "https://ci.example.net", "upload its keys as jwks"),
        ("issuer", "http://gitlab.com", "upload its keys as jwks"),
        ("jwks", "{", "not JSON"),
        ("jwks", '{"keys": [], "keys": []}', "is "),
        ("jwks", '{"keys": []}', "must be a JWKS of 1 to"),
        ("jwks", '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "a private or a symmetric key"),
        ("project_id", "", "This field is required"),
        ("person_id", "1", "Select a valid choice"),
    ],
)
def test_bad_terms_are_told_at_their_field_and_register_nothing(
    tenant: World, field: str, value: str, said: str
) -> None:
    response = register(tenant, **{field: value})
    assert response.status_code == 422
    text = text_of(response)
    wrong = re.search(rf'id="id_{field}_error">(.*?)</ul>', text, re.DOTALL)
    assert wrong is not None
    assert said in wrong[1]
    with reading(tenant.id):
        assert not WorkloadIssuer.objects.filter(tenant_id=tenant.id).exists()
    assert audited(tenant, "workload-issuer") == []


def test_another_tenant_s_registration_does_not_exist(tenant: World, other_tenant: World) -> None:
    register(other_tenant)
    with reading(other_tenant.id):
        row = WorkloadIssuer.objects.get(tenant_id=other_tenant.id)
    client = signed_in(tenant.owner)
    for name in ("change", "keys", "revoke"):
        url = url_of(f"governance_workloadissuer_{name}", row.pk)
        assert client.get(url).status_code == 404
        if name != "change":
            assert client.post(url, {"jwks": a_key_set()}).status_code == 404
    with reading(other_tenant.id):
        row.refresh_from_db()
    assert (row.revoked_at, row.jwks) == (None, None)


# Run tasks


def a_run_task(world: World, name: str = "hcp", **changes: str) -> tuple[Integration, str]:
    fields = {"name": name, "project_id": "shop", "environment": "staging"}
    fields |= {"person_id": str(world.owner.user_id)} | changes
    response = signed_in(world.owner).post(url_of("governance_integration_register"), fields)
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    (secret,) = re.findall(r'value="(vds_[\w-]+)"', text_of(response))
    with reading(world.id):
        return Integration.objects.get(tenant_id=world.id, name=name), secret


def test_a_run_task_is_registered_rotated_and_revoked(tenant: World) -> None:
    row, secret = a_run_task(tenant)
    assert (row.kind, row.project_id, row.settings) == (
        "run_task",
        "shop",
        {"environment": "staging"},
    )
    assert read_secret(row) == secret
    client = signed_in(tenant.owner)
    page = text_of(client.get(url_of("governance_integration_change", row.pk)))
    assert f"/api/v1/enforcement/gate/terraform/run-task/{row.pk}" in page
    assert secret not in page
    rotated = text_of(client.post(url_of("governance_integration_rotate", row.pk)))
    (second,) = re.findall(r'value="(vds_[\w-]+)"', rotated)
    with reading(tenant.id):
        row.refresh_from_db()
    assert read_secret(row) == second != secret
    assert client.post(url_of("governance_integration_revoke", row.pk)).status_code == 302
    assert client.post(url_of("governance_integration_rotate", row.pk)).status_code == 409
    by = f"user:{tenant.owner.user_id}"
    assert audited(tenant, "integration") == [
        ("integration.create", by),
        ("integration.rotate", by),
        ("integration.revoke", by),
    ]


def test_a_name_in_use_is_told_and_nothing_is_made(tenant: World) -> None:
    a_run_task(tenant)
    fields = {"name": "hcp", "person_id": str(tenant.owner.user_id)}
    response = signed_in(tenant.owner).post(url_of("governance_integration_register"), fields)
    assert response.status_code == 409
    assert "has the name" in text_of(response)
    assert len(audited(tenant, "integration")) == 1


def add_call(world: World, integration: Integration, **changes: Any) -> RunTask:
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": new_id(),
        "tenant_id": world.id,
        "integration_id": integration.pk,
        "task_result_id": f"taskrs-{new_id()}",
        "run_id": "run-ABC",
        "stage": "post_plan",
        "call_json": encode_call(build_run_task_call(workspace_name="shop-<b>prod</b>")),
        "person_id": world.owner.user_id,
        "decision_id": new_id(),
        "received_at": now,
        "due_at": now,
    }
    with transaction(world.id):
        return RunTask.objects.create(**(values | changes))


def test_calls_show_their_state_answer_and_last_callback(tenant: World) -> None:
    first, _ = a_run_task(tenant)
    second, _ = a_run_task(tenant, name="other")
    told_at = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    verdict = Verdict(status="failed", message="Denied: over <the> budget", url=None)
    told = add_call(
        tenant,
        first,
        state="reported",
        told_at=told_at,
        finished_at=told_at,
        verdict_json=msgspec.json.encode(verdict).decode(),
    )
    add_call(tenant, second, run_id="run-LOST", state="given_up", last_error="HTTP 422")
    client = signed_in(tenant.admin)
    listed = text_of(client.get(url_of("enforcement_runtask_changelist")))
    for shown in ("failed", "2026-03-04 05:06:07 UTC", "given up", "HTTP 422", "other"):
        assert shown in listed
    only = text_of(
        client.get(url_of("enforcement_runtask_changelist") + f"?integration_id={second.pk}")
    )
    assert "run-LOST" in only
    assert "run-ABC" not in only
    text = text_of(client.get(url_of("enforcement_runtask_change", told.pk)))
    for shown in (
        "Denied: over &lt;the&gt; budget",
        "shop-&lt;b&gt;prod&lt;/b&gt;",
        "app.terraform.io",
        "told",
        url_of("governance_integration_change", first.pk),
    ):
        assert shown in text
    assert signed_in(tenant.member).get(url_of("enforcement_runtask_changelist")).status_code == 403


def test_calls_are_their_tenant_s_own(tenant: World, other_tenant: World) -> None:
    integration, _ = a_run_task(other_tenant)
    row = add_call(other_tenant, integration)
    client = signed_in(tenant.owner)
    assert client.get(url_of("enforcement_runtask_change", row.pk)).status_code == 404
    listed = text_of(client.get(url_of("enforcement_runtask_changelist")))
    assert str(row.pk) not in listed
    assert "No run has asked yet" in listed
