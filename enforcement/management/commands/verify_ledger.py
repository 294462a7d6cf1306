"""``manage.py verify_ledger``: recompute the hash chain of one tenant's ledger, or of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from enforcement.ledger.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from enforcement.ledger.queries import find_hash
from enforcement.ledger.verification import Verification, verify_ledger
from governance.tenants.queries import find_tenant_id
from valdrix.kernel.db import reading, tenant_ids_for_job

_JOB = "verify_ledger"


class Command(BaseCommand):
    """Prints a line a tenant; exits 0 when every chain holds, 1 when not, 2 when used wrongly."""

    help = "Recompute the hash chain of the ledger and name the first entry that does not hold."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take one tenant or all of them."""
        scope = parser.add_mutually_exclusive_group(required=True)
        scope.add_argument("--tenant", metavar="SLUG", help="verify this tenant's ledger")
        scope.add_argument("--all", action="store_true", help="verify every tenant's ledger")
        parser.add_argument(
            "--checkpoint",
            metavar="FILE",
            type=Path,
            help="also check that the ledger still holds what this signed checkpoint states",
        )
        parser.add_argument(
            "--public-key",
            metavar="BASE64URL",
            help="who must have signed it; the configured key's public half without this",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        """Verify, print what was inspected, and fail on the first place that does not hold."""
        checkpoint = _read_checkpoint(options)
        names = self._tenants(options)
        found = []
        for tenant_id, name in names:
            result = verify_ledger(tenant_id, progress=self._progress_of(name))
            found.append((name, result))
            if not options["json"]:
                self.stdout.write(_line(name, result))
        entries = sum(result.entries for _, result in found)
        broken = [name for name, result in found if result.fault is not None]
        if options["json"]:
            self.stdout.write(_to_json(found, entries, intact=bool(found) and not broken))
        elif len(found) != 1:
            self.stdout.write(f"{entries} entries inspected in {len(found)} ledgers")
        if not found:
            raise CommandError("there is no tenant: nothing was verified", returncode=1)
        if broken:
            raise CommandError(f"broken: {', '.join(broken)}", returncode=1)
        if checkpoint is not None:
            self._check(checkpoint, [tenant_id for tenant_id, _ in names])

    def _check(self, checkpoint: Checkpoint, tenant_ids: list[Any]) -> None:
        """Fail when the ledger does not hold what a checkpoint states any more."""
        head = checkpoint.head
        if checkpoint.tenant_id not in tenant_ids:
            raise CommandError("the checkpoint is of another tenant", returncode=1)
        with reading(checkpoint.tenant_id):
            kept = find_hash(checkpoint.tenant_id, head.sequence)
        if kept != head.entry_hash:
            reason = "is missing" if kept is None else "has another hash"
            raise CommandError(
                f"the entry of the checkpoint, sequence {head.sequence}, {reason}", returncode=1
            )
        self.stdout.write(f"the checkpoint at sequence {head.sequence} holds")

    def _tenants(self, options: dict[str, Any]) -> list[tuple[Any, str]]:
        if options["all"]:
            return [(tenant_id, str(tenant_id)) for tenant_id in tenant_ids_for_job(_JOB)]
        tenant_id = find_tenant_id(options["tenant"])
        if tenant_id is None:
            raise CommandError(f"there is no tenant {options['tenant']!r}", returncode=2)
        return [(tenant_id, options["tenant"])]

    def _progress_of(self, name: str) -> Any:
        return lambda done, total: self.stderr.write(f"{name}: {done} of {total} entries …")


def _read_checkpoint(options: dict[str, Any]) -> Checkpoint | None:
    path = options["checkpoint"]
    if path is None:
        return None
    key = settings.EXPORT_SIGNING_KEY
    trusted = options["public_key"] or (key.public_text if key is not None else None)
    if trusted is None:
        raise CommandError("give --public-key: no signing key is configured", returncode=2)
    try:
        return read_checkpoint(path.read_bytes(), public_text=trusted)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}", returncode=2) from error
    except CheckpointError as error:
        raise CommandError(f"{path}: {error}", returncode=1) from error


def _line(name: str, result: Verification) -> str:
    if result.fault is not None:
        return (
            f"{name}: BROKEN at sequence {result.fault.sequence}: {result.fault.reason};"
            f" {result.entries} entries inspected"
        )
    if not result.entries:
        return f"{name}: the ledger is empty; 0 entries inspected"
    return (
        f"{name}: intact; {result.entries} entries inspected,"
        f" head {result.head.sequence} {result.head.entry_hash.hex()}"
    )


def _to_json(found: list[tuple[str, Verification]], entries: int, *, intact: bool) -> str:
    ledgers = [
        {
            "tenant": name,
            "tenant_id": str(result.tenant_id),
            "status": result.status,
            "entries": result.entries,
            "verified_to": {
                "sequence": result.head.sequence,
                "entry_hash": result.head.entry_hash.hex(),
            },
            "fault": None
            if result.fault is None
            else {"sequence": result.fault.sequence, "reason": result.fault.reason},
        }
        for name, result in found
    ]
    document = {"intact": intact, "entries": entries, "ledgers": ledgers}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
