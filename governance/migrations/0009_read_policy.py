"""What governs a tenant, read in one call that is planned once a session."""

from django.db import migrations

_READ = """
CREATE FUNCTION governance_read_policy(p_tenant uuid, p_now timestamptz, p_known text,
    OUT number integer, OUT sha256 text, OUT schema_version text, OUT canonical_json text,
    OUT forced_modes text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    SELECT v.number, v.sha256, v.schema_version,
           CASE WHEN v.sha256 = p_known THEN NULL ELSE v.canonical_json END
      INTO governance_read_policy.number, governance_read_policy.sha256,
           governance_read_policy.schema_version, governance_read_policy.canonical_json
      FROM governance_policy_version v
     WHERE v.tenant_id = p_tenant ORDER BY v.number DESC LIMIT 1;
    SELECT coalesce(json_agg(json_build_object(
               'source', f.source, 'environment', f.environment, 'mode', f.mode)
               ORDER BY f.id), '[]')::text
      INTO governance_read_policy.forced_modes
      FROM governance_forced_mode f
     WHERE f.tenant_id = p_tenant AND f.until_at > p_now;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0008_cluster_bindings")]

    operations = [
        migrations.RunSQL(_READ, "DROP FUNCTION governance_read_policy;"),
    ]
