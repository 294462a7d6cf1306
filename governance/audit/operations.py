"""Writes to the audit log, in the transaction of the change that they record."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from governance.audit.models import AuditEntry
from valdrix.kernel.db import transaction_required
from valdrix.kernel.ids import new_id


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes an administrative change, from where, and when.

    :ivar principal_id: such as ``user:7`` or ``key:…`` or ``system:make-run``.
    :ivar address: the client's address, or None for a command at the machine.
    """

    tenant_id: uuid.UUID
    principal_id: str
    address: str | None
    at: datetime


def record_change(
    *,
    actor: Actor,
    action: str,
    subject: tuple[str, str],
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> None:
    """Append one administrative change to the audit log.

    :param subject: the object's type and id.
    :param before: its shown fields before, None for something new; never a secret.
    :raises NotInTransaction: outside the transaction of the change.
    """
    transaction_required()
    AuditEntry.objects.create(
        id=new_id(),
        tenant_id=actor.tenant_id,
        at=actor.at,
        actor=actor.principal_id,
        address=actor.address,
        action=action,
        object_type=subject[0],
        object_id=subject[1],
        before=before,
        after=after,
    )
