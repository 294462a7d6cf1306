"""Small bills for tests, and how to read them."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

from billing.costs.domain import AUTO, CostBatch, ProjectRules
from billing.costs.files import CSV, CostFile, read_cost_file

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
FOCUS_ROW = {
    "BilledCost": "1.25",
    "BillingAccountId": "1234",
    "BillingCurrency": "USD",
    "ChargePeriodStart": "2026-11-03T10:00:00Z",
    "ProviderName": "AWS",
    "SubAccountId": "sub-1",
    "Tags": '{"project": "shop"}',
}


def csv_of(*rows: dict[str, str]) -> bytes:
    """Return a FOCUS file; each row says what is other than the usual."""
    full = [FOCUS_ROW | row for row in rows]
    header = list(dict.fromkeys(name for row in full for name in row))
    lines = [",".join(header)]
    lines += [
        ",".join('"' + row.get(name, "").replace('"', '""') + '"' for name in header)
        for row in full
    ]
    return ("\n".join(lines) + "\n").encode()


def read(
    content: bytes,
    *,
    file_format: str = AUTO,
    carrier: str = CSV,
    rules: ProjectRules | None = None,
    now: datetime = NOW,
) -> CostBatch:
    """Read a file whole."""
    file = CostFile(io.BytesIO(content), carrier, file_format)
    return read_cost_file(file, rules=rules or ProjectRules(), now=now)


def units_of(batch: CostBatch) -> dict[tuple[str, str], str]:
    """Return the amounts of a batch by project and day."""
    return {
        (unit.key.project_id, unit.key.date.isoformat()): format(unit.amount_usd, "f")
        for unit in batch.units
    }


def json_of(*rows: Any) -> bytes:
    """Return a document of plain rows."""
    return json.dumps({"rows": list(rows)}).encode()
