"""What each tier may use, and whether a request is within it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec

from billing.plans.domain import ENTERPRISE, FREE, GROWTH, PRO, STARTER

LLM_TOKENS: Final = "llm_tokens"
METERS: Final = (LLM_TOKENS,)

USER: Final = "user"
SYSTEM: Final = "system"
ACTORS: Final = (USER, SYSTEM)
TENANT_HOLDER: Final = "tenant"

RESERVED: Final = "reserved"
COMMITTED: Final = "committed"
RELEASED: Final = "released"
EXPIRED: Final = "expired"
STATES: Final = (RESERVED, COMMITTED, RELEASED, EXPIRED)

HELD_FOR: Final = timedelta(minutes=15)
"""How long a reservation holds what nobody committed or released."""

REQUEST_TOO_LARGE: Final = "metered_request_too_large"
QUOTA_EXCEEDED: Final = "quota_exceeded"
PROVIDER_NOT_IN_PLAN: Final = "provider_not_in_plan"
METERING_SUSPENDED: Final = "metering_suspended"


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What one tier may use of one meter.

    :ivar tenant_daily: units of all actors of a tenant within a UTC day.
    :ivar user_daily: units of one person within it.
    :ivar system_daily: units of what no person asked for: jobs and schedules.
    :ivar request_units: units of one request.
    :ivar request_days: days of data that one request may range over.
    :ivar request_records: records that one request may carry.
    :ivar providers: who may serve it, in the order in which they stand in for one another.
    """

    tenant_daily: int
    user_daily: int
    system_daily: int
    request_units: int
    request_days: int
    request_records: int
    providers: tuple[str, ...]

    def daily(self, holder: str) -> int:
        """Return what a holder of a count may use within a day."""
        if holder == TENANT_HOLDER:
            return self.tenant_daily
        return self.system_daily if holder == SYSTEM else self.user_daily


QUOTAS: Final[dict[str, dict[str, Quota]]] = {
    LLM_TOKENS: {
        FREE: Quota(
            tenant_daily=20_000,
            user_daily=10_000,
            system_daily=5_000,
            request_units=4_000,
            request_days=31,
            request_records=1_000,
            providers=("economy",),
        ),
        STARTER: Quota(
            tenant_daily=100_000,
            user_daily=50_000,
            system_daily=25_000,
            request_units=16_000,
            request_days=92,
            request_records=5_000,
            providers=("economy",),
        ),
        GROWTH: Quota(
            tenant_daily=500_000,
            user_daily=200_000,
            system_daily=125_000,
            request_units=32_000,
            request_days=184,
            request_records=20_000,
            providers=("standard", "economy"),
        ),
        PRO: Quota(
            tenant_daily=2_000_000,
            user_daily=750_000,
            system_daily=500_000,
            request_units=64_000,
            request_days=366,
            request_records=50_000,
            providers=("premium", "standard", "economy"),
        ),
        ENTERPRISE: Quota(
            tenant_daily=20_000_000,
            user_daily=5_000_000,
            system_daily=5_000_000,
            request_units=128_000,
            request_days=731,
            request_records=200_000,
            providers=("premium", "standard", "economy"),
        ),
    }
}
"""By meter and tier. A person's and the system's share are below the tenant's whole, so that neither can
take the day from the others alone."""


class MeteredRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants to use.

    :ivar person_id: the person who asked; None for the system.
    :ivar provider: the provider asked for; None takes the tier's first.
    """

    meter: str
    units: int
    person_id: int | None
    days: int = 0
    records: int = 0
    provider: str | None = None

    @property
    def holders(self) -> tuple[str, str]:
        """Return the counts that it is held on: the tenant's, and the actor's own."""
        return TENANT_HOLDER, SYSTEM if self.person_id is None else f"{USER}:{self.person_id}"


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """What of one holder's day is held and used."""

    reserved_units: int
    used_units: int


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request is not served now.

    :ivar limit: what it ran into, by the quota's own name or the holder of a count.
    """

    code: str
    limit: str
    detail: str


def find_shape_refusal(quota: Quota, wanted: MeteredRequest) -> Refusal | None:
    """Return why a request's own shape is not served on a tier, whatever was used of the day."""
    for name, value, limit in (
        ("request_units", wanted.units, quota.request_units),
        ("request_days", wanted.days, quota.request_days),
        ("request_records", wanted.records, quota.request_records),
    ):
        if value > limit:
            detail = f"{value} are asked for; one request may have {limit} on this plan."
            return Refusal(code=REQUEST_TOO_LARGE, limit=name, detail=detail)
    if wanted.provider is not None and wanted.provider not in quota.providers:
        detail = f"This plan is served by {', '.join(quota.providers)}."
        return Refusal(code=PROVIDER_NOT_IN_PLAN, limit="providers", detail=detail)
    return None


def find_refusal(
    quota: Quota, wanted: MeteredRequest, counts: Mapping[str, Count]
) -> Refusal | None:
    """Return which day's count a request does not fit into, the tenant's first, or None."""
    for holder in wanted.holders:
        count, limit = counts[holder], quota.daily(holder)
        left = max(0, limit - count.reserved_units - count.used_units)
        if wanted.units > left:
            kind = holder.partition(":")[0]
            detail = f"{left} of {limit} are left for this {kind} until midnight, UTC."
            return Refusal(code=QUOTA_EXCEEDED, limit=kind, detail=detail)
    return None


def day_of(moment: datetime) -> date:
    """Return the UTC day that a moment's use is counted in."""
    return moment.astimezone(UTC).date()


def seconds_left(moment: datetime) -> int:
    """Return the whole seconds until the next UTC day begins, at least one."""
    at = moment.astimezone(UTC)
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return max(1, -int((at - midnight).total_seconds() // 1))
