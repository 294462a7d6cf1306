"""Row-level security, append-only tables, and the look-ups made before a tenant is known."""

from django.db import migrations

from valdrix.kernel import isolation

_LOOKUPS = """
CREATE FUNCTION governance_authenticate_key(p_lookup text, p_digest bytea)
RETURNS TABLE (tenant_id uuid, key_id uuid, person_id bigint, key_role text,
               membership_role text, scopes text[], projects text[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT k.tenant_id, k.id, k.person_id, k.role::text, m.role::text,
           k.scopes::text[], k.projects::text[]
      FROM governance_api_key k
      JOIN governance_membership m ON m.tenant_id = k.tenant_id AND m.user_id = k.person_id
      JOIN governance_user u ON u.id = k.person_id AND u.is_active
     WHERE k.lookup = p_lookup AND k.digest = p_digest AND k.revoked_at IS NULL
       AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp());
    IF FOUND THEN
        -- Approximate on purpose: one write a minute, not one a request.
        UPDATE governance_api_key k SET last_used_at = clock_timestamp()
         WHERE k.id = (SELECT due.id FROM governance_api_key due
                        WHERE due.lookup = p_lookup
                          AND (due.last_used_at IS NULL
                               OR due.last_used_at < clock_timestamp() - interval '1 minute')
                          FOR UPDATE SKIP LOCKED);
    END IF;
END $$;

CREATE FUNCTION governance_memberships_of(p_user_id bigint)
RETURNS TABLE (tenant_id uuid, tenant_slug text, tenant_name text, role text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT t.id, t.slug::text, t.name::text, m.role::text
      FROM governance_membership m JOIN governance_tenant t ON t.id = m.tenant_id
      JOIN governance_user u ON u.id = m.user_id AND u.is_active
     WHERE m.user_id = p_user_id ORDER BY t.slug;
$$;

CREATE FUNCTION governance_find_tenant(p_slug text) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT id FROM governance_tenant WHERE slug = p_slug;
$$;

CREATE FUNCTION governance_tenants_for_job() RETURNS TABLE (tenant_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF nullif(current_setting('valdrix.system_job', true), '') IS NULL THEN
        RAISE EXCEPTION 'only a system job may list tenants' USING ERRCODE = 'VX004';
    END IF;
    RETURN QUERY SELECT t.id FROM governance_tenant t ORDER BY t.id;
END $$;
"""
_DROP_LOOKUPS = """
DROP FUNCTION governance_authenticate_key(text, bytea);
DROP FUNCTION governance_memberships_of(bigint);
DROP FUNCTION governance_find_tenant(text);
DROP FUNCTION governance_tenants_for_job();
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0001_initial")]

    operations = [
        isolation.create_functions(),
        isolation.isolate("governance_tenant", column="id"),
        isolation.isolate("governance_membership"),
        isolation.isolate("governance_api_key"),
        isolation.isolate("governance_audit_entry"),
        isolation.isolate("governance_policy_version"),
        isolation.isolate("governance_forced_mode"),
        isolation.isolate("governance_approval"),
        isolation.isolate("governance_incident"),
        isolation.append_only("governance_audit_entry"),
        isolation.append_only("governance_policy_version"),
        isolation.append_only("governance_forced_mode"),
        isolation.revoke("governance_approval", "DELETE", "TRUNCATE"),
        isolation.revoke("governance_incident", "DELETE", "TRUNCATE"),
        migrations.RunSQL(_LOOKUPS, _DROP_LOOKUPS),
    ]
