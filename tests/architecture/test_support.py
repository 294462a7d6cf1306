"""What the tests lean on does what they believe."""

from __future__ import annotations

import re
import threading

import pytest
from django.db import connection

from governance.models import ApiKey, User
from tests.client import Api
from tests.factories.rows import models_of_truth, tenant_column
from tests.factories.tenants import World, create_world, found_world
from tests.programs import REQUIRE, require_program
from tests.threads import run_in_threads
from valdrix.kernel.db import reading


def test_an_installed_program_is_found() -> None:
    assert require_program("no-such-program", "sh").endswith("/sh")


def test_a_missing_program_skips_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        require_program("no-such-program")


def test_a_missing_program_fails_where_programs_are_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        require_program("no-such-program")


def test_threads_run_at_the_same_time_and_answer_in_order() -> None:
    together = threading.Barrier(4)

    def meet(number: int) -> int:
        together.wait(10)
        return number

    assert run_in_threads(4, meet) == [0, 1, 2, 3]


def test_an_exception_in_a_thread_is_an_exception_of_the_test() -> None:
    def fail(number: int) -> None:
        if number == 2:
            raise LookupError(number)

    with pytest.raises(LookupError):
        run_in_threads(3, fail)


def test_threads_leave_no_connection_behind() -> None:
    def backend(_: int) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return cursor.fetchone()[0]

    backends = run_in_threads(3, backend)
    assert len(set(backends)) == 3
    with connection.cursor() as cursor:
        # Closing is asynchronous: the server's process may end a moment after the client left.
        cursor.execute("SELECT pg_sleep(0.2)")
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)", [backends])
        assert cursor.fetchone() == (0,)


def test_the_client_signs_in_with_a_key(api: Api, tenant: World) -> None:
    assert api.get("api-keys").status_code == 401
    assert api.get("api-keys", key=tenant.owner.key).status_code == 200
    assert api.get("api-keys", key=tenant.member.key).status_code == 403


def test_the_client_sends_bytes_as_they_are(api: Api, tenant: World) -> None:
    response = api.post("api-keys", b'{"name": ', key=tenant.owner.key)
    assert response.status_code == 400


def test_two_tenants_are_two(tenant: World, other_tenant: World) -> None:
    assert tenant.id != other_tenant.id
    people = {
        person.user_id
        for world in (tenant, other_tenant)
        for person in (world.owner, world.admin, world.member)
    }
    assert len(people) == 6


def rows_of(world: World) -> list[str]:
    """Return all rows of a tenant, with its own names in words and without what differs in any."""
    words = {str(world.id): "TENANT", world.slug: "SLUG"}
    people = {person.user_id: person.role for person in (world.owner, world.admin, world.member)}
    with reading(world.id):
        keys = {key.lookup: key for key in ApiKey.objects.filter(tenant_id=world.id)}
        words |= {one.lookup: f"LOOKUP {people[one.person_id]}" for one in keys.values()}
        words |= {str(one.pk): f"KEY {people[one.person_id]}" for one in keys.values()}
        found = []
        for model in models_of_truth():
            for row in model._base_manager.filter(**{tenant_column(model): world.id}).values():  # type: ignore[misc]
                for name in ("user_id", "person_id"):
                    if name in row:
                        row[name] = people[row[name]]
                if row.get("object_type") == "member":
                    row["object_id"] = people[int(row["object_id"])]
                if isinstance(row.get("after"), dict) and "person_id" in row["after"]:
                    row["after"]["person_id"] = people[row["after"]["person_id"]]
                if row.get("id") not in {world.id, *(key.pk for key in keys.values())}:
                    row.pop("id", None)
                if "digest" in row:
                    row["digest"] = len(row["digest"])
                found.append(f"{model.__name__} {row}")
        users = User.objects.filter(pk__in=people).values("username", "password", "is_active")
        # A password that is not set is random behind its first character.
        found += [f"User {row | {'password': row['password'][0]}}" for row in users]
    for old, new in words.items():
        found = [row.replace(old, new).replace(f"UUID('{new}')", new) for row in found]
    return sorted(re.sub(r"datetime\.datetime\([^)]*\)", "TIME", row) for row in found)


def test_a_tenant_of_the_tests_is_what_the_use_cases_make(database: None) -> None:
    """Another table that they write fails here, until tests/factories/tenants.py knows it."""
    made = rows_of(found_world())
    assert rows_of(create_world()) == made
    assert len(made) == 17


def test_a_key_of_such_a_tenant_speaks_for_its_person(tenant: World, api: Api) -> None:
    assert api.get("budgets", key=tenant.admin.key).status_code == 200
    assert api.get("budgets", key=tenant.admin.key[:-1] + "-").status_code == 401
