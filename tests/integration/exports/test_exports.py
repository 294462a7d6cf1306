"""Exports: one snapshot, exact and safe cells, the same bytes again (SPEC 9, ECP-015)."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
import threading
import zipfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.test import Client
from django.urls import reverse
from psycopg.pq import TransactionStatus

from enforcement.exports import counting
from enforcement.exports.verifier.checks import verify, verify_ledger
from enforcement.exports.verifier.files import Refused
from enforcement.exports.verifier.layout import COLUMNS, CONTEXT_LINEAGE
from enforcement.models import Decision, LedgerEntry
from governance.models import User
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import Person, World
from tests.integration.exports.history import (
    KEY,
    OTHER_KEY,
    PUBLIC,
    archive_of,
    export,
    make_history,
    save,
    unpack,
)
from valdrix.kernel.canonical import canonical_bytes
from valdrix.kernel.db import reading
from valdrix.kernel.signing import is_signed


@pytest.fixture(autouse=True)
def _signing(settings: Any) -> None:
    settings.EXPORT_SIGNING_KEY = KEY


@pytest.fixture
def shop(tenant: World) -> Shop:
    return make_history(tenant)


def rows_of(raw: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(raw.decode(), newline="")))


@pytest.mark.parametrize("read", [1, 4])
def test_a_receiver_that_hangs_up_leaves_nothing_open(
    shop: Shop, tenant: World, monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    monkeypatch.setattr(counting, "CHUNK_BYTES", 1)

    found = []

    def hang_up() -> None:
        archive = export(tenant).stream()
        for _ in range(read):
            next(archive)
        archive.close()
        with reading(tenant.id):
            decisions = Decision.objects.count()
        found.append((connection.connection.pgconn.transaction_status, decisions))
        connections.close_all()

    # One that waits for ever is left behind.
    receiver = threading.Thread(target=hang_up, daemon=True)
    receiver.start()
    receiver.join(30)

    ((status, decisions),) = found
    assert status == TransactionStatus.IDLE
    assert decisions > 1


def test_the_archive_holds_nine_files_and_verifies(shop: Shop, tmp_path: Path) -> None:
    archive = archive_of(shop.world)
    files = unpack(archive)

    report = verify(save(tmp_path / "a.zip", archive), [PUBLIC])

    assert list(files) == [
        *("decisions.csv", "approvals.csv", "ledger.csv", "reservations.csv"),
        *("manifest.json", "manifest.canonical.json", "manifest.sha256", "manifest.sig"),
        "checkpoint.json",
    ]
    assert report.rows == {
        "decisions.csv": 10,
        "approvals.csv": 3,
        "ledger.csv": report.last_sequence,
        "reservations.csv": 9,
    }
    assert canonical_bytes(json.loads(files["manifest.json"])) == files["manifest.canonical.json"]
    digest = hashlib.sha256(files["manifest.canonical.json"]).hexdigest()
    assert files["manifest.sha256"].decode().split() == [digest, "manifest.canonical.json"]
    assert is_signed(
        files["manifest.canonical.json"],
        signature=files["manifest.sig"].decode().strip(),
        public_text=PUBLIC,
    )


def test_cells_are_exact_and_cannot_start_a_formula(shop: Shop) -> None:
    files = unpack(archive_of(shop.world))
    decisions = rows_of(files["decisions.csv"])

    assert [row["estimated_monthly_delta_usd"] for row in decisions[:3]] == [
        "10.0000",
        "-3.0000",
        "0.0001",
    ]
    references = [row["resource_reference"] for row in decisions]
    assert "'+cmd" in references
    assert "'@unknown" in references
    assert "'-big.0" in references
    for name in ("decisions.csv", "approvals.csv", "ledger.csv", "reservations.csv"):
        for row in rows_of(files[name]):
            for column, cell in row.items():
                if cell[:1] in tuple("=+-@\t\r\n"):
                    assert column.endswith("_usd"), (name, column, cell)
                    Decimal(cell)


def test_awkward_text_comes_back_as_it_was(tenant: World, tmp_path: Path) -> None:
    shop = Shop(tenant)
    texts = ['=1+1"', "'quoted", "a,b", "é ü", "＝2", "`x`"]
    for text in texts:
        shop.ask(resource_reference=text)
    archive = archive_of(tenant)
    verify(save(tmp_path / "a.zip", archive), [PUBLIC])

    cells = [row["resource_reference"] for row in rows_of(unpack(archive)["decisions.csv"])]

    assert [cell.removeprefix("'") for cell in cells] == texts
    assert [cell[:1] for cell in cells] == ["'", "'", "a", "é", "'", "`"]


def test_decisions_have_the_lineage_columns(shop: Shop) -> None:
    files = unpack(archive_of(shop.world))
    row = rows_of(files["decisions.csv"])[5]
    with reading(shop.world.id):
        stored = Decision.objects.get(id=row["decision_id"])
    computed = json.loads(stored.context_json)["computed"]

    assert json.loads(row["tags"]) == ["gpu"] == json.loads(stored.outcome_json)["tags"]
    assert row["policy_document_sha256"] == stored.policy_document_sha256
    assert row["policy_document_schema_version"] == "valdrix.enforcement.policy.v1"
    for name in CONTEXT_LINEAGE:
        member = (
            "context_version"
            if name.endswith("_version")
            else name.removeprefix("computed_context_")
        )
        expected = computed[member]
        assert row[name] == ("" if expected is None else str(expected))
    moment = datetime.fromisoformat(row["computed_context_generated_at"])
    assert moment == datetime.fromisoformat(computed["generated_at"])


def test_approvals_have_their_routing_and_reservations_their_settlement(shop: Shop) -> None:
    files = unpack(archive_of(shop.world))

    approvals = rows_of(files["approvals.csv"])
    settled = [row for row in rows_of(files["reservations.csv"]) if row["state"] == "settled"]

    assert [row["status"] for row in approvals] == ["pending"] * 3
    assert {row["routing_trace"] for row in approvals} == {"[]"}
    assert [row["settlement_actual_usd"] for row in settled] == ["18.0000"]
    assert [row["settlement_drift_usd"] for row in settled] == ["-2.0000"]


def test_approvals_show_who_gave_them_and_what_became_of_their_token(
    shop: Shop, tmp_path: Path
) -> None:
    """Approving reserves later, and perhaps beyond the budget: the reservation still agrees."""
    world = shop.world
    terms = {"require_approval_from_usd": "300.00"}
    shop.publish(
        modes={"terraform": {"default": "soft"}}, thresholds={"prod": terms, "nonprod": terms}
    )
    asked = [
        shop.ask(amount, environment="prod", resource_reference=f"given.{amount}")
        for amount in ("700.00", "1900.00")
    ]
    for one in asked:
        path = f"approvals/{one['approval_request_id']}/approve"
        given = Api().post(path, {"reason": "agreed"}, key=world.owner.key)
        assert given.status_code == 200, given.content
    path = f"approvals/{asked[0]['approval_request_id']}/token"
    assert Api().post(path, {}, key=world.key).status_code == 200

    archive = archive_of(world)
    report = verify(save(tmp_path / "a.zip", archive), [PUBLIC])

    rows = {row["approval_request_id"]: row for row in rows_of(unpack(archive)["approvals.csv"])}
    first, second = (rows[one["approval_request_id"]] for one in asked)
    assert (first["status"], first["approvals_given"], first["round"]) == ("approved", "1", "1")
    assert first["max_monthly_delta_usd"] == "700.0000"
    assert (first["tokens_issued"], first["token_status"]) == ("1", "live")
    assert (second["tokens_issued"], second["token_status"]) == ("0", "")
    events = {row["event"] for row in rows_of(unpack(archive)["ledger.csv"])}
    assert "overrun_reserved" in events
    assert report.rows["approvals.csv"] == 5


def test_the_same_window_and_data_give_the_same_bytes(shop: Shop) -> None:
    first = archive_of(shop.world)
    assert archive_of(shop.world) == first
    shop.ask("1.00", resource_reference="later")
    assert archive_of(shop.world) != first


def test_exporting_writes_nothing(shop: Shop) -> None:
    def count() -> int:
        with reading(shop.world.id):
            return LedgerEntry.objects.filter(tenant_id=shop.world.id).count()

    before = count()
    archive_of(shop.world)
    assert count() == before


def test_export_policy_lineage_remains_consistent_across_policy_updates(shop: Shop) -> None:
    manifest = export(shop.world).finish().manifest

    lineage = manifest["policy_lineage"]
    assert [(one["policy_version"], one["decisions"]) for one in lineage] == [(1, 9), (2, 1)]
    assert len({one["policy_document_sha256"] for one in lineage}) == 2
    assert sum(one["decisions"] for one in manifest["computed_context_lineage"]) == 10


def test_the_parity_is_that_of_the_archive(shop: Shop) -> None:
    admin = shop.world.admin.key
    parity = shop.api.get("exports/parity", query={"limit": "1000"}, key=admin).json()
    manifest = unpack(archive_of(shop.world, limit=1000))["manifest.canonical.json"]

    assert parity["manifest_content_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert is_signed(manifest, signature=parity["manifest_signature"], public_text=PUBLIC)
    assert parity["manifest_signature_algorithm"] == "Ed25519"
    assert parity["manifest_signature_key_id"] == KEY.key_id
    assert parity["policy_lineage_entries"] == 2
    assert parity["parity_ok"] is True
    assert parity["truncated"] is False
    assert parity["figures"]["decisions.csv"]["DENY"]["estimated_monthly_delta_usd"] == "5000.0000"


def test_sums_are_those_of_the_rows(shop: Shop) -> None:
    parity = shop.api.get("exports/parity", key=shop.world.admin.key).json()
    reservations = rows_of(unpack(archive_of(shop.world))["reservations.csv"])

    held = sum(Decimal(row["own_usd"]) for row in reservations)
    figures = parity["figures"]["reservations.csv"]
    assert sum(Decimal(one["own_usd"]) for one in figures.values()) == held
    assert Decimal(parity["figures"]["ledger.csv"]["reserved"]["amount_usd"]) == held


def test_the_limit_covers_the_earliest_decisions_and_says_so(shop: Shop, tmp_path: Path) -> None:
    archive = archive_of(shop.world, limit=3)
    report = verify(save(tmp_path / "a.zip", archive), [PUBLIC])
    whole = unpack(archive_of(shop.world))["decisions.csv"].splitlines()

    assert report.truncated
    assert report.last_sequence < report.position
    assert unpack(archive)["decisions.csv"].splitlines() == whole[:4]
    parity = shop.api.get("exports/parity", query={"limit": "3"}, key=shop.world.admin.key).json()
    assert parity["truncated"] is True
    assert parity["files"]["decisions.csv"]["rows"] == 3


def test_windows_meet_without_gap_or_overlap(shop: Shop, tmp_path: Path) -> None:
    decisions = rows_of(unpack(archive_of(shop.world))["decisions.csv"])
    cut = datetime.fromisoformat(decisions[4]["created_at"])
    start = cut - timedelta(days=1)

    early = archive_of(shop.world, start_at=start, end_at=cut)
    late = archive_of(shop.world, start_at=cut, end_at=cut + timedelta(days=1))

    for place, archive in enumerate((early, late)):
        verify(save(tmp_path / f"{place}.zip", archive), [PUBLIC])
    ids = [
        row["decision_id"]
        for archive in (early, late)
        for row in rows_of(unpack(archive)["decisions.csv"])
    ]
    assert ids == [row["decision_id"] for row in decisions]


def test_an_empty_window_is_an_archive_too(shop: Shop, tmp_path: Path) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    archive = archive_of(shop.world, start_at=past, end_at=past + timedelta(days=31))
    report = verify(save(tmp_path / "a.zip", archive), [PUBLIC])
    assert set(report.rows.values()) == {0}


def test_a_tenant_without_a_ledger_has_an_archive(tenant: World, tmp_path: Path) -> None:
    report = verify(save(tmp_path / "a.zip", archive_of(tenant)), [PUBLIC])
    assert report.position == 0


def test_no_other_tenants_row_is_in_it(shop: Shop, other_tenant: World) -> None:
    make_history(other_tenant)
    files = unpack(archive_of(shop.world))
    with reading(other_tenant.id):
        foreign = Decision.objects.filter(tenant_id=other_tenant.id).values_list("id", flat=True)
        ids = [str(one) for one in foreign]
    assert ids
    text = b"".join(files.values()).decode()
    assert not [one for one in ids if one in text]


def test_build_export_bundle_reconciles_counts_and_finds_a_row_that_does_not(
    shop: Shop, owner_cursor: Any
) -> None:
    decision_id = shop.ask("7.00", resource_reference="tampered")["decision_id"]
    owner_cursor.execute(
        "ALTER TABLE enforcement_decision DISABLE TRIGGER enforcement_decision_no_change"
    )
    try:
        owner_cursor.execute(
            "UPDATE enforcement_decision SET decision = 'DENY' WHERE id = %s", [decision_id]
        )
    finally:
        owner_cursor.execute(
            "ALTER TABLE enforcement_decision ENABLE ALWAYS TRIGGER enforcement_decision_no_change"
        )

    parity = shop.api.get("exports/parity", key=shop.world.admin.key).json()

    assert parity["parity_ok"] is False
    assert parity["bindings"]["decisions.csv"] == {"rows": 11, "bound": 10}


# Doors


def test_the_archive_streams_over_http(shop: Shop, tmp_path: Path) -> None:
    response = shop.api.get(
        "exports/archive", key=shop.world.admin.key, headers={"Accept": "application/zip"}
    )

    assert response.status_code == 200
    assert response.streaming
    assert response["Content-Type"] == "application/zip"
    assert "attachment" in response["Content-Disposition"]
    body = b"".join(response.streaming_content)
    assert body == archive_of(shop.world)


@pytest.mark.parametrize("path", ["exports/parity", "exports/archive"])
def test_members_and_bound_keys_may_not_export(tenant: World, path: str) -> None:
    assert Api().get(path, key=tenant.member.key).status_code == 403


@pytest.mark.parametrize("path", ["exports/parity", "exports/archive"])
@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "-1"},
        {"limit": "1e3"},
        {"limit": "9" * 30},
        {"window_start": "yesterday"},
        {"window_start": "2026-02-01T00:00:00Z", "window_end": "2026-02-01T00:00:00Z"},
        {"window_start": "2026-02-01"},
        {"windowstart": "2026-02-01T00:00:00Z"},
    ],
)
def test_a_bad_query_is_a_422(tenant: World, path: str, query: dict[str, str]) -> None:
    response = Api().get(path, query=query, key=tenant.admin.key)
    assert response.status_code == 422, response.content
    assert response.json()["errors"]


@pytest.mark.parametrize("path", ["exports/parity", "exports/archive"])
def test_without_a_key_nothing_can_be_signed(tenant: World, path: str, settings: Any) -> None:
    settings.EXPORT_SIGNING_KEY = None
    response = Api().get(path, key=tenant.admin.key)
    assert response.status_code == 503
    assert response.json()["code"] == "signing_key_missing"


def test_a_window_defaults_to_the_current_month(tenant: World) -> None:
    parity = Api().get("exports/parity", key=tenant.admin.key).json()
    now = datetime.now(UTC)
    assert parity["window_start"] == f"{now:%Y-%m}-01T00:00:00.000000Z"
    assert parity["limit"] == 50


def test_the_commands_write_and_verify_an_archive(shop: Shop, tmp_path: Path) -> None:
    path, out = tmp_path / "a.zip", StringIO()
    call_command("export_parity", "--tenant", shop.world.slug, "--output", str(path), stdout=out)
    assert json.loads(out.getvalue())["parity_ok"] is True
    assert path.read_bytes() == archive_of(shop.world)

    out = StringIO()
    call_command("verify_export", str(path), stdout=out)
    assert out.getvalue().startswith("VERIFIED\n")
    assert "10 in decisions.csv" in out.getvalue()

    call_command("verify_export", str(path), "--public-key", PUBLIC, stdout=StringIO())
    with pytest.raises(CommandError, match=r"manifest\.sig: is not the signature") as refusal:
        call_command("verify_export", str(path), "--public-key", OTHER_KEY.public_text)
    assert refusal.value.returncode == 1


def test_a_rotated_key_still_verifies(shop: Shop, tmp_path: Path) -> None:
    path = save(tmp_path / "a.zip", archive_of(shop.world))
    assert verify(path, [OTHER_KEY.public_text, PUBLIC]).key_id == KEY.key_id


@pytest.mark.parametrize(
    "arguments",
    [
        ("--tenant", "nobody"),
        ("--tenant", "SLUG", "--limit", "0"),
        ("--tenant", "SLUG", "--window-start", "soon"),
        (
            "--tenant",
            "SLUG",
            "--window-end",
            "2020-01-01T00:00:00Z",
            "--window-start",
            "2020-02-01T00:00:00Z",
        ),
        ("--tenant", "SLUG", "--output", "/nowhere/a.zip"),
    ],
)
def test_a_command_that_is_used_wrongly_says_so(tenant: World, arguments: tuple[str, ...]) -> None:
    given = [tenant.slug if word == "SLUG" else word for word in arguments]
    with pytest.raises(CommandError) as refusal:
        call_command("export_parity", *given, stdout=StringIO())
    assert refusal.value.returncode == 2


def test_verify_export_used_wrongly_says_so(settings: Any, tmp_path: Path) -> None:
    with pytest.raises(CommandError) as refusal:
        call_command("verify_export", str(tmp_path / "none.zip"))
    assert refusal.value.returncode == 1
    settings.EXPORT_SIGNING_KEY = None
    with pytest.raises(CommandError, match="--public-key") as refusal:
        call_command("verify_export", str(tmp_path / "none.zip"))
    assert refusal.value.returncode == 2


def sign_in(person: Person) -> Client:
    client = Client()
    client.force_login(User.objects.get(pk=person.user_id))
    return client


def test_finance_gets_the_archive_from_the_console(shop: Shop, tmp_path: Path) -> None:
    client = sign_in(shop.world.admin)
    page = client.get(reverse("admin:exports")).content.decode()
    assert "Export parity CSV" in page
    assert PUBLIC in page
    today = datetime.now(UTC).date()

    response = client.get(
        reverse("admin:export_archive"), {"from": str(today), "until": str(today)}
    )

    body = b"".join(response.streaming_content)
    assert verify(save(tmp_path / "a.zip", body), [PUBLIC]).rows["decisions.csv"] == 10


def test_the_console_refuses_members_and_odd_days(tenant: World, settings: Any) -> None:
    for name in ("exports", "export_archive"):
        assert sign_in(tenant.member).get(reverse(f"admin:{name}")).status_code == 403
    client = sign_in(tenant.admin)
    url = reverse("admin:export_archive")
    assert client.get(url, {"from": "x" * 10, "until": "2026-01-01"}).status_code == 400
    assert client.get(url, {"from": "2026-02-01", "until": "2026-01-01"}).status_code == 400
    assert client.get(url).status_code == 400
    assert client.post(url).status_code == 405
    assert client.post(reverse("admin:exports")).status_code == 405
    settings.EXPORT_SIGNING_KEY = None
    assert client.get(url, {"from": "2026-01-01", "until": "2026-01-01"}).status_code == 400
    assert "No signing key" in client.get(reverse("admin:exports")).content.decode()


# The verifier as an auditor has it


def test_the_single_file_verifies_and_refuses_alone(shop: Shop, tmp_path: Path) -> None:
    from enforcement.exports.single_file import TARGET, build_single_file

    assert TARGET.read_text() == build_single_file(), (
        "run python -m enforcement.exports.single_file"
    )
    path = save(tmp_path / "a.zip", archive_of(shop.world))
    program = save(tmp_path / "verify_export.py", TARGET.read_bytes())

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", str(program), *arguments],
            capture_output=True,
            check=False,
            cwd=tmp_path,
            text=True,
            timeout=60,
        )

    assert run(str(path), "--public-key", PUBLIC).stdout.startswith("VERIFIED")
    refused = run(str(path), "--public-key", OTHER_KEY.public_text)
    assert (refused.returncode, refused.stderr.split(":")[0]) == (1, "REFUSED manifest.sig")
    assert run(str(path), "--public-key", "no key").returncode == 2
    files = unpack(path.read_bytes())
    ledger = save(tmp_path / "ledger.csv", files["ledger.csv"])
    checkpoint = save(tmp_path / "checkpoint.json", files["checkpoint.json"])
    alone = run(str(ledger), "--ledger", "--public-key", PUBLIC, "--checkpoint", str(checkpoint))
    assert alone.stdout.startswith("VERIFIED"), alone.stderr


def test_an_unpacked_archive_verifies(shop: Shop, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(archive_of(shop.world))) as archive:
        archive.extractall(tmp_path)
    assert verify(tmp_path, [PUBLIC]).rows["decisions.csv"] == 10
    (tmp_path / "approvals.csv").unlink()
    with pytest.raises(Refused, match=r"approvals\.csv: is missing"):
        verify(tmp_path, [PUBLIC])


def test_a_checkpoint_kept_elsewhere_shows_an_older_export(shop: Shop, tmp_path: Path) -> None:
    old = save(tmp_path / "old.zip", archive_of(shop.world))
    document = shop.api.get("ledger/checkpoint", key=shop.world.admin.key).content
    same = save(tmp_path / "same.json", document)
    assert verify(old, [PUBLIC], checkpoints=[same]).checkpoints == 1
    shop.ask("1.00", resource_reference="later")
    newer = save(
        tmp_path / "newer.json",
        shop.api.get("ledger/checkpoint", key=shop.world.admin.key).content,
    )

    with pytest.raises(Refused, match=r"older than newer\.json"):
        verify(old, [PUBLIC], checkpoints=[newer])
    new = save(tmp_path / "new.zip", archive_of(shop.world))
    assert verify(new, [PUBLIC], checkpoints=[same, newer]).checkpoints == 2


def test_a_ledger_file_needs_a_checkpoint_of_one_of_its_entries(shop: Shop, tmp_path: Path) -> None:
    files = unpack(archive_of(shop.world))
    ledger = save(tmp_path / "ledger.csv", files["ledger.csv"])
    kept = save(tmp_path / "checkpoint.json", files["checkpoint.json"])
    assert verify_ledger(ledger, [PUBLIC], checkpoints=[kept]).checkpoints == 1
    with pytest.raises(Refused, match="needs checkpoints"):
        verify_ledger(ledger, [PUBLIC], checkpoints=[])
    lines = files["ledger.csv"].splitlines(keepends=True)
    save(ledger, b"".join(lines[:-1]))
    with pytest.raises(Refused, match=r"is missing, which checkpoint\.json states"):
        verify_ledger(ledger, [PUBLIC], checkpoints=[kept])


def test_the_columns_of_the_ledger_are_those_that_are_hashed() -> None:
    from enforcement.ledger.domain import COLUMNS as HASHED

    assert set(COLUMNS["ledger.csv"]) == {*HASHED, "sequence", "prev_hash", "entry_hash"}
