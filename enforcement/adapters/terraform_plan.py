"""Terraform plan JSON: which change a plan is, without keeping anything it says.

Of a plan only a digest, a count and two flags leave this module. The digest is the change's
*computed* change digest (SPEC 2): equal for the same changes in whatever order and at whatever
time, and different as soon as one planned value differs, a secret one included.

Secrets and the digest: a hash of a short secret can be guessed by trying. So no secret is hashed
alone: all of a plan's sensitive values are hashed together, stretched with a salt that is the
digest of everything public in the plan, and only then enter the digest.
"""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal
from itertools import chain, repeat
from typing import Any, Final

import msgspec

from enforcement.adapters.foreign import ForeignReader
from enforcement.gate.inputs import COST_STATE_REASONS, KNOWN, PARTIAL, Cost
from valdrix.kernel.canonical import NotCanonicalError, canonical_bytes
from valdrix.kernel.problems import InvalidRequest, escape_pointer

DIGEST_SCHEMA: Final = "valdrix.terraform_plan_digest.v1"
STRETCHING_ROUNDS: Final = 100_000

_VERSION: Final = re.compile(
    r"(?:0\.[1-9][0-9]{0,3}|1(?:\.[0-9]{1,4})?)(?:\.[0-9]{1,4})?", re.ASCII
)
_PLAN_MEMBERS: Final = ("resource_changes", "planned_values", "configuration", "output_changes")
_SAFE_INTEGER: Final = 2**53 - 1
_SAFE_DIGITS: Final = 16
_PLAIN: Final = frozenset({str, bool, type(None)})
_UNCHANGED: Final = (["no-op"], ["read"])


class InvalidPlan(InvalidRequest):
    """A document is not a Terraform plan that Valdrix reads (422)."""

    code = "invalid_plan"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a plan.

    :ivar change_digest: SHA-256 hex of its changes.
    :ivar resource_count: managed resources that it creates, changes or deletes.
    :ivar is_complete: False when it leaves changes out: targeted or deferred ones.
    :ivar is_errored: True when planning failed part of the way.
    """

    change_digest: str
    resource_count: int
    is_complete: bool
    is_errored: bool


class _Row(msgspec.Struct, frozen=True, order=True):
    """One changed resource as canonical bytes; sorting puts rows in the digest's order."""

    address: str
    deposed: str
    public: bytes
    secret: bytes


def read_plan(document: object, *, pointer: str) -> Plan:
    """Return what is kept of a plan as ``terraform show -json`` prints it (SPEC 8).

    Minor format versions add members, so unknown ones are ignored; another major is refused.

    :param document: the parsed JSON document, of any type.
    :param pointer: JSON pointer of the document inside the request.
    :raises InvalidPlan: when it is no plan of format 0.1 to 1.x, with pointers below ``pointer``.
    """
    reader = ForeignReader(refusal=InvalidPlan, detail="The plan is not a valid Terraform plan.")
    root = reader.as_object(document, pointer)
    if root is None:
        reader.finish()
    assert root is not None
    version = reader.text(root, "format_version", pointer, required=True)
    if version is not None and not _VERSION.fullmatch(version):
        reader.refuse(f"{pointer}/format_version", "must be a format version from 0.1 to 1.x")
    if all(root.get(name) is None for name in _PLAN_MEMBERS):
        reader.refuse(pointer, "has no resource changes, planned values or configuration")
    is_complete = reader.flag(root, "complete", pointer)
    is_errored = reader.flag(root, "errored", pointer)
    has_deferred = bool(reader.objects(root, "deferred_changes", pointer))
    rows = []
    for place, change in reader.objects(root, "resource_changes", pointer):
        row = _read_change(reader, change, place)
        if row is not None:
            rows.append(row)
    reader.finish()
    return Plan(
        change_digest=_digest(rows),
        resource_count=len(rows),
        is_complete=is_complete is not False and not has_deferred,
        is_errored=bool(is_errored),
    )


def qualify_cost(cost: Cost, *, plan: Plan) -> Cost:
    """Return a cost as far as its plan supports it: part of a plan has part of the cost.

    A plan that failed has the reason ``estimate_error``, one that leaves changes out
    ``targeted_plan``; what was known becomes partial, what was unknown stays unknown.
    """
    if plan.is_errored:
        reason = "estimate_error"
    elif not plan.is_complete:
        reason = "targeted_plan"
    else:
        return cost
    reasons = {*cost.reasons, reason}
    return Cost(
        monthly_delta_usd=cost.monthly_delta_usd,
        hourly_delta_usd=cost.hourly_delta_usd,
        state=PARTIAL if cost.state == KNOWN else cost.state,
        reasons=tuple(item for item in COST_STATE_REASONS if item in reasons),
    )


def _read_change(reader: ForeignReader, item: dict[str, Any], pointer: str) -> _Row | None:
    """Return one resource's change, or None where nothing changes or something is wrong."""
    address = reader.text(item, "address", pointer, required=True)
    deposed = reader.text(item, "deposed", pointer) or ""
    mode = reader.text(item, "mode", pointer)
    change = reader.object(item, "change", pointer)
    if change is None:
        if item.get("change") is None:
            reader.refuse(f"{pointer}/change", "is required", code="required")
        return None
    actions = change.get("actions")
    if (
        not isinstance(actions, list)
        or not actions
        or not all(isinstance(action, str) and action for action in actions)
    ):
        reader.refuse(f"{pointer}/change/actions", "must be a list of action names")
        return None
    if address is None or mode == "data" or actions in _UNCHANGED:
        return None
    try:
        return _row(address, deposed, actions, change)
    except NotCanonicalError as error:
        reader.refuse(f"{pointer}/change", str(error))
    except RecursionError:
        reader.refuse(f"{pointer}/change", "is nested too deeply")
    return None


def _row(address: str, deposed: str, actions: list[str], change: dict[str, Any]) -> _Row:
    after = _Leaves()
    value = after.take(change.get("after"), change.get("after_sensitive"))
    unknown = _Leaves()
    public = canonical_bytes(
        {
            "address": address,
            "deposed": deposed,
            "actions": actions,
            "after": value,
            "after_numbers": after.numbers,
            "after_sensitive": sorted(after.secrets),
            "after_unknown": unknown.take(change.get("after_unknown"), None),
            "after_unknown_numbers": unknown.numbers,
        }
    )
    secret = canonical_bytes([address, deposed, after.secrets]) if after.secrets else b""
    return _Row(address, deposed, public, secret)


class _Leaves:
    """Takes out of a value what must not, or cannot, stand in canonical JSON.

    Both are replaced by null and kept beside the value by their JSON pointer, which no value can
    imitate: sensitive parts (``secrets``), and numbers that need more than a safe integer, as
    normalised text (``numbers``), because Terraform's numbers are wider than doubles.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, str] = {}
        self.secrets: dict[str, list[Any]] = {}
        self._path: list[str] = []

    def take(self, value: Any, mask: Any) -> Any:
        """Return the public form of a value; a mask of another shape hides all of it."""
        if mask and not (isinstance(mask, dict | list) and type(mask) is type(value)):
            if _has_mark(mask):
                hidden = _Leaves()
                self.secrets[self._pointer()] = [hidden.take(value, None), hidden.numbers]
                return None
            mask = None
        if isinstance(value, dict):
            if mask:
                return {key: self._below(key, item, mask.get(key)) for key, item in value.items()}
            return {
                key: item if type(item) in _PLAIN else self._below(key, item, None)
                for key, item in value.items()
            }
        if isinstance(value, list):
            marks = chain(mask or (), repeat(None))
            return [
                item if not mark and type(item) in _PLAIN else self._below(str(index), item, mark)
                for index, (item, mark) in enumerate(zip(value, marks, strict=False))
            ]
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            return self._number(value)
        return value

    def _below(self, key: str, item: Any, mask: Any) -> Any:
        self._path.append(key)
        taken = self.take(item, mask)
        self._path.pop()
        return taken

    def _number(self, value: int | Decimal) -> int | None:
        if isinstance(value, int):
            if -_SAFE_INTEGER <= value <= _SAFE_INTEGER:
                return value
            value = Decimal(value)
        sign, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int):
            raise NotCanonicalError("a number is not finite")
        text = "".join(map(str, digits)).lstrip("0")
        kept = text.rstrip("0")
        exponent += len(text) - len(kept)
        if not kept:
            return 0
        if exponent >= 0 and len(kept) + exponent <= _SAFE_DIGITS:
            whole = int(value)
            if -_SAFE_INTEGER <= whole <= _SAFE_INTEGER:
                return whole
        self.numbers[self._pointer()] = f"{'-' if sign else ''}{kept}e{exponent}"
        return None

    def _pointer(self) -> str:
        return "".join(f"/{escape_pointer(key)}" for key in self._path)


def _has_mark(mask: Any) -> bool:
    """Tell whether a mask marks anything; what is no mask at all counts as a mark."""
    if isinstance(mask, dict):
        return any(map(_has_mark, mask.values()))
    if isinstance(mask, list):
        return any(map(_has_mark, mask))
    return mask is not None and mask is not False


def _digest(rows: list[_Row]) -> str:
    """Hash canonical JSON of the rows, streamed: a plan may have tens of megabytes."""
    rows.sort()
    public = hashlib.sha256()
    for row in rows:
        public.update(row.public + b"\n")
    secret = hashlib.sha256()
    for row in rows:
        secret.update(row.secret + b"\n")
    sensitive = None
    if any(row.secret for row in rows):
        sensitive = hashlib.pbkdf2_hmac(
            "sha256", secret.digest(), public.digest(), STRETCHING_ROUNDS
        ).hex()
    whole = hashlib.sha256(b'{"resources":[')
    for index, row in enumerate(rows):
        whole.update(b"," + row.public if index else row.public)
    tail = canonical_bytes({"schema": DIGEST_SCHEMA, "sensitive": sensitive})
    whole.update(b"]," + tail[1:])
    return whole.hexdigest()
