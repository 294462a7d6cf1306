"""Every tampering that was thought of is refused, and the place is named (BSAFE-007)."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from enforcement.exports.verifier.checks import verify
from enforcement.exports.verifier.files import Refused
from enforcement.exports.verifier.layout import COLUMNS, FILES
from tests.factories.tenants import create_world
from tests.integration.exports import tampering as t
from tests.integration.exports.history import (
    OTHER_KEY,
    PUBLIC,
    archive_of,
    make_history,
    save,
    unpack,
)
from valdrix.kernel.signing import SigningKey


@pytest.fixture(scope="module")
def archives(django_db_setup: None, django_db_blocker: Any) -> dict[str, bytes]:
    """Give an archive, an older one of the same window, and one of another tenant."""
    with django_db_blocker.unblock():
        world = create_world()
        shop = make_history(world)
        older = archive_of(world)
        shop.ask("333.00", resource_reference="module.new", environment="prod")
        newer = archive_of(world)
        other = create_world()
        make_history(other)
        return {"older": older, "newer": newer, "other": archive_of(other)}


@pytest.fixture
def files(archives: dict[str, bytes]) -> t.Files:
    return unpack(archives["newer"])


def refuse(tmp_path: Path, content: bytes, *keys: str) -> Refused:
    with pytest.raises(Refused) as refusal:
        verify(save(tmp_path / "a.zip", content), keys or (PUBLIC,))
    assert refusal.value.reason
    return refusal.value


def test_what_was_not_tampered_with_verifies(archives: dict[str, bytes], tmp_path: Path) -> None:
    for name, archive in archives.items():
        assert verify(save(tmp_path / name, archive), [PUBLIC]).rows["ledger.csv"] > 10
        assert t.pack(unpack(archive)) == archive, "the tests write archives as exports do"


# One cell of each column, and nothing else

CELLS = [
    pytest.param(name, column, id=f"{name} {column}") for name in FILES for column in COLUMNS[name]
]
HASHES = {"row_sha256", "prev_hash", "entry_hash"}
UNHASHED = [one for one in CELLS if one.values[1] not in HASHES]


@pytest.mark.parametrize(("name", "column"), CELLS)
def test_a_changed_cell_is_refused_in_its_row(
    files: t.Files, tmp_path: Path, name: str, column: str
) -> None:
    row = 2 if name != "ledger.csv" else 5
    refusal = refuse(tmp_path, t.pack(t.flip(name, row, column)(files)))
    assert (refusal.file, refusal.row) == (name, row + 2), str(refusal)


@pytest.mark.parametrize(("name", "column"), UNHASHED)
def test_a_changed_cell_is_refused_though_all_was_hashed_again(
    files: t.Files, tmp_path: Path, name: str, column: str
) -> None:
    """Without the key only the manifest's signature is out of a forger's reach."""
    again = t.rechain if name == "ledger.csv" else t.rehash(name)
    tampered = t.then(t.flip(name, 2, column), again)(files)
    refusal = refuse(tmp_path, t.pack(tampered))
    assert refusal.file in FILES, str(refusal)


def drop(place: int) -> Any:
    return lambda rows: rows[:place] + rows[place + 1 :]


def swap(place: int) -> Any:
    return lambda rows: [*rows[:place], rows[place + 1], rows[place], *rows[place + 2 :]]


def repeat(place: int) -> Any:
    return lambda rows: [*rows[: place + 1], *rows[place:]]


def set_value(*path: str, value: Any) -> Any:
    def change(document: dict[str, Any]) -> None:
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = value

    return change


# Each with the file, the row and a word of the reason that must be named.
KINDS: dict[str, tuple[t.Tamper, str, int | None, str]] = {
    **{
        f"{word} a row of {name}": (t.on_lines(name, change(3)), name, row, reason)
        for name in FILES
        if name != "approvals.csv"
        for word, change, row, reason in (
            ("drop", drop, 5, "missing|hash"),
            ("swap", swap, 5, "missing|hash"),
            ("duplicate", repeat, 6, "missing|hash|belongs"),
        )
    },
    **{
        f"cut the tail of {name}": (
            t.on_lines(name, lambda rows: rows[:-1]),
            name,
            None,
            "missing|more than",
        )
        for name in FILES
    },
    **{f"empty {name}": (t.on_lines(name, lambda rows: []), name, 2, "missing") for name in FILES},
    **{
        f"save {name} with CR LF": (
            t.on_bytes(name, lambda raw: raw.replace(b"\n", b"\r\n")),
            name,
            1,
            "CR LF",
        )
        for name in FILES
    },
    "save one row with CR LF": (
        t.on_lines("ledger.csv", lambda rows: [rows[0][:-1] + b"\r\n", *rows[1:]]),
        "ledger.csv",
        2,
        "CR LF",
    ),
    "quote a cell of the ledger": (
        t.on_lines("ledger.csv", lambda rows: [b'"1"' + rows[0][1:], *rows[1:]]),
        "ledger.csv",
        2,
        "quoted",
    ),
    "cut the last line's end": (
        t.on_bytes("ledger.csv", lambda raw: raw[:-1]),
        "ledger.csv",
        None,
        "cut off",
    ),
    "add an empty line": (
        t.on_bytes("decisions.csv", lambda raw: raw + b"\n"),
        "decisions.csv",
        None,
        "cells|CSV",
    ),
    "add a column": (
        t.on_bytes("decisions.csv", lambda raw: raw.replace(b"\n", b",x\n")),
        "decisions.csv",
        1,
        "columns",
    ),
    "rename a column": (
        t.on_bytes("ledger.csv", lambda raw: raw.replace(b"amount_usd", b"amount_eur", 1)),
        "ledger.csv",
        1,
        "columns",
    ),
    "swap two columns' names": (
        t.on_bytes(
            "reservations.csv",
            lambda raw: raw.replace(b"own_usd,taken_usd", b"taken_usd,own_usd", 1),
        ),
        "reservations.csv",
        1,
        "columns",
    ),
    "put a byte order mark": (
        t.on_bytes("decisions.csv", lambda raw: b"\xef\xbb\xbf" + raw),
        "decisions.csv",
        1,
        "columns",
    ),
    "put bytes that are no text": (
        t.on_lines(
            "ledger.csv", lambda rows: [rows[0].replace(b"policy", b"p\xffl", 1), *rows[1:]]
        ),
        "ledger.csv",
        2,
        "CSV",
    ),
    "put a line without an end": (
        t.on_bytes("approvals.csv", lambda raw: raw + b"x" * (1 << 21)),
        "approvals.csv",
        None,
        "longer",
    ),
    "change an amount and hash the rest again": (
        t.then(t.edit("ledger.csv", 4, "amount_usd", "1.0000"), t.rechain),
        "ledger.csv",
        None,
        "hashed again",
    ),
    "change an amount, hash again and restate the manifest": (
        t.then(t.edit("ledger.csv", 4, "amount_usd", "1.0000"), t.rechain, t.restate),
        "manifest.sig",
        None,
        "signature",
    ),
    "drop a decision, its rows, hash again and restate": (
        t.then(t.on_lines("decisions.csv", drop(3)), t.rehash("decisions.csv"), t.restate),
        "manifest.sig",
        None,
        "signature",
    ),
    "move an amount between two decisions": (
        t.then(
            t.edit("decisions.csv", 0, "estimated_monthly_delta_usd", "1020.0000"),
            t.edit("decisions.csv", 3, "estimated_monthly_delta_usd", "10.0000"),
            t.rehash("decisions.csv"),
        ),
        "decisions.csv",
        2,
        "estimated_monthly_delta_usd is not what ledger sequence",
    ),
    "say that a denial was allowed": (
        t.then(t.edit("decisions.csv", 4, "decision", "ALLOW"), t.rehash("decisions.csv")),
        "decisions.csv",
        6,
        "decision is not what ledger sequence",
    ),
    "lower what a reservation holds": (
        t.then(t.edit("reservations.csv", 0, "own_usd", "9.0000"), t.rehash("reservations.csv")),
        "reservations.csv",
        2,
        "less than ledger sequence",
    ),
    "raise what a reservation holds": (
        t.then(t.edit("reservations.csv", 0, "own_usd", "11.0000"), t.rehash("reservations.csv")),
        "reservations.csv",
        2,
        "more than the ledger reserved",
    ),
    "drop a reservation and hash again": (
        t.then(t.on_lines("reservations.csv", drop(0)), t.rehash("reservations.csv")),
        "reservations.csv",
        None,
        "the reservation of ledger sequence",
    ),
    "drop an approval and hash again": (
        t.then(t.on_lines("approvals.csv", drop(0)), t.rehash("approvals.csv")),
        "approvals.csv",
        None,
        "the approval of ledger sequence",
    ),
    "give a reservation another decision": (
        t.then(
            t.edit("reservations.csv", 0, "decision_id", "01a21917-7175-768e-92b2-dbd18d61f5fd"),
            t.rehash("reservations.csv"),
        ),
        "reservations.csv",
        2,
        "decision_id is not",
    ),
    "put a word for an amount": (
        t.then(t.edit("reservations.csv", 0, "own_usd", "ten"), t.rehash("reservations.csv")),
        "reservations.csv",
        2,
        "no amount",
    ),
    "put a formula": (
        t.edit("decisions.csv", 0, "resource_reference", "=1+1"),
        "decisions.csv",
        2,
        "row_sha256",
    ),
    "take away the apostrophe": (
        t.edit("decisions.csv", 5, "resource_reference", "+cmd"),
        "decisions.csv",
        7,
        "row_sha256",
    ),
    "change the manifest": (
        t.on_json("manifest.canonical.json", set_value("limit", value=1)),
        "manifest.sha256",
        None,
        "digest",
    ),
    "change the manifest and its digest": (
        t.then(t.on_json("manifest.json", set_value("limit", value=1)), t.restate),
        "manifest.sig",
        None,
        "signature",
    ),
    "change the manifest for people": (
        t.on_json("manifest.json", set_value("window_end", value="2030-01-01T00:00:00.000000Z")),
        "manifest.json",
        None,
        "was signed",
    ),
    "spell the manifest otherwise": (
        t.on_bytes("manifest.canonical.json", lambda raw: raw.replace(b":", b": ", 1)),
        "manifest.canonical.json",
        None,
        "RFC 8785",
    ),
    "name a key of the manifest twice": (
        t.on_bytes(
            "manifest.canonical.json",
            lambda raw: raw.replace(b'{"bindings"', b'{"limit":1,"bindings"', 1),
        ),
        "manifest.canonical.json",
        None,
        "twice",
    ),
    "make the manifest a list": (
        t.on_bytes("manifest.canonical.json", lambda raw: b"[]"),
        "manifest.canonical.json",
        None,
        "object",
    ),
    "put a fraction": (
        t.on_bytes(
            "manifest.canonical.json", lambda raw: raw.replace(b'"limit":null', b'"limit":1.5')
        ),
        "manifest.canonical.json",
        None,
        "whole number",
    ),
    "nest the manifest without end": (
        t.on_bytes("manifest.canonical.json", lambda raw: b"[" * 100_000),
        "manifest.canonical.json",
        None,
        "JSON",
    ),
    "change the digest": (
        t.on_bytes("manifest.sha256", lambda raw: (b"0" if raw[:1] != b"0" else b"1") + raw[1:]),
        "manifest.sha256",
        None,
        "digest",
    ),
    "change the signature": (
        t.on_bytes("manifest.sig", lambda raw: (b"A" if raw[:1] != b"A" else b"B") + raw[1:]),
        "manifest.sig",
        None,
        "signature",
    ),
    "empty the signature": (
        t.on_bytes("manifest.sig", lambda raw: b"\n"),
        "manifest.sig",
        None,
        "signature",
    ),
    "put words for the signature": (
        t.on_bytes("manifest.sig", lambda raw: b"\xff\xfe signed\n"),
        "manifest.sig",
        None,
        "signature",
    ),
    "change the checkpoint's sequence": (
        t.on_json("checkpoint.json", set_value("checkpoint", "sequence", value=3)),
        "checkpoint.json",
        None,
        "signature",
    ),
    "change the checkpoint's hash": (
        t.on_json("checkpoint.json", set_value("checkpoint", "entry_hash", value="00" * 32)),
        "checkpoint.json",
        None,
        "signature",
    ),
    "make the checkpoint something else": (
        t.on_json("checkpoint.json", set_value("checkpoint", value=[])),
        "checkpoint.json",
        None,
        "no checkpoint",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_tampering_is_refused_where_it_is(
    files: t.Files, tmp_path: Path, kind: str
) -> None:
    tamper, name, row, reason = KINDS[kind]
    tampered = tamper(files)
    assert tampered != files

    refusal = refuse(tmp_path, t.pack(tampered))

    assert refusal.file == name, str(refusal)
    if row is not None:
        assert refusal.row == row, str(refusal)
    assert any(word in refusal.reason for word in reason.split("|")), str(refusal)


def test_there_are_at_least_forty_kinds() -> None:
    assert len(KINDS) + len(STRUCTURES) >= 40


# Grafts

CSVS = tuple(FILES)
MANIFEST = ("manifest.json", "manifest.canonical.json", "manifest.sha256", "manifest.sig")


@pytest.mark.parametrize("source", ["older", "other"])
@pytest.mark.parametrize(
    "names",
    [
        *[(name,) for name in (*CSVS, "checkpoint.json")],
        CSVS,
        MANIFEST,
        (*MANIFEST, "checkpoint.json"),
        ("manifest.sig",),
        ("decisions.csv", "reservations.csv", "approvals.csv"),
    ],
    ids="+".join,
)
def test_two_exports_grafted_together_are_refused(
    archives: dict[str, bytes], files: t.Files, tmp_path: Path, source: str, names: tuple[str, ...]
) -> None:
    other = unpack(archives[source])
    grafted = t.take_from(other, *names)(files)
    assert grafted != files, "the exports differ in every file"
    refuse(tmp_path, t.pack(grafted))


def test_an_archive_that_another_key_signed_is_refused(
    archives: dict[str, bytes], tmp_path: Path
) -> None:
    refusal = refuse(tmp_path, archives["newer"], OTHER_KEY.public_text)
    assert refusal.file == "manifest.sig"


def test_who_signs_with_another_key_is_refused(files: t.Files, tmp_path: Path) -> None:
    """The archive says nothing of its key that is believed."""
    tampered = t.then(t.edit("ledger.csv", 4, "amount_usd", "1.0000"), t.rechain, t.restate)(files)
    key: SigningKey = OTHER_KEY
    signature = key.sign(tampered["manifest.canonical.json"])
    refusal = refuse(tmp_path, t.pack({**tampered, "manifest.sig": f"{signature}\n".encode()}))
    assert refusal.file == "manifest.sig"


# The ZIP itself


def rename(old: str, new: str) -> Any:
    return lambda files: {(new if name == old else name): raw for name, raw in files.items()}


def repack(change: Any) -> Any:
    return lambda archive: t.pack(change(unpack(archive)))


def add(name: str, content: bytes = b"x") -> Any:
    return lambda files: {**files, name: content}


def twice(archive: bytes) -> bytes:
    packed = io.BytesIO(archive)
    with zipfile.ZipFile(packed, "a") as opened, pytest.warns(UserWarning, match="Duplicate"):
        opened.writestr("ledger.csv", b"sequence\n")
    return packed.getvalue()


def hide_bytes(archive: bytes) -> bytes:
    """Put bytes between the last member and the directory, and move the directory's offset."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        start = opened.start_dir
    tail = bytearray(archive[start:])
    place = tail.rindex(b"PK\x05\x06")
    struct.pack_into("<L", tail, place + 16, start + 6)
    return archive[:start] + b"hidden" + bytes(tail)


def other_local_name(archive: bytes) -> bytes:
    return archive.replace(b"decisions.csv", b"decision2.csv", 1)


def packed_bomb(archive: bytes) -> bytes:
    files = unpack(archive)
    return t.pack({**files, "ledger.csv": bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED)


def lie_about_size(archive: bytes) -> bytes:
    """Say in the directory that a member is larger than the archive."""
    start = archive.rindex(b"PK\x01\x02")
    return archive[: start + 20] + struct.pack("<LL", 2**31, 2**31) + archive[start + 28 :]


def encrypt(archive: bytes) -> bytes:
    start = archive.index(b"PK\x01\x02")
    return archive[: start + 8] + b"\x09\0" + archive[start + 10 :]


STRUCTURES: dict[str, tuple[Any, str]] = {
    "a tenth file": (repack(add("notes.txt")), "notes.txt"),
    "a path upwards": (repack(rename("ledger.csv", "../ledger.csv")), "../ledger.csv"),
    "an absolute path": (repack(rename("ledger.csv", "/ledger.csv")), "/ledger.csv"),
    "a path with backslashes": (repack(rename("ledger.csv", "..\\ledger.csv")), "..\\\\ledger.csv"),
    "a folder": (repack(rename("ledger.csv", "x/ledger.csv")), "x/ledger.csv"),
    "another case": (repack(rename("ledger.csv", "Ledger.csv")), "Ledger.csv"),
    "a name with NUL": (
        lambda archive: archive.replace(b"ledger.csv", b"ledger\0csv"),
        "ledger\\x00csv",
    ),
    "a name that looks alike": (repack(rename("ledger.csv", "lеdger.csv")), "l\\u0435dger.csv"),
    "a missing file": (
        repack(lambda files: {n: raw for n, raw in files.items() if n != "approvals.csv"}),
        "ledger.csv",
    ),
    "a missing last file": (
        repack(lambda files: {n: raw for n, raw in files.items() if n != "checkpoint.json"}),
        "checkpoint.json",
    ),
    "another order": (repack(lambda files: dict(reversed(files.items()))), "checkpoint.json"),
    "a member twice": (twice, "ledger.csv"),
    "compressed members": (
        lambda archive: t.pack(unpack(archive), compression=zipfile.ZIP_DEFLATED),
        "decisions.csv",
    ),
    "a bomb": (packed_bomb, "decisions.csv"),
    "a size that is a lie": (lie_about_size, "a.zip"),
    "an encrypted member": (encrypt, "decisions.csv"),
    "bytes before it": (lambda archive: b"#!/bin/sh\n" + archive, "decisions.csv"),
    "bytes after it": (lambda archive: archive + b"hidden", "a.zip"),
    "bytes inside it": (hide_bytes, "a.zip"),
    "a comment": (lambda archive: archive[:-2] + b"\x02\0hi", "a.zip"),
    "another name at the member": (other_local_name, "decisions.csv"),
    "a cut end": (lambda archive: archive[:-30], "a.zip"),
    "half of it": (lambda archive: archive[: len(archive) // 2], "a.zip"),
    "nothing": (lambda archive: b"", "a.zip"),
    "no ZIP": (lambda archive: b"PK\x03\x04 no", "a.zip"),
}


@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_forged_archive_is_refused(archives: dict[str, bytes], tmp_path: Path, kind: str) -> None:
    forge, name = STRUCTURES[kind]
    forged = forge(archives["newer"])
    assert forged != archives["newer"]
    refusal = refuse(tmp_path, forged)
    assert refusal.file == name, str(refusal)


def test_no_single_bit_of_an_archive_can_change_what_is_verified(
    archives: dict[str, bytes], tmp_path: Path
) -> None:
    """Every byte of the signed content counts; what is left are the ZIP's own dates and rights."""
    archive = archives["newer"]
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        content = [
            (info.header_offset + 30 + len(info.filename) + 20, info.file_size)
            for info in opened.infolist()
        ]
    for start, size in content:
        for place in range(start, start + size, max(1, size // 40)):
            flipped = bytearray(archive)
            flipped[place] ^= 1
            refuse(tmp_path, bytes(flipped))
