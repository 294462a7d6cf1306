"""Replay: every stored context decides to the stored outcome, wherever it runs (BSAFE-002)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from enforcement.gate import decision
from enforcement.models import Decision
from enforcement.replay import queries
from enforcement.replay.queries import Span
from enforcement.replay.replaying import replay
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.integration.exports.history import make_history
from valdrix.kernel.db import reading

ROOT = Path(__file__).parents[3]


def span_of(world: World) -> Span:
    now = datetime.now(UTC)
    return Span(
        tenant_id=world.id, start_at=now - timedelta(hours=1), end_at=now + timedelta(hours=1)
    )


def run(world: World, *arguments: str) -> str:
    out = StringIO()
    call_command("replay", "--tenant", world.slug, *arguments, stdout=out)
    return out.getvalue()


def storm(shop: Shop, run_in_threads: Callable[..., list[object]]) -> None:
    """Ask from several threads at once for amounts that the budget does not hold."""

    def ask(number: int) -> None:
        for step in range(6):
            shop.ask(
                f"{(number * 7 + step * 31) % 60}.5000",
                resource_reference=f"module.{step}",
                key=f"{number % 3}-{step}-{number}",
                environment="prod" if step % 2 else "dev",
                metadata={"größe": [1.5, None, "é"], "gpu": step == 3},
            )

    run_in_threads(4, ask)


def test_every_outcome_of_a_history_is_replayed(tenant: World) -> None:
    make_history(tenant)
    report = replay(span_of(tenant))
    assert dict(report.results) == {"same": 10}
    assert run(tenant).startswith(f"{tenant.slug}: 10 decisions replayed by decide-")


@pytest.mark.parametrize(
    ("seed", "zone"), [("0", "Pacific/Kiritimati"), ("4242", "America/Caracas")]
)
def test_a_storm_replays_in_another_process_time_zone_and_hash_seed(
    tenant: World, run_in_threads: Callable[..., list[object]], seed: str, zone: str
) -> None:
    shop = make_history(tenant)
    storm(shop, run_in_threads)
    url = urlsplit(os.environ["DATABASE_URL"])
    name = connection.settings_dict["NAME"]
    done = subprocess.run(
        [sys.executable, "manage.py", "replay", "--tenant", tenant.slug, "--json", "--strict"],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": urlunsplit(url._replace(path=f"/{name}")),
            "PYTHONHASHSEED": seed,
            "TZ": zone,
        },
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["same"] is True
    results = document["tenants"][0]["results"]
    # A loaded machine may have made one of them fail safe; those are replayed by their hash.
    assert results["same"] + results.pop("fail_safe", 0) == 34
    assert set(results) == {"same"}
    with reading(tenant.id):
        decisions = Decision.objects.filter(tenant_id=tenant.id).values_list("decision", flat=True)
        assert len(set(decisions)) >= 3, "the storm had decisions of several kinds"


def test_a_planted_change_of_decide_is_caught_with_a_diff(
    tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_history(tenant)
    whole = decision._coverage_codes

    def without_one(*arguments: Any) -> list[str]:
        return [code for code in whole(*arguments) if code != decision.WITHIN_BUDGET]

    monkeypatch.setattr(decision, "_coverage_codes", without_one)
    out = StringIO()

    with pytest.raises(CommandError, match="outcomes differ") as refusal:
        call_command("replay", "--tenant", tenant.slug, stdout=out)

    assert refusal.value.returncode == 1
    assert "different" in out.getvalue()
    assert '/reason_codes: ["within_budget"] -> []' in out.getvalue()


def test_a_planted_change_of_an_amount_is_caught(
    tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_history(tenant)
    monkeypatch.setattr(decision, "_holds", lambda fall, context: ())
    report = replay(span_of(tenant))
    assert report.results["different"] > 3
    assert {change.pointer for one in report.found for change in one.changes} == {"/holds"}


def test_another_engine_may_differ_unless_strict(
    tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_history(tenant)
    monkeypatch.setattr("enforcement.replay.domain.ENGINE_VERSION", "decide-2")
    assert dict(replay(span_of(tenant)).results) == {"same": 10}
    monkeypatch.setattr(decision, "_holds", lambda fall, context: ())

    out = run(tenant)

    assert "engine_changed" in out
    with pytest.raises(CommandError) as refusal:
        run(tenant, "--strict")
    assert refusal.value.returncode == 1


def test_a_fail_safe_outcome_was_not_decided_and_is_counted_apart(
    tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_history(tenant)

    def broken(*arguments: Any, **names: Any) -> None:
        raise RuntimeError("planted")

    with monkeypatch.context() as patched:
        patched.setattr("enforcement.gate.evaluate.decide", broken)
        shop.ask("5.00", resource_reference="failing")
    assert dict(replay(span_of(tenant)).results) == {"same": 10, "fail_safe": 1}


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("outcome_json", "{}", "stored outcome"),
        ("context_json", "{}", "cannot be read"),
        ("policy_version", "7", "policy version 7"),
    ],
)
def test_a_damaged_row_is_named(
    tenant: World, owner_cursor: Any, column: str, value: str, reason: str
) -> None:
    shop = make_history(tenant)
    decision_id = shop.ask("1.00", resource_reference="damaged")["decision_id"]
    table = "enforcement_decision"
    owner_cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_no_change")
    try:
        owner_cursor.execute(
            f"UPDATE {table} SET {column} = %s WHERE id = %s", [value, decision_id]
        )
    finally:
        owner_cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_no_change")

    report = replay(span_of(tenant))

    assert report.results["damaged"] == 1
    assert str(report.found[0].stored.decision_id) == decision_id
    assert reason in report.found[0].reason


def test_batches_leave_nothing_out(tenant: World, monkeypatch: pytest.MonkeyPatch) -> None:
    make_history(tenant)
    monkeypatch.setattr(queries, "BATCH", 3)
    seen: list[tuple[int, int]] = []
    report = replay(span_of(tenant), progress=lambda done, total: seen.append((done, total)))
    assert report.total == 10
    assert seen == [(3, 10), (6, 10), (9, 10), (10, 10)]


def test_a_span_is_taken_exactly(tenant: World) -> None:
    shop = make_history(tenant)
    made = Api().get("decisions", key=shop.world.admin.key).json()["results"]
    first = min(one["evaluated_at"] for one in made)
    assert "10 decisions" in run(tenant, "--from", first)
    with pytest.raises(CommandError, match="nothing was replayed") as refusal:
        run(tenant, "--to", first)
    assert refusal.value.returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--from", "soon"),
        ("--from", "2026-02-01T00:00:00Z", "--to", "2026-01-01T00:00:00Z"),
    ],
)
def test_a_span_that_is_none_is_refused(tenant: World, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as refusal:
        run(tenant, *arguments)
    assert refusal.value.returncode == 2
    with pytest.raises(CommandError) as refusal:
        call_command("replay", "--tenant", "nobody")
    assert refusal.value.returncode == 2
