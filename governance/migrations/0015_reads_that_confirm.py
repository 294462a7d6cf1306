"""A read's own message can refuse where its key is not what it was taken for."""

from django.db import migrations

_REFUSE = """
CREATE FUNCTION governance_refuse_changed_keys(p_told jsonb) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF cardinality(governance_changed_keys(p_told)) > 0 THEN
        RAISE EXCEPTION 'a key is not what it was taken for' USING ERRCODE = 'VX008';
    END IF;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0014_keys_confirmed_on_the_way")]

    operations = [
        migrations.RunSQL(_REFUSE, "DROP FUNCTION governance_refuse_changed_keys(jsonb);")
    ]
