"""An observer: polls the invariants of one tenant for as long as a storm lasts."""

from __future__ import annotations

import threading
import time
import uuid
from decimal import Decimal
from typing import Any, Self

from django.db import connection, connections

from valdrix.kernel.db import reading

PAUSE_SECONDS = 0.02
SUMS_EVERY = 50
"""How many polls pass between two that add up every line; adding up grows with the storm."""

_ACCOUNTS = """
SELECT a.kind, a.id, coalesce(a.monthly_limit_usd, %(ceiling)s),
       a.pending_usd + coalesce((SELECT sum(m.posted_usd + m.overrun_usd)
          FROM billing_account_month m WHERE m.account_id = a.id), 0),
       a.total_usd, a.remaining_usd, a.reserved_usd, a.consumed_usd
  FROM billing_account a WHERE a.tenant_id = %(tenant)s
"""
# One pass over the lines, in the same statement as the accounts: they must agree at any moment.
_SUMS = """
WITH line AS (SELECT account_id, sum(amount_usd) AS held FROM billing_reservation_line
               WHERE tenant_id = %(tenant)s AND state = 'pending' AND NOT is_shadow
               GROUP BY account_id)
SELECT a.kind, a.id, a.pending_usd, a.reserved_usd, l.held
  FROM billing_account a LEFT JOIN line l ON l.account_id = a.id
 WHERE a.tenant_id = %(tenant)s AND coalesce(l.held, 0)
       <> CASE a.kind WHEN 'grant' THEN a.reserved_usd ELSE a.pending_usd END
"""
# One role's sessions see one another's waits; each poll is a transaction, so none is remembered.
_WAITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


class Observer:
    """Looks at a tenant's accounts over and over, each time in one statement.

    :param ceiling_usd: the exposure's limit; None where what is spent may be above any limit.
    :ivar polls: how often it looked and saw accounts.
    :ivar sums: how often it also added up every line.
    :ivar polls_with_waits: in how many polls some session waited for a lock.
    :ivar most_waiting: the most sessions that were seen waiting at one moment.
    :ivar violations: what was wrong; empty is right.
    """

    def __init__(self, tenant_id: uuid.UUID, *, ceiling_usd: Decimal | None) -> None:
        self.polls = self.sums = self.polls_with_waits = self.most_waiting = 0
        self.violations: list[Any] = []
        self._tenant_id = tenant_id
        self._ceiling_usd = ceiling_usd
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        if self._failure is not None:
            raise self._failure

    def figures(self) -> dict[str, int]:
        """Return what was counted, for the report."""
        return {
            "observer polls": self.polls,
            "observer polls that added up every line": self.sums,
            "violations observed": len(self.violations),
            "polls that saw a session wait for a lock": self.polls_with_waits,
            "most sessions waiting at once": self.most_waiting,
        }

    def _watch(self) -> None:
        try:
            while not self._stop.is_set():
                self._poll()
                time.sleep(PAUSE_SECONDS)
        except BaseException as error:  # noqa: BLE001 - raised again by __exit__
            self._failure = error
        finally:
            connections.close_all()

    def _poll(self) -> None:
        with reading(self._tenant_id), connection.cursor() as cursor:
            cursor.execute(_ACCOUNTS, {"tenant": self._tenant_id, "ceiling": self._ceiling_usd})
            rows = cursor.fetchall()
            cursor.execute(_WAITING)
            (waiting,) = cursor.fetchone()
        self.polls += bool(rows)
        self.polls_with_waits += waiting > 0
        self.most_waiting = max(self.most_waiting, waiting)
        has_limits = self._ceiling_usd is not None
        self.violations += [row for row in rows if is_violated(row, has_limits=has_limits)]
        if self.polls % SUMS_EVERY == 1:
            self._add_up()

    def _add_up(self) -> None:
        with reading(self._tenant_id), connection.cursor() as cursor:
            cursor.execute(_SUMS, {"tenant": self._tenant_id})
            self.violations += cursor.fetchall()
        self.sums += 1


def is_violated(row: Any, *, has_limits: bool) -> bool:
    """Tell whether an account is over its limit, or a grant does not add up."""
    kind, _, limit, used, total, remaining, reserved, consumed = row
    if kind == "grant":
        return min(remaining, reserved, consumed) < 0 or total != remaining + reserved + consumed
    return used < 0 or (has_limits and used > limit)
