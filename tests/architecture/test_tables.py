"""What the database itself enforces is in force on every table that needs it.

Read from the catalogue, so that a table made by any migration is seen. Each check is also run on
tables planted in a transaction that is rolled back.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from django.conf import settings

from tests.factories.rows import tenant_column, tenant_models
from tests.integration.test_append_only import APPEND_ONLY_MODELS

# Tables whose rows belong to no tenant.
SHARED = {
    "auth_group",
    "auth_group_permissions",
    "auth_permission",
    "django_admin_log",
    "django_content_type",
    "django_migrations",
    "django_session",
    "governance_recovery_code",
    "governance_second_factor",
    "governance_sign_in_slot",
    "governance_token_key",
    "governance_user",
    "governance_user_groups",
    "governance_user_user_permissions",
    "telemetry_switch",
    "valdrix_job_run",
}
APPEND_ONLY = {
    "billing_budget_alert",
    "billing_cost_ingestion",
    "billing_settlement",
    "enforcement_decision",
    "enforcement_ledger_entry",
    "governance_audit_entry",
    "governance_forced_mode",
    "governance_policy_version",
    "governance_review",
}

TABLES = (
    "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
    " AND c.relkind IN ('r', 'p')"
)
UNPROTECTED = """
SELECT c.relname FROM pg_class c
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
   AND NOT c.relname = ANY(%(shared)s)
   AND NOT (c.relrowsecurity
            AND (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid) = 1
            AND EXISTS (
                SELECT FROM pg_policy p
                 WHERE p.polrelid = c.oid AND p.polcmd = '*' AND p.polroles = '{0}'
                   AND pg_get_expr(p.polqual, p.polrelid) ~ %(condition)s
                   AND pg_get_expr(p.polwithcheck, p.polrelid) ~ %(condition)s))
"""
CONDITION = r"^\((tenant_id|id) = valdrix_current_tenant\(\)\)$"
NOT_APPEND_ONLY = """
SELECT c.relname FROM pg_class c
 WHERE c.relname = ANY(%(tables)s)
   AND 2 <> (SELECT count(*) FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid
              WHERE t.tgrelid = c.oid AND t.tgenabled = 'A' AND t.tgqual IS NULL
                AND f.proname = 'valdrix_refuse_change'
                -- row, before, delete and update; statement, before, truncate
                AND t.tgtype IN (1 | 2 | 8 | 16, 2 | 32))
"""
WITH_TRIGGER = """
SELECT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
  JOIN pg_proc f ON f.oid = t.tgfoid WHERE f.proname = 'valdrix_refuse_change'
"""
OWNED_BY_APPLICATION = """
SELECT 'relation ' || relname FROM pg_class WHERE relowner = %(role)s::regrole
UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE proowner = %(role)s::regrole
UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspowner = %(role)s::regrole
UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typowner = %(role)s::regrole
UNION ALL SELECT 'database ' || datname FROM pg_database WHERE datdba = %(role)s::regrole
UNION ALL SELECT 'member of ' || pg_get_userbyid(roleid)
            FROM pg_auth_members WHERE member = %(role)s::regrole
"""


@pytest.fixture
def planting(owner_cursor: psycopg.Cursor) -> Iterator[psycopg.Cursor]:
    """Give the owner's cursor in a transaction that leaves nothing behind."""
    with owner_cursor.connection.transaction(force_rollback=True):
        yield owner_cursor


def names(cursor: psycopg.Cursor, query: str, **parameters: object) -> set[str]:
    return {row[0] for row in cursor.execute(query, parameters).fetchall()}


def find_unprotected(cursor: psycopg.Cursor) -> set[str]:
    return names(cursor, UNPROTECTED, shared=sorted(SHARED), condition=CONDITION)


def find_not_append_only(cursor: psycopg.Cursor) -> set[str]:
    return names(cursor, NOT_APPEND_ONLY, tables=sorted(APPEND_ONLY))


def find_owned(cursor: psycopg.Cursor) -> set[str]:
    return names(cursor, OWNED_BY_APPLICATION, role=settings.DATABASES["default"]["USER"])


def test_every_table_is_one_tenant_s_or_known_to_be_shared(owner_cursor: psycopg.Cursor) -> None:
    of_tenants = {model._meta.db_table for model in tenant_models()}
    assert names(owner_cursor, TABLES) == of_tenants | SHARED
    assert not of_tenants & SHARED


def test_the_tenant_s_column_is_never_null() -> None:
    for model in tenant_models():
        column = tenant_column(model)
        (field,) = [field for field in model._meta.local_concrete_fields if field.column == column]
        assert not field.null, model


def test_every_tenant_s_table_is_protected(owner_cursor: psycopg.Cursor) -> None:
    assert find_unprotected(owner_cursor) == set()


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE planted (tenant_id uuid)"],
        ["CREATE TABLE planted (tenant_id uuid)", "ALTER TABLE planted ENABLE ROW LEVEL SECURITY"],
        [
            "CREATE TABLE planted (tenant_id uuid)",
            (
                "CREATE POLICY p ON planted USING (tenant_id = valdrix_current_tenant())"
                " WITH CHECK (tenant_id = valdrix_current_tenant())"
            ),
        ],
        [
            "CREATE TABLE planted (tenant_id uuid)",
            "ALTER TABLE planted ENABLE ROW LEVEL SECURITY",
            (
                "CREATE POLICY p ON planted USING (tenant_id = valdrix_current_tenant())"
                " WITH CHECK (true)"
            ),
        ],
        [
            "CREATE TABLE planted (tenant_id uuid)",
            "ALTER TABLE planted ENABLE ROW LEVEL SECURITY",
            (
                "CREATE POLICY p ON planted USING (tenant_id = valdrix_current_tenant())"
                " WITH CHECK (tenant_id = valdrix_current_tenant())"
            ),
            "CREATE POLICY q ON planted USING (true)",
        ],
        ["ALTER TABLE billing_account DISABLE ROW LEVEL SECURITY"],
        ["DROP POLICY tenant_isolation ON billing_account"],
    ],
)
def test_an_unprotected_table_is_found(statements: list[str], planting: psycopg.Cursor) -> None:
    for statement in statements:
        planting.execute(statement)
    expected = "planted" if "planted" in statements[0] else "billing_account"
    assert find_unprotected(planting) == {expected}


def test_append_only_tables_refuse_by_trigger_always(owner_cursor: psycopg.Cursor) -> None:
    # tests/integration/test_append_only.py goes through the same tables.
    assert names(owner_cursor, WITH_TRIGGER) == APPEND_ONLY
    assert {model._meta.db_table for model in APPEND_ONLY_MODELS} == APPEND_ONLY
    assert find_not_append_only(owner_cursor) == set()


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER enforcement_decision_no_change ON enforcement_decision",
        "DROP TRIGGER enforcement_decision_no_truncate ON enforcement_decision",
        "ALTER TABLE enforcement_decision DISABLE TRIGGER enforcement_decision_no_change",
        "ALTER TABLE enforcement_decision ENABLE TRIGGER enforcement_decision_no_change",
        "ALTER TABLE enforcement_decision ENABLE REPLICA TRIGGER enforcement_decision_no_truncate",
    ],
)
def test_a_missing_trigger_is_found(statement: str, planting: psycopg.Cursor) -> None:
    planting.execute(statement)
    assert find_not_append_only(planting) == {"enforcement_decision"}


def test_the_application_s_role_owns_nothing(owner_cursor: psycopg.Cursor) -> None:
    assert find_owned(owner_cursor) == set()


def test_an_object_of_the_application_s_role_is_found(superuser_dsn: str) -> None:
    role = settings.DATABASES["default"]["USER"]
    with (
        psycopg.connect(superuser_dsn, autocommit=True) as superuser,
        superuser.transaction(force_rollback=True),
        superuser.cursor() as cursor,
    ):
        cursor.execute("CREATE TABLE planted (id int)")
        cursor.execute(f"ALTER TABLE planted OWNER TO {role}")
        assert "relation planted" in find_owned(cursor)


def test_there_are_no_views_that_see_past_the_policies(owner_cursor: psycopg.Cursor) -> None:
    # A view reads with its owner's rights unless it says security_invoker.
    query = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND (relkind = 'm' OR relkind = 'v'"
        "      AND NOT coalesce(reloptions, '{}') @> '{security_invoker=true}')"
    )
    assert names(owner_cursor, query) == set()
    with owner_cursor.connection.transaction(force_rollback=True):
        owner_cursor.execute("CREATE VIEW planted AS SELECT 1 AS one")
        owner_cursor.execute("CREATE VIEW harmless WITH (security_invoker=true) AS SELECT 1 AS one")
        assert names(owner_cursor, query) == {"planted"}
