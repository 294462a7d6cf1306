"""Exports' part of the database schema: where a window begins and ends, and a small export's rows.

Planning the statements of the four files takes longer than running them for fifty decisions: here they
are planned once a session. A function gathers its rows before it gives the first, so that archives,
which may have any number of them, are read by statements of their own.
"""

from __future__ import annotations

from typing import Final

from django.db.migrations import RunSQL

from enforcement.exports.lines import CREATE_QUOTE, QUOTE_FUNCTION, select_rows
from valdrix.kernel.rows import ONE_PLAN

_PLACES: Final = {
    "tenant": "tenant",
    "start": "start_at",
    "end": "end_at",
    "after": "after",
    "last": "last",
}

# Planned for each call: whether a window's entries are found sooner by place or by time depends on the
# window.
_BOUNDS: Final = """
CREATE OR REPLACE FUNCTION enforcement_export_bounds
    (tenant uuid, start_at timestamptz, end_at timestamptz, most bigint,
     OUT first bigint, OUT last bigint, OUT left_out bigint)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
BEGIN
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
END $$;
"""
_SEGMENT: Final = f"""
CREATE OR REPLACE FUNCTION enforcement_export_segment
    (tenant uuid, start_at timestamptz, end_at timestamptz, most bigint) RETURNS json
LANGUAGE plpgsql STABLE {ONE_PLAN} AS $$
DECLARE
    bounds CONSTANT record := enforcement_export_bounds(tenant, start_at, end_at, most);
    head enforcement_ledger_head;
    after bigint;
    last bigint;
    closing enforcement_ledger_entry;
BEGIN
    SELECT * INTO head FROM enforcement_ledger_head h WHERE h.tenant_id = tenant;
    after := coalesce(bounds.first, head.sequence + 1, 1) - 1;
    last := coalesce(bounds.last, head.sequence, 0);
    SELECT * INTO closing FROM enforcement_ledger_entry e
     WHERE e.tenant_id = tenant AND e.sequence = last;
    RETURN json_build_array(head.sequence, encode(head.entry_hash, 'hex'), after,
        (SELECT encode(e.entry_hash, 'hex') FROM enforcement_ledger_entry e
          WHERE e.tenant_id = tenant AND e.sequence = after),
        last, encode(closing.entry_hash, 'hex'), closing.at, bounds.left_out IS NOT NULL);
END $$;
"""


def _rows(name: str) -> str:
    """Return the expression that gives a file's rows, each a head and a line."""
    rows = select_rows(name)
    for parameter, place in _PLACES.items():
        rows = rows.replace(f"%({parameter})s", place)
    return f"(SELECT coalesce(json_agg(r.line), '[]') FROM ({rows}) AS r)"


# A row's version is where it lies and who wrote it: one that was changed, by the rules or in spite of
# every guard, has another; and what changes beneath the server changes while it does not run.
_HELD: Final = "l.tenant_id = tenant AND l.sequence > after AND l.sequence <= last"
_ENTRIES: Final = f"""
SELECT concat(pg_postmaster_start_time(), string_agg(concat(' ', v.ctid, v.xmin), '')),
       array_agg(v.decision_id) FILTER (WHERE v.event = 'decision_made') INTO entries, decision_ids
  FROM (SELECT l.ctid, l.xmin, l.event, l.decision_id FROM enforcement_ledger_entry l
         WHERE {_HELD} ORDER BY l.sequence) AS v
"""
_APPROVALS: Final = """
SELECT string_agg(concat(a.ctid, a.xmin), ''), array_agg(a.id) INTO changing, approval_ids
  FROM governance_approval a WHERE a.decision_id = ANY (decision_ids)
"""
_RESERVATIONS: Final = """(
SELECT string_agg(concat(r.ctid, r.xmin, c.ctid, c.xmin, s.ctid, s.xmin), '')
  FROM billing_reservation r JOIN billing_charge c ON c.id = r.charge_id
  LEFT JOIN billing_settlement s ON s.tenant_id = tenant AND s.family_id = c.family_id
 WHERE r.decision_id = ANY (decision_ids))"""


def _several(table: str, condition: str) -> str:
    """Return the expression that gives the versions of some rows of a table."""
    return f"(SELECT string_agg(concat(z.ctid, z.xmin), '') FROM {table} z WHERE {condition})"


# Every row that a cell of the files is taken from; of the decisions' entries also those that the window
# does not hold.
_LASTING: Final = f"""
concat(entries, ' d', {_several("enforcement_decision", "z.id = ANY (decision_ids)")})
"""
_CHANGING: Final = f"""
concat(entries, ' a', changing, ' r', {_RESERVATIONS},
    ' t', {_several("governance_approval_token", "z.approval_id = ANY (approval_ids)")},
    ' v', {_several("governance_review", "z.approval_id = ANY (approval_ids)")},
    ' n', {_several("billing_reservation_line", "z.reservation_id = ANY (decision_ids)")},
    ' q', {
    _several(
        "enforcement_ledger_entry",
        "z.tenant_id = tenant AND z.decision_id = ANY (decision_ids)"
        " AND (z.sequence > last OR z.sequence <= after)",
    )
})
"""
_ROWS: Final = f"""
CREATE OR REPLACE FUNCTION enforcement_export_rows
    (tenant uuid, start_at timestamptz, end_at timestamptz, most bigint, most_entries bigint, known text)
RETURNS json
LANGUAGE plpgsql STABLE {ONE_PLAN} AS $$
DECLARE
    segment CONSTANT json := enforcement_export_segment(tenant, start_at, end_at, most);
    after CONSTANT bigint := segment ->> 2;
    last CONSTANT bigint := segment ->> 4;
    entries text;
    lasting text;
    changing text;
    decision_ids uuid[];
    approval_ids uuid[];
    decisions json;
    ledger json;
    approvals json;
    reservations json;
BEGIN
    IF last - after > most_entries THEN
        RETURN NULL;
    END IF;
    {_ENTRIES};
    {_APPROVALS};
    lasting := encode(sha256(convert_to({_LASTING}, 'UTF8')), 'hex');
    changing := encode(sha256(convert_to({_CHANGING}, 'UTF8')), 'hex');
    IF lasting IS DISTINCT FROM split_part(known, ' ', 1) THEN
        decisions := {_rows("decisions.csv")};
        ledger := {_rows("ledger.csv")};
    END IF;
    IF changing IS DISTINCT FROM split_part(known, ' ', 2) THEN
        approvals := {_rows("approvals.csv")};
        reservations := {_rows("reservations.csv")};
    END IF;
    RETURN json_build_array(segment, concat(lasting, ' ', changing), decisions, ledger,
        approvals, reservations);
END $$;
"""
CREATE: Final = _BOUNDS + _SEGMENT + CREATE_QUOTE + _ROWS
_DROP: Final = f"""
DROP FUNCTION enforcement_export_rows (uuid, timestamptz, timestamptz, bigint, bigint, text);
DROP FUNCTION {QUOTE_FUNCTION} (text);
DROP FUNCTION enforcement_export_segment (uuid, timestamptz, timestamptz, bigint);
DROP FUNCTION enforcement_export_bounds (uuid, timestamptz, timestamptz, bigint);
"""


def create_export_functions() -> RunSQL:
    """Return the operation that creates them; they run with the caller's rights."""
    return RunSQL(CREATE, _DROP)


def renew_export_functions() -> RunSQL:
    """Return the operation that puts them in the place of those that do otherwise."""
    return RunSQL(CREATE, RunSQL.noop)
