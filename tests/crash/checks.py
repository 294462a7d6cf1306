"""What must hold after a crash storm, read from the database by a process of its own.

``python -m tests.crash.checks FILE`` compares the rows with what clients were told, and prints
one JSON document: what was looked at, and what does not hold.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import django

django.setup()

from django.core.management import CommandError, call_command  # noqa: E402 - after the set-up
from django.db import connection  # noqa: E402

from enforcement.models import Decision  # noqa: E402
from governance.tenants.queries import find_tenant_id  # noqa: E402
from tests.crash.stack import SLUG  # noqa: E402
from tests.factories.sums import check_chain, find_differences  # noqa: E402
from valdrix.kernel.db import reading  # noqa: E402

_ORPHANS = {
    "reservations without a decision": """
        SELECT r.decision_id FROM billing_reservation r
          LEFT JOIN enforcement_decision d ON d.id = r.decision_id WHERE d.id IS NULL""",
    "reserving decisions without a reservation": """
        SELECT d.id FROM enforcement_decision d
          LEFT JOIN billing_reservation r ON r.decision_id = d.id
         WHERE (d.outcome_json::jsonb ->> 'is_holding')::boolean AND r.decision_id IS NULL""",
    "reservations of decisions that reserve nothing": """
        SELECT d.id FROM enforcement_decision d JOIN billing_reservation r ON r.decision_id = d.id
         WHERE NOT (d.outcome_json::jsonb ->> 'is_holding')::boolean OR d.is_fail_safe""",
    "keys without a decision": """
        SELECT k.stored_key FROM enforcement_idempotency_key k
          LEFT JOIN enforcement_decision d ON d.id = k.decision_id WHERE d.id IS NULL""",
    "keys decided twice": """
        SELECT idempotency_key FROM enforcement_decision WHERE NOT is_fail_safe
         GROUP BY idempotency_key HAVING count(*) > 1""",
    "approvals without a decision": """
        SELECT a.id FROM governance_approval a
          LEFT JOIN enforcement_decision d ON d.id = a.decision_id WHERE d.id IS NULL""",
    "decisions without a ledger entry": """
        SELECT d.id FROM enforcement_decision d WHERE NOT EXISTS (
            SELECT 1 FROM enforcement_ledger_entry e
             WHERE e.decision_id = d.id AND e.event = 'decision_made')""",
    "settlements without a reservation": """
        SELECT s.id FROM billing_settlement s
          LEFT JOIN billing_reservation r ON r.decision_id = s.decision_id
         WHERE r.decision_id IS NULL""",
}

_COMMANDS = ("reconcile_overdue", "check_integrity", "verify_ledger")
"""One pass of what the jobs do, and then what an operator runs after an outage."""


def check(told: dict[str, Any]) -> dict[str, Any]:
    """Compare what clients were told with the rows; return figures and problems."""
    tenant_id = find_tenant_id(SLUG)
    assert tenant_id is not None
    problems: list[str] = []
    figures: dict[str, Any] = {f"manage.py {one}": _run(one, problems) for one in _COMMANDS}
    with reading(tenant_id):
        rows = {str(one.id): one for one in Decision.objects.filter(tenant_id=tenant_id)}
        with connection.cursor() as cursor:
            for name, sql in _ORPHANS.items():
                cursor.execute(sql)
                found = cursor.fetchall()
                problems += [f"{name}: {row[0]}" for row in found]
    problems += _differences([*told["decisions"], *told["fail_safe"]], rows)
    figures["planted differences found"] = _find_planted(told["decisions"][0], rows)
    known = {answer["decision_id"] for answer in told["decisions"]}
    made = {name for name, row in rows.items() if not row.is_fail_safe}
    problems += [f"a decision that nobody was told: {name}" for name in sorted(made - known)]
    problems += [f"kept total is not its sum: {row}" for row in find_differences(tenant_id)]
    figures["decisions compared with their rows"] = len(told["decisions"])
    figures["recorded fail-safe answers compared with their rows"] = len(told["fail_safe"])
    figures["decision rows"] = len(rows)
    figures["ledger entries verified"] = check_chain(tenant_id)
    return {"figures": figures, "problems": problems}


def _differences(answers: list[dict[str, Any]], rows: dict[str, Decision]) -> list[str]:
    """Return the acknowledged answers that are lost, or that the rows tell differently."""
    found = []
    for answer in answers:
        row = rows.get(answer["decision_id"])
        if row is None:
            found.append(f"lost: {answer}")
        elif json.loads(row.response_json) != {**answer, "replayed": False}:
            found.append(f"changed: told {answer}, stored {row.response_json}")
    return found


def _find_planted(answer: dict[str, Any], rows: dict[str, Decision]) -> int:
    """Plant a lost and a changed answer: a comparison that finds neither shows nothing."""
    planted = [{**answer, "decision_id": "none"}, {**answer, "shared_reserved_usd": "-1.0000"}]
    found = _differences(planted, rows)
    assert [one.split(":")[0] for one in found] == ["lost", "changed"], found
    return len(found)


def _run(command: str, problems: list[str]) -> str:
    """Run a command of `manage.py`; return the first line that it printed."""
    printed = io.StringIO()
    try:
        call_command(command, "--tenant", SLUG, stdout=printed, stderr=io.StringIO())
    except CommandError as error:
        problems.append(f"manage.py {command}: {error}: {printed.getvalue()}")
    lines = printed.getvalue().splitlines() or [""]
    return lines[0]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(check(json.loads(Path(sys.argv[1]).read_text()))))
