"""Checkpoints: a signed statement of a ledger's head, to be kept outside the database.

A chain alone cannot show that its tail was cut together with its head. A checkpoint that somebody
else keeps can: the entry at its sequence must still have its hash. Pure.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from enforcement.ledger.domain import Head
from valdrix.kernel import strict_json
from valdrix.kernel.canonical import canonical_bytes
from valdrix.kernel.fields import Fields
from valdrix.kernel.problems import InvalidRequest
from valdrix.kernel.signing import ALGORITHM, SigningKey, SigningKeyError, is_signed

SCHEMA: Final = "valdrix.enforcement.ledger.checkpoint.v1"


class CheckpointError(ValueError):
    """A file is not a checkpoint, or its signature is not by the key that it must be by."""

    code = "invalid_checkpoint"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint: which tenant's ledger had which head."""

    tenant_id: uuid.UUID
    head: Head


def build_checkpoint(
    *, tenant_id: uuid.UUID, head: Head, at: datetime, key: SigningKey
) -> dict[str, Any]:
    """Return a signed checkpoint: the statement, its signature and who signed it."""
    statement = {
        "schema_version": SCHEMA,
        "tenant_id": str(tenant_id),
        "sequence": head.sequence,
        "entry_hash": head.entry_hash.hex(),
        "at": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    return {
        "checkpoint": statement,
        "signature": key.sign(canonical_bytes(statement)),
        "signature_algorithm": ALGORITHM,
        "signature_key_id": key.key_id,
        "public_key": key.public_text,
    }


def read_checkpoint(text: bytes, *, public_text: str) -> Checkpoint:
    """Return what a checkpoint file states, once its signature verifies.

    :param public_text: the public key that is trusted; the file's own is never believed.
    :raises CheckpointError: when it is no checkpoint, or was signed by another key.
    """
    try:
        fields = Fields(strict_json.loads(text))
        statement = fields.document("checkpoint", required=True) or {}
        signature = fields.text("signature", required=True, max_length=200) or ""
        fields.choice("signature_algorithm", (ALGORITHM,), required=True)
        fields.text("signature_key_id", required=True)
        fields.text("public_key", required=True)
        fields.finish("It is no checkpoint.")
        if not is_signed(canonical_bytes(statement), signature=signature, public_text=public_text):
            raise CheckpointError("it is not signed by the key that is trusted")
        return _read_statement(statement)
    except (strict_json.StrictJsonError, InvalidRequest, SigningKeyError) as error:
        raise CheckpointError(f"it is no checkpoint: {error}") from error


def _read_statement(statement: dict[str, Any]) -> Checkpoint:
    fields = Fields(statement, pointer="/checkpoint")
    fields.choice("schema_version", (SCHEMA,), required=True)
    tenant_id = fields.identifier("tenant_id", required=True)
    sequence = fields.integer("sequence", minimum=0, maximum=2**53 - 1, required=True)
    entry_hash = fields.text("entry_hash", required=True)
    fields.time("at", required=True)
    fields.finish("It is no checkpoint.")
    assert tenant_id is not None
    assert sequence is not None
    assert entry_hash is not None
    try:
        raw = bytes.fromhex(entry_hash)
    except ValueError:
        raise CheckpointError("its hash is not hexadecimal") from None
    return Checkpoint(tenant_id, Head(sequence, raw))
