"""Jobs over all tenants or none that belong to no single app."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from django.conf import settings

from enforcement.ledger.verification import verify_ledger
from valdrix.kernel.db import tenant_ids_for_job

log = logging.getLogger("valdrix.jobs")


class LedgerBroken(Exception):
    """At least one tenant's ledger does not verify; the log says where."""


def verify_ledgers() -> str:
    """Recompute every tenant's ledger and return how much was inspected.

    Each tenant is verified whatever is found in another's.

    :raises LedgerBroken: when one of them does not hold.
    """
    entries, broken = 0, []
    tenants = tenant_ids_for_job("verify-ledgers")
    for tenant_id in tenants:
        result = verify_ledger(tenant_id)
        entries += result.entries
        if result.fault is not None:
            broken.append(tenant_id)
            log.error(
                "ledger of tenant %s: broken at sequence %d: %s",
                tenant_id,
                result.fault.sequence,
                result.fault.reason,
            )
    if broken:
        raise LedgerBroken(f"{len(broken)} of {len(tenants)} ledgers do not verify")
    return f"{entries} entries in {len(tenants)} ledgers"


def clear_sessions() -> None:
    """Delete the console's sessions that have expired."""
    store: Any = import_module(settings.SESSION_ENGINE).SessionStore
    store.clear_expired()
