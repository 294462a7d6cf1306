"""The ledger's part of the database schema: functions and triggers, as migration operations."""

from __future__ import annotations

from typing import Final

from django.db.migrations import RunSQL

from enforcement.ledger.domain import COLUMNS

_ARRAY_COLUMN: Final = "reason_codes"

_PROJECTIONS: Final = "\n".join(
    f"    NEW.{name} := ARRAY(SELECT jsonb_array_elements_text(entry->'{name}'));"
    if name == _ARRAY_COLUMN
    else f"    NEW.{name} := entry->>'{name}';"
    for name in COLUMNS
)

# The members of a canonical entry in the order of RFC 8785, each as its value's JSON text.
_MEMBERS: Final = " || ',' ||\n        ".join(
    f"'\"{name}\":' || "
    + (
        f"'[' || coalesce((SELECT string_agg(item::text, ',' ORDER BY place) FROM"
        f" jsonb_array_elements(entry->'{name}') WITH ORDINALITY AS t (item, place)), '') || ']'"
        if name == _ARRAY_COLUMN
        else f"coalesce((entry->'{name}')::text, '?')"
    )
    for name in sorted((*COLUMNS, "sequence", "tenant_id"))
)

CREATE: Final = f"""
CREATE FUNCTION enforcement_canonical_ledger_entry(entry jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- PostgreSQL spells strings, integers, true, false and null as RFC 8785 does.
    RETURN '{{' || {_MEMBERS} || '}}';
END $$;

CREATE FUNCTION enforcement_lock_ledger_head(OUT sequence bigint, OUT entry_hash bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    tenant uuid := valdrix_current_tenant();
BEGIN
    SELECT h.sequence, h.entry_hash INTO enforcement_lock_ledger_head.sequence,
           enforcement_lock_ledger_head.entry_hash
      FROM enforcement_ledger_head h WHERE h.tenant_id = tenant FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO enforcement_ledger_head (tenant_id, sequence, entry_hash)
        VALUES (tenant, 0, decode(repeat('00', 32), 'hex')) ON CONFLICT DO NOTHING;
        SELECT h.sequence, h.entry_hash INTO enforcement_lock_ledger_head.sequence,
               enforcement_lock_ledger_head.entry_hash
          FROM enforcement_ledger_head h WHERE h.tenant_id = tenant FOR UPDATE;
    END IF;
END $$;

CREATE FUNCTION enforcement_chain_ledger_entry() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    head enforcement_ledger_head%ROWTYPE;
    entry jsonb := NEW.canonical::jsonb;
BEGIN
    SELECT * INTO head FROM enforcement_ledger_head
     WHERE tenant_id = NEW.tenant_id FOR UPDATE;
    IF NOT FOUND
       OR NEW.tenant_id IS DISTINCT FROM valdrix_current_tenant()
       OR (entry->>'tenant_id')::uuid IS DISTINCT FROM NEW.tenant_id
       OR jsonb_typeof(entry->'sequence') IS DISTINCT FROM 'number'
       OR (entry->>'sequence')::bigint IS DISTINCT FROM head.sequence + 1
       OR NEW.prev_hash IS DISTINCT FROM head.entry_hash
       OR NEW.entry_hash IS DISTINCT FROM
          sha256(head.entry_hash || convert_to(NEW.canonical, 'UTF8'))
       -- Only canonical text with all members and no others: nothing that no verifier accepts.
       OR NEW.canonical IS DISTINCT FROM enforcement_canonical_ledger_entry(entry)
    THEN
        RAISE EXCEPTION 'the entry does not continue the ledger after sequence %',
            coalesce(head.sequence, 0) USING ERRCODE = 'VX003';
    END IF;
    NEW.sequence := head.sequence + 1;
{_PROJECTIONS}
    UPDATE enforcement_ledger_head
       SET sequence = NEW.sequence, entry_hash = NEW.entry_hash
     WHERE tenant_id = NEW.tenant_id;
    RETURN NEW;
END $$;

CREATE TRIGGER enforcement_ledger_entry_chain BEFORE INSERT ON enforcement_ledger_entry
    FOR EACH ROW EXECUTE FUNCTION enforcement_chain_ledger_entry();
ALTER TABLE enforcement_ledger_entry ENABLE ALWAYS TRIGGER enforcement_ledger_entry_chain;
"""
DROP: Final = """
DROP TRIGGER enforcement_ledger_entry_chain ON enforcement_ledger_entry;
DROP FUNCTION enforcement_chain_ledger_entry();
DROP FUNCTION enforcement_canonical_ledger_entry(jsonb);
DROP FUNCTION enforcement_lock_ledger_head();
"""


def create_ledger_functions() -> RunSQL:
    """Return the operation that makes the database itself keep the chain."""
    return RunSQL(CREATE, DROP)


APPEND: Final = """
CREATE FUNCTION enforcement_append_ledger(p json) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    place bigint;
    previous bytea;
    entry text;
    parts json;
BEGIN
    SELECT h.sequence, h.entry_hash INTO place, previous FROM enforcement_lock_ledger_head() h;
    FOR parts IN SELECT * FROM json_array_elements(p) LOOP
        place := place + 1;
        -- What stands before an entry's sequence, and what behind it.
        entry := (parts ->> 0) || place || (parts ->> 1);
        INSERT INTO enforcement_ledger_entry (tenant_id, canonical, prev_hash, entry_hash)
        VALUES (valdrix_current_tenant(), entry, previous,
                sha256(previous || convert_to(entry, 'UTF8')))
        RETURNING entry_hash INTO previous;
    END LOOP;
    RETURN place;
END $$;
"""


def create_append_function() -> RunSQL:
    """Return the operation that lets entries be appended in one call.

    It runs with the caller's rights: the trigger above judges what it writes like anything else.
    """
    return RunSQL(APPEND, "DROP FUNCTION enforcement_append_ledger;")
