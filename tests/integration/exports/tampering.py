"""Ways in which an archive can be tampered with, as a forger without the signing key would.

Each takes the nine files and returns others. What can be recomputed without the key, forgers
recompute: row hashes, the chain, the manifest's own digest.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

from enforcement.exports.verifier.layout import COLUMNS

Files = dict[str, bytes]
Tamper = Callable[[Files], Files]


def lines_of(raw: bytes) -> list[bytes]:
    """Return a file's lines; none of these has a line break inside a cell."""
    return raw.splitlines(keepends=True)


def edit(name: str, row: int, column: str, value: str | Callable[[str], str]) -> Tamper:
    """Change one cell of a data row (from 0) and nothing else."""

    def tamper(files: Files) -> Files:
        lines = lines_of(files[name])
        cells = next(csv.reader([lines[row + 1].decode()]))
        place = COLUMNS[name].index(column)
        cells[place] = value(cells[place]) if callable(value) else value
        lines[row + 1] = _write(cells)
        return {**files, name: b"".join(lines)}

    return tamper


def flip(name: str, row: int, column: str) -> Tamper:
    """Change one character of a cell, or put one where there is none."""

    def other(cell: str) -> str:
        if not cell:
            return "1"
        last = "7" if cell[-1] != "7" else "6"
        return cell[:-1] + last

    return edit(name, row, column, other)


def on_lines(name: str, change: Callable[[list[bytes]], list[bytes]]) -> Tamper:
    """Change a file's data lines."""

    def tamper(files: Files) -> Files:
        header, *rows = lines_of(files[name])
        return {**files, name: b"".join([header, *change(rows)])}

    return tamper


def on_bytes(name: str, change: Callable[[bytes], bytes]) -> Tamper:
    """Change a file's bytes."""
    return lambda files: {**files, name: change(files[name])}


def on_json(name: str, change: Callable[[dict[str, Any]], None]) -> Tamper:
    """Change a JSON file's content and write it as it was written."""

    def tamper(files: Files) -> Files:
        document = json.loads(files[name])
        change(document)
        return {**files, name: _dump(name, document)}

    return tamper


def then(*tampers: Tamper) -> Tamper:
    """Tamper in several steps."""

    def tamper(files: Files) -> Files:
        for one in tampers:
            files = one(files)
        return files

    return tamper


def rehash(name: str) -> Tamper:
    """Compute the hashes of a file's rows anew, as whoever changed a row could."""

    def tamper(files: Files) -> Files:
        header, *rows = lines_of(files[name])
        previous, written = bytes(32), [header]
        for row in rows:
            cells = row[: -len(b",") - 64 - 1]
            digest = hashlib.sha256(previous + cells)
            written.append(cells + b"," + digest.hexdigest().encode() + b"\n")
            previous = digest.digest()
        return {**files, name: b"".join(written)}

    return tamper


def rechain(files: Files) -> Files:
    """Compute the ledger's chain anew, by the rule that docs/ledger.md publishes."""
    tenant_id = json.loads(files["manifest.json"])["tenant_id"]
    header, *rows = lines_of(files["ledger.csv"])
    columns = COLUMNS["ledger.csv"]
    previous, written = bytes(32), [header]
    for row in rows:
        cells = dict(zip(columns, next(csv.reader([row.decode()])), strict=True))
        members: dict[str, Any] = {
            name: (int(cell) if name in {"sequence", "risk_score", "policy_version"} else cell)
            if cell
            else None
            for name, cell in cells.items()
            if name not in {"prev_hash", "entry_hash"}
        }
        members["reason_codes"] = cells["reason_codes"].split()
        for name, value in members.items():
            if isinstance(value, str):
                members[name] = value.removeprefix("'")
        text = json.dumps(
            members | {"tenant_id": tenant_id},
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        )
        digest = hashlib.sha256(previous + text.encode()).digest()
        cells |= {"prev_hash": previous.hex(), "entry_hash": digest.hex()}
        written.append(_write(list(cells.values()), place=columns.index("reason_codes")))
        previous = digest
    return {**files, "ledger.csv": b"".join(written)}


def restate(files: Files) -> Files:
    """Make the manifest and its digest say what the files are now; only the signature is left."""
    manifest = json.loads(files["manifest.json"])
    for name in COLUMNS:
        raw = files[name]
        manifest["files"][name] |= {
            "rows": len(lines_of(raw)) - 1,
            "bytes": len(raw),
            "sha256": hashlib.sha256(raw).hexdigest(),
        }
    canonical = _dump("manifest.canonical.json", manifest)
    digest = f"{hashlib.sha256(canonical).hexdigest()}  manifest.canonical.json\n"
    return {
        **files,
        "manifest.json": _dump("manifest.json", manifest),
        "manifest.canonical.json": canonical,
        "manifest.sha256": digest.encode(),
    }


def take_from(other: Files, *names: str) -> Tamper:
    """Take some files of another export."""
    return lambda files: {**files, **{name: other[name] for name in names}}


def _write(cells: list[str], *, place: int = -1) -> bytes:
    """Write a row as exports do; an empty list of codes is quoted, no value is not."""
    spelled = []
    for number, cell in enumerate(cells):
        if any(sign in cell for sign in ',"\n') or (number == place and not cell):
            doubled = cell.replace('"', '""')
            spelled.append(f'"{doubled}"')
        else:
            spelled.append(cell)
    return ",".join(spelled).encode() + b"\n"


def _dump(name: str, document: dict[str, Any]) -> bytes:
    if name == "manifest.json":
        text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
        return f"{text}\n".encode()
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    end = "\n" if name == "checkpoint.json" else ""
    return f"{text}{end}".encode()


def pack(files: Files, **options: Any) -> bytes:
    """Write files as an archive, as exports do unless told otherwise."""
    packed = io.BytesIO()
    with zipfile.ZipFile(_Unseekable(packed), "w", **options) as archive:  # type: ignore[arg-type]
        for name, content in files.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            info.compress_type = options.get("compression", zipfile.ZIP_STORED)
            with archive.open(info, "w", force_zip64=True) as member:
                member.write(content)
    return packed.getvalue()


class _Unseekable:
    def __init__(self, target: io.BytesIO) -> None:
        self._target = target

    def write(self, data: bytes) -> int:
        return self._target.write(data)

    def flush(self) -> None:
        """Nothing is kept back."""
