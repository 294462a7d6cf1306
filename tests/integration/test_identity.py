"""People, memberships and tenants; who a request speaks for; which routes ask at all."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.urls import path as to
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from governance.api.permissions import RequireRole, RequireScope, require_project
from governance.audit.operations import Actor
from governance.identity import operations, queries
from governance.identity.domain import Principal, build_key_text, read_key_text
from governance.models import ApiKey, AuditEntry, Membership, Tenant, User
from governance.tenants.operations import TenantExists, create_tenant
from governance.tenants.queries import find_tenant_id
from tests.client import Api
from tests.factories.tenants import World, issue_key
from valdrix import routes
from valdrix.health import LiveView
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import InvalidRequest, NotAllowed, NotFound

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def roles(tenant: World) -> dict[int, str]:
    with reading(tenant.id):
        people = Membership.objects.filter(tenant_id=tenant.id)
        return dict(people.values_list("user_id", "role"))


def audit_count(tenant: World) -> int:
    with reading(tenant.id):
        return AuditEntry.objects.filter(tenant_id=tenant.id).count()


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    return body


# Who a request speaks for


@pytest.mark.parametrize(
    "header",
    [
        lambda key: {"Authorization": f"Bearer {key}"},
        lambda key: {"Authorization": f"bearer  {key} "},
        lambda key: {"X-API-Key": key},
    ],
)
def test_a_key_is_taken_from_either_header(
    api: Api, tenant: World, header: Callable[[str], dict[str, str]]
) -> None:
    assert api.get("members", headers=header(tenant.owner.key)).status_code == 200


def wrong_credentials(key: str) -> dict[str, dict[str, str]]:
    other = build_key_text(b"z" * 44).text
    last = "0" if key[-1] != "0" else "1"
    return {
        "unknown": {"Authorization": f"Bearer {other}"},
        "checksum": {"Authorization": f"Bearer {key[:-1]}{last}"},
        "malformed": {"Authorization": "Bearer x"},
        "empty": {"Authorization": "Bearer "},
        "blank": {"Authorization": ""},
        "scheme": {"Authorization": f"Basic {key}"},
        "no scheme": {"Authorization": key},
        "two words": {"Authorization": f"Bearer {key} {key}"},
        "two headers": {"Authorization": f"Bearer {key}", "X-API-Key": key},
        "empty api key": {"X-API-Key": ""},
        "bytes": {"Authorization": "Bearer vdx_\xff\xfe"},
        "nul": {"X-API-Key": key + "\x00"},
        "long": {"X-API-Key": "vdx_" + "a" * 100_000},
        "jwt": {"Authorization": "Bearer e30.e30.e30"},
    }


@pytest.mark.parametrize("kind", sorted(wrong_credentials("vdx_key")))
def test_one_body_for_every_wrong_credential(api: Api, tenant: World, kind: str) -> None:
    headers = wrong_credentials(tenant.owner.key)[kind]
    response = api.get("members", headers=headers)
    body = problem(response, 401, "authentication_failed")
    assert response["WWW-Authenticate"].startswith("Bearer")
    body.pop("request_id")
    assert body == {
        "type": "urn:valdrix:problem:authentication_failed",
        "title": "Unauthorized",
        "status": 401,
        "code": "authentication_failed",
        "detail": "The credentials are not valid.",
    }


def test_no_credential_is_another_401(api: Api, tenant: World) -> None:
    response = api.get("members")
    problem(response, 401, "not_authenticated")
    assert response["WWW-Authenticate"] == 'Bearer realm="valdrix"'


@pytest.mark.parametrize("name", ["api_key", "key", "token", "access_token", "X-API-Key"])
def test_a_key_in_the_query_is_not_looked_at(api: Api, tenant: World, name: str) -> None:
    response = api.get("members", query={name: tenant.owner.key})
    problem(response, 401, "not_authenticated")
    assert tenant.owner.key not in response.content.decode()


def test_a_console_session_is_not_accepted(tenant: World) -> None:
    browser = Client()
    browser.force_login(User.objects.get(pk=tenant.owner.user_id))
    response = browser.get("/api/v1/enforcement/members")
    problem(response, 401, "not_authenticated")


def test_a_typo_is_refused_without_the_database(api: Api, tenant: World) -> None:
    asked: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        asked.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        api.get("members", key=tenant.owner.key[:-1] + "-")
        assert asked == []
        principal = queries.find_key_principal(read_key_text(tenant.owner.key))  # type: ignore[arg-type]
        assert len(asked) == 1
    assert principal == tenant.owner.principal


def test_authentication_leaves_no_tenant_behind(tenant: World) -> None:
    assert queries.find_key_principal(read_key_text(tenant.key)) is not None  # type: ignore[arg-type]
    with connection.cursor() as cursor:
        cursor.execute("SELECT nullif(current_setting('valdrix.tenant', true), '')")
        assert cursor.fetchone() == (None,)


def test_without_a_database_nobody_is_told_that_their_key_is_wrong(
    api: Api, tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "PORT", "1")
        response = api.get("members", key=tenant.owner.key)
        problem(response, 503, "database_unavailable")
        assert int(response["Retry-After"]) >= 1
        problem(api.get("members", key="vdx_typo"), 401, "authentication_failed")
        problem(api.get("members"), 401, "not_authenticated")
        connection.close()
    assert api.get("members", key=tenant.owner.key).status_code == 200


# Permissions


def answer(permission: type, principal: Principal | None, method: str = "GET") -> Any:
    class Door(APIView):
        authentication_classes = ()
        permission_classes = (permission,)

        def get(self, request: Request) -> Response:
            return Response({})

        post = get

    request = APIRequestFactory().generic(method, "/")
    request._force_auth_user = principal
    return Door.as_view()(request)


def somebody(role: str, **more: Any) -> Principal:
    return Principal(uuid.UUID(int=1), "key:x", 1, role, **more)


@pytest.mark.parametrize(
    ("permission", "principal", "method", "outcome"),
    [
        (RequireRole("admin"), somebody("admin"), "GET", None),
        (RequireRole("admin"), somebody("owner"), "POST", None),
        (RequireRole("admin"), somebody("member"), "GET", "role_missing"),
        (RequireRole("member", to_write="admin"), somebody("member"), "GET", None),
        (RequireRole("member", to_write="admin"), somebody("member"), "POST", "role_missing"),
        (RequireRole("member", to_write="admin"), somebody("admin"), "POST", None),
        (RequireScope("approve"), somebody("owner"), "GET", "scope_missing"),
        (RequireScope("approve"), somebody("member", scopes=frozenset({"approve"})), "GET", None),
    ],
)
def test_permissions_answer_with_their_code(
    permission: type, principal: Principal, method: str, outcome: str | None
) -> None:
    response = answer(permission, principal, method)
    if outcome is None:
        assert response.status_code == 200
    else:
        assert response.status_code == 403
        assert f'"code":"{outcome}"' in response.content.decode()


def test_a_permission_refuses_nobody_in_particular() -> None:
    assert answer(RequireRole("member"), None).status_code == 403


def test_a_bound_credential_may_use_its_projects_only() -> None:
    bound = somebody("owner", projects=frozenset({"shop"}))
    require_project(bound, "shop")
    with pytest.raises(NotAllowed) as refused:
        require_project(bound, "blog")
    assert refused.value.problem_code == "project_not_allowed"
    require_project(somebody("member"), "blog")


# Members


def test_admitting_a_new_and_a_known_person(api: Api, tenant: World, other_tenant: World) -> None:
    username = f"new@{tenant.slug}.test"
    first = api.post("members", {"username": username, "role": "admin"}, key=tenant.owner.key)
    assert first.status_code == 201
    person = User.objects.get(username=username)
    assert (person.has_usable_password(), person.is_staff) == (False, False)
    assert first.json()["person_id"] == person.pk
    second = api.post(
        "members", {"username": username, "role": "member"}, key=other_tenant.owner.key
    )
    assert (second.status_code, second.json()["person_id"]) == (201, person.pk)
    assert roles(tenant)[person.pk] == "admin"
    assert roles(other_tenant)[person.pk] == "member"
    before = audit_count(tenant)
    again = api.post("members", {"username": username, "role": "owner"}, key=tenant.owner.key)
    problem(again, 409, "member_exists")
    assert roles(tenant)[person.pk] == "admin"
    assert audit_count(tenant) == before


def test_one_person_admitted_by_many_at_once(
    tenant: World, run_in_threads: Callable[..., list[Any]]
) -> None:
    username = f"race@{tenant.slug}.test"
    body = {"username": username, "role": "member"}
    answers = run_in_threads(6, lambda _: Api().post("members", body, key=tenant.owner.key))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
    assert User.objects.filter(username=username).count() == 1


def test_members_are_listed_in_pages_of_one_tenant(
    api: Api, tenant: World, other_tenant: World
) -> None:
    page, seen = "members?limit=2", []
    while page:
        answer = api.get(page, key=tenant.owner.key).json()
        seen += [(row["person_id"], row["role"]) for row in answer["results"]]
        page = answer["next"]
    assert seen == sorted(roles(tenant).items())
    assert len(seen) == 3


def test_changing_a_role_is_audited(api: Api, tenant: World) -> None:
    path = f"members/{tenant.member.user_id}"
    response = api.patch(path, {"role": "admin"}, key=tenant.owner.key)
    assert (response.status_code, response.json()["role"]) == (200, "admin")
    query = {"object_type": "member", "object_id": str(tenant.member.user_id), "limit": 1}
    entry = api.get("audit", key=tenant.owner.key, query=query).json()["results"][0]
    assert (entry["action"], entry["actor"]) == (
        "member.change-role",
        f"key:{tenant.owner.key_id}",
    )
    assert (entry["before"]["role"], entry["after"]["role"]) == ("member", "admin")
    before = audit_count(tenant)
    assert api.patch(path, {"role": "admin"}, key=tenant.owner.key).status_code == 200
    assert audit_count(tenant) == before


def test_the_last_owner_stays(api: Api, tenant: World) -> None:
    path, before = f"members/{tenant.owner.user_id}", (roles(tenant), audit_count(tenant))
    problem(api.patch(path, {"role": "admin"}, key=tenant.owner.key), 409, "last_owner")
    problem(api.delete(path, key=tenant.owner.key), 409, "last_owner")
    assert api.patch(path, {"role": "owner"}, key=tenant.owner.key).status_code == 200
    assert (roles(tenant), audit_count(tenant)) == before


def test_an_inactive_owner_does_not_count(api: Api, tenant: World) -> None:
    api.patch(f"members/{tenant.admin.user_id}", {"role": "owner"}, key=tenant.owner.key)
    User.objects.filter(pk=tenant.admin.user_id).update(is_active=False)
    path = f"members/{tenant.owner.user_id}"
    problem(api.patch(path, {"role": "member"}, key=tenant.owner.key), 409, "last_owner")
    assert api.delete(f"members/{tenant.admin.user_id}", key=tenant.owner.key).status_code == 204


def test_owners_who_demote_one_another_at_once_leave_one(
    api: Api, tenant: World, run_in_threads: Callable[..., list[Any]]
) -> None:
    api.patch(f"members/{tenant.admin.user_id}", {"role": "owner"}, key=tenant.owner.key)
    people = [tenant.owner.user_id, tenant.admin.user_id]
    actor = Actor(tenant.id, "system:test", None, NOW)

    def demote(number: int) -> str:
        try:
            operations.change_role(actor=actor, person_id=people[number], role="member")
        except operations.LastOwner:
            return "refused"
        return "demoted"

    assert sorted(run_in_threads(2, demote)) == ["demoted", "refused"]
    assert list(roles(tenant).values()).count("owner") == 1


def test_a_removed_member_s_keys_stop(api: Api, tenant: World) -> None:
    response = api.delete(f"members/{tenant.admin.user_id}", key=tenant.owner.key)
    assert (response.status_code, response.content) == (204, b"")
    problem(api.get("members", key=tenant.admin.key), 401, "authentication_failed")
    assert tenant.admin.user_id not in roles(tenant)


@pytest.mark.parametrize("who", ["member", "admin"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "members"),
        ("POST", "members"),
        ("PATCH", "members/{id}"),
        ("DELETE", "members/{id}"),
        ("GET", "audit"),
    ],
)
def test_only_owners_manage_members_and_read_the_audit_log(
    api: Api, tenant: World, who: str, method: str, path: str
) -> None:
    before = (roles(tenant), audit_count(tenant))
    body = {"role": "owner"} | ({"username": "x"} if method == "POST" else {})
    path = path.format(id=getattr(tenant, who).user_id)
    problem(api.send(method, path, body, key=getattr(tenant, who).key), 403, "role_missing")
    assert (roles(tenant), audit_count(tenant)) == before


def test_a_bound_owner_s_key_manages_nobody(api: Api, tenant: World) -> None:
    _, key = issue_key(
        tenant.id,
        name="bound",
        role="owner",
        person_id=tenant.owner.user_id,
        projects=["shop"],
    )
    before = (roles(tenant), audit_count(tenant))
    for method, path in (("POST", "members"), ("GET", "audit"), ("PATCH", "members/1")):
        problem(api.send(method, path, {"role": "member"}, key=key), 403, "project_not_allowed")
    assert (roles(tenant), audit_count(tenant)) == before


@pytest.mark.parametrize("person_id", ["0", "9" * 19, "9" * 5000, "x", "-1", "1.0", "%00", "٣x"])
def test_a_person_id_that_is_nobody_s(api: Api, tenant: World, person_id: str) -> None:
    before = (roles(tenant), audit_count(tenant))
    path = f"members/{person_id}"
    problem(api.patch(path, {"role": "owner"}, key=tenant.owner.key), 404, "not_found")
    problem(api.delete(path, key=tenant.owner.key), 404, "not_found")
    assert (roles(tenant), audit_count(tenant)) == before


def test_another_tenant_s_member_is_not_found(api: Api, tenant: World, other_tenant: World) -> None:
    before = (roles(other_tenant), audit_count(other_tenant))
    path = f"members/{other_tenant.member.user_id}"
    problem(api.patch(path, {"role": "owner"}, key=tenant.owner.key), 404, "not_found")
    problem(api.delete(path, key=tenant.owner.key), 404, "not_found")
    assert (roles(other_tenant), audit_count(other_tenant)) == before


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"username": None}, "/username"),
        ({"username": 1}, "/username"),
        ({"username": "two words"}, "/username"),
        ({"username": "a" * 151}, "/username"),
        ({"username": "\ufdfa" * 150}, "/username"),
        ({"username": "<script>"}, "/username"),
        ({"role": None}, "/role"),
        ({"role": "god"}, "/role"),
        ({"is_staff": True}, "/is_staff"),
        ({"password": "x"}, "/password"),
    ],
)
def test_a_wrong_member_is_named_and_not_admitted(
    api: Api, tenant: World, change: dict[str, Any], pointer: str
) -> None:
    before = (roles(tenant), audit_count(tenant), User.objects.count())
    body = {"username": f"w@{tenant.slug}.test", "role": "member"} | change
    errors = problem(api.post("members", body, key=tenant.owner.key), 422, "invalid_request")
    assert [error["pointer"] for error in errors["errors"]] == [pointer]
    path = f"members/{tenant.member.user_id}"
    patched = api.patch(path, {"role": "owner", "x": 1}, key=tenant.owner.key)
    problem(patched, 422, "invalid_request")
    assert (roles(tenant), audit_count(tenant), User.objects.count()) == before


# The audit log


def test_the_audit_log_pages_newest_first_and_shows_one_tenant(
    api: Api, tenant: World, other_tenant: World
) -> None:
    for role in ("admin", "owner", "member", "admin"):
        api.patch(f"members/{tenant.member.user_id}", {"role": role}, key=tenant.owner.key)
    page, seen = "audit?limit=2&object_type=member", []
    while page:
        answer = api.get(page, key=tenant.owner.key).json()
        seen += answer["results"]
        page = answer["next"]
    changes = [entry["after"]["role"] for entry in seen if entry["action"] == "member.change-role"]
    assert changes == ["admin", "member", "owner", "admin"]
    assert len({entry["id"] for entry in seen}) == len(seen)
    foreign = {"object_id": str(other_tenant.id)}
    found = api.get("audit", key=tenant.owner.key, query=foreign).json()
    assert found == {"results": [], "next": None}


@pytest.mark.parametrize("value", ["", " ", "\x00", "a\nb", "x" * 201])
@pytest.mark.parametrize("name", ["object_type", "object_id", "actor"])
def test_a_wrong_audit_filter_is_422(api: Api, tenant: World, name: str, value: str) -> None:
    response = api.get("audit", key=tenant.owner.key, query={name: value})
    body = problem(response, 422, "invalid_request")
    assert body["errors"][0]["pointer"] == f"/{name}"


# Operations


def test_a_tenant_is_created_with_an_audit_entry_and_found_by_its_slug() -> None:
    tenant_id, slug = new_id(), f"n-{new_id().hex[-12:]}"
    create_tenant(tenant_id=tenant_id, slug=slug, name="New", now=NOW)
    assert find_tenant_id(slug) == tenant_id
    with reading(tenant_id):
        assert AuditEntry.objects.get(tenant_id=tenant_id).action == "tenant.create"
    again = new_id()
    with pytest.raises(TenantExists):
        create_tenant(tenant_id=again, slug=slug, name="Other", now=NOW)
    with reading(again):
        assert not Tenant.objects.filter(pk=again).exists()
        assert not AuditEntry.objects.filter(tenant_id=again).exists()


@pytest.mark.parametrize("slug", ["", "A", "-a", "a-", "a_b", "a" * 64, "a\n", "\x00", "ä"])
def test_a_wrong_slug_creates_nothing(slug: str) -> None:
    tenant_id = new_id()
    with pytest.raises(InvalidRequest) as refused:
        create_tenant(tenant_id=tenant_id, slug=slug, name="New", now=NOW)
    assert refused.value.errors[0].pointer == "/slug"
    assert find_tenant_id(slug) is None


def test_a_person_has_a_hashed_password_or_none(database: None) -> None:
    name = f"p-{new_id().hex}"
    person = operations.create_user(
        username=name, password="correct horse battery", now=NOW, is_staff=True
    )
    assert person.check_password("correct horse battery")
    assert "correct" not in person.password
    assert (person.is_staff, person.is_superuser, person.date_joined) == (True, False, NOW)
    with pytest.raises(operations.UserExists):
        operations.create_user(username=name, password=None, now=NOW)
    with pytest.raises(InvalidRequest):
        operations.create_user(username=name + "2", password="short", now=NOW)
    assert not User.objects.filter(username=name + "2").exists()


def test_tenants_of_a_person_are_those_they_belong_to(tenant: World, other_tenant: World) -> None:
    actor = Actor(other_tenant.id, "system:test", None, NOW)
    operations.add_member(actor=actor, person_id=tenant.admin.user_id, role="member")
    found = [(row.tenant_id, row.role) for row in queries.tenants_of(tenant.admin.user_id)]
    assert sorted(found) == sorted([(tenant.id, "admin"), (other_tenant.id, "member")])
    User.objects.filter(pk=tenant.admin.user_id).update(is_active=False)
    assert queries.tenants_of(tenant.admin.user_id) == []


@pytest.mark.parametrize(
    "principal_id", ["user:{admin}", "key:{admin_key}", "key:" + str(uuid.UUID(int=5)), "job:x"]
)
def test_an_actor_gives_no_more_than_they_have(tenant: World, principal_id: str) -> None:
    name = principal_id.format(admin=tenant.admin.user_id, admin_key=tenant.admin.key_id)
    actor = Actor(tenant.id, name, None, datetime.now(UTC))
    before = (roles(tenant), audit_count(tenant))
    with pytest.raises(NotAllowed):
        operations.admit_member(actor=actor, username="x", role="owner")
    with pytest.raises(NotAllowed):
        operations.change_role(actor=actor, person_id=tenant.owner.user_id, role="member")
    with pytest.raises(NotAllowed):
        operations.rotate_api_key(actor=actor, key_id=tenant.owner.key_id, random_bytes=b"r" * 44)
    assert (roles(tenant), audit_count(tenant)) == before


@pytest.mark.parametrize("change", [{"revoked_at": NOW}, {"expires_at": NOW}])
def test_a_key_that_ended_meanwhile_gives_nothing(tenant: World, change: dict[str, Any]) -> None:
    with transaction(tenant.id):
        ApiKey.objects.filter(pk=tenant.owner.key_id).update(**change)
    actor = Actor(tenant.id, f"key:{tenant.owner.key_id}", None, datetime.now(UTC))
    with pytest.raises(NotAllowed):
        operations.change_role(actor=actor, person_id=tenant.member.user_id, role="admin")
    assert roles(tenant)[tenant.member.user_id] == "member"


def test_a_foreign_key_is_not_rotated_or_revoked(tenant: World, other_tenant: World) -> None:
    actor = Actor(tenant.id, "system:test", None, NOW)
    foreign = other_tenant.owner.key_id
    with pytest.raises(NotFound):
        operations.rotate_api_key(actor=actor, key_id=foreign, random_bytes=b"r" * 44)
    with pytest.raises(NotFound):
        operations.revoke_api_key(actor=actor, key_id=foreign)
    principal = queries.find_key_principal(read_key_text(other_tenant.owner.key))  # type: ignore[arg-type]
    assert principal == other_tenant.owner.principal


# Commands


def test_create_tenant_prints_a_key_that_works(api: Api, database: None) -> None:
    slug, out = f"c-{new_id().hex[-12:]}", StringIO()
    call_command("create_tenant", slug, name="C", owner=f"o@{slug}", stdout=out)
    key = out.getvalue().split("api key: ")[1].strip()
    assert api.get("members", key=key).json()["results"][0]["role"] == "owner"
    err = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("create_tenant", slug, name="C", owner=f"p@{slug}", stderr=err)
    assert ended.value.code == 1
    assert "already" in err.getvalue()
    assert not User.objects.filter(username=f"p@{slug}").exists()


@pytest.mark.parametrize(
    ("slug", "owner", "named"), [("Bad Slug", "o", "slug"), ("good-slug-x", "o o", "username")]
)
def test_create_tenant_refuses_bad_names(slug: str, owner: str, named: str) -> None:
    err = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("create_tenant", slug, name="C", owner=owner, stderr=err)
    assert ended.value.code == 1
    assert named in err.getvalue()
    assert find_tenant_id(slug) is None


def test_check_api_auth_passes_on_the_routes_that_are(database: None) -> None:
    out = StringIO()
    call_command("check_api_auth", stdout=out)
    assert "authenticated" in out.getvalue()
    patterns = {route.pattern for route in routes.list_routes()}
    assert "/api/v1/enforcement/members" in patterns
    assert "/admin/" in patterns


class OpenToRead(APIView):
    permission_classes = (RequireRole("member"),)

    def get_permissions(self) -> list[Any]:
        return [AllowAny()] if self.request.method == "GET" else super().get_permissions()

    def get(self, request: Request) -> Response:
        return Response({})

    post = get


class NoAuthentication(APIView):
    authentication_classes = ()

    def get(self, request: Request) -> Response:
        return Response({})


def page(request: Any, **parameters: str) -> HttpResponse:
    return HttpResponse("for everybody")


urlpatterns = [
    to("api/v1/open", OpenToRead.as_view()),
    to("api/v1/none", NoAuthentication.as_view()),
    to("api/page", page),
    to("page/<int:number>", page),
    to("health", LiveView.as_view()),
]


def test_check_api_auth_names_each_open_route(database: None) -> None:
    err = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("check_api_auth", urlconf=__name__, stderr=err)
    assert ended.value.code == 1
    lines = err.getvalue().splitlines()
    assert "/api/v1/open: GET is answered without credentials" in lines
    assert "/api/v1/none: takes credentials other than API keys, or of several kinds" in lines
    assert "/api/page: is below /api and not an API view" in lines
    assert "/page/<int:number>: answers 200 without a signed-in user" in lines
    assert "/health/live: on the public list, but no such route" in lines
    assert not any(line.startswith("/health:") for line in lines)


def test_check_api_auth_is_used_wrongly(database: None) -> None:
    with pytest.raises(SystemExit) as ended:
        call_command("check_api_auth", urlconf="no.such.module", stderr=StringIO())
    assert ended.value.code == 2
