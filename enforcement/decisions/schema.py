"""Decisions' part of the database schema: rows from one JSON array, planned once a session."""

from __future__ import annotations

from typing import Final

from django.db.migrations import RunSQL

CREATE: Final = """
CREATE FUNCTION enforcement_append_decisions(p json) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO enforcement_decision
    SELECT r.* FROM json_populate_recordset(NULL::enforcement_decision, p) AS r;
END $$;
"""


def create_decision_function() -> RunSQL:
    """Return the operation that creates it; it runs with the caller's rights."""
    return RunSQL(CREATE, "DROP FUNCTION enforcement_append_decisions;")
