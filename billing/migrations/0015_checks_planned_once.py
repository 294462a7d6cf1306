"""Checks that a gate's writes pass, each as a function that a session plans once.

PostgreSQL reads the expressions of a table's checks anew for each statement that writes to it; of
one that calls a function it reads the call. The functions say what the checks said.
"""

from django.db import migrations

_PLAN_ONCE = """
DO $do$
DECLARE
    c record;
BEGIN
    FOR c IN
        SELECT k.conname AS name, k.conrelid::regclass AS of_table,
               pg_get_expr(k.conbin, k.conrelid) AS condition,
               string_agg(format('%I %s', a.attname, a.atttypid::regtype), ', ' ORDER BY a.attnum)
                   AS parameters,
               string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) AS columns
          FROM pg_constraint k
          JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
         WHERE k.contype = 'c' AND k.connamespace = current_schema()::regnamespace
           AND k.conname IN (
               'billing_account_kind_is_known', 'billing_account_amounts_are_not_negative',
               'billing_account_shape_fits_its_kind',
               'billing_charge_state_is_known', 'billing_charge_is_not_negative',
               'billing_reservation_state_is_known', 'billing_reservation_is_not_negative',
               'billing_line_approved_is_an_overrun', 'billing_line_state_is_known',
               'billing_line_kind_is_known', 'billing_line_is_a_number')
         GROUP BY k.oid
    LOOP
        EXECUTE format('CREATE FUNCTION %I (%s) RETURNS boolean
                        LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS %L',
                       c.name, c.parameters, format('BEGIN RETURN %s; END', c.condition));
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I CHECK (%I (%s))',
                       c.of_table, c.name, c.name, c.name, c.columns);
    END LOOP;
END $do$;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0014_fewer_statements")]

    operations = [migrations.RunSQL(_PLAN_ONCE, migrations.RunSQL.noop)]
