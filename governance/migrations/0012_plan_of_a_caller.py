"""Which plan a caller's tenant is on comes with the look-up of the credential."""

from django.db import migrations

_PLAN_OF = """
-- Nothing here sells plans; the app that does replaces the body.
CREATE FUNCTION governance_plan_of(p_tenant uuid) RETURNS text
LANGUAGE sql STABLE AS $$ SELECT NULL::text $$;
"""
_AUTHENTICATE = """
DROP FUNCTION governance_authenticate_key(text, bytea);
CREATE FUNCTION governance_authenticate_key(p_lookup text, p_digest bytea)
RETURNS TABLE (tenant_id uuid, key_id uuid, person_id bigint, key_role text,
               membership_role text, scopes text[], projects text[]{column})
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT k.tenant_id, k.id, k.person_id, k.role::text, m.role::text,
           k.scopes::text[], k.projects::text[]{value}
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
"""
_WITH_PLAN = _AUTHENTICATE.format(column=", plan text", value=", governance_plan_of(k.tenant_id)")
_WITHOUT = _AUTHENTICATE.format(column="", value="")


class Migration(migrations.Migration):
    dependencies = [("governance", "0011_tenant_function")]

    operations = [
        migrations.RunSQL(_PLAN_OF, "DROP FUNCTION governance_plan_of(uuid);"),
        migrations.RunSQL(_WITH_PLAN, _WITHOUT),
    ]
