"""Pieces of the evaluation, under the names that release evidence refers to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from billing.accounts import locking
from billing.accounts.locking import AccountScope, GateLockContended, lock_accounts
from tests.factories.tenants import World
from valdrix.kernel.db import transaction


def test_acquire_gate_evaluation_lock_rowcount_zero_raises_contended_reason(
    tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement that takes the lock comes back without a row."""
    scope = AccountScope(tenant_id=tenant.id, project_id="shop", environment="nonprod", team=None)

    def select_nothing(*_: Any, **__: Any) -> list[Any]:
        return []

    monkeypatch.setattr(locking, "_select", select_nothing)
    with pytest.raises(GateLockContended) as refusal, transaction(tenant.id):
        lock_accounts(scope, now=datetime.now(UTC))

    assert refusal.value.problem_code == "gate_lock_contended"
    assert refusal.value.status == 409
