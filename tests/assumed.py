"""Keys that are taken to be what they were, for as long as a test takes on a busy machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from governance.api import authentication, remembered
from governance.models import ApiKey
from tests.factories.tenants import World
from valdrix.kernel.db import transaction

LONG_SECONDS: Final = 3600.0


def assume_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let neither a silence nor a minute have this process ask about a key in full."""
    monkeypatch.setattr(authentication, "_HEARD_SECONDS", LONG_SECONDS)
    monkeypatch.setattr(remembered, "KEPT_SECONDS", LONG_SECONDS)


def note_uses_ahead(world: World) -> None:
    """Commit that a tenant's keys were used, so that it is not due to be noted within the test."""
    with transaction(world.id):
        later = datetime.now(UTC) + timedelta(seconds=LONG_SECONDS)
        ApiKey.objects.filter(tenant_id=world.id).update(last_used_at=later)
