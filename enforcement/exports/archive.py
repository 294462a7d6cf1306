"""The archive: nine files in a ZIP that is written as its rows are read, in constant memory.

Members are stored, not compressed: the bytes then depend on no compressor's version, and nothing
that is read back can be larger than it looks. Times in the ZIP are its epoch.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from enforcement.exports.counting import Figures, chunks, count, count_small
from enforcement.exports.domain import Counted, Scope, Segment, Tally, build_manifest
from enforcement.exports.queries import read_segment, segment_query, stream_rows
from enforcement.exports.verifier.layout import FILES
from enforcement.ledger.checkpoint import build_checkpoint
from valdrix.kernel.canonical import canonical_bytes
from valdrix.kernel.db import snapshot_together
from valdrix.kernel.signing import ALGORITHM, SigningKey

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_READABLE: Final = 0o644 << 16
_UNIX: Final = 3
_REMEMBERED_MANIFESTS: Final = 256


@dataclass(frozen=True, slots=True)
class Signed:
    """A finished export: what its manifest states, the bytes that were signed, the signature."""

    manifest: dict[str, Any]
    canonical: bytes
    signature: str
    key_id: str

    @property
    def sha256(self) -> str:
        """Return the digest of the signed bytes."""
        return hashlib.sha256(self.canonical).hexdigest()


class Export:
    """One export: :meth:`stream` gives the archive; :attr:`signed` is set when it has ended."""

    def __init__(self, scope: Scope, key: SigningKey) -> None:
        self._scope = scope
        self._key = key
        self.signed: Signed | None = None

    def stream(self) -> Iterator[bytes]:
        """Yield the archive's bytes, from one snapshot in a transaction of its own.

        :raises LedgerIncomplete: when the ledger lacks an entry; the archive then has no end.
        """
        sink = _Sink()
        archive = zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED)  # type: ignore[call-overload]  # mode "w" needs no more than _Sink has
        with snapshot_together(self._scope.tenant_id, segment_query(self._scope)) as answer:
            segment = read_segment(self._scope, answer)
            files = {}
            for name in FILES:
                tally = Tally(name)
                # A receiver that hangs up ends this where it waits: the rows are closed first, as the
                # driver lets nobody end a transaction whose rows somebody is about to read.
                with (
                    archive.open(_member(name), "w", force_zip64=True) as member,
                    closing(stream_rows(name, self._scope, segment)) as rows,
                    closing(chunks(name, rows, tally)) as pieces,
                ):
                    for piece in pieces:
                        member.write(piece)
                        yield sink.take()
                files[name] = tally.counted()
        self.signed = self._sign(segment, files)
        for name, content in _closing_files(self.signed, self._checkpoint(segment)):
            with archive.open(_member(name), "w", force_zip64=True) as member:
                member.write(content)
        archive.close()
        yield sink.take()

    def finish(self) -> Signed:
        """Read everything and return what the archive would state, without making it."""
        found = count_small(self._scope)
        if found is None:
            self.signed = self._sign(*self._count())
        else:
            self.signed = _sign_small(self._scope, *found, self._key)
        return self.signed

    def _count(self) -> tuple[Segment, dict[str, Counted]]:
        with snapshot_together(self._scope.tenant_id, segment_query(self._scope)) as answer:
            segment = read_segment(self._scope, answer)
            files = {name: count(name, stream_rows(name, self._scope, segment)) for name in FILES}
        return segment, files

    def _sign(self, segment: Segment, files: dict[str, Counted]) -> Signed:
        return _sign(self._scope, segment, files, self._key)

    def _checkpoint(self, segment: Segment) -> dict[str, Any]:
        return build_checkpoint(
            tenant_id=self._scope.tenant_id, head=segment.last, at=segment.last_at, key=self._key
        )


def _sign(scope: Scope, segment: Segment, files: dict[str, Counted], key: SigningKey) -> Signed:
    manifest = build_manifest(scope, segment, files, key_id=key.key_id)
    canonical = canonical_bytes(manifest)
    return Signed(
        manifest=manifest,
        canonical=canonical,
        signature=key.sign(canonical),
        key_id=key.key_id,
    )


@lru_cache(maxsize=_REMEMBERED_MANIFESTS)
def _sign_small(scope: Scope, segment: Segment, figures: Figures, key: SigningKey) -> Signed:
    """Sign what a small export states; the same figures give the same bytes and signature."""
    return _sign(scope, segment, figures.files, key)


def build_parity(signed: Signed) -> dict[str, Any]:
    """Return counts, sums and hashes of an export as ``exports/parity`` answers them."""
    manifest = signed.manifest
    ledger = manifest["ledger"]
    return {
        "tenant_id": manifest["tenant_id"],
        "window_start": manifest["window_start"],
        "window_end": manifest["window_end"],
        "limit": manifest["limit"],
        "truncated": manifest["truncated"],
        "ledger_position": ledger["position"],
        "ledger_position_hash": ledger["position_hash"],
        "ledger_first_sequence": ledger["after_sequence"] + 1,
        "ledger_last_sequence": ledger["last_sequence"],
        "ledger_last_hash": ledger["last_hash"],
        "files": {
            name: {key: one[key] for key in ("rows", "bytes", "sha256", "last_row_sha256")}
            for name, one in manifest["files"].items()
        },
        "figures": manifest["figures"],
        "bindings": manifest["bindings"],
        "parity_ok": all(one["rows"] == one["bound"] for one in manifest["bindings"].values()),
        "policy_lineage": manifest["policy_lineage"],
        "policy_lineage_sha256": manifest["policy_lineage_sha256"],
        "policy_lineage_entries": len(manifest["policy_lineage"]),
        "computed_context_lineage": manifest["computed_context_lineage"],
        "computed_context_lineage_sha256": manifest["computed_context_lineage_sha256"],
        "computed_context_lineage_entries": len(manifest["computed_context_lineage"]),
        "manifest_content_sha256": signed.sha256,
        "manifest_signature": signed.signature,
        "manifest_signature_algorithm": ALGORITHM,
        "manifest_signature_key_id": signed.key_id,
    }


def archive_name(scope: Scope) -> str:
    """Return the file name under which an archive is offered."""
    return f"valdrix-export-{scope.start_at:%Y%m%d}-{scope.end_at:%Y%m%d}.zip"


def _closing_files(signed: Signed, checkpoint: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    text = json.dumps(signed.manifest, indent=2, sort_keys=True, ensure_ascii=False)
    yield "manifest.json", f"{text}\n".encode()
    yield "manifest.canonical.json", signed.canonical
    yield "manifest.sha256", f"{signed.sha256}  manifest.canonical.json\n".encode()
    yield "manifest.sig", f"{signed.signature}\n".encode()
    yield "checkpoint.json", canonical_bytes(checkpoint) + b"\n"


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.create_system = _UNIX
    info.external_attr = _READABLE
    return info


class _Sink:
    """A file that cannot be sought, whose bytes are taken away as they come."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: everything is at hand at once."""

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
