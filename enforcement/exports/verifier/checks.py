"""What has to hold in an export: the chain, every row's agreement with it, all totals."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from enforcement.exports.verifier.files import (
    SMALL_FILE_BYTES,
    Archive,
    Checkpoint,
    Folder,
    Keys,
    Refused,
    canonical,
    read_checkpoint,
    read_json,
)
from enforcement.exports.verifier.layout import (
    ALGORITHM,
    COLUMNS,
    CONTEXT_LINEAGE,
    FILES,
    FORMULA_STARTS,
    INTEGERS,
    MANIFEST_SCHEMA,
    POLICY_LINEAGE,
    RESERVING,
    SAME_IN_LEDGER,
)
from enforcement.exports.verifier.rows import Row, Table, plain

_PROGRESS_ROWS: Final = 100_000
_quoted: Final[Callable[[str], str]] = json.encoder.encode_basestring
_PLACE: Final = {
    name: {column: place for place, column in enumerate(columns)}
    for name, columns in COLUMNS.items()
}
_LEDGER: Final = _PLACE["ledger.csv"]
_DECISION: Final = _LEDGER["decision_id"]
_POLICY: Final = [_PLACE["decisions.csv"][name] for name in POLICY_LINEAGE]
_CONTEXT: Final = [_PLACE["decisions.csv"][name] for name in CONTEXT_LINEAGE]
_MADE: Final = [
    (_LEDGER[there], _PLACE["decisions.csv"][here], here) for here, there in SAME_IN_LEDGER.items()
]
_CHECKPOINT_MEMBERS: Final = {
    *("checkpoint", "signature", "signature_algorithm", "signature_key_id", "public_key")
}
_FOLLOWING: Final = ("decisions.csv", "approvals.csv", "reservations.csv")


@dataclass(slots=True)
class Report:
    """What was verified."""

    tenant_id: str
    rows: dict[str, int]
    first_sequence: int
    last_sequence: int
    last_hash: str
    checkpoints: int
    position: int = 0
    key_id: str = ""
    window: tuple[str, str] = ("", "")
    truncated: bool = False


class Chain:
    """The ledger's entries, rebuilt from their cells and hashed one after another."""

    def __init__(self, table: Table, tenant_id: str, after: tuple[int, bytes] | None) -> None:
        self.table = table
        self.after = after
        self.sequence, self._previous = after or (0, bytes(32))
        members = sorted({"tenant_id", *_LEDGER} - {"prev_hash", "entry_hash"})
        self._members = [
            (f'{"{" if place == 0 else ","}"{name}":', name, _LEDGER.get(name, -1))
            for place, name in enumerate(members)
        ]
        self._tenant = _quoted(tenant_id)

    def check(self, row: Row) -> None:
        """Check the next entry and move on to it.

        :raises Refused: when it is another one, or is not what was hashed.
        """
        cells, table = row.cells, self.table
        if self.after is None:
            self._begin(row)
        if cells[_LEDGER["sequence"]] != str(self.sequence + 1):
            table.refuse(
                f"sequence {self.sequence + 1} is missing: {cells[_LEDGER['sequence']]} is here",
                row,
            )
        if cells[_LEDGER["prev_hash"]] != self._previous.hex():
            table.refuse("prev_hash is not the hash of the entry before", row)
        found = hashlib.sha256(self._previous + self._canonical(row)).digest()
        if cells[_LEDGER["entry_hash"]] != found.hex():
            table.refuse("entry_hash is not the hash of the row's cells", row)
        _check_spelling(table, row)
        self.sequence, self._previous = self.sequence + 1, found

    def _begin(self, row: Row) -> None:
        """Begin where a file without a manifest begins; a chain from 1 begins with zeros."""
        try:
            self.sequence = int(row.cells[_LEDGER["sequence"]]) - 1
            self._previous = bytes.fromhex(row.cells[_LEDGER["prev_hash"]])
        except ValueError:
            self.table.refuse("sequence or prev_hash is not one", row)
        if self.sequence < 0 or (self.sequence == 0 and any(self._previous)):
            self.table.refuse("prev_hash is not zeros before the first entry", row)
        self.after = (self.sequence, self._previous)

    def _canonical(self, row: Row) -> bytes:
        cells, pieces = row.cells, []
        for prefix, name, place in self._members:
            cell = cells[place] if place >= 0 else ""
            if place < 0:
                text = self._tenant
            elif name == "reason_codes":
                text = "[" + ",".join(map(_quoted, cell.split())) + "]"
            elif not cell:
                text = "null"
            elif name in INTEGERS:
                text = cell
            else:
                text = _quoted(plain(cell))
            pieces.append(prefix + text)
        return ("".join(pieces) + "}").encode()


def _check_spelling(table: Table, row: Row) -> None:
    """Check that cells are quoted and made safe exactly as they are written.

    The hash of an entry binds what its cells say; this binds how they say it.
    """
    if b"'" not in row.raw and b'"' not in row.raw:
        return
    for cell in row.cells:
        if cell[:1] == "'" and cell[1:2] not in {"", *FORMULA_STARTS}:
            table.refuse("a cell has an apostrophe that is not written", row)
    spelled = ",".join(_spell(cell) for cell in row.cells)
    reasons = row.cells[_LEDGER["reason_codes"]]
    if not reasons:
        # An empty list is text without characters, which is quoted; no value is not.
        place = _LEDGER["reason_codes"]
        cells = [_spell(cell) for cell in row.cells]
        cells[place] = '""'
        spelled = ",".join(cells)
    if spelled.encode() != row.raw:
        table.refuse("a cell is quoted in another way than it is written", row)


def _spell(cell: str) -> str:
    if any(sign in cell for sign in ',"\r\n'):
        doubled = cell.replace('"', '""')
        return f'"{doubled}"'
    return cell


class Verification:
    """One export, checked from its signature to its totals; the ledger leads the other files."""

    def __init__(
        self, path: Path, keys: Keys, progress: Callable[[int], None] | None = None
    ) -> None:
        self._source: Archive | Folder = Folder(path) if path.is_dir() else Archive(path)
        self._keys = keys
        self._progress = progress
        self.manifest = self._read_manifest()
        self._tables: dict[str, Table] = {}
        self._policies: Counter[str] = Counter()
        self._contexts: Counter[str] = Counter()
        # Of the decision that was met last, or of any whose entries are still to come.
        self._decision_id, self._has_reservation = "", False
        self._held: dict[str, tuple[int, int]] = {}
        self._requested: dict[str, int] = {}

    def run(self, checkpoints: Sequence[Checkpoint]) -> Report:
        """Check everything.

        :raises Refused: with the first place that does not hold.
        """
        kept = self._checkpoints(checkpoints)
        with ExitStack() as opened:
            for name in FILES:
                file, size = self._source.open(name)
                opened.enter_context(file)
                self._tables[name] = Table(name, file, size, self.manifest["files"][name])
            return self._check(kept)

    def _check(self, kept: dict[int, Checkpoint]) -> Report:
        manifest, ledger = self.manifest, self.manifest["ledger"]
        chain = Chain(
            self._tables["ledger.csv"],
            manifest["tenant_id"],
            (ledger["after_sequence"], bytes.fromhex(ledger["after_hash"])),
        )
        for table in self._tables.values():
            table.read_header()
        self._walk(chain, kept)
        self._tables["ledger.csv"].finish()
        self._check_ends()
        for table in self._tables.values():
            table.finish()
        self._check_totals()
        return Report(
            tenant_id=manifest["tenant_id"],
            rows={name: table.rows for name, table in self._tables.items()},
            first_sequence=ledger["after_sequence"] + 1,
            last_sequence=ledger["last_sequence"],
            last_hash=ledger["last_hash"],
            checkpoints=len(kept),
            position=ledger["position"],
            key_id=manifest["signature_key_id"],
            window=(manifest["window_start"], manifest["window_end"]),
            truncated=manifest["truncated"],
        )

    def _read_small(self, name: str) -> bytes:
        file, size = self._source.open(name)
        with file:
            if size > SMALL_FILE_BYTES:
                raise Refused(name, None, "is larger than any that is written")
            return file.read(size)

    def _read_manifest(self) -> dict[str, Any]:
        """Return the signed manifest, once its four files and the checkpoint agree."""
        signed = self._read_small("manifest.canonical.json")
        manifest = read_json("manifest.canonical.json", signed)
        if canonical(manifest) != signed:
            raise Refused("manifest.canonical.json", None, "is not in RFC 8785 form")
        digest = f"{hashlib.sha256(signed).hexdigest()}  manifest.canonical.json\n"
        if self._read_small("manifest.sha256") != digest.encode():
            raise Refused("manifest.sha256", None, "is not the digest of manifest.canonical.json")
        signature = self._read_small("manifest.sig")
        text = signature.decode("ascii", "replace")
        if text[-1:] != "\n" or not self._keys.have_signed(signed, text[:-1]):
            raise Refused("manifest.sig", None, "is not the signature of a key that is trusted")
        if manifest.get("schema_version") != MANIFEST_SCHEMA or (
            manifest.get("signature_algorithm") != ALGORITHM
        ):
            raise Refused("manifest.canonical.json", None, "is of a form that is not known here")
        readable = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False)
        if self._read_small("manifest.json") != f"{readable}\n".encode():
            raise Refused("manifest.json", None, "does not say what was signed")
        self._check_own_checkpoint(manifest)
        return manifest

    def _check_own_checkpoint(self, manifest: dict[str, Any]) -> None:
        name, ledger = "checkpoint.json", manifest["ledger"]
        raw = self._read_small(name)
        own = read_checkpoint(name, raw, self._keys)
        document = read_json(name, raw)
        if (
            raw != canonical(document) + b"\n"
            or set(document) != _CHECKPOINT_MEMBERS
            or document["public_key"] not in self._keys.texts
            or document["signature_key_id"] != manifest["signature_key_id"]
        ):
            raise Refused(name, None, "is not as it was written")
        stated = (manifest["tenant_id"], ledger["last_sequence"], ledger["last_hash"])
        if (own.tenant_id, own.sequence, own.entry_hash) != stated:
            raise Refused(name, None, "names another head than the manifest")

    def _checkpoints(self, found: Sequence[Checkpoint]) -> dict[int, Checkpoint]:
        """Return the checkpoints kept elsewhere that lie in this export, by their sequence."""
        ledger, kept = self.manifest["ledger"], {}
        for one in found:
            if one.tenant_id != self.manifest["tenant_id"]:
                raise Refused(one.name, None, "is of another tenant")
            if one.sequence > ledger["position"]:
                raise Refused(
                    "manifest.json",
                    None,
                    f"the export is older than {one.name}: it knows the ledger up to"
                    f" {ledger['position']}, which had reached {one.sequence}",
                )
            places = {
                ledger["after_sequence"]: ledger["after_hash"],
                ledger["position"]: ledger["position_hash"],
            }
            if places.get(one.sequence, one.entry_hash) != one.entry_hash:
                raise Refused(
                    "ledger.csv", None, f"{one.name} has another hash of sequence {one.sequence}"
                )
            kept[one.sequence] = one
        return kept

    def _walk(self, chain: Chain, kept: dict[int, Checkpoint]) -> None:
        """Walk the ledger; at each decision take the rows of the other files that belong to it."""
        table, place = self._tables["ledger.csv"], _LEDGER
        start, end = self.manifest["window_start"], self.manifest["window_end"]
        while (row := table.advance()) is not None:
            chain.check(row)
            cells, one = row.cells, kept.get(chain.sequence)
            if one is not None and one.entry_hash != cells[place["entry_hash"]]:
                table.refuse(f"{one.name} has another hash of this entry", row)
            event = cells[place["event"]]
            table.take(row, bytes.fromhex(cells[place["entry_hash"]]))
            table.count(event, [cells[place["amount_usd"]]])
            if event == "decision_made" and start <= cells[place["at"]] < end:
                self._take_decision(row)
            elif event in RESERVING:
                self._see_reserved(row)
            elif event == "approval_requested":
                self._see_requested(row)
            if self._progress is not None and table.rows % _PROGRESS_ROWS == 0:
                self._progress(table.rows)

    def _take_decision(self, entry: Row) -> None:
        sequence, self._decision_id = entry.cells[_LEDGER["sequence"]], entry.cells[_DECISION]
        table = self._tables["decisions.csv"]
        row = table.advance()
        if row is None or row.cells[0] != sequence:
            found = "the file ends" if row is None else f"that of {row.cells[0]} is here"
            table.refuse(f"the decision of ledger sequence {sequence} is missing: {found}", row)
        table.take_chained(row)
        for there, here, name in _MADE:
            if row.cells[here] != entry.cells[there]:
                table.refuse(f"{name} is not what ledger sequence {sequence} says", row)
        self._policies["|".join([row.cells[place] for place in _POLICY])] += 1
        self._contexts["|".join([row.cells[place] for place in _CONTEXT])] += 1
        self._take_reservation(sequence)
        self._take_approvals(sequence)

    def _take_reservation(self, sequence: str) -> None:
        table, place = self._tables["reservations.csv"], _PLACE["reservations.csv"]
        row = table.advance()
        self._has_reservation = row is not None and row.cells[0] == sequence
        if row is None or not self._has_reservation:
            return
        table.take_chained(row)
        if row.cells[place["decision_id"]] != self._decision_id:
            table.refuse(f"decision_id is not what ledger sequence {sequence} says", row)
        if row.cells[place["is_shadow"]] == "false":
            own = table.units(row.cells[place["own_usd"]])
            self._held[self._decision_id] = (own, row.number)

    def _take_approvals(self, sequence: str) -> None:
        table, place = self._tables["approvals.csv"], _PLACE["approvals.csv"]
        while (row := table.advance()) is not None and row.cells[0] == sequence:
            table.take_chained(row)
            if row.cells[place["decision_id"]] != self._decision_id:
                table.refuse(f"decision_id is not what ledger sequence {sequence} says", row)
            self._requested[row.cells[place["approval_request_id"]]] = row.number

    def _see_reserved(self, entry: Row) -> None:
        """Take what an entry reserved off what its decision's reservation says that it holds."""
        decision_id, sequence = entry.cells[_DECISION], entry.cells[_LEDGER["sequence"]]
        if decision_id not in self._held:
            if decision_id == self._decision_id and not self._has_reservation:
                self._tables["reservations.csv"].refuse(
                    f"the reservation of ledger sequence {sequence} is missing"
                )
            return
        left, number = self._held.pop(decision_id)
        left -= self._tables["ledger.csv"].units(entry.cells[_LEDGER["amount_usd"]])
        if left < 0:
            reason = f"own_usd is less than ledger sequence {sequence} reserved"
            raise Refused("reservations.csv", number, reason)
        if left:
            self._held[decision_id] = (left, number)

    def _see_requested(self, entry: Row) -> None:
        approval_id = entry.cells[_LEDGER["approval_request_id"]]
        known = self._requested.pop(approval_id, None)
        if known is None and entry.cells[_DECISION] == self._decision_id:
            sequence = entry.cells[_LEDGER["sequence"]]
            self._tables["approvals.csv"].refuse(
                f"the approval of ledger sequence {sequence} is missing"
            )

    def _check_ends(self) -> None:
        """Check that no row is left, and that what rows say was reserved and asked for was."""
        for name in _FOLLOWING:
            left = self._tables[name].advance()
            if left is not None:
                self._tables[name].refuse("the row belongs to no decision of ledger.csv", left)
        ledger = self.manifest["ledger"]
        if ledger["last_sequence"] != ledger["position"]:
            return  # What was reserved or asked for later is not in this export.
        for _, number in self._held.values():
            raise Refused("reservations.csv", number, "own_usd is more than the ledger reserved")
        for number in self._requested.values():
            raise Refused("approvals.csv", number, "the ledger has no request of this approval")

    def _check_totals(self) -> None:
        """Compare what was counted with what the manifest states."""
        manifest = self.manifest
        limit, decisions = manifest["limit"], self._tables["decisions.csv"].rows
        found: dict[str, Any] = {
            "figures": {name: table.figures() for name, table in self._tables.items()},
            "bindings": {
                name: {"rows": self._tables[name].rows, "bound": self._tables[name].rows}
                for name in _FOLLOWING
            },
            "policy_lineage": _lineage(self._policies, POLICY_LINEAGE),
            "computed_context_lineage": _lineage(self._contexts, CONTEXT_LINEAGE),
        }
        for name in ("policy_lineage", "computed_context_lineage"):
            found[f"{name}_sha256"] = hashlib.sha256(canonical(found[name])).hexdigest()
        for name, value in found.items():
            if manifest[name] != value:
                raise Refused("manifest.json", None, f"{name} is not what the rows add up to")
        if limit is not None and (
            decisions > limit or (manifest["truncated"] and decisions < limit)
        ):
            raise Refused("manifest.json", None, f"limit is {limit}, and {decisions} are covered")


def _lineage(keys: Counter[str], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return each combination of values that decisions were made under, with their number."""
    return [
        {
            **{
                name: (int(text) if name in INTEGERS else text) if text else None
                for name, text in zip(names, key.split("|"), strict=True)
            },
            "decisions": decisions,
        }
        for key, decisions in sorted(keys.items(), key=lambda item: item[0].encode())
    ]


def verify(
    path: Path,
    public_keys: Sequence[str],
    *,
    checkpoints: Sequence[Path] = (),
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Verify an export, a ZIP or a directory.

    :param public_keys: raw Ed25519 public keys in base64url: who may have signed it.
    :param checkpoints: files kept elsewhere that the export must agree with.
    :raises Refused: with the first file, row and reason that does not hold.
    :raises ValueError: when a public key is none.
    """
    keys = Keys(public_keys)
    kept = [read_checkpoint(one.name, one.read_bytes(), keys) for one in checkpoints]
    return Verification(path, keys, progress).run(kept)


def verify_ledger(
    path: Path,
    public_keys: Sequence[str],
    *,
    checkpoints: Sequence[Path],
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Verify a ``ledger.csv`` by itself against checkpoints that were kept elsewhere.

    Without one of them at its end, a tail that was cut off is not found; the report says how far
    the checkpoints reach.

    :raises Refused: with the first row and reason that does not hold.
    :raises ValueError: when a public key is none.
    """
    keys = Keys(public_keys)
    kept = [read_checkpoint(one.name, one.read_bytes(), keys) for one in checkpoints]
    by_sequence = {one.sequence: one for one in kept}
    tenants = {one.tenant_id for one in kept}
    if len(tenants) != 1:
        raise Refused(path.name, None, "needs checkpoints, all of one tenant")
    table = Table("ledger.csv", path.open("rb", buffering=1 << 18), path.stat().st_size, None)
    tenant_id = tenants.pop()
    chain, reached = Chain(table, tenant_id, None), 0
    with table.file:
        table.read_header()
        while (row := table.advance()) is not None:
            chain.check(row)
            one = by_sequence.get(chain.sequence)
            if one is not None and one.entry_hash != row.cells[_LEDGER["entry_hash"]]:
                table.refuse(f"{one.name} has another hash of this entry", row)
            reached += one is not None
            table.take(row, bytes.fromhex(row.cells[_LEDGER["entry_hash"]]))
            if progress is not None and table.rows % _PROGRESS_ROWS == 0:
                progress(table.rows)
    for one in kept:
        if one.sequence > chain.sequence:
            table.refuse(f"sequence {one.sequence} is missing, which {one.name} states")
    first = chain.sequence - table.rows + 1
    if not reached:
        raise Refused(path.name, None, "holds none of the entries that the checkpoints state")
    return Report(
        tenant_id=tenant_id,
        rows={"ledger.csv": table.rows},
        first_sequence=first,
        last_sequence=chain.sequence,
        last_hash=table.last_hash.hex(),
        checkpoints=reached,
    )
