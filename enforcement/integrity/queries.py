"""The check itself: every invariant of a tenant, over one snapshot."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
from django.db import connection

from enforcement.integrity import accounts, holds, quotas, records, reviews
from enforcement.integrity.domain import Finding, Invariant, Report, Violation
from valdrix.kernel.db import snapshot_reading

INVARIANTS: Final = (
    *accounts.INVARIANTS,
    *holds.INVARIANTS,
    *records.INVARIANTS,
    *reviews.INVARIANTS,
    *quotas.INVARIANTS,
)
"""All invariants, in the order in which they are checked and told."""

EXAMPLES: Final = 20
"""How many violating rows of an invariant are named; all of them are counted."""

_CHECK: Final = """
WITH checked (id, expected, found) AS MATERIALIZED ({sql}),
wrong AS (
    SELECT id::text, expected::text, found::text FROM checked
     WHERE expected IS DISTINCT FROM found
)
SELECT (SELECT count(*) FROM checked), (SELECT count(*) FROM wrong),
       (SELECT coalesce(json_agg(json_build_array(w.id, w.expected, w.found)), '[]')::text
          FROM (SELECT * FROM wrong ORDER BY id LIMIT {examples}) AS w)
"""

Progress = Callable[[int, int], None]


def run_checks(
    tenant_id: uuid.UUID,
    *,
    invariants: Sequence[Invariant] = INVARIANTS,
    progress: Progress | None = None,
) -> Report:
    """Check a tenant's invariants and return what was found; nothing is changed.

    Every statement sees the same committed state, so that what is decided meanwhile is no
    violation.

    :param progress: called after each invariant with how many are done, and how many there are.
    """
    findings = []
    with snapshot_reading(tenant_id), connection.cursor() as cursor:
        # Each check is a few passes over whole tables. A planner without statistics, as after a
        # restore, would take nested loops for cheap, and they would be quadratic.
        cursor.execute("SET LOCAL enable_nestloop = off")
        for done, invariant in enumerate(invariants, start=1):
            findings.append(_check(cursor, tenant_id, invariant))
            if progress is not None:
                progress(done, len(invariants))
    return Report(tenant_id, tuple(findings))


def _check(cursor: Any, tenant_id: uuid.UUID, invariant: Invariant) -> Finding:
    cursor.execute(_CHECK.format(sql=invariant.sql, examples=EXAMPLES), {"tenant": tenant_id})
    inspected, violations, examples = cursor.fetchone()
    return Finding(
        invariant=invariant,
        inspected=inspected,
        violations=violations,
        examples=tuple(Violation(*row) for row in orjson.loads(examples)),
    )
