"""Discovery: an issuer's public keys, fetched when needed and kept for a while.

A key id that is not known may be a new key, so it is fetched again, but not more than once a
minute an issuer: tokens that name made-up keys fetch nothing. Who comes while keys are fetched that
it needs waits for them. While an issuer does not answer, what was fetched within the last day is good.

Whoever fetches or waits holds a thread of the process, so a tenant has a share of them: however many
silent issuers it has registered, another one's tokens are judged meanwhile.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from django.conf import settings

from governance.workloads.domain import read_keys
from valdrix.kernel import outbound, strict_json
from valdrix.kernel.outbound import Answer, Call, OutboundError
from valdrix.kernel.problems import Refused
from valdrix.kernel.throttling.owners import Owners

FRESH_SECONDS: Final = 600.0
KEPT_SECONDS: Final = 24 * 3600.0
REFRESH_SECONDS: Final = 60.0
_TIMEOUT_SECONDS: Final = 5.0
_LONGEST_FETCH_SECONDS: Final = 2 * _TIMEOUT_SECONDS + 1.0
_MOST_WAITING: Final = 8
"""Callers of a process that may wait: a silent issuer must not hold all of its threads."""
MOST_OF_ONE_TENANT: Final = _MOST_WAITING // 2
"""Callers of a process that may fetch or wait for one tenant's tokens."""
_MOST_BYTES: Final = 256 * 1024
_MOST_ISSUERS: Final = 1000
_WELL_KNOWN: Final = "/.well-known/openid-configuration"


class IssuerUnavailable(Refused):
    """The issuer's keys cannot be fetched at the moment, so its tokens cannot be judged (503)."""

    code = "workload_issuer_unavailable"


@dataclass(slots=True)
class _Known:
    """What is known of one issuer: its keys, and when they were last fetched and tried.

    :ivar arrived: set unless somebody is fetching them now.
    """

    keys: list[dict[str, Any]] | None = None
    fetched_at: float = 0.0
    tried_at: float = -REFRESH_SECONDS
    arrived: threading.Event = field(default_factory=threading.Event)


class KeySource:
    """Keeps issuers' keys for a process. Safe to use from many threads."""

    def __init__(self, send: Callable[[Call], Answer] | None = None) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)
        self._held = Owners(MOST_OF_ONE_TENANT)

    def keys_of(
        self, issuer: str, *, tenant_id: uuid.UUID, is_missing: bool = False
    ) -> list[dict[str, Any]]:
        """Return an issuer's keys.

        :param tenant_id: whose registration it is: what is fetched or waited for is of its share.
        :param is_missing: whether those returned before lacked the one that is looked for.
        :raises IssuerUnavailable: when none are known and none can be fetched.
        """
        owner = str(tenant_id)
        known, may_fetch = self._look(issuer, owner, is_missing=is_missing)
        if may_fetch:
            try:
                self._renew(issuer, known)
            finally:
                self._held.give_back(owner)
        elif (known.keys is None or is_missing) and not self._wait_for(known, owner):
            raise IssuerUnavailable("The issuer's keys are being fetched; try again.")
        if known.keys is None or time.monotonic() - known.fetched_at > KEPT_SECONDS:
            raise IssuerUnavailable("The issuer's keys cannot be fetched at the moment.")
        return known.keys

    def _renew(self, issuer: str, known: _Known) -> None:
        try:
            keys = self._fetch(issuer)
            if keys is not None:
                with self._lock:
                    known.keys, known.fetched_at = keys, time.monotonic()
        finally:
            known.arrived.set()

    def _wait_for(self, known: _Known, owner: str) -> bool:
        """Wait for whoever is fetching, unless too many wait already, and tell whether that ended."""
        if not known.arrived.is_set() and self._held.take(owner):
            try:
                if self._waiting.acquire(blocking=False):
                    try:
                        known.arrived.wait(_LONGEST_FETCH_SECONDS)
                    finally:
                        self._waiting.release()
            finally:
                self._held.give_back(owner)
        return known.arrived.is_set()

    def _look(self, issuer: str, owner: str, *, is_missing: bool) -> tuple[_Known, bool]:
        """Return what is known, and whether it is this caller's turn to fetch, of the owner's share.

        :raises IssuerUnavailable: when it would be, has no place left, and cannot do without.
        """
        now = time.monotonic()
        with self._lock:
            known = self._known.get(issuer)
            if known is None:
                if len(self._known) >= _MOST_ISSUERS:
                    self._known.pop(next(iter(self._known)))
                known = self._known[issuer] = _Known(tried_at=now - REFRESH_SECONDS)
            is_stale = known.keys is None or now - known.fetched_at > FRESH_SECONDS
            is_due = (is_stale or is_missing) and now - known.tried_at >= REFRESH_SECONDS
            may_fetch = is_due and self._held.take(owner)
            if may_fetch:
                known.tried_at = now
                known.arrived.clear()
            elif is_due and (known.keys is None or is_missing):
                raise IssuerUnavailable("Too many of the tenant's issuers are slow; try again.")
            return known, may_fetch

    def _fetch(self, issuer: str) -> list[dict[str, Any]] | None:
        try:
            description = self._get(issuer.rstrip("/") + _WELL_KNOWN)
            if not isinstance(description, dict) or description.get("issuer") != issuer:
                return None
            return read_keys(self._get(str(description.get("jwks_uri"))))
        except (OutboundError, strict_json.StrictJsonError, ValueError):
            return None

    def _get(self, url: str) -> object:
        send = self._send or outbound.send
        answer = send(
            Call(
                method="GET",
                url=url,
                hosts=settings.WORKLOAD_ISSUER_HOSTS,
                headers={"accept": "application/json"},
                max_bytes=_MOST_BYTES,
                tries=1,
                timeout_seconds=_TIMEOUT_SECONDS,
            )
        )
        if answer.status != 200:
            raise ValueError(f"the issuer answered {answer.status}")
        return strict_json.loads(answer.body, max_values=10_000)


key_source: Final = KeySource()
