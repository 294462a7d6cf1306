"""Counts over all tenants for the operators' metrics: numbers only, nobody's rows."""

from __future__ import annotations

from django.db import migrations

_CREATE = """
CREATE FUNCTION governance_pending_approvals() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT count(*) FROM governance_approval WHERE status = 'pending';
$$;
CREATE FUNCTION governance_open_incidents() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT count(*) FROM governance_incident WHERE state = 'open';
$$;
"""
_DROP = """
DROP FUNCTION governance_pending_approvals();
DROP FUNCTION governance_open_incidents();
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0004_sign_in")]

    operations = [migrations.RunSQL(_CREATE, _DROP)]
