"""The app's tables, one room each."""

from billing.accounts.models import Account, AccountMonth
from billing.alerts.models import BudgetAlert
from billing.costs.models import (
    CostHistory,
    CostIngestion,
    CostUnit,
    DailyCost,
    SubAccountProject,
)
from billing.plans.models import Subscription
from billing.quotas.models import QuotaCount, QuotaReservation
from billing.reservations.models import Charge, Reservation, ReservationLine, SettlementRecord

__all__ = (
    "Account",
    "AccountMonth",
    "BudgetAlert",
    "Charge",
    "CostHistory",
    "CostIngestion",
    "CostUnit",
    "DailyCost",
    "QuotaCount",
    "QuotaReservation",
    "Reservation",
    "ReservationLine",
    "SettlementRecord",
    "SubAccountProject",
    "Subscription",
)
