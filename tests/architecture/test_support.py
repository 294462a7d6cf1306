"""What the tests lean on does what they believe."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from tests.client import Api
from tests.factories.tenants import World
from tests.programs import REQUIRE, require_program
from tests.threads import run_in_threads


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
