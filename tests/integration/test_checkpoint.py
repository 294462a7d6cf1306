"""A checkpoint that somebody else keeps shows what the chain alone cannot."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from enforcement.ledger.checkpoint import build_checkpoint
from enforcement.ledger.domain import Head
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from valdrix.kernel.signing import encode, read_signing_key

KEY = read_signing_key(key_id="test-1", seed=encode(bytes(range(32))))
OTHER = read_signing_key(key_id="test-1", seed=encode(bytes(32)))


@pytest.fixture
def shop(tenant: World, settings: Any) -> Shop:
    settings.EXPORT_SIGNING_KEY = KEY
    made = Shop(tenant)
    made.budget("1000.00")
    return made


def keep(shop: Shop, directory: Path, **changes: Any) -> Path:
    document = shop.api.get("ledger/checkpoint", key=shop.world.admin.key).json()
    document["checkpoint"].update(changes)
    path = directory / "checkpoint.json"
    path.write_text(json.dumps(document))
    return path


def verify(shop: Shop, path: Path, *more: str) -> str:
    out = StringIO()
    call_command(
        "verify_ledger", "--tenant", shop.world.slug, "--checkpoint", str(path), *more, stdout=out
    )
    return out.getvalue()


def test_a_checkpoint_states_the_head_and_holds_while_the_ledger_grows(
    shop: Shop, tmp_path: Path
) -> None:
    path = keep(shop, tmp_path)
    shop.ask("10.00")

    assert "the checkpoint at sequence 2 holds" in verify(shop, path)
    assert "holds" in verify(shop, path, "--public-key", KEY.public_text)


def test_a_cut_tail_is_found_though_the_head_was_moved_back(
    shop: Shop, tmp_path: Path, owner_cursor: Any
) -> None:
    shop.ask("10.00")
    path = keep(shop, tmp_path)
    tenant_id = shop.world.id
    owner_cursor.execute("ALTER TABLE enforcement_ledger_entry DISABLE TRIGGER ALL")
    try:
        owner_cursor.execute(
            "DELETE FROM enforcement_ledger_entry WHERE tenant_id = %s AND sequence > 2",
            [tenant_id],
        )
        owner_cursor.execute(
            "UPDATE enforcement_ledger_head h SET sequence = e.sequence, entry_hash = e.entry_hash"
            " FROM enforcement_ledger_entry e WHERE h.tenant_id = %s AND e.tenant_id = h.tenant_id"
            " AND e.sequence = 2",
            [tenant_id],
        )
    finally:
        owner_cursor.execute("ALTER TABLE enforcement_ledger_entry ENABLE TRIGGER ALL")
        owner_cursor.execute(
            "ALTER TABLE enforcement_ledger_entry"
            " ENABLE ALWAYS TRIGGER enforcement_ledger_entry_chain"
        )
        for name in ("no_change", "no_truncate"):
            owner_cursor.execute(
                "ALTER TABLE enforcement_ledger_entry"
                f" ENABLE ALWAYS TRIGGER enforcement_ledger_entry_{name}"
            )

    with pytest.raises(CommandError, match="sequence 4, is missing") as refusal:
        verify(shop, path)

    assert refusal.value.returncode == 1


@pytest.mark.parametrize("changes", [{"sequence": 1}, {"entry_hash": "00" * 32}, {"extra": 1}])
def test_an_edited_checkpoint_is_refused(
    shop: Shop, tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = keep(shop, tmp_path, **changes)

    with pytest.raises(CommandError, match="not signed by the key that is trusted"):
        verify(shop, path)


def test_a_checkpoint_by_another_key_or_of_another_tenant_is_refused(
    shop: Shop, tmp_path: Path, other_tenant: World
) -> None:
    path = keep(shop, tmp_path)

    with pytest.raises(CommandError, match="not signed"):
        verify(shop, path, "--public-key", OTHER.public_text)
    with pytest.raises(CommandError, match="of another tenant"):
        call_command("verify_ledger", "--tenant", other_tenant.slug, "--checkpoint", str(path))


@pytest.mark.parametrize("text", ["", "{}", "[]", "nonsense", '{"checkpoint": {}}'])
def test_what_is_no_checkpoint_is_refused(shop: Shop, tmp_path: Path, text: str) -> None:
    path = tmp_path / "checkpoint.json"
    path.write_text(text)

    with pytest.raises(CommandError, match="it is no checkpoint") as refusal:
        verify(shop, path)

    assert refusal.value.returncode == 1


def test_the_route_is_an_admin_s_and_says_when_nothing_can_be_signed(
    tenant: World, settings: Any
) -> None:
    api = Api()
    settings.EXPORT_SIGNING_KEY = KEY
    assert api.get("ledger/checkpoint", key=tenant.member.key).status_code == 403
    empty = api.get("ledger/checkpoint", key=tenant.admin.key).json()
    assert (empty["checkpoint"]["sequence"], empty["checkpoint"]["entry_hash"]) == (0, "00" * 32)

    settings.EXPORT_SIGNING_KEY = None
    response = api.get("ledger/checkpoint", key=tenant.admin.key)
    assert (response.status_code, response.json()["code"]) == (503, "signing_key_missing")


# Kept outside the database, at an interval


@pytest.fixture
def kept(settings: Any, tmp_path: Path) -> Path:
    settings.LEDGER_CHECKPOINT_DIR = tmp_path / "kept"
    return tmp_path / "kept"


def test_the_job_keeps_each_head_once_and_checks_it_later(shop: Shop, kept: Path) -> None:
    from valdrix.jobs.tasks import _keep

    assert _keep(shop.world.id) == {"kept": 1, "files": 1}
    assert _keep(shop.world.id) == {"kept": 0, "files": 1}
    shop.ask("10.00")
    assert _keep(shop.world.id) == {"kept": 1, "files": 2}
    newest = max((kept / str(shop.world.id)).iterdir())
    assert "the checkpoint at sequence 4 holds" in verify(shop, newest)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace(b'"sequence":2', b'"sequence":1'), "not signed by the key"),
        (lambda text: b"{}", "no checkpoint"),
    ],
)
def test_a_kept_file_that_was_edited_is_found(
    shop: Shop, kept: Path, change: Any, reason: str
) -> None:
    from valdrix.jobs.tasks import LedgerBroken, _keep

    _keep(shop.world.id)
    path = next((kept / str(shop.world.id)).iterdir())
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(LedgerBroken, match=reason):
        _keep(shop.world.id)


def test_a_ledger_that_belies_a_kept_file_is_not_vouched_for_again(
    shop: Shop, other_tenant: World, kept: Path
) -> None:
    """Another ledger's file stands for a ledger that was rewritten."""
    from valdrix.jobs.tasks import LedgerBroken, _keep
    from valdrix.kernel.canonical import canonical_bytes

    _keep(shop.world.id)
    folder = kept / str(shop.world.id)
    head = Head(2, bytes(32))
    forged = build_checkpoint(tenant_id=shop.world.id, head=head, at=datetime.now(UTC), key=KEY)
    (folder / "000000000000002-other.json").write_bytes(canonical_bytes(forged))
    with pytest.raises(LedgerBroken, match="sequence 2 has another hash"):
        _keep(shop.world.id)
    head = Head(99, bytes(32))
    forged = build_checkpoint(tenant_id=shop.world.id, head=head, at=datetime.now(UTC), key=KEY)
    (folder / "000000000000002-other.json").write_bytes(canonical_bytes(forged))
    with pytest.raises(LedgerBroken, match="sequence 99 is missing"):
        _keep(shop.world.id)
    assert len(list(folder.iterdir())) == 2, "nothing new was signed"


def test_a_retired_keys_file_still_holds(shop: Shop, kept: Path, settings: Any) -> None:
    from valdrix.jobs.tasks import LedgerBroken, _keep

    _keep(shop.world.id)
    settings.EXPORT_SIGNING_KEY = OTHER
    with pytest.raises(LedgerBroken):
        _keep(shop.world.id)
    settings.EXPORT_RETIRED_PUBLIC_KEYS = [KEY.public_text]
    assert _keep(shop.world.id)["files"] == 1


def test_without_a_directory_or_a_key_the_job_says_so(settings: Any) -> None:
    from valdrix.jobs.tasks import keep_checkpoints

    settings.LEDGER_CHECKPOINT_DIR = None
    assert "ENFORCEMENT_CHECKPOINT_DIR" in keep_checkpoints()
    settings.LEDGER_CHECKPOINT_DIR = Path("/nowhere")
    settings.EXPORT_SIGNING_KEY = None
    assert "ENFORCEMENT_EXPORT_SIGNING_KEY" in keep_checkpoints()
