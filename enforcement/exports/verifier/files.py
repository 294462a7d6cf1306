"""The nine files of an export, from a ZIP or a directory; what was signed, and by whom."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from enforcement.exports.verifier.layout import ALGORITHM, CHECKPOINT_SCHEMA, CLOSING_FILES, FILES

SMALL_FILE_BYTES: Final = 1 << 26
_BUFFER_BYTES: Final = 1 << 18
_END_BYTES: Final = 22
"""Of the record that ends a ZIP without a comment."""


class Refused(Exception):
    """Something does not hold: in which file, in which row, and why."""

    def __init__(self, file: str, row: int | None, reason: str) -> None:
        self.file, self.row, self.reason = file, row, reason
        place = file if row is None else f"{file} row {row}"
        super().__init__(f"{place}: {reason}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified statement of a ledger's head."""

    name: str
    tenant_id: str
    sequence: int
    entry_hash: str


class Keys:
    """The public keys that are trusted.

    :ivar texts: the same, in base64url.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = {text.strip().rstrip("=") for text in texts}
        self._keys = [Ed25519PublicKey.from_public_bytes(_base64url(text)) for text in texts]

    def have_signed(self, data: bytes, signature: str) -> bool:
        """Tell whether one of them made a signature of bytes; it has one spelling only."""
        try:
            raw = _base64url(signature)
        except ValueError:
            return False
        if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != signature:
            return False
        for key in self._keys:
            try:
                key.verify(raw, data)
            except InvalidSignature:
                continue
            return True
        return False


def _base64url(text: str) -> bytes:
    bare = text.strip().rstrip("=")
    return base64.b64decode((bare + "=" * (-len(bare) % 4)).encode(), altchars=b"-_", validate=True)


def canonical(value: Any) -> bytes:
    """Return the RFC 8785 form of what an export states: ASCII keys, integers, text, no floats."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def read_json(name: str, raw: bytes) -> dict[str, Any]:
    """Return a JSON object; duplicate keys, fractions and NaN are refused."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in items}) != len(items):
            raise ValueError("a key is there twice")
        return dict(items)

    def refuse(text: str) -> NoReturn:
        raise ValueError(f"{text} is no whole number")

    try:
        found = json.loads(raw, object_pairs_hook=pairs, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Refused(name, None, f"is not the JSON that was written: {error}") from None
    if not isinstance(found, dict):
        raise Refused(name, None, "is no JSON object")
    return found


def read_checkpoint(name: str, raw: bytes, keys: Keys) -> Checkpoint:
    """Return what a checkpoint file states, once a trusted key has signed it.

    :raises Refused: when it is no checkpoint, or not signed so.
    """
    document = read_json(name, raw)
    statement = document.get("checkpoint")
    if not isinstance(statement, dict) or statement.get("schema_version") != CHECKPOINT_SCHEMA:
        raise Refused(name, None, "is no checkpoint")
    if document.get("signature_algorithm") != ALGORITHM or not keys.have_signed(
        canonical(statement), str(document.get("signature"))
    ):
        raise Refused(name, None, "the signature is not by a key that is trusted")
    sequence = statement.get("sequence")
    if not isinstance(sequence, int):
        raise Refused(name, None, "names no sequence")
    return Checkpoint(name, str(statement["tenant_id"]), sequence, str(statement["entry_hash"]))


class Folder:
    """The nine files in a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        for name in (*FILES, *CLOSING_FILES):
            if not (path / name).is_file():
                raise Refused(name, None, "is missing")

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Return a file at its beginning, and how many bytes it has."""
        path = self._path / name
        return path.open("rb", buffering=_BUFFER_BYTES), path.stat().st_size


class Archive:
    """The nine files in a ZIP that holds nothing else: no other name, no gap, nothing packed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members, end = archive.infolist(), archive.start_dir
                comment = archive.comment
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise Refused(path.name, None, f"is no whole ZIP archive: {error}") from None
        wanted = [*FILES, *CLOSING_FILES]
        for place, info in enumerate(members):
            if place >= len(wanted) or info.orig_filename != wanted[place]:
                raise Refused(
                    ascii(info.orig_filename)[1:-1], None, "is not the member that belongs here"
                )
            if info.compress_type or info.compress_size != info.file_size or info.flag_bits & 1:
                raise Refused(info.filename, None, "is compressed or encrypted: saved again")
        if len(members) != len(wanted):
            raise Refused(wanted[len(members)], None, "is missing")
        with path.open("rb") as file:
            file.seek(-_END_BYTES, 2)
            is_end = file.read(4) == b"PK\x05\x06"
        if comment or not is_end:
            raise Refused(path.name, None, "has a comment, or bytes after its end")
        self._places: dict[str, tuple[int, int]] = {}
        self._find_places(members, end)

    def _find_places(self, members: list[zipfile.ZipInfo], end: int) -> None:
        """Find where each member's bytes lie: one after the other, with nothing between them."""
        offset, descriptor = 0, 24
        with self._path.open("rb") as file:
            for info in members:
                file.seek(offset)
                header = file.read(30)
                names = int.from_bytes(header[26:28], "little")
                start = offset + 30 + names + int.from_bytes(header[28:30], "little")
                is_header = header[:4] == b"PK\x03\x04" and header[8:10] == b"\0\0"
                if (
                    info.header_offset != offset
                    or not is_header
                    or file.read(names) != info.filename.encode()
                ):
                    raise Refused(info.filename, None, "does not lie where the archive ended it")
                self._places[info.filename] = (start, info.file_size)
                offset = start + info.file_size + descriptor
        if offset != end:
            raise Refused(self._path.name, None, "holds bytes that belong to no file")

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Return a file at its beginning, and how many bytes it has."""
        offset, size = self._places[name]
        file = self._path.open("rb", buffering=_BUFFER_BYTES)
        file.seek(offset)
        return file, size
