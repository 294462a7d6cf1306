"""Checkpoints kept outside the database: written at an interval, compared with the ledger later.

One file for each head that was signed, below the directory that is configured, in a folder a tenant.
Whoever rewrites the database and its head does not reach them, if the directory is elsewhere.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from enforcement.ledger.checkpoint import (
    Checkpoint,
    CheckpointError,
    build_checkpoint,
    read_checkpoint,
)
from enforcement.ledger.queries import find_hash, find_head
from valdrix.kernel.canonical import canonical_bytes
from valdrix.kernel.db import reading
from valdrix.kernel.signing import SigningKey

_DIGITS: Final = 15


def keep_checkpoint(
    tenant_id: uuid.UUID, *, directory: Path, key: SigningKey, at: datetime
) -> Path | None:
    """Sign a tenant's head into a new file; return None where the newest file states it already.

    :raises OSError: when the file cannot be written.
    """
    with reading(tenant_id):
        head = find_head(tenant_id)
    if head is None or head.sequence == 0:
        return None
    folder = directory / str(tenant_id)
    path = folder / f"{head.sequence:0{_DIGITS}d}-{head.entry_hash.hex()[:16]}.json"
    if path.exists():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    document = build_checkpoint(tenant_id=tenant_id, head=head, at=at, key=key)
    half = path.with_suffix(f".{os.getpid()}.part")
    with half.open("wb") as file:
        file.write(canonical_bytes(document) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
    return path


def find_kept_faults(
    tenant_id: uuid.UUID, *, directory: Path, public_keys: Sequence[str]
) -> Iterator[str]:
    """Yield what is wrong: a file that is no checkpoint of the tenant, or that the ledger belies."""
    for path in list_kept(tenant_id, directory=directory):
        try:
            kept = _read(path, public_keys)
        except (CheckpointError, OSError) as error:
            yield f"{path.name}: {error}"
            continue
        if kept.tenant_id != tenant_id:
            yield f"{path.name}: is of another tenant"
            continue
        with reading(tenant_id):
            found = find_hash(tenant_id, kept.head.sequence)
        if found != kept.head.entry_hash:
            reason = "is missing" if found is None else "has another hash"
            yield f"{path.name}: the entry at sequence {kept.head.sequence} {reason}"


def list_kept(tenant_id: uuid.UUID, *, directory: Path) -> list[Path]:
    """Return the files of a tenant's checkpoints, the earliest first."""
    return sorted((directory / str(tenant_id)).glob("*.json"))


def _read(path: Path, public_keys: Sequence[str]) -> Checkpoint:
    text, failure = path.read_bytes(), CheckpointError("no key is trusted")
    for public_text in public_keys:
        try:
            return read_checkpoint(text, public_text=public_text)
        except CheckpointError as error:
            failure = error
    raise failure
