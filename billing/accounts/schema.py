"""Accounts' part of the database schema: the accounts that a gate can touch, and a page of grants."""

from __future__ import annotations

from typing import Final

from django.db.migrations import RunSQL

from billing.accounts.domain import GRANT
from billing.accounts.models import Account
from valdrix.kernel.rows import ONE_PLAN, RowsOf

BUDGETS: Final = RowsOf(
    Account,
    only=(
        *("id", "project_id", "environment", "team", "basis", "monthly_limit_usd", "active"),
        *("pending_usd", "shadow_pending_usd", "created_at", "created_by"),
    ),
)
GRANTS: Final = RowsOf(
    Account,
    only=(
        *("id", "project_id", "pool", "total_usd", "remaining_usd", "reserved_usd"),
        *("consumed_usd", "shadow_pending_usd", "priority", "reason", "expires_at", "voided_at"),
        *("created_at", "created_by"),
    ),
)
"""What a list shows of budgets and of grants."""

_SELECT: Final = """
        SELECT a.id, a.kind::text FROM billing_account a
         WHERE a.tenant_id = p_tenant AND (
               a.kind = 'exposure'
            OR (a.kind = 'budget' AND a.active AND a.project_id = p_project
                AND (a.environment IS NULL OR a.environment = p_environment)
                AND (a.team IS NULL OR a.team = p_team))
            OR (a.kind = 'grant' AND a.voided_at IS NULL AND a.remaining_usd > 0
                AND (a.expires_at IS NULL OR a.expires_at > p_now)
                AND (a.project_id IS NULL OR a.project_id = p_project)))
         ORDER BY a.id"""

CREATE: Final = f"""
CREATE FUNCTION billing_gate_accounts(p_tenant uuid, p_project text, p_environment text,
    p_team text, p_now timestamptz, p_locks boolean) RETURNS TABLE (id uuid, kind text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    IF p_locks THEN
        RETURN QUERY{_SELECT} FOR UPDATE;
    ELSE
        RETURN QUERY{_SELECT};
    END IF;
END $$;
"""
# What a gate of one scope locks, as one row: a set of rows would be kept and read once more.
LOCK: Final = f"""
CREATE OR REPLACE FUNCTION billing_lock_accounts(p_tenant uuid, p_project text, p_environment text,
    p_team text, p_now timestamptz, OUT ids uuid[], OUT listed json)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT array_agg(l.id), json_agg(json_build_array(l.id, l.kind))
      INTO ids, listed FROM ({_SELECT} FOR UPDATE) AS l;
END $$;
"""
LOCK_ALL: Final = """
CREATE OR REPLACE FUNCTION billing_lock_scopes(p_tenant uuid, p_scopes jsonb, p_now timestamptz)
RETURNS TABLE (id uuid) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT a.id FROM billing_account a
         WHERE a.tenant_id = p_tenant AND (
               a.kind = 'exposure'
            OR (a.kind = 'budget' AND a.active AND EXISTS (
                    SELECT FROM jsonb_to_recordset(p_scopes)
                                AS s (project text, environment text, team text)
                     WHERE a.project_id = s.project
                       AND (a.environment IS NULL OR a.environment = s.environment)
                       AND (a.team IS NULL OR a.team = s.team)))
            OR (a.kind = 'grant' AND a.voided_at IS NULL AND a.remaining_usd > 0
                AND (a.expires_at IS NULL OR a.expires_at > p_now)
                AND (a.project_id IS NULL OR EXISTS (
                    SELECT FROM jsonb_to_recordset(p_scopes) AS s (project text)
                     WHERE a.project_id = s.project))))
         ORDER BY a.id FOR UPDATE OF a;
END $$;
"""
DROP: Final = "DROP FUNCTION billing_gate_accounts;"


_GRANTS_PAGE: Final = f"""
CREATE OR REPLACE FUNCTION billing_grants_page (tenant uuid, projects text[], after uuid, most integer)
RETURNS json LANGUAGE plpgsql STABLE {ONE_PLAN} AS $$
BEGIN
    RETURN (SELECT coalesce(json_agg({GRANTS.sql("a")} ORDER BY a.id), '[]') FROM (
        SELECT * FROM billing_account q
         WHERE q.tenant_id = tenant AND q.kind = '{GRANT}'
           AND (q.project_id IS NULL OR coalesce(q.project_id = ANY (projects), true))
           AND q.id > after ORDER BY q.id LIMIT most) AS a);
END $$;
"""


def create_grants_page() -> RunSQL:
    """Return the operation that creates the page of grants; it runs with the caller's rights."""
    return RunSQL(_GRANTS_PAGE, "DROP FUNCTION billing_grants_page;")


def create_lock_function() -> RunSQL:
    """Return the operation that creates the lock of one scope's accounts."""
    return RunSQL(LOCK, "DROP FUNCTION billing_lock_accounts;")


def create_scopes_function() -> RunSQL:
    """Return the operation that creates the lock of several scopes' accounts at once."""
    return RunSQL(LOCK_ALL, "DROP FUNCTION billing_lock_scopes;")


def create_account_functions() -> RunSQL:
    """Return the operation that creates them."""
    return RunSQL(CREATE, DROP)
