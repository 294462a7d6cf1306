"""The app's tables, one room each."""

from enforcement.decisions.models import Decision
from enforcement.idempotency.models import IdempotencyKey
from enforcement.ledger.models import LedgerEntry, LedgerHead
from enforcement.replay.models import Simulation
from enforcement.rollout.models import Promotion

__all__ = ("Decision", "IdempotencyKey", "LedgerEntry", "LedgerHead", "Promotion", "Simulation")
