"""Exports' part of the database schema: a small export's rows, planned once a session.

Planning the statements of the four files takes longer than running them for fifty decisions. A
function gathers its rows before it gives the first, so that archives, which may have any number
of them, are read by the statements themselves.
"""

from __future__ import annotations

from typing import Final

from django.db.migrations import RunSQL

from enforcement.exports.columns import SOURCES
from valdrix.kernel.rows import ONE_PLAN

_PLACES: Final = {"tenant": "$1", "start": "$2", "end": "$3", "after": "$4", "last": "$5"}
_ARGUMENTS: Final = "(uuid, timestamptz, timestamptz, bigint, bigint)"


def function_of(name: str) -> str:
    """Return the name of the function that gives a file's rows."""
    return f"enforcement_export_{name.removesuffix('.csv')}"


def _create(name: str) -> str:
    source = SOURCES[name]
    cells = (*source.head, *source.cells.values())
    columns = ", ".join(f"cell_{place} text" for place in range(len(cells)))
    select = f"SELECT {', '.join(f'({cell})::text' for cell in cells)}{source.tables}{source.order}"
    for parameter, place in _PLACES.items():
        select = select.replace(f"%({parameter})s", place)
    return f"""
CREATE OR REPLACE FUNCTION {function_of(name)} {_ARGUMENTS}
RETURNS TABLE ({columns})
LANGUAGE plpgsql STABLE {ONE_PLAN} AS $$
BEGIN
    RETURN QUERY {select};
END $$;
"""


# The first statement is planned for each call: whether the window's first entry is found sooner by
# place or by time depends on the window.
_SEGMENT: Final = """
CREATE OR REPLACE FUNCTION enforcement_export_segment
    (tenant uuid, start_at timestamptz, end_at timestamptz, most bigint) RETURNS json
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    head enforcement_ledger_head;
    first bigint;
    left_out bigint;
    last bigint;
    closing enforcement_ledger_entry;
BEGIN
    SELECT * INTO head FROM enforcement_ledger_head h WHERE h.tenant_id = tenant;
    SELECT min(e.sequence) INTO first FROM enforcement_ledger_entry e
     WHERE e.tenant_id = tenant AND e.at >= start_at AND e.at < end_at;
    IF first IS NOT NULL AND most IS NOT NULL THEN
        SELECT e.sequence INTO left_out FROM enforcement_ledger_entry e
         WHERE e.tenant_id = tenant AND e.sequence >= first AND e.event = 'decision_made'
           AND e.at >= start_at AND e.at < end_at ORDER BY e.sequence OFFSET most LIMIT 1;
    END IF;
    IF left_out IS NOT NULL THEN
        last := left_out - 1;
    ELSIF first IS NOT NULL THEN
        SELECT max(e.sequence) INTO last FROM enforcement_ledger_entry e
         WHERE e.tenant_id = tenant AND e.at >= start_at AND e.at < end_at;
    END IF;
    first := coalesce(first, head.sequence + 1, 1) - 1;
    last := coalesce(last, head.sequence, 0);
    SELECT * INTO closing FROM enforcement_ledger_entry e
     WHERE e.tenant_id = tenant AND e.sequence = last;
    RETURN json_build_array(head.sequence, encode(head.entry_hash, 'hex'), first,
        (SELECT encode(e.entry_hash, 'hex') FROM enforcement_ledger_entry e
          WHERE e.tenant_id = tenant AND e.sequence = first),
        last, encode(closing.entry_hash, 'hex'), closing.at, left_out IS NOT NULL);
END $$;
"""
CREATE: Final = _SEGMENT + "".join(_create(name) for name in SOURCES)
_DROP: Final = (
    "DROP FUNCTION enforcement_export_segment (uuid, timestamptz, timestamptz, bigint);"
) + "".join(f"DROP FUNCTION {function_of(name)} {_ARGUMENTS};" for name in SOURCES)


def create_export_functions() -> RunSQL:
    """Return the operation that creates them; they run with the caller's rights."""
    return RunSQL(CREATE, _DROP)
