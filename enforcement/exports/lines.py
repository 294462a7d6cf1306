"""A file's rows as lines of CSV in SQL, the same bytes as COPY writes.

COPY makes its lines beside the statement. Where the database itself hashes them, they have to be
values of it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from enforcement.exports.columns import SOURCES

UNQUOTED: Final = frozenset(
    {
        *("sequence", "ledger_sequence", "decision_id", "approval_request_id", "charge_id"),
        *("family_id", "held_decision_id", "consumed_by_decision_id", "policy_version"),
        *("is_fail_safe", "change_is_computed", "separate_requester", "is_shadow", "required"),
        *("round", "approvals_given", "tokens_issued", "month", "risk_score", "at"),
        *("prev_hash", "entry_hash", "computed_context_month_start", "computed_context_month_end"),
    }
)
"""Cells that are a number, an id, a date, a moment, a truth or a hash: they never need quotes; nor do
those whose name ends with one of ``_UNQUOTED_ENDS``."""
_UNQUOTED_ENDS: Final = ("_usd", "_at", "_days", "_date")
_JSON: Final = frozenset({"tags", "routing_trace", "reviewer_groups_all"})
"""Cells that need quotes as a rule, and so are looked at one by one."""

QUOTE_FUNCTION: Final = "enforcement_export_cell"
_SPECIAL: Final = "'%,%', '%\"%', E'%\\n%', E'%\\r%'"
_MARK: Final = r"E'\x01'"
CREATE_QUOTE: Final = f"""
CREATE OR REPLACE FUNCTION {QUOTE_FUNCTION} (cell text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN cell = '' THEN '""'
                WHEN cell LIKE ANY (ARRAY[{_SPECIAL}]) THEN '"' || replace(cell, '"', '""') || '"'
                ELSE cell END;
$$;
"""


def is_unquoted(name: str) -> bool:
    """Tell whether a column's cells are never in need of quotes."""
    return name in UNQUOTED or name.endswith(_UNQUOTED_ENDS)


def select_rows(name: str) -> str:
    """Return the statement that gives a file's rows, each a head and a line as COPY writes them.

    Most rows need quotes nowhere but in their JSON: one look at all of their texts tells, and only
    the others are looked at cell by cell.
    """
    source = SOURCES[name]
    heads = {f"head_{place}": head for place, head in enumerate(source.head)}
    inner = (f'{cell} AS "{key}"' for key, cell in {**heads, **source.cells}.items())
    # The fence has each cell computed once, however often it is looked at.
    return f"""SELECT {_joined(heads, quoted=False)} || ',' || {_line(tuple(source.cells))} AS line
  FROM (SELECT {", ".join(inner)}{source.tables}{source.order} OFFSET 0) AS c"""  # noqa: S608 - of constants


def _line(names: tuple[str, ...]) -> str:
    texts = [f'c."{name}"' for name in names if not is_unquoted(name) and name not in _JSON]
    probe = f"concat({_MARK}, concat_ws({_MARK}, {', '.join(texts)}), {_MARK})"
    # Two marks in a row: a text that is empty, which is written as two quotes.
    return (
        f"CASE WHEN {probe} LIKE ANY (ARRAY[{_SPECIAL}, E'%\\x01\\x01%'])"
        f" THEN {_joined(names, quoted=True)} ELSE {_joined(names, quoted=False)} END"
    )


def _joined(names: Iterable[str], *, quoted: bool) -> str:
    cells = (
        f'{QUOTE_FUNCTION}(c."{name}")'
        if name in _JSON or (quoted and not is_unquoted(name))
        else f'c."{name}"'
        for name in names
    )
    return "concat(" + ", ',', ".join(cells) + ")"
