"""What a reviewer says, and what must be said. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from valdrix.kernel.money import hourly_from_monthly
from valdrix.kernel.problems import FieldError, InvalidRequest

Clock = Callable[[], datetime]

EMERGENCY_CREDITS: Final = "emergency credits"
UNKNOWN_COST: Final = "an unknown cost"


class ReasonRequired(InvalidRequest):
    """What is decided needs a reason in words (422)."""

    code = "reason_required"


class CeilingRequired(InvalidRequest):
    """An unknown cost is approved up to an amount that the reviewer names (422)."""

    code = "ceiling_required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a reviewer says beside yes or no.

    :ivar max_monthly_delta_usd: the ceiling of an unknown cost, US dollars a month.
    :ivar shown: the mark of what they were shown; None when it was not kept.
    """

    reason: str = ""
    max_monthly_delta_usd: Decimal | None = None
    shown: str | None = None

    def require_reason(self, what: str) -> None:
        """Check that there is a reason.

        :param what: what it is the reason of, for the sentence.
        :raises ReasonRequired: without one.
        """
        if not self.reason.strip():
            raise ReasonRequired(
                f"A reason is required for {what}.",
                errors=(FieldError("/reason", "required", "is required"),),
            )

    def check_ceiling(self, monthly_delta_usd: Decimal | None) -> None:
        """Check the ceiling: named for an unknown cost, and the estimate for a known one.

        :raises CeilingRequired: when the cost is unknown and no ceiling is named.
        :raises InvalidRequest: when another amount than the known one is named, or one below zero.
        """
        named = self.max_monthly_delta_usd
        if monthly_delta_usd is None and named is None:
            raise CeilingRequired(
                "The cost is unknown: say up to which amount it is approved.",
                errors=(FieldError("/max_monthly_delta_usd", "required", "is required"),),
            )
        if monthly_delta_usd is not None and named not in (None, monthly_delta_usd):
            raise _invalid_ceiling("must be left out: what is approved is the known cost")
        if monthly_delta_usd is None and named is not None and named < 0:
            raise _invalid_ceiling("must not be below zero")


def _invalid_ceiling(detail: str) -> InvalidRequest:
    error = FieldError("/max_monthly_delta_usd", "out_of_range", detail)
    return InvalidRequest("The request has invalid fields.", errors=(error,))


def ceiling_of(
    *, monthly_usd: Decimal | None, hourly_usd: Decimal | None, named: Sequence[Decimal | None]
) -> tuple[Decimal, Decimal | None]:
    """Return the monthly and the hourly ceiling that reviewers gave together.

    :param named: what each of them named; the lowest holds where the cost is unknown.
    """
    if monthly_usd is not None:
        return monthly_usd, hourly_usd
    monthly = min(amount for amount in named if amount is not None)
    return monthly, hourly_from_monthly(monthly)
