"""Truth is the same to the byte with telemetry off, on, and broken in every way: the short form.

The long one is ``make certify-telemetry``; figures are in docs/ops/evidence.
"""

from __future__ import annotations

from tests.benchmarks.telemetry_differential import MODES, prepare, run, summarise
from tests.conftest import owner_dsn
from tests.factories.tenants import World

GATES = 30
NAMES = ("off", "on", "table dropped")


def test_the_same_gates_leave_the_same_bytes(tenant: World) -> None:
    prepare(tenant)
    results = run(tenant.id, tenant.member.user_id, gates=GATES, own_dsn=owner_dsn(), names=NAMES)
    assert set(results) == set(NAMES) < set(MODES)
    off = results["off"]
    for name, one in results.items():
        assert one["ledger_sha256"] == off["ledger_sha256"], name
        assert one["decisions_sha256"] == off["decisions_sha256"], name
        assert (one["replayed"], one["replay_differing"]) == (GATES + 1, 0), name
        assert one["kept_totals_differing"] == 0, name
        assert one["decisions"] == off["decisions"], name
    assert summarise(results)["identical"] is True
    # It was as broken as it says, and what was asked was worth asking.
    assert len(off["decisions"]) >= 3
    fates = {name: one.get("telemetry", {}) for name, one in results.items()}
    assert fates["on"]["written"] == GATES
    assert fates["table dropped"].get("written", 0) == 0
    assert fates["table dropped"]["offered"] == GATES
    assert all(fates[name].get("waiting", 0) == 0 for name in fates)
