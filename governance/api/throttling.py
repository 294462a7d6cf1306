"""Throttles of authenticated calls, and that of gates: by tenant and over all (BSAFE-006)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.conf import settings
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from governance.identity.domain import Principal
from valdrix.kernel.http.measuring import route_of
from valdrix.kernel.http.refusing import RefusedBy, note_refusal
from valdrix.kernel.http.shedding import RETRY_AFTER_SECONDS, hold_place
from valdrix.kernel.metrics import GATE_SATURATION, RATE_LIMIT_REJECTIONS
from valdrix.kernel.throttling.limiter import limiter
from valdrix.kernel.throttling.windows import Limit

IN_PROGRESS: Final = "tenant_in_progress"
GATE_NAMESPACE: Final = "enforcement_gate"
MINUTE_SECONDS: Final = 60.0


class Throttle(BaseThrottle):
    """Refuses a request when one of its limits is used up; without a principal it has none."""

    def allow_request(self, request: Request, view: Any) -> bool:
        """Take a token of each limit and tell whether the request may go on."""
        principal = request.user
        if not isinstance(principal, Principal) or _has_paid(request, principal):
            return True
        return self.take(request, principal)

    def take(self, request: Request, principal: Principal) -> bool:
        """Take a token of each of a principal's limits, or of none, and tell whether it did.

        A tenant that has too much in progress in this process is refused before that.
        """
        django_request = request._request  # noqa: SLF001 - the framework's wrapper
        if not hold_place(django_request, str(principal.tenant_id)):
            RATE_LIMIT_REJECTIONS.labels(IN_PROGRESS).inc()
            self._wait_seconds = RETRY_AFTER_SECONDS
            return False
        limits = self.limits(principal)
        if not limits:
            return True
        taken = limiter().take([limit for _, limit in limits])
        if taken.used:
            self.observe(limits, taken.used)
        if taken.refused is None:
            return True
        kind = limits[taken.refused][0]
        RATE_LIMIT_REJECTIONS.labels(kind).inc()
        asked = tuple(limit for _, limit in limits)
        note_refusal(django_request, RefusedBy(kind, asked, route_of(django_request)))
        self._wait_seconds = taken.wait_seconds
        return False

    def wait(self) -> float | None:
        """Return the seconds that a refused caller should wait."""
        return float(self._wait_seconds)

    def limits(self, principal: Principal) -> Sequence[tuple[str, Limit]]:
        """Return the limits that a principal's request counts against, each with its kind."""
        raise NotImplementedError

    def observe(self, limits: Sequence[tuple[str, Limit]], used: tuple[int, ...]) -> None:
        """See how full the limits are."""


def take_beforehand(request: Request, known: Principal | None) -> None:
    """Take a request's tokens for whom its credential spoke for a moment ago, if that is known.

    A flood is then refused before the database is asked whose credential it is. What it speaks for
    now is judged afterwards as always; a credential that ended meanwhile has cost a token.

    :raises Throttled: when a limit is used up.
    """
    if known is None or _has_paid(request, known):
        return
    view = request.parser_context["view"]
    for throttle in view.get_throttles():
        if isinstance(throttle, Throttle) and not throttle.take(request, known):
            raise Throttled(throttle.wait())
    request.tokens_taken_of = known.tenant_id  # type: ignore[attr-defined] # read below


def _has_paid(request: Request, principal: Principal) -> bool:
    return getattr(request, "tokens_taken_of", None) == principal.tenant_id


class GateThrottle(Throttle):
    """Bounds gates: each tenant, and all tenants together in one namespace of all gate routes.

    No tenant can use up what all share: half of the cap is the most that one may take.
    """

    def limits(self, principal: Principal) -> Sequence[tuple[str, Limit]]:
        """Return the tenant's limits first, so that a flood is stopped by its own."""
        return gate_limits(str(principal.tenant_id))

    def observe(self, limits: Sequence[tuple[str, Limit]], used: tuple[int, ...]) -> None:
        """Note how much of the cap over all tenants is used."""
        for (kind, limit), count in zip(limits, used, strict=True):
            if kind == GATE_NAMESPACE:
                GATE_SATURATION.set(count / limit.amount)


def gate_calls_per_minute(tenant: str) -> int:
    """Return the most that a tenant's gates take within a minute, whatever others ask."""
    return min(int(limit.amount * 60 / limit.window_seconds) for _, limit in gate_limits(tenant))


def gate_limits(tenant: str) -> tuple[tuple[str, Limit], ...]:
    """Return the limits that a tenant's gate request counts against, each with its kind."""
    own = Limit(f"gate:{tenant}", settings.ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP, 1.0)
    if not settings.ENFORCEMENT_GLOBAL_ABUSE_GUARD_ENABLED:
        return (("gate_tenant", own),)
    cap: int = settings.ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP
    share = Limit(f"{GATE_NAMESPACE}:{tenant}", max(1, cap // 2), 60.0)
    return (
        ("gate_tenant", own),
        ("gate_share", share),
        (GATE_NAMESPACE, Limit(GATE_NAMESPACE, cap, 60.0)),
    )
