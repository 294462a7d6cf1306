"""Exports while decisions are being made: each is the ledger at one position, whole (SPEC 9)."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from enforcement.exports.verifier.checks import verify
from enforcement.models import LedgerEntry
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.integration.exports.history import KEY, PUBLIC, export, save
from valdrix.kernel.db import reading

WRITERS, EXPORTERS, ASKED = 3, 2, 14


@pytest.fixture
def shop(tenant: World, settings: Any) -> Shop:
    settings.EXPORT_SIGNING_KEY = KEY
    made = Shop(tenant)
    made.budget("150.00")
    made.grant("reserved", "30.00")
    return made


def test_every_export_of_a_storm_is_the_ledger_at_its_position(
    shop: Shop, run_in_threads: Callable[..., list[object]], tmp_path: Path
) -> None:
    archives: defaultdict[int, list[tuple[bytes, dict[str, Any]]]] = defaultdict(list)
    lock, writing = threading.Lock(), threading.Semaphore(0)

    def take() -> None:
        one = export(shop.world)
        archive = b"".join(one.stream())
        assert one.signed is not None
        manifest = one.signed.manifest
        with lock:
            archives[manifest["ledger"]["position"]].append((archive, manifest))

    def work(number: int) -> None:
        if number >= WRITERS:
            while not writing.acquire(timeout=0):
                take()
            return
        for step in range(ASKED):
            shop.ask(f"{number + step}.5000", resource_reference=f"m.{number}.{step}")
        if number == 0:
            for _ in range(EXPORTERS):
                writing.release()

    run_in_threads(WRITERS + EXPORTERS, work)
    # Nothing is written any more: these two are of one position for sure.
    take()
    take()

    assert len(archives) >= 3, "exports were made while decisions were"
    check_all(shop, archives, tmp_path)
    connection.close()


def check_all(
    shop: Shop,
    archives: dict[int, list[tuple[bytes, dict[str, Any]]]],
    tmp_path: Path,
) -> None:
    last = max(archives)
    assert len(archives[last]) >= 2
    for position, found in archives.items():
        assert len({archive for archive, _ in found}) == 1, f"two exports at {position} differ"
        archive, manifest = found[0]
        report = verify(save(tmp_path / f"{position}.zip", archive), [PUBLIC])
        assert (report.first_sequence, report.last_sequence) == (1, position)
        assert report.rows["ledger.csv"] == position, "no row is missing"
        expected = sums_at(shop.world, position)
        figures = manifest["figures"]["ledger.csv"]
        assert {name: one["rows"] for name, one in figures.items()} == expected["rows"]
        assert (
            Decimal(figures.get("reserved", {"amount_usd": "0"})["amount_usd"])
            == (expected["reserved"])
        )
        assert report.rows["decisions.csv"] == expected["rows"].get("decision_made", 0)
        assert all(one["rows"] == one["bound"] for one in manifest["bindings"].values())


def sums_at(world: World, position: int) -> dict[str, Any]:
    """Return the ledger's own counts and sums up to a position, added up in Python."""
    rows: defaultdict[str, int] = defaultdict(int)
    reserved = Decimal(0)
    with reading(world.id):
        entries = LedgerEntry.objects.filter(tenant_id=world.id, sequence__lte=position)
        for event, amount in entries.values_list("event", "amount_usd"):
            rows[event] += 1
            reserved += amount if event == "reserved" else 0
    return {"rows": dict(rows), "reserved": reserved}
