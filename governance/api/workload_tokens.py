"""Authentication by a workload's OIDC token."""

from __future__ import annotations

import logging
from datetime import datetime

from governance.api.remembered import JUDGED_WITHIN_SECONDS
from governance.audit.operations import Actor
from governance.identity.domain import MEMBER, Principal
from governance.workloads.discovery import IssuerUnavailable, key_source
from governance.workloads.domain import (
    TokenExpired,
    TokenRefused,
    UnverifiedToken,
    find_key,
    has_claims,
    read_unverified,
    verify,
)
from governance.workloads.models import WorkloadIssuer
from governance.workloads.operations import note_use
from governance.workloads.queries import find_speaking
from valdrix.kernel.db import reading, time_limit

log = logging.getLogger("valdrix.workloads")


def find_workload_principal(text: str, *, now: datetime) -> Principal | None:
    """Return whom a token speaks for, or None when it speaks for nobody.

    :raises TokenExpired: when it would, had its time not run out.
    :raises IssuerUnavailable: when the issuer's keys cannot be fetched.
    """
    try:
        token = read_unverified(text)
        with time_limit(JUDGED_WITHIN_SECONDS), reading(token.tenant_id):
            registered, plan = find_speaking(token.tenant_id, token.issuer)
        row = _find_meeting(token, registered, now)
    except TokenExpired:
        raise
    except TokenRefused as reason:
        log.info("a workload's token is refused: %s", reason)
        return None
    if row is None:
        return None
    principal = Principal(
        tenant_id=row.tenant_id,
        principal_id=f"workload:{row.pk}",
        person_id=row.person_id,
        role=MEMBER,
        projects=frozenset({row.project_id}),
        plan=plan,
    )
    actor = Actor(row.tenant_id, principal.principal_id, None, now)
    note_use(actor=actor, row=row)
    return principal


def _find_meeting(
    token: UnverifiedToken, registered: list[WorkloadIssuer], now: datetime
) -> WorkloadIssuer | None:
    """Return the oldest registration whose keys verify the token and whose conditions it meets.

    Each is judged by itself: one whose keys leave open which was meant, or cannot be fetched, says
    nothing of the others.

    :raises TokenExpired: when the token's time is over.
    :raises IssuerUnavailable: when it meets none, and one of them could not be asked.
    """
    fault: TokenExpired | IssuerUnavailable | None = None
    for row in registered:
        try:
            key = _find_key(token, row)
            claims = None if key is None else verify(token, key, now=now)
        except TokenExpired as reason:
            fault = reason
        except IssuerUnavailable as reason:
            fault = fault or reason
        except TokenRefused as reason:
            log.info("registration %s does not take a workload's token: %s", row.pk, reason)
        else:
            if claims is not None and has_claims(claims, row.conditions):
                return row
    if fault is not None:
        raise fault
    return None


def _find_key(token: UnverifiedToken, row: WorkloadIssuer) -> dict[str, object] | None:
    if row.jwks is not None:
        return find_key(row.jwks["keys"], token)
    keys = key_source.keys_of(row.issuer, tenant_id=row.tenant_id)
    key = find_key(keys, token)
    if key is None:
        keys = key_source.keys_of(row.issuer, tenant_id=row.tenant_id, is_missing=True)
        key = find_key(keys, token)
    return key
