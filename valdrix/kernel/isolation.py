"""Isolation: migration operations that make a table one tenant's or append-only by the database.

Row-level security stands behind the application's own filters. Its policy calls
``valdrix_current_tenant()``, which raises when no tenant is set: nothing can come back empty
and look right.
"""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import RunPython, RunSQL

TENANT: Final = """
CREATE OR REPLACE FUNCTION valdrix_refuse_no_tenant() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RAISE EXCEPTION 'no tenant is set for this transaction' USING ERRCODE = 'VX001';
END $$;

-- One expression, which the planner puts in the place of the call: it is asked for every row that a
-- policy looks at. After SET LOCAL ends the setting is '' rather than NULL, hence nullif.
CREATE OR REPLACE FUNCTION valdrix_current_tenant() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(nullif(current_setting('valdrix.tenant', true), ''),
                valdrix_refuse_no_tenant())::uuid;
"""
CREATE_FUNCTIONS: Final = (
    TENANT
    + """
CREATE FUNCTION valdrix_refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % refused: the table is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'VX002';
END $$;
"""
)
DROP_FUNCTIONS: Final = """
DROP FUNCTION valdrix_current_tenant();
DROP FUNCTION valdrix_refuse_no_tenant();
DROP FUNCTION valdrix_refuse_change();
"""


def create_functions() -> RunSQL:
    """Return the operation that creates the functions which the others call."""
    return RunSQL(CREATE_FUNCTIONS, DROP_FUNCTIONS)


def replace_tenant_function() -> RunSQL:
    """Return the operation that brings the function up to date in a database that has it."""
    return RunSQL(TENANT, RunSQL.noop)


def isolate(table: str, *, column: str = "tenant_id") -> RunSQL:
    """Return the operation that shows and accepts only rows of the transaction's tenant."""
    return RunSQL(
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;"
        f"CREATE POLICY tenant_isolation ON {table}"
        f" USING ({column} = valdrix_current_tenant())"
        f" WITH CHECK ({column} = valdrix_current_tenant());",
        f"DROP POLICY tenant_isolation ON {table};ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;",
    )


def append_only(table: str) -> RunSQL:
    """Return the operation that makes UPDATE, DELETE and TRUNCATE of a table raise.

    The triggers fire for every role and also under ``session_replication_role = replica``.
    """
    return RunSQL(
        f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table}"
        f" FOR EACH ROW EXECUTE FUNCTION valdrix_refuse_change();"
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
        f" FOR EACH STATEMENT EXECUTE FUNCTION valdrix_refuse_change();"
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_no_change;"
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_no_truncate;",
        f"DROP TRIGGER {table}_no_change ON {table};DROP TRIGGER {table}_no_truncate ON {table};",
    )


def revoke(table: str, *privileges: str) -> RunPython:
    """Return the operation that takes privileges on a table from the application's role."""

    def forwards(apps: object, schema_editor: BaseDatabaseSchemaEditor) -> None:
        role = settings.DATABASES["default"]["USER"]
        if role == schema_editor.connection.settings_dict["USER"]:
            return  # One role for all: start-up checks refuse to serve that way.
        quoted = schema_editor.quote_name(role)
        schema_editor.execute(f"REVOKE {', '.join(privileges)} ON {table} FROM {quoted}")

    return RunPython(forwards, RunPython.noop)
