"""What governs a tenant, read with one statement."""

from django.db import migrations

# A tenant without a policy can have forced modes, too.
_READ = """
CREATE OR REPLACE FUNCTION governance_read_policy(p_tenant uuid, p_now timestamptz, p_known text,
    OUT number integer, OUT sha256 text, OUT schema_version text, OUT canonical_json text,
    OUT forced_modes text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    SELECT v.number, v.sha256, v.schema_version,
           CASE WHEN v.sha256 = p_known THEN NULL ELSE v.canonical_json END,
           coalesce((SELECT json_agg(json_build_object(
                         'source', f.source, 'environment', f.environment, 'mode', f.mode)
                         ORDER BY f.id)
                       FROM governance_forced_mode f
                      WHERE f.tenant_id = p_tenant AND f.until_at > p_now), '[]')::text
      INTO governance_read_policy.number, governance_read_policy.sha256,
           governance_read_policy.schema_version, governance_read_policy.canonical_json,
           governance_read_policy.forced_modes
      FROM (SELECT) AS always LEFT JOIN LATERAL (
            SELECT w.* FROM governance_policy_version w
             WHERE w.tenant_id = p_tenant ORDER BY w.number DESC LIMIT 1) AS v ON true;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0015_reads_that_confirm")]

    operations = [migrations.RunSQL(_READ, migrations.RunSQL.noop)]
