"""The tests themselves run as the application does: under its role, on a real PostgreSQL."""

from __future__ import annotations

import random
import time

import pytest
from django.db import DatabaseError, InterfaceError, connection

from governance.models import ApiKey
from tests.factories.tenants import World
from valdrix.kernel.db import TimeLimits, answer_to, is_database_down, reading, time_limit


def test_tests_run_as_the_application_s_role() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_user, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb,"
            " pg_has_role(current_user, (SELECT datdba FROM pg_database"
            "                             WHERE datname = current_database()), 'MEMBER')"
            " FROM pg_roles WHERE rolname = current_user"
        )
        user, *powers = cursor.fetchone()
    assert user == connection.settings_dict["USER"]
    assert connection.alias == "default"
    assert powers[0] is False, "superuser"
    assert powers[1] is False, "bypasses row-level security"
    assert powers[4] is False, "is the owner"


def test_texts_arrive_as_they_are() -> None:
    chance = random.Random(18)
    pieces = ("$v$", "$v", "$", "v", "$$", "\\", "'", '"', "E'", "é", ";\n", "%", "\x01")
    for _ in range(30):
        texts = ["".join(chance.choices(pieces, k=chance.randint(0, 9))) for _ in range(50)]
        marks = ", ".join(["%s::text"] * len(texts))
        assert answer_to(f"SELECT json_build_array({marks})", *texts) == texts


def test_commits_are_real(tenant: World, run_in_threads) -> None:
    def count(number: int) -> int:
        with reading(tenant.id):
            return ApiKey.objects.count()

    assert run_in_threads(3, count) == [3, 3, 3]


def test_a_session_that_the_server_ended_is_an_outage_and_no_fault_of_the_request(
    tenant: World,
) -> None:
    """As after a pause of the whole process: whoever asks again is served."""

    def be_idle_and_read() -> None:
        with reading(tenant.id, limits=TimeLimits(1000, statement_timeout_ms=50)):
            time.sleep(0.5)
            ApiKey.objects.count()

    with pytest.raises((DatabaseError, InterfaceError)) as raised:
        be_idle_and_read()
    assert is_database_down(raised.value)
    connection.close()
    with reading(tenant.id):
        assert ApiKey.objects.count() == 3


def cut_this_threads_connection(tenant: World) -> None:
    """Be slow with an answer that has come, as on a busy machine, until a limit's time is over."""
    with time_limit(0.2):
        with reading(tenant.id):
            assert ApiKey.objects.filter(tenant_id=tenant.id).exists()
        time.sleep(0.5)


def test_a_limit_that_ends_when_the_answer_has_come_costs_the_next_nothing(tenant: World) -> None:
    cut_this_threads_connection(tenant)

    with reading(tenant.id):
        assert ApiKey.objects.filter(tenant_id=tenant.id).exists()


def go_on_after_a_cut(tenant: World) -> None:
    with reading(tenant.id):
        with time_limit(0.2):
            time.sleep(0.5)
        ApiKey.objects.filter(tenant_id=tenant.id).exists()


def test_a_transaction_is_not_gone_on_with_on_another_connection(tenant: World) -> None:
    with pytest.raises(DatabaseError):
        go_on_after_a_cut(tenant)

    with reading(tenant.id):
        assert ApiKey.objects.filter(tenant_id=tenant.id).exists()
