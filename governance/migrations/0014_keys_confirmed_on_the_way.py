"""Whether keys are still what they were a moment ago, asked on the way of a gate."""

from django.db import migrations

_CHANGED_KEYS = """
-- The places of those keys of which governance_authenticate_key would not say what is told here, or
-- whose use it would note. Locks and writes nothing.
CREATE FUNCTION governance_changed_keys(p_told jsonb) RETURNS integer[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    told jsonb;
    changed integer[] := '{}';
BEGIN
    FOR place IN 0 .. jsonb_array_length(p_told) - 1 LOOP
        told := p_told->place;
        PERFORM
           FROM governance_api_key k
           JOIN governance_membership m ON m.tenant_id = k.tenant_id AND m.user_id = k.person_id
           JOIN governance_user u ON u.id = k.person_id AND u.is_active
          WHERE k.lookup = told->>0 AND k.digest = decode(told->>1, 'hex')
            AND k.revoked_at IS NULL
            AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
            AND k.last_used_at >= clock_timestamp() - interval '1 minute'
            AND jsonb_build_array(k.tenant_id, k.id, k.person_id, k.role, m.role, k.scopes,
                                  k.projects, governance_plan_of(k.tenant_id)) = told->2;
        IF NOT FOUND THEN
            changed := changed || place;
        END IF;
    END LOOP;
    RETURN changed;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0013_pages")]

    operations = [migrations.RunSQL(_CHANGED_KEYS, "DROP FUNCTION governance_changed_keys(jsonb);")]
