"""Authentication of a cluster: its integration's own secret, at the address that names it."""

from __future__ import annotations

import hashlib
import hmac
import logging
import uuid

from django.db import DatabaseError, InterfaceError
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from governance.api.authentication import (
    ApiKeyAuthentication,
    read_credential,
    refuse_credential,
)
from governance.api.remembered import JUDGED_WITHIN_SECONDS, remembered
from governance.api.throttling import take_beforehand
from governance.identity.domain import Principal
from governance.integrations.domain import CLUSTER, SECRET_PREFIX
from governance.integrations.queries import find_active_integration, find_caller, read_secret
from valdrix.kernel.db import drop_lost_connection, is_database_down, reading, time_limit
from valdrix.kernel.metrics import AUTH_ATTEMPTS
from valdrix.kernel.sealing import SealingError

log = logging.getLogger("valdrix.auth")


class ClusterAuthentication(ApiKeyAuthentication):
    """Takes the secret of the cluster that the address names, or an API key, but not both.

    A secret opens its own cluster's address only.
    """

    def authenticate(self, request: Request) -> tuple[Principal, Principal] | None:
        """Return whom the request's credential speaks for, twice; None without one.

        :raises AuthenticationFailed: when there is one that speaks for nobody.
        :raises Throttled: when the address has tried too often.
        """
        try:
            text = read_credential(request)
        except AuthenticationFailed:
            refuse_credential(request)
        if text is None or not text.startswith(SECRET_PREFIX):
            return super().authenticate(request)
        integration_id = request.parser_context["kwargs"]["integration_id"]
        take_beforehand(request, remembered.find(_digest(integration_id, text)))
        principal = self.find_cluster(integration_id, text)
        AUTH_ATTEMPTS.labels("failed" if principal is None else "ok").inc()
        if principal is None:
            refuse_credential(request)
        return principal, principal

    def find_cluster(self, integration_id: uuid.UUID, text: str) -> Principal | None:
        """Return whom a cluster's secret speaks for.

        While the database is down, a secret that was good within the last minute still speaks.
        """
        digest = _digest(integration_id, text)
        try:
            with time_limit(JUDGED_WITHIN_SECONDS):
                principal = _prove(integration_id, text)
        except (DatabaseError, InterfaceError) as error:
            known = remembered.find(digest) if is_database_down(error) else None
            drop_lost_connection()
            if known is None:
                raise
            return known
        if principal is None:
            remembered.forget(digest)
        else:
            remembered.keep(digest, principal)
        return principal


def _digest(integration_id: uuid.UUID, text: str) -> bytes:
    return hashlib.sha256(f"{integration_id} {text}".encode()).digest()


def _prove(integration_id: uuid.UUID, text: str) -> Principal | None:
    caller = find_caller(integration_id, CLUSTER)
    if caller is None:
        return None
    with reading(caller.principal.tenant_id):
        cluster = find_active_integration(caller.principal.tenant_id, integration_id)
    if cluster is None:
        return None
    try:
        secret = read_secret(cluster)
    except SealingError as error:
        log.warning("a cluster's secret cannot be opened: %s", error)
        return None
    return caller.principal if hmac.compare_digest(secret.encode(), text.encode()) else None
