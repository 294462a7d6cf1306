"""Exports' part of the database schema: a small export's rows, planned once a session.

Planning the statements of the four files takes longer than running them for fifty decisions. A
function gathers its rows before it gives the first, so that archives, which may have any number
of them, are read by the statements themselves.
"""

from __future__ import annotations

from typing import Final

from django.db.migrations import RunSQL

from enforcement.exports.columns import SOURCES

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
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY {select};
END $$;
"""


CREATE: Final = "".join(_create(name) for name in SOURCES)
_DROP: Final = "".join(f"DROP FUNCTION {function_of(name)} {_ARGUMENTS};" for name in SOURCES)


def create_export_functions() -> RunSQL:
    """Return the operation that creates them; they run with the caller's rights."""
    return RunSQL(CREATE, _DROP)
