"""A tenant with a little of everything, and its archive."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from enforcement.exports.archive import Export
from enforcement.exports.domain import build_scope
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from valdrix.kernel.signing import encode, read_signing_key

KEY = read_signing_key(key_id="export-test", seed=encode(bytes(range(32))))
PUBLIC = KEY.public_text
OTHER_KEY = read_signing_key(key_id="export-test", seed=encode(bytes(32)))
FORMULA = '=HYPERLINK("http://x","é, or\nnot")'


def make_history(world: World) -> Shop:
    """Commit decisions of every kind, approvals, reservations and two policies."""
    terms = {
        "prod": {"require_approval_from_usd": "300.00"},
        "nonprod": {"require_approval_from_usd": "1000000.00"},
    }
    rule = {"id": "gpu", "when": "input.metadata.gpu == true", "effect": "tag", "message": "GPU."}
    shop = Shop(world, thresholds=terms, rules=[rule])
    shop.budget("1000.00", environment="nonprod")
    shop.budget("2000.00", environment="prod")
    shop.grant("reserved", "100.00")
    for number, amount in enumerate(("10.00", "-3.00", "0.0001", "1020.00", "5000.00")):
        shop.ask(amount, key=f"k{number}", resource_reference="module.web", run_id=f"r{number}")
    shop.ask("12.00", resource_reference="+cmd", metadata={"gpu": True})
    shop.ask(None, resource_reference="@unknown", environment="prod")
    for number, amount in enumerate(("350.00", "400.00")):
        shop.ask(amount, environment="prod", resource_reference=f"-big.{number}")
    shop.publish(thresholds=terms)
    held = shop.ask("20.00", resource_reference="settled")
    path = f"reservations/{held['decision_id']}/reconcile"
    body = {"actual_monthly_delta_usd": "18.00", "notes": "n", "idempotency_key": "one"}
    settled = shop.api.post(path, body, key=world.admin.key)
    assert settled.status_code == 200, settled.content
    return shop


def export(world: World, *, limit: int | None = None, **window: Any) -> Export:
    """Return an export of the current month, or of another window."""
    scope = build_scope(
        tenant_id=world.id,
        window=(window.get("start_at"), window.get("end_at")),
        limit=limit,
        now=datetime.now(UTC),
    )
    return Export(scope, KEY)


def archive_of(world: World, **scope: Any) -> bytes:
    """Return the whole archive."""
    return b"".join(export(world, **scope).stream())


def unpack(archive: bytes) -> dict[str, bytes]:
    """Return the files of an archive by name."""
    with zipfile.ZipFile(io.BytesIO(archive)) as found:
        return {name: found.read(name) for name in found.namelist()}


def save(path: Path, content: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content)
    return path
