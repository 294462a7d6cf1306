"""Policies over HTTP and by command: linted, published, compared, rolled back; modes forced."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from enforcement.models import LedgerEntry
from governance.models import AuditEntry, ForcedMode, PolicyVersion, Tenant
from governance.policies.domain import SCHEMA_VERSION
from governance.policies.queries import (
    find_forced_modes,
    read_governing_policy,
    read_live_policy,
)
from tests.client import Api
from tests.factories.tenants import World, issue_key
from valdrix.kernel.canonical import sha256_hex
from valdrix.kernel.db import reading, transaction

SOFT = {"schema_version": SCHEMA_VERSION, "modes": {"terraform": {"default": "soft"}}}
HARD = {"schema_version": SCHEMA_VERSION, "modes": {"terraform": {"default": "hard"}}}
BROKEN = {"modes": {"terraform": {"default": "lax"}}, "limit": {}}


def rows_of(world: World) -> tuple[int, int, int, int]:
    """Return how many versions, forced modes, audit and ledger entries of them there are."""
    with reading(world.id):
        audits = AuditEntry.objects.filter(object_type__in=("policy_version", "forced_mode"))
        return (
            PolicyVersion.objects.count(),
            ForcedMode.objects.count(),
            audits.count(),
            LedgerEntry.objects.count(),
        )


def publish(api: Api, world: World, document: Any, base_version: int) -> dict[str, Any]:
    body = {"policy_document": document, "comment": "agreed", "base_version": base_version}
    answer = api.put("policies", body, key=world.admin.key)
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def test_before_the_first_publication_the_empty_policy_is_live(api: Api, tenant: World) -> None:
    answer = api.get("policies", key=tenant.member.key)
    assert (answer.status_code, answer.json()) == (200, {
        "policy_version": 0, "policy_document_sha256": sha256_hex({}),
        "policy_document_schema_version": SCHEMA_VERSION, "policy_document": {},
        "author": None, "comment": "", "published_at": None,
    })  # fmt: skip
    with reading(tenant.id):
        live = read_live_policy(tenant.id)
    assert (live.version, live.policy.mode("terraform", "nonprod").mode) == (0, "hard")


def test_publishing_makes_the_next_version_live(api: Api, tenant: World) -> None:
    first = publish(api, tenant, SOFT, 0)
    assert first | {"published_at": ""} == {
        "policy_version": 1, "policy_document_sha256": sha256_hex(SOFT),
        "policy_document_schema_version": SCHEMA_VERSION, "policy_document": SOFT,
        "author": f"key:{tenant.admin.key_id}", "comment": "agreed", "published_at": "",
    }  # fmt: skip
    second = publish(api, tenant, HARD, 1)
    assert api.get("policies", key=tenant.key).json() == second
    assert api.get("policies/versions/1", key=tenant.key).json() == first
    listed = api.get("policies/versions", key=tenant.key).json()["results"]
    assert [one["policy_version"] for one in listed] == [2, 1]
    assert "policy_document" not in listed[0]
    with reading(tenant.id):
        assert read_live_policy(tenant.id).policy.mode("terraform", "prod").mode == "hard"


def test_a_publication_is_audited_and_on_the_ledger(api: Api, tenant: World) -> None:
    publish(api, tenant, SOFT, 0)
    with reading(tenant.id):
        audit = AuditEntry.objects.get(action="policy.publish")
        entry = LedgerEntry.objects.get(event="policy_published")
    assert audit.before["policy_document_sha256"] == sha256_hex({})
    assert audit.after["policy_document_sha256"] == sha256_hex(SOFT)
    assert audit.after["comment"] == "agreed"
    assert (entry.policy_version, entry.policy_document_sha256) == (1, sha256_hex(SOFT))
    assert entry.policy_document_schema_version == SCHEMA_VERSION
    assert "agreed" not in entry.canonical


def test_the_same_document_can_be_published_again_as_a_new_version(api: Api, tenant: World) -> None:
    first, second = publish(api, tenant, SOFT, 0), publish(api, tenant, SOFT, 1)
    assert second["policy_version"] == 2
    assert second["policy_document_sha256"] == first["policy_document_sha256"]


@pytest.mark.parametrize("base_version", [0, 2, 7])
def test_a_stale_base_version_is_refused(api: Api, tenant: World, base_version: int) -> None:
    publish(api, tenant, SOFT, 0)
    before = rows_of(tenant)
    body = {"policy_document": HARD, "comment": "x", "base_version": base_version}
    answer = api.put("policies", body, key=tenant.admin.key)
    assert (answer.status_code, answer.json()["code"]) == (409, "policy_version_conflict")
    assert rows_of(tenant) == before


def test_of_two_admins_at_once_one_publishes(api: Api, tenant: World, run_in_threads: Any) -> None:
    body = {"policy_document": SOFT, "comment": "x", "base_version": 0}
    answers = run_in_threads(5, lambda _: Api().put("policies", body, key=tenant.admin.key))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    assert rows_of(tenant) == (1, 0, 1, 1)


def test_an_invalid_document_is_never_published(api: Api, tenant: World) -> None:
    body = {"policy_document": BROKEN, "comment": "x", "base_version": 0}
    answer = api.put("policies", body, key=tenant.admin.key)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_policy")
    assert {error["pointer"] for error in answer.json()["errors"]} == {
        "/policy_document/modes/terraform/default", "/policy_document/limit",
    }  # fmt: skip
    assert rows_of(tenant) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"comment": "x", "base_version": 0}, "/policy_document"),
        ({"policy_document": None, "base_version": 0}, "/policy_document"),
        ({"policy_document": [], "base_version": 0}, "/policy_document"),
        ({"policy_document": SOFT}, "/base_version"),
        ({"policy_document": SOFT, "base_version": "0"}, "/base_version"),
        ({"policy_document": SOFT, "base_version": -1}, "/base_version"),
        ({"policy_document": SOFT, "base_version": 2**31}, "/base_version"),
        ({"policy_document": SOFT, "base_version": 0, "comment": 5}, "/comment"),
        ({"policy_document": SOFT, "base_version": 0, "comment": "x" * 2001}, "/comment"),
        ({"policy_document": SOFT, "base_version": 0, "force": True}, "/force"),
    ],
)
def test_a_bad_publication_names_the_field(
    api: Api, tenant: World, body: dict[str, Any], pointer: str
) -> None:
    answer = api.put("policies", body, key=tenant.admin.key)
    assert answer.status_code == 422, answer.content
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert rows_of(tenant) == (0, 0, 0, 0)


def test_lint_tells_every_error_and_publishes_nothing(api: Api, tenant: World) -> None:
    good = api.post("policies/lint", {"policy_document": SOFT}, key=tenant.key).json()
    assert good == {"valid": True, "errors": []}
    bad = api.post("policies/lint", {"policy_document": BROKEN}, key=tenant.key)
    assert (bad.status_code, bad.json()["valid"]) == (200, False)
    assert "/policy_document/limit" in [error["pointer"] for error in bad.json()["errors"]]
    assert rows_of(tenant) == (0, 0, 0, 0)


def test_a_document_with_thousands_of_errors_gets_an_answer_of_bounded_size(
    api: Api, tenant: World
) -> None:
    document = {f"typo_{number}": 1 for number in range(3000)}
    answer = api.post("policies/lint", {"policy_document": document}, key=tenant.key).json()
    assert (answer["valid"], len(answer["errors"])) == (False, 1001)
    assert answer["errors"][-1] == {
        "pointer": "/policy_document", "code": "too_many_errors", "detail": "3000 errors in all",
    }  # fmt: skip


def test_diff_compares_with_the_live_document(api: Api, tenant: World) -> None:
    publish(api, tenant, SOFT, 0)
    answer = api.post("policies/diff", {"policy_document": HARD}, key=tenant.key)
    assert (answer.status_code, answer.json()) == (200, {
        "base_version": 1,
        "changes": [{
            "kind": "changed", "pointer": "/modes/terraform/default", "old": "soft", "new": "hard",
        }],
        "raised_modes": ["terraform.prod", "terraform.nonprod"],
    })  # fmt: skip
    bad = api.post("policies/diff", {"policy_document": BROKEN}, key=tenant.key)
    assert (bad.status_code, bad.json()["code"]) == (422, "invalid_policy")


def test_rolling_back_publishes_the_old_document_as_a_new_version(api: Api, tenant: World) -> None:
    publish(api, tenant, SOFT, 0)
    publish(api, tenant, HARD, 1)
    body = {"comment": "too strict", "base_version": 2}
    answer = api.post("policies/versions/1/rollback", body, key=tenant.admin.key)
    assert (answer.status_code, answer.json()["policy_version"]) == (200, 3)
    assert answer.json()["policy_document"] == SOFT
    with reading(tenant.id):
        assert AuditEntry.objects.get(action="policy.roll-back").after["rolled_back_to"] == 1
    before = rows_of(tenant)
    stale = api.post("policies/versions/1/rollback", body, key=tenant.admin.key)
    assert (stale.status_code, stale.json()["code"]) == (409, "policy_version_conflict")
    missing = api.post("policies/versions/9/rollback", {"base_version": 3}, key=tenant.admin.key)
    assert missing.status_code == 404
    assert rows_of(tenant) == before


@pytest.mark.parametrize("number", ["0", "2", "99999999999999999999999", "-1", "x"])
def test_a_version_that_is_not_there_is_404(api: Api, tenant: World, number: str) -> None:
    publish(api, tenant, SOFT, 0)
    assert api.get(f"policies/versions/{number}", key=tenant.key).status_code == 404


def test_another_tenants_policy_is_not_seen(api: Api, tenant: World, other_tenant: World) -> None:
    publish(api, tenant, SOFT, 0)
    key = other_tenant.owner.key
    assert api.get("policies", key=key).json()["policy_version"] == 0
    assert api.get("policies/versions", key=key).json()["results"] == []
    assert api.get("policies/versions/1", key=key).status_code == 404
    answer = api.post("policies/versions/1/rollback", {"base_version": 0}, key=key)
    assert answer.status_code == 404
    assert rows_of(other_tenant) == (0, 0, 0, 0)


def test_a_mode_rises_by_promotion_only_where_the_tenant_says_so(api: Api, tenant: World) -> None:
    publish(api, tenant, SOFT, 0)
    with transaction(tenant.id):
        Tenant.objects.update(promotion_required=True)
    before = rows_of(tenant)
    body = {"policy_document": HARD, "comment": "x", "base_version": 1}
    answer = api.put("policies", body, key=tenant.admin.key)
    assert (answer.status_code, answer.json()["code"]) == (409, "mode_promotion_required")
    assert "terraform.prod" in answer.json()["detail"]
    assert rows_of(tenant) == before
    lower = {"modes": {"terraform": {"default": "shadow"}, "k8s_admission": {"prod": "soft"}}}
    assert publish(api, tenant, lower, 1)["policy_version"] == 2


def test_members_read_and_only_admins_write(api: Api, tenant: World) -> None:
    publish(api, tenant, SOFT, 0)
    before = rows_of(tenant)
    body = {"policy_document": HARD, "comment": "x", "base_version": 1}
    for refused in (
        api.put("policies", body, key=tenant.member.key),
        api.post("policies/versions/1/rollback", {"base_version": 1}, key=tenant.member.key),
        api.post("modes/emergency", order(), key=tenant.admin.key),
    ):
        assert (refused.status_code, refused.json()["code"]) == (403, "role_missing")
    bound = issue_key(
        tenant.id, name="b", role="owner", person_id=tenant.owner.user_id, projects=["shop"]
    )[1]
    for refused in (
        api.put("policies", body, key=bound),
        api.post("policies/versions/1/rollback", {"base_version": 1}, key=bound),
        api.post("modes/emergency", order(), key=bound),
    ):
        assert (refused.status_code, refused.json()["code"]) == (403, "project_not_allowed")
    assert rows_of(tenant) == before
    for path in ("policies", "policies/versions", "policies/versions/1", "policies/schema"):
        assert api.get(path, key=tenant.member.key).status_code == 200
        assert api.get(path).status_code == 401


def test_the_schema_is_served(api: Api, tenant: World) -> None:
    schema = api.get("policies/schema", key=tenant.key).json()
    assert schema["$id"] == f"urn:{SCHEMA_VERSION}"
    assert schema["additionalProperties"] is False


def order(**changes: Any) -> dict[str, Any]:
    until = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    return {
        "source": "terraform", "environment": "prod", "mode": "shadow",
        "reason": "estimator outage", "until": until, **changes,
    }  # fmt: skip


def test_an_owner_forces_a_lower_mode_at_once(api: Api, tenant: World) -> None:
    publish(api, tenant, HARD, 0)
    answer = api.post("modes/emergency", order(mode="soft"), key=tenant.owner.key)
    assert (answer.status_code, answer.json()["mode_before"]) == (201, "hard")
    now = datetime.now(UTC)
    with reading(tenant.id):
        governing = read_governing_policy(tenant.id, now)
        audit = AuditEntry.objects.get(action="mode.force")
        entry = LedgerEntry.objects.get(event="mode_forced")
        assert find_forced_modes(tenant.id, now) == governing.forced_modes
        assert find_forced_modes(tenant.id, now + timedelta(hours=3)) == ()
    assert governing.mode("terraform", "prod").mode == "soft"
    assert governing.mode("terraform", "prod").scope == "emergency"
    assert governing.mode("terraform", "nonprod").mode == "hard"
    assert governing.mode("k8s_admission", "prod").mode == "hard"
    assert (audit.before["mode"], audit.after["mode"]) == ("hard", "soft")
    assert (entry.source, entry.environment, entry.mode) == ("terraform", "prod", "soft")
    assert entry.policy_version == 1
    assert "estimator outage" not in entry.canonical


def test_only_a_mode_below_the_one_in_force_can_be_forced(api: Api, tenant: World) -> None:
    publish(api, tenant, SOFT, 0)
    assert api.post("modes/emergency", order(), key=tenant.owner.key).status_code == 201
    before = rows_of(tenant)
    for mode in ("soft", "shadow"):
        answer = api.post("modes/emergency", order(mode=mode), key=tenant.owner.key)
        assert (answer.status_code, answer.json()["code"]) == (409, "mode_not_lower")
    assert rows_of(tenant) == before


def test_a_forced_mode_never_raises(api: Api, tenant: World) -> None:
    publish(api, tenant, HARD, 0)
    api.post("modes/emergency", order(mode="soft"), key=tenant.owner.key)
    shadow = {"modes": {"terraform": {"default": "shadow"}}}
    publish(api, tenant, shadow, 1)
    with reading(tenant.id):
        governing = read_governing_policy(tenant.id, datetime.now(UTC))
    assert governing.mode("terraform", "prod").mode == "shadow"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"source": "jenkins"}, "/source"),
        ({"environment": "staging"}, "/environment"),
        ({"mode": "hard"}, "/mode"),
        ({"reason": None}, "/reason"),
        ({"until": None}, "/until"),
        ({"until": "tomorrow"}, "/until"),
        ({"until": "2020-01-01T00:00:00Z"}, "/until"),
        ({"until": "2999-01-01T00:00:00Z"}, "/until"),
        ({"project_id": "shop"}, "/project_id"),
    ],
)
def test_a_bad_order_changes_nothing(
    api: Api, tenant: World, change: dict[str, Any], pointer: str
) -> None:
    answer = api.post("modes/emergency", order(**change), key=tenant.owner.key)
    assert answer.status_code == 422, answer.content
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert rows_of(tenant) == (0, 0, 0, 0)


def test_what_governs_is_read_in_one_round_trip_and_never_stale(api: Api, tenant: World) -> None:
    now = datetime.now(UTC)
    modes = []
    for base_version, document in enumerate((SOFT, HARD, SOFT)):
        publish(api, tenant, document, base_version)
        for _ in range(2):
            with reading(tenant.id), CaptureQueriesContext(connection) as queries:
                governing = read_governing_policy(tenant.id, now)
            assert len(queries) == 1
            modes.append((governing.version, governing.mode("terraform", "prod").mode))
    assert modes == [(1, "soft")] * 2 + [(2, "hard")] * 2 + [(3, "soft")] * 2


def run(*arguments: str) -> tuple[int, str, str]:
    """Run ``manage.py policy`` and return its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("policy", *arguments, stdout=out, stderr=err)
    except CommandError as error:
        return error.returncode, out.getvalue(), err.getvalue() + str(error)
    return 0, out.getvalue(), err.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_document(document: Any) -> str:
        path = tmp_path / f"policy-{len(list(tmp_path.iterdir()))}.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return str(path)

    return write_document


def test_the_command_lints(tenant: World, write: Any) -> None:
    assert run("lint", write(SOFT))[:2] == (0, "valid\n")
    code, _, err = run("lint", write(BROKEN))
    assert code == 1
    lines = err.splitlines()
    assert any(line.startswith("/modes/terraform/default: ") for line in lines)
    assert any(line.startswith("/limit: ") and "[unknown_field]" in line for line in lines)


def test_policies_round_trip_as_files(tenant: World, write: Any, tmp_path: Path) -> None:
    file = write(SOFT)
    assert run("diff", file, "--tenant", tenant.slug)[0] == 1
    code, out, _ = run("publish", file, "--tenant", tenant.slug, "--comment", "from git")
    assert (code, out) == (0, f"published version 1 sha256 {sha256_hex(SOFT)}\n")
    exported = tmp_path / "exported.json"
    assert run("export", "--tenant", tenant.slug, "--output", str(exported))[0] == 0
    assert run("diff", str(exported), "--tenant", tenant.slug)[:2] == (0, "equal to version 1\n")
    assert run("publish", write(HARD), "--tenant", tenant.slug)[0] == 0
    code, out, _ = run("diff", str(exported), "--tenant", tenant.slug)
    assert (code, out) == (1, 'changed /modes/terraform/default: "hard" -> "soft"\n')
    code, out, _ = run("export", "--tenant", tenant.slug, "--version", "1")
    assert (code, json.loads(out)) == (0, SOFT)
    with reading(tenant.id):
        versions = PolicyVersion.objects.order_by("number")
        assert [one.author for one in versions] == ["system:policy-command"] * 2
        assert LedgerEntry.objects.filter(event="policy_published").count() == 2


def test_the_command_refuses_without_writing(tenant: World, write: Any) -> None:
    slug = ("--tenant", tenant.slug)
    assert run("publish", write(BROKEN), *slug)[0] == 1
    code, _, err = run("publish", write(SOFT), *slug, "--base-version", "4")
    assert (code, "policy_version_conflict" in err) == (1, True)
    assert run("export", *slug, "--version", "3")[0] == 1
    assert rows_of(tenant) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("lint", "/nowhere/policy.json"),
        ("lint", "{twice}"),
        ("publish", "{soft}", "--tenant", "no-such-tenant"),
        ("export", "--tenant", "no-such-tenant"),
    ],
)
def test_wrong_use_exits_2(database: None, write: Any, arguments: tuple[str, ...]) -> None:
    files = {"{twice}": write('{"modes": {}, "modes": {}}'), "{soft}": write(SOFT)}
    code, _, err = run(*(files.get(one, one) for one in arguments))
    assert (code, bool(err)) == (2, True)
