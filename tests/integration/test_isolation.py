"""No tenant sees or changes another's rows, by the database, with the application's filters away.

Every statement here is plain SQL or an unfiltered query, sent as the application's role.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import DatabaseError, connection, models
from psycopg import sql
from pytest_django import DjangoDbBlocker

from governance.identity.domain import read_key_text
from governance.identity.queries import authenticate_key
from governance.models import ApiKey, Membership, User
from tests.assumed import note_uses_ahead
from tests.factories.rows import models_of_truth, plant_rows, tenant_column
from tests.factories.tenants import World, create_world, issue_key
from valdrix.kernel.db import (
    platform_transaction,
    reading,
    sqlstate_of,
    tenant_ids_for_job,
    transaction,
)

NO_TENANT = "VX001"
APPEND_ONLY = "VX002"
NOT_THE_NEXT_ENTRY = "VX003"
NO_JOB = "VX004"
NOT_PERMITTED = "42501"
"""Row-level security's own refusal, and that of a privilege the role does not have."""

# What is in the database with the rights of its owner. A function that is added here needs tests of
# what it gives away.
DEFINER_FUNCTIONS = {
    "enforcement_chain_ledger_entry",
    "enforcement_lock_ledger_head",
    "governance_authenticate_key",
    "governance_changed_keys",
    "governance_find_integration",
    "governance_find_tenant",
    "governance_memberships_of",
    "governance_open_incidents",
    "governance_pending_approvals",
    "governance_tenants_for_job",
}

each_tenant_table = pytest.mark.parametrize(
    "model", models_of_truth(), ids=lambda model: model._meta.db_table
)


@dataclass(frozen=True)
class Pair:
    """Two tenants with rows in every table."""

    own: World
    foreign: World


@pytest.fixture(scope="module")
def pair(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Pair:
    """Give two tenants with rows everywhere; no test of this module can change them."""
    with django_db_blocker.unblock():
        made = Pair(own=create_world(), foreign=create_world())
        plant_rows(made.own)
        plant_rows(made.foreign)
        return made


@contextmanager
def refused(*sqlstates: str) -> Iterator[None]:
    """Expect the database to refuse what the block does, with one of these SQLSTATEs."""
    with pytest.raises(DatabaseError) as caught:
        yield
    assert sqlstate_of(caught.value) in sqlstates, caught.value


def execute(statement: sql.Composable | str, parameters: list[Any] | None = None) -> int:
    """Execute a statement on the application's connection and return how many rows it touched."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.rowcount


def fetch_all(statement: sql.Composable | str, parameters: list[Any] | None = None) -> list[Any]:
    """Execute a query on the application's connection and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def fill(template: str, model: type[models.Model]) -> sql.Composed:
    """Put a model's table, tenant column and primary key into a statement."""
    column = tenant_column(model)
    assert column is not None
    return sql.SQL(template).format(
        table=sql.Identifier(model._meta.db_table),
        tenant=sql.Identifier(column),
        pk=sql.Identifier(model._meta.pk.column),
    )


def rows_of(world: World, model: type[models.Model]) -> list[Any]:
    with reading(world.id):
        return fetch_all(fill("SELECT * FROM {table} ORDER BY {pk}", model))


def pks_of(world: World, model: type[models.Model]) -> list[Any]:
    with reading(world.id):
        return [row[0] for row in fetch_all(fill("SELECT {pk} FROM {table}", model))]


@contextmanager
def nothing_changes(pair: Pair, model: type[models.Model]) -> Iterator[None]:
    """Assert that neither tenant's rows of a table are different after the block."""
    before = rows_of(pair.own, model), rows_of(pair.foreign, model)
    assert before[0], "nothing was planted, so nothing would be shown"
    assert before[1], "nothing was planted, so nothing would be shown"
    yield
    assert (rows_of(pair.own, model), rows_of(pair.foreign, model)) == before


@each_tenant_table
def test_a_query_without_a_filter_gives_own_rows_only(
    model: type[models.Model], pair: Pair
) -> None:
    foreign_pks = pks_of(pair.foreign, model)
    assert foreign_pks
    with reading(pair.own.id):
        tenants = fetch_all(fill("SELECT DISTINCT {tenant} FROM {table}", model))
        assert tenants == [(pair.own.id,)]
        by_pk = fill("SELECT count(*) FROM {table} WHERE {pk} = ANY(%s)", model)
        assert fetch_all(by_pk, [foreign_pks]) == [(0,)]
        through_models = model._default_manager.values_list(tenant_column(model), flat=True)
        assert set(through_models) == {pair.own.id}


@each_tenant_table
def test_a_row_cannot_be_inserted_for_another_tenant(model: type[models.Model], pair: Pair) -> None:
    with transaction(pair.foreign.id):
        columns = [field.column for field in model._meta.local_concrete_fields]
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        table = sql.Identifier(model._meta.db_table)
        (row,) = fetch_all(sql.SQL("SELECT to_jsonb(t)::text FROM {} t LIMIT 1").format(table))
    insert = sql.SQL(
        "INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE"
        " SELECT {names} FROM jsonb_populate_record(NULL::{table}, %s::jsonb)"
    ).format(table=table, names=names)
    with (
        nothing_changes(pair, model),
        # The ledger's own trigger speaks before row-level security does.
        refused(NOT_PERMITTED, NOT_THE_NEXT_ENTRY),
        transaction(pair.own.id),
    ):
        execute(insert, [row[0]])


@each_tenant_table
def test_another_tenant_s_rows_cannot_be_updated(model: type[models.Model], pair: Pair) -> None:
    foreign_pks = pks_of(pair.foreign, model)
    update = fill("UPDATE {table} SET {tenant} = {tenant} WHERE {pk} = ANY(%s)", model)
    with nothing_changes(pair, model):
        assert touched_by(pair.own, update, [foreign_pks]) == 0


@each_tenant_table
def test_another_tenant_s_rows_cannot_be_deleted(model: type[models.Model], pair: Pair) -> None:
    foreign_pks = pks_of(pair.foreign, model)
    delete = fill("DELETE FROM {table} WHERE {pk} = ANY(%s)", model)
    with nothing_changes(pair, model):
        assert touched_by(pair.own, delete, [foreign_pks]) == 0


@each_tenant_table
def test_a_row_cannot_be_given_to_another_tenant(model: type[models.Model], pair: Pair) -> None:
    own_pk = pks_of(pair.own, model)[0]
    give = fill("UPDATE {table} SET {tenant} = %s WHERE {pk} = %s", model)
    with (
        nothing_changes(pair, model),
        refused(NOT_PERMITTED, APPEND_ONLY),
        transaction(pair.own.id),
    ):
        execute(give, [pair.foreign.id, own_pk])


@each_tenant_table
def test_without_a_tenant_every_statement_raises(model: type[models.Model], pair: Pair) -> None:
    # An empty answer would look right.
    for template in (
        "SELECT {pk} FROM {table}",
        "SELECT count(*) FROM {table}",
        "SELECT EXISTS (SELECT FROM {table})",
    ):
        with refused(NO_TENANT):
            execute(fill(template, model))
        with refused(NO_TENANT), platform_transaction():
            execute(fill(template, model))
    with nothing_changes(pair, model):
        for template in (
            "INSERT INTO {table} SELECT * FROM {table}",
            "UPDATE {table} SET {tenant} = {tenant}",
            "DELETE FROM {table}",
        ):
            # Some tables do not permit the verb in the first place.
            with refused(NO_TENANT, NOT_PERMITTED):
                execute(fill(template, model))


def test_an_empty_database_raises_without_a_tenant_too(owner_cursor: psycopg.Cursor) -> None:
    name = f"{connection.settings_dict['NAME']}_empty"
    identifier = sql.Identifier(name)
    owner_cursor.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
    try:
        environment = {
            variable: with_database(os.environ[variable], name)
            for variable in ("DATABASE_URL", "DATABASE_OWNER_URL")
        }
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity=0"],
            env=os.environ | environment,
            cwd=settings.BASE_DIR,
            check=True,
            timeout=120,
        )
        with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as application:
            for model in models_of_truth():
                with pytest.raises(psycopg.Error) as caught:
                    application.execute(fill("SELECT count(*) FROM {table}", model))
                assert caught.value.sqlstate == NO_TENANT, model
    finally:
        owner_cursor.execute(sql.SQL("DROP DATABASE {}").format(identifier))


def with_database(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}"


def test_a_tenant_ends_with_its_transaction(pair: Pair) -> None:
    membership = "SELECT count(*) FROM governance_membership"
    with transaction(pair.own.id):
        backend = fetch_all("SELECT pg_backend_pid()")
        assert fetch_all(membership) == [(3,)]
    assert fetch_all("SELECT pg_backend_pid()") == backend, "not the same session"
    with refused(NO_TENANT):
        fetch_all(membership)
    with transaction(pair.foreign.id):
        tenants = fetch_all("SELECT DISTINCT tenant_id FROM governance_membership")
    assert tenants == [(pair.foreign.id,)]
    assert fetch_all("SELECT pg_backend_pid()") == backend, "not the same session"


def test_a_tenant_ends_with_a_transaction_that_fails(pair: Pair) -> None:
    with refused("22012"), transaction(pair.own.id):
        execute("SELECT 1 / 0")
    with refused(NO_TENANT):
        fetch_all("SELECT count(*) FROM governance_membership")


def test_time_limits_end_with_their_transaction(pair: Pair) -> None:
    limits = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
    before = fetch_all(limits)
    with transaction(pair.own.id):
        assert fetch_all(limits) == [("5s", "30s")]
    assert fetch_all(limits) == before


def test_functions_with_the_owner_s_rights_are_these() -> None:
    found = fetch_all(
        "SELECT p.proname, pg_get_userbyid(p.proowner), p.proconfig FROM pg_proc p"
        " JOIN pg_namespace n ON n.oid = p.pronamespace"
        " WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    )
    assert {name for name, _, _ in found} == DEFINER_FUNCTIONS
    for name, owner, configuration in found:
        assert owner == settings.DATABASES["owner"]["USER"], name
        # Otherwise the caller's own schema could stand in for the tables they read.
        assert configuration == ["search_path=pg_catalog, public, pg_temp"], name


def authenticate(text: str) -> list[Any]:
    read = read_key_text(text)
    assert read is not None
    return fetch_all(
        "SELECT tenant_id, key_id, person_id, key_role, membership_role"
        " FROM governance_authenticate_key(%s, %s)",
        [read.lookup, read.digest],
    )


def test_a_key_is_looked_up_by_its_digest_and_gives_its_own_tenant(pair: Pair) -> None:
    member = pair.own.member
    found = [(pair.own.id, member.key_id, member.user_id, "member", "member")]
    assert authenticate(member.key) == found
    # With another tenant set the answer is the same: the key decides, not the session.
    with transaction(pair.foreign.id):
        assert authenticate(member.key) == found


def test_a_key_s_public_part_alone_finds_nothing(pair: Pair) -> None:
    own, foreign = read_key_text(pair.own.key), read_key_text(pair.foreign.key)
    assert own is not None
    assert foreign is not None
    look_up = "SELECT * FROM governance_authenticate_key(%s, %s)"
    for lookup, digest in (
        (own.lookup, foreign.digest),
        (own.lookup, b""),
        (own.lookup, None),
        (None, own.digest),
        ("%", own.digest),
        ("____________", own.digest),
    ):
        assert fetch_all(look_up, [lookup, digest]) == []


def changed_keys(*told: Any) -> Any:
    return fetch_all("SELECT governance_changed_keys(%s::jsonb)", [json.dumps(told)])[0][0]


def told_of(text: str) -> list[Any]:
    """Return what a process remembers of a key that it authenticated just now."""
    read = read_key_text(text)
    assert read is not None
    told = authenticate_key(read)
    assert told is not None
    found: list[Any] = json.loads(told.text)
    return found


def test_what_is_confirmed_of_a_key_takes_its_digest_and_everything_about_it(pair: Pair) -> None:
    own, foreign = told_of(pair.own.key), told_of(pair.foreign.key)
    note_uses_ahead(pair.own)
    note_uses_ahead(pair.foreign)
    lookup, digest, row = own
    assert changed_keys() == []
    assert changed_keys(own, foreign) == []
    # With another tenant set the answer is the same: the key decides, not the session.
    with transaction(pair.foreign.id):
        assert changed_keys(foreign, own) == []
    for other in (
        [lookup, foreign[1], row],
        [lookup, "", row],
        [lookup, None, row],
        [None, digest, row],
        ["%", digest, row],
        [lookup, digest],
        [lookup, digest, None],
        [lookup, digest, {}],
        [],
        None,
    ):
        assert changed_keys(own, other, foreign) == [1], other
    for place, value in enumerate(row):
        wrong = [*row[:place], [value], *row[place + 1 :]]
        assert changed_keys([lookup, digest, wrong], own) == [0]


def test_a_key_whose_use_is_to_be_noted_is_not_confirmed(tenant: World) -> None:
    told = told_of(tenant.key)
    for seconds, confirmed in ((3600, True), (-61, False), (None, False)):
        at = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
        with transaction(tenant.id):
            ApiKey.objects.filter(id=tenant.member.key_id).update(last_used_at=at)
        assert (changed_keys(told) == []) is confirmed
        assert (noted_by_authentication(tenant) == at) is confirmed


def noted_by_authentication(tenant: World) -> datetime | None:
    authenticate(tenant.key)
    with reading(tenant.id):
        return ApiKey.objects.get(id=tenant.member.key_id).last_used_at


@pytest.mark.parametrize("end", ["revoke", "expire", "deactivate", "remove"])
def test_a_key_that_ended_finds_nothing(end: str, tenant: World) -> None:
    member = tenant.member
    assert len(authenticate(member.key)) == 1
    told = [told_of(tenant.admin.key), told_of(member.key)]
    note_uses_ahead(tenant)
    assert changed_keys(*told) == []
    past = datetime.now(UTC) - timedelta(seconds=1)
    with transaction(tenant.id):
        own_key = ApiKey.objects.filter(id=member.key_id)
        if end == "revoke":
            assert own_key.update(revoked_at=past) == 1
        elif end == "expire":
            assert own_key.update(expires_at=past) == 1
        elif end == "deactivate":
            assert User.objects.filter(id=member.user_id).update(is_active=False) == 1
        else:
            assert Membership.objects.filter(user_id=member.user_id).delete()[0] == 1
    assert authenticate(member.key) == []
    assert changed_keys(*told) == [1]
    assert len(authenticate(tenant.admin.key)) == 1


def test_a_key_that_expires_later_still_works(tenant: World) -> None:
    _, text = issue_key(
        tenant.id,
        name="short-lived",
        role="member",
        person_id=tenant.member.user_id,
        expires_at=datetime.now(UTC) + timedelta(minutes=5),
    )
    assert len(authenticate(text)) == 1


def test_memberships_are_those_of_the_person_asked_for(pair: Pair) -> None:
    look_up = "SELECT tenant_id, tenant_slug, role FROM governance_memberships_of(%s)"
    owner = pair.own.owner.user_id
    assert fetch_all(look_up, [owner]) == [(pair.own.id, pair.own.slug, "owner")]
    assert fetch_all(look_up, [None]) == []
    assert fetch_all(look_up, [-1]) == []


def test_a_tenant_is_found_by_its_exact_slug_only(pair: Pair) -> None:
    look_up = "SELECT governance_find_tenant(%s)"
    assert fetch_all(look_up, [pair.foreign.slug]) == [(pair.foreign.id,)]
    for slug in ("%", pair.foreign.slug[:-1] + "_", pair.foreign.slug.upper(), "", None):
        assert fetch_all(look_up, [slug]) == [(None,)]


def test_only_a_named_job_may_list_tenants(pair: Pair) -> None:
    everyone = "SELECT tenant_id FROM governance_tenants_for_job()"
    with refused(NO_JOB):
        fetch_all(everyone)
    with refused(NO_JOB), transaction(pair.own.id):
        fetch_all(everyone)
    assert {pair.own.id, pair.foreign.id} <= set(tenant_ids_for_job("test"))
    with refused(NO_JOB):
        fetch_all(everyone)


def test_the_ledger_s_head_is_that_of_the_transaction_s_tenant(pair: Pair) -> None:
    lock = "SELECT sequence, entry_hash FROM enforcement_lock_ledger_head()"
    with refused(NO_TENANT):
        fetch_all(lock)
    with transaction(pair.own.id):
        own = fetch_all("SELECT sequence, entry_hash FROM enforcement_ledger_head")
        assert fetch_all(lock) == own


def test_a_caller_s_temporary_table_does_not_stand_in_for_a_real_one(pair: Pair) -> None:
    try:
        execute("CREATE TEMPORARY TABLE governance_tenant (id uuid, slug text)")
        execute("INSERT INTO pg_temp.governance_tenant VALUES (%s, 'planted')", [pair.foreign.id])
        assert fetch_all("SELECT governance_find_tenant('planted')") == [(None,)]
    finally:
        execute("DROP TABLE IF EXISTS pg_temp.governance_tenant")


ROLE_TRICKS = {
    "become the owner": "SET ROLE {owner}",
    "be the owner's session": "SET SESSION AUTHORIZATION {owner}",
    "join the owner's role": "GRANT {owner} TO {app}",
    "bypass row-level security": "ALTER ROLE {app} BYPASSRLS",
    "be a superuser": "ALTER ROLE {app} SUPERUSER",
    "make a role": "CREATE ROLE valdrix_other",
    "set a tenant for everybody": "ALTER ROLE ALL SET valdrix.tenant = ''",
    "disable row-level security": "ALTER TABLE billing_account DISABLE ROW LEVEL SECURITY",
    "drop the policy": "DROP POLICY tenant_isolation ON billing_account",
    "widen the policy": "ALTER POLICY tenant_isolation ON billing_account USING (true)",
    "add a policy": "CREATE POLICY all_rows ON billing_account USING (true)",
    "own the table": "ALTER TABLE billing_account OWNER TO {app}",
    "replace the tenant's function": (
        "CREATE OR REPLACE FUNCTION valdrix_current_tenant() RETURNS uuid"
        " LANGUAGE sql AS 'SELECT NULL::uuid'"
    ),
    "make a table": "CREATE TABLE public.valdrix_other (id int)",
    "make a view": "CREATE VIEW public.valdrix_other AS SELECT 1 AS one",
    "empty the table": "TRUNCATE billing_daily_cost",
    "switch triggers off": "SET session_replication_role = replica",
    "read files of the server": "COPY billing_daily_cost FROM '/etc/passwd'",
}


@pytest.mark.parametrize("trick", ROLE_TRICKS)
def test_the_application_cannot_give_itself_more(trick: str, pair: Pair) -> None:
    roles = {
        "owner": sql.Identifier(settings.DATABASES["owner"]["USER"]),
        "app": sql.Identifier(settings.DATABASES["default"]["USER"]),
    }
    statement = sql.SQL(ROLE_TRICKS[trick]).format(**roles)
    powers = (
        "SELECT current_user, session_user, rolsuper, rolbypassrls, rolcreaterole,"
        " (SELECT array_agg(relrowsecurity ORDER BY relname) FROM pg_class WHERE relkind = 'r'"
        "   AND relnamespace = 'public'::regnamespace),"
        " (SELECT array_agg(polname || pg_get_expr(polqual, polrelid) ORDER BY polrelid)"
        "    FROM pg_policy),"
        " (SELECT prosrc FROM pg_proc WHERE proname = 'valdrix_current_tenant'),"
        " current_setting('session_replication_role')"
        " FROM pg_roles WHERE rolname = current_user"
    )
    before = fetch_all(powers)
    with refused(NOT_PERMITTED), transaction(pair.own.id):
        execute(statement)
    assert fetch_all(powers) == before
    with reading(pair.own.id):
        tenants = fetch_all("SELECT DISTINCT tenant_id FROM billing_account")
    assert tenants == [(pair.own.id,)]


def test_a_grant_to_itself_grants_nothing(pair: Pair) -> None:
    privileges = (
        "SELECT has_table_privilege(current_user, 'enforcement_ledger_head', 'INSERT'),"
        " has_table_privilege(current_user, 'enforcement_ledger_head', 'UPDATE'),"
        " has_table_privilege(current_user, 'enforcement_ledger_head', 'SELECT')"
    )
    assert fetch_all(privileges) == [(False, False, True)]
    with transaction(pair.own.id):
        # PostgreSQL warns, rather than raises, when there is nothing that may be granted.
        execute("GRANT ALL ON enforcement_ledger_head TO CURRENT_USER")
    assert fetch_all(privileges) == [(False, False, True)]


def test_asking_for_row_security_off_raises_rather_than_shows(pair: Pair) -> None:
    with refused(NOT_PERMITTED), transaction(pair.own.id):
        execute("SET LOCAL row_security = off")
        fetch_all("SELECT * FROM billing_account")


def test_copy_out_gives_own_rows_only(pair: Pair) -> None:
    query = "COPY (SELECT tenant_id FROM billing_account) TO STDOUT"
    with reading(pair.own.id), connection.cursor() as cursor, cursor.copy(query) as copy:
        tenants = {bytes(row).decode().strip() for row in copy}
    assert tenants == {str(pair.own.id)}


def touched_by(world: World, statement: sql.Composed, parameters: list[Any]) -> int:
    """Return how many rows a tenant's statement touched; 0 when the verb is not permitted at all."""
    try:
        with transaction(world.id):
            return execute(statement, parameters)
    except DatabaseError as error:
        if sqlstate_of(error) != NOT_PERMITTED:
            raise
        return 0


def test_own_rows_can_be_changed(pair: Pair) -> None:
    # Otherwise the refusals above would show nothing.
    with transaction(pair.own.id):
        assert execute("UPDATE billing_account SET reason = reason WHERE kind = 'grant'") == 1
        assert execute("UPDATE governance_membership SET role = role") == 3
