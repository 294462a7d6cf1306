"""Authentication of ``/api/v1``: an API key in a header, and nothing else.

A session of the console is not accepted here, so that no request needs protection against
forgery by another site; a key in the query string is not looked at, because addresses are logged.
"""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Final, NoReturn

from django.db import DatabaseError, InterfaceError
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request

from governance.api.permissions import lets_in
from governance.api.remembered import JUDGED_WITHIN_SECONDS, remembered
from governance.api.throttling import take_beforehand
from governance.api.workload_tokens import find_workload_principal
from governance.identity.assuming import Assumption
from governance.identity.domain import ApiKeyText, Principal, read_key_text
from governance.identity.queries import authenticate_key
from governance.workloads.discovery import IssuerUnavailable
from governance.workloads.domain import TokenExpired, is_over, looks_like_token
from valdrix.kernel.db import (
    drop_lost_connection,
    is_database_down,
    remaining_seconds,
    time_limit,
)
from valdrix.kernel.http.throttling import take_for_address
from valdrix.kernel.metrics import AUTH_ATTEMPTS
from valdrix.kernel.problems import Refused

_SCHEME: Final = "bearer"
CONFIRMS: Final = "has_assumptions_confirmed"
"""Marks a view's method that has an assumption confirmed before it answers or writes."""
_HEARD_SECONDS: Final = 10.0
"""A connection that was silent for longer may be dead, which the full check finds out in time."""


class _Heard(threading.local):
    """When this thread's connection answered for the last time that it was asked about a key."""

    at = float("-inf")


_heard: Final = _Heard()


class WorkloadTokenExpired(Refused):
    """A workload's token verifies, and its time is over (401)."""

    code = "token_expired"


class ApiKeyAuthentication(BaseAuthentication):
    """Takes ``Authorization: Bearer vdx_…`` or ``X-API-Key: vdx_…``, but not both.

    Instead of a key it may be a workload's OIDC token.

    Unknown, malformed, expired and revoked keys and those of people who left are all answered
    by one body: whoever tries keys learns nothing from it.

    Where the view's method has that confirmed, a key speaks for whom it spoke for a moment ago:
    :func:`assumption_of` the request is what is to be confirmed then.
    """

    def authenticate(self, request: Request) -> tuple[Principal, Principal] | None:
        """Return whom the request's key speaks for, twice; None without a credential.

        :raises AuthenticationFailed: when there is one that speaks for nobody.
        """
        principal = self._assume(request)
        return self.authenticate_in_full(request) if principal is None else (principal, principal)

    def authenticate_in_full(self, request: Request) -> tuple[Principal, Principal] | None:
        """Return the same with nothing assumed.

        :raises AuthenticationFailed: when there is a credential that speaks for nobody.
        """
        try:
            text = read_credential(request)
        except AuthenticationFailed:
            refuse_credential(request)
        if text is None:
            return None
        principal = self._find_speaker(request, text)
        AUTH_ATTEMPTS.labels("failed" if principal is None else "ok").inc()
        if principal is None:
            refuse_credential(request)
        return principal, principal

    def _assume(self, request: Request) -> Principal | None:
        """Return whom the request's key spoke for a moment ago, if that can be confirmed later.

        :raises Throttled: when they have used up a limit.
        """
        view = request.parser_context.get("view")
        if not hasattr(getattr(view, str(request.method).lower(), None), CONFIRMS):
            return None
        if time.monotonic() - _heard.at > _HEARD_SECONDS:
            return None
        key = _find_key(request)
        known = None if key is None else remembered.find_told(key.digest)
        if key is None or known is None or known.told is None:
            return None
        if not lets_in(view, request, known.principal):
            return None  # To be refused takes the database's word.
        take_beforehand(request, known.principal)
        request.assumption = self._build_assumption(  # type: ignore[attr-defined] # read below
            key, known.principal, known.told
        )
        return known.principal

    def _build_assumption(self, key: ApiKeyText, principal: Principal, told: str) -> Assumption:
        digest = key.digest

        def judge() -> bool:
            # On a connection that broke the answer would be the memory's, as if all was down.
            drop_lost_connection()
            is_so = self.find_principal(key) == principal
            if is_so:
                AUTH_ATTEMPTS.labels("ok").inc()
            return is_so

        def note() -> None:
            _heard.at = time.monotonic()
            remembered.renew(digest, told)
            AUTH_ATTEMPTS.labels("ok").inc()

        def refute() -> None:
            remembered.refute(digest, told)

        return Assumption(told, judge=judge, noted=note, refuted=refute)

    def _find_speaker(self, request: Request, text: str) -> Principal | None:
        """Return whom a credential's text speaks for: a key's, or a workload's token.

        :raises WorkloadTokenExpired: when a token's time is over.
        :raises Throttled: when whom it spoke for a moment ago has used up a limit.
        """
        if looks_like_token(text):
            return _find_workload(request, text)
        key = read_key_text(text)
        if key is None:
            return None
        take_beforehand(request, remembered.find(key.digest))
        return self.find_principal(key)

    def find_principal(self, key: ApiKeyText) -> Principal | None:
        """Return whom a well-formed key speaks for; the one place that asks the database.

        While the database is down, a key that was good within the last minute still speaks;
        another one cannot be judged, and the database's error says so (503). That it did not answer
        within what an outer limit left says nothing of that kind.
        """
        left = remaining_seconds()
        is_hurried = left is not None and left < JUDGED_WITHIN_SECONDS
        try:
            with time_limit(JUDGED_WITHIN_SECONDS):
                told = authenticate_key(key)
        except (DatabaseError, InterfaceError) as error:
            can_stand_in = is_database_down(error) and not is_hurried
            known = remembered.find(key.digest) if can_stand_in else None
            drop_lost_connection()
            if known is None:
                raise
            return known
        _heard.at = time.monotonic()
        if told is None:
            remembered.forget(key.digest)
            return None
        remembered.keep(key.digest, told.principal, told=told.text)
        return told.principal

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge of a 401 (RFC 9110, section 11.6.1)."""
        return 'Bearer realm="valdrix"'


def assumption_of(request: Request) -> Assumption | None:
    """Return what authentication assumed of a request's key; None where the database was asked."""
    found: Assumption | None = getattr(request, "assumption", None)
    return found


def _find_key(request: Request) -> ApiKeyText | None:
    """Return the well-formed key that is a request's one credential, or None."""
    try:
        text = read_credential(request)
    except AuthenticationFailed:
        return None
    return None if text is None else read_key_text(text)


def _find_workload(request: Request, text: str) -> Principal | None:
    """Return whom a token speaks for.

    While the database is down, one that was good within the last minute still speaks until its
    time is over. What nobody can judge, as its issuer is silent, counts against the address like a bad
    one: whoever names such an issuer needs no good token.

    :raises IssuerUnavailable: when the issuer's keys cannot be fetched, or
    :raises Throttled: when the address has tried too often.
    """
    digest = hashlib.sha256(text.encode()).digest()
    take_beforehand(request, remembered.find(digest))
    now = timezone.now()
    try:
        principal = find_workload_principal(text, now=now)
    except (DatabaseError, InterfaceError) as error:
        known = remembered.find(digest) if is_database_down(error) else None
        drop_lost_connection()
        if known is None:
            raise
        if is_over(text, now=now):
            raise WorkloadTokenExpired("The token has expired.") from None
        return known
    except TokenExpired:
        remembered.forget(digest)
        raise WorkloadTokenExpired("The token has expired.") from None
    except IssuerUnavailable:
        _count_against_address(request)
        raise
    if principal is None:
        remembered.forget(digest)
    else:
        remembered.keep(digest, principal)
    return principal


def refuse_credential(request: Request) -> NoReturn:
    """Refuse a credential that speaks for nobody, and count that against the address.

    :raises AuthenticationFailed: always, or
    :raises Throttled: when the address has tried too often.
    """
    _count_against_address(request)
    raise AuthenticationFailed


def _count_against_address(request: Request) -> None:
    taken = take_for_address(request._request)  # noqa: SLF001 - the framework's wrapper
    if not taken.is_allowed:
        raise Throttled(taken.wait_seconds)


def read_credential(request: Request) -> str | None:
    """Return the text of the request's one credential, or None when it has none.

    :raises AuthenticationFailed: for another scheme, or for two credentials at once.
    """
    header: str | None = request.headers.get("Authorization")
    api_key: str | None = request.headers.get("X-API-Key")
    if header is None:
        return api_key
    scheme, _, credential = header.partition(" ")
    if scheme.lower() != _SCHEME or api_key is not None:
        raise AuthenticationFailed
    return credential.strip(" ")
