"""One injection under way: the bench, the subject, and what was counted meanwhile."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from valdrix.certification.telemetry.bench import Bench
from valdrix.certification.telemetry.subject import Subject
from valdrix.kernel.ids import new_id

_FILL: Final = """
INSERT INTO telemetry_event (id, tenant_id, kind, at, outcome, source, environment, duration_ms,
                             amount_usd, attributes)
SELECT (lpad(to_hex(%(from)s), 16, '0') || lpad(to_hex(n), 16, '0'))::uuid, %(tenant)s,
       'gate_decided', %(at)s - (n %% 86400) * interval '1 second',
       (ARRAY['ALLOW', 'DENY', 'REQUIRE_APPROVAL'])[1 + n %% 3], 'terraform', 'prod',
       n %% 500, n %% 1000, format('{"mode":"hard","project":"p%%s"}', n %% 300)
  FROM generate_series(1, %(rows)s) AS n
"""


class NotSeen(Exception):
    """What an injection is expected to do was not seen: then it showed nothing."""


@dataclass(slots=True)
class Run:
    """One injection under way.

    :ivar rows: how many rows the blow-up takes.
    :ivar settle: waits until truth can be looked at, where the breaking takes it away for a moment.
    """

    bench: Bench
    subject: Subject
    at: datetime
    rows: int
    figures: dict[str, Any] = field(default_factory=dict)
    settle: Callable[[], None] = lambda: None
    replayed_ids: Sequence[uuid.UUID] = ()

    def stored(self) -> int:
        """Return how many events of the subject are in the store."""
        return int(
            self.bench.fetch(
                "SELECT count(*) FROM telemetry_event WHERE tenant_id = %s", self.subject.tenant_id
            )
        )

    def reading(self, name: str = "decisions") -> dict[str, Any]:
        """Return one reading as the subject's owner sees it."""
        body: dict[str, Any] = self.subject.get(f"/api/v1/telemetry/{name}?window=30d").body
        return body

    def fill(self, rows: int, *, age: timedelta = timedelta(0)) -> None:
        """Put events of the subject into the store, past its writers."""
        with self.bench.admin() as admin:
            admin.execute(
                _FILL,
                {
                    "from": new_id().int >> 64,
                    "tenant": self.subject.tenant_id,
                    "at": self.at - age,
                    "rows": rows,
                },
            )
