"""The ledger's part of the database schema: functions and triggers, as migration operations."""

from __future__ import annotations

from typing import Final

from django.db.migrations import RunSQL

from enforcement.ledger.domain import COLUMNS

_ARRAY_COLUMN: Final = "reason_codes"

# The members of a canonical entry in the order of RFC 8785, each as its value's JSON text; of an
# array's items, which are texts, only the blanks between them differ.
_MEMBERS: Final = ",\n           ".join(
    (f"'\"{name}\":', " if place == 0 else f"',\"{name}\":', ")
    + (
        f"replace((entry->'{name}')::text, '\", \"', '\",\"')"
        if name == _ARRAY_COLUMN
        else f"entry->'{name}'"
    )
    for place, name in enumerate(sorted((*COLUMNS, "sequence", "tenant_id")))
)

CHAIN: Final = f"""
CREATE OR REPLACE FUNCTION enforcement_chain_ledger_entry() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    entry jsonb := NEW.canonical::jsonb;
    place bigint := CASE WHEN jsonb_typeof(entry->'sequence') = 'number'
                         THEN (entry->>'sequence')::bigint END;
BEGIN
    IF NEW.tenant_id IS DISTINCT FROM valdrix_current_tenant()
       OR (entry->>'tenant_id')::uuid IS DISTINCT FROM NEW.tenant_id
       OR NEW.entry_hash IS DISTINCT FROM
          sha256(NEW.prev_hash || convert_to(NEW.canonical, 'UTF8'))
       -- Only canonical text with all members and no others: nothing that no verifier accepts.
       -- PostgreSQL spells strings, integers, true, false and null as RFC 8785 does, and leaves
       -- out what is missing.
       OR NEW.canonical IS DISTINCT FROM concat('{{',
           {_MEMBERS}, '}}')
    THEN
        place := NULL;
    ELSE
        UPDATE enforcement_ledger_head h SET sequence = place, entry_hash = NEW.entry_hash
         WHERE h.tenant_id = NEW.tenant_id
           AND h.sequence = place - 1 AND h.entry_hash = NEW.prev_hash;
    END IF;
    IF place IS NULL OR NOT FOUND THEN
        RAISE EXCEPTION 'the entry does not continue the ledger after sequence %',
            coalesce((SELECT h.sequence FROM enforcement_ledger_head h
                       WHERE h.tenant_id = NEW.tenant_id), 0) USING ERRCODE = 'VX003';
    END IF;
    -- Every other column repeats a member of what was hashed.
    RETURN jsonb_populate_record(NEW, entry);
END $$;
"""

CREATE: Final = f"""
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

{CHAIN}
CREATE TRIGGER enforcement_ledger_entry_chain BEFORE INSERT ON enforcement_ledger_entry
    FOR EACH ROW EXECUTE FUNCTION enforcement_chain_ledger_entry();
ALTER TABLE enforcement_ledger_entry ENABLE ALWAYS TRIGGER enforcement_ledger_entry_chain;
"""
DROP: Final = """
DROP TRIGGER enforcement_ledger_entry_chain ON enforcement_ledger_entry;
DROP FUNCTION enforcement_chain_ledger_entry();
DROP FUNCTION enforcement_lock_ledger_head();
"""


def create_ledger_functions() -> RunSQL:
    """Return the operation that makes the database itself keep the chain."""
    return RunSQL(CREATE, DROP)


APPEND: Final = """
CREATE OR REPLACE FUNCTION enforcement_append_ledger(p json) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    place bigint;
    previous bytea;
    entry text;
    parts json;
    entries text[] := '{}';
    hashes bytea[];
BEGIN
    SELECT h.sequence, h.entry_hash INTO place, previous FROM enforcement_lock_ledger_head() h;
    hashes := ARRAY[previous];
    FOR parts IN SELECT * FROM json_array_elements(p) LOOP
        place := place + 1;
        -- What stands before an entry's sequence, and what behind it.
        entry := (parts ->> 0) || place || (parts ->> 1);
        previous := sha256(previous || convert_to(entry, 'UTF8'));
        entries := entries || entry;
        hashes := hashes || previous;
    END LOOP;
    -- In their order: the trigger refuses one that does not continue the one before it.
    INSERT INTO enforcement_ledger_entry (tenant_id, canonical, prev_hash, entry_hash)
    SELECT valdrix_current_tenant(), e.canonical, hashes[e.number], hashes[e.number + 1]
      FROM unnest(entries) WITH ORDINALITY AS e (canonical, number);
    RETURN place;
END $$;
"""


def create_append_function() -> RunSQL:
    """Return the operation that lets entries be appended in one call.

    It runs with the caller's rights: the trigger above judges what it writes like anything else.
    """
    return RunSQL(APPEND, "DROP FUNCTION enforcement_append_ledger;")


def replace_ledger_functions() -> RunSQL:
    """Return the operation that brings the functions up to date in a database that has them."""
    return RunSQL(
        f"{CHAIN}{APPEND}DROP FUNCTION IF EXISTS enforcement_canonical_ledger_entry(jsonb);",
        RunSQL.noop,
    )
