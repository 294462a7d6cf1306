"""The app's tables, one room each."""

from enforcement.decisions.models import Decision
from enforcement.idempotency.models import IdempotencyKey
from enforcement.ledger.models import LedgerEntry, LedgerHead

__all__ = ("Decision", "IdempotencyKey", "LedgerEntry", "LedgerHead")
