"""Callers: the principal behind a request, and the actor that its changes are audited under."""

from __future__ import annotations

from datetime import datetime

from rest_framework.request import Request

from governance.audit.operations import Actor
from governance.identity.domain import Principal
from valdrix.kernel.http.client_address import client_address


def principal_of(request: Request) -> Principal:
    """Return the principal that authentication found.

    :raises TypeError: on a view that lets anybody in; asking there is a defect.
    """
    if not isinstance(request.user, Principal):
        raise TypeError("this view is not authenticated")
    return request.user


def actor_of(request: Request, *, now: datetime) -> Actor:
    """Return who makes a change by this request, for its use case and the audit log."""
    principal = principal_of(request)
    return Actor(
        tenant_id=principal.tenant_id,
        principal_id=principal.principal_id,
        address=client_address(request),
        at=now,
    )
