"""The app's tables, one room each."""

from enforcement.decisions.models import Decision
from enforcement.idempotency.models import IdempotencyKey
from enforcement.ledger.models import LedgerEntry, LedgerHead
from enforcement.notifications.models import Delivery, Notice, NoticeCursor
from enforcement.replay.models import Simulation
from enforcement.rollout.models import Promotion
from enforcement.run_tasks.models import RunTask

__all__ = (
    "Decision",
    "Delivery",
    "IdempotencyKey",
    "LedgerEntry",
    "LedgerHead",
    "Notice",
    "NoticeCursor",
    "Promotion",
    "RunTask",
    "Simulation",
)
