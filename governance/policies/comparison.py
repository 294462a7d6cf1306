"""How two policies differ: member by member, and in which modes the new one is stricter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from governance.policies.domain import MODES, SOURCES, Policy
from governance.policies.environments import ENVIRONMENTS
from valdrix.kernel.problems import escape_pointer

_STRICTNESS: Final = {mode: rank for rank, mode in enumerate(MODES)}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between two documents.

    :ivar pointer: where, as a JSON pointer; for what was removed, into the old document.
    :ivar old: None when it was added; documents hold no null.
    :ivar new: None when it was removed.
    """

    kind: Literal["added", "removed", "changed", "reordered"]
    pointer: str
    old: Any = None
    new: Any = None


def diff(old: Any, new: Any) -> tuple[Change, ...]:
    """Return the differences of two documents, entries with an ``id`` matched by it.

    The order of such entries counts (the first routing rule that matches wins), so a list whose
    common entries moved is also ``reordered``, from its old ids to its new ones.
    """
    return tuple(_changes(old, new, "", ""))


def raised_modes(old: Policy, new: Policy) -> tuple[str, ...]:
    """Return each ``source.environment`` whose mode is stricter in the new policy."""
    return tuple(
        f"{source}.{environment}"
        for source in SOURCES
        for environment in ENVIRONMENTS
        if _STRICTNESS[new.mode(source, environment).mode]
        > _STRICTNESS[old.mode(source, environment).mode]
    )


def _changes(old: Any, new: Any, old_at: str, new_at: str) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _member_changes(old, new, old_at, new_at)
    elif _has_ids(old) and _has_ids(new):
        yield from _entry_changes(old, new, old_at, new_at)
    elif old != new or type(old) is not type(new):
        yield Change(kind="changed", pointer=new_at, old=old, new=new)


def _member_changes(
    old: dict[str, Any], new: dict[str, Any], old_at: str, new_at: str
) -> Iterator[Change]:
    for name in sorted(old.keys() | new.keys()):
        token = escape_pointer(name)
        if name not in new:
            yield Change(kind="removed", pointer=f"{old_at}/{token}", old=old[name])
        elif name not in old:
            yield Change(kind="added", pointer=f"{new_at}/{token}", new=new[name])
        else:
            yield from _changes(old[name], new[name], f"{old_at}/{token}", f"{new_at}/{token}")


def _entry_changes(
    old: list[dict[str, Any]], new: list[dict[str, Any]], old_at: str, new_at: str
) -> Iterator[Change]:
    old_places = {entry["id"]: place for place, entry in enumerate(old)}
    new_places = {entry["id"]: place for place, entry in enumerate(new)}
    for name, place in old_places.items():
        if name not in new_places:
            yield Change(kind="removed", pointer=f"{old_at}/{place}", old=old[place])
    for name, place in new_places.items():
        if name not in old_places:
            yield Change(kind="added", pointer=f"{new_at}/{place}", new=new[place])
        else:
            was = old_places[name]
            yield from _changes(old[was], new[place], f"{old_at}/{was}", f"{new_at}/{place}")
    kept = [name for name in old_places if name in new_places]
    if kept != [name for name in new_places if name in old_places]:
        yield Change(kind="reordered", pointer=new_at, old=list(old_places), new=list(new_places))


def _has_ids(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    ids = [entry.get("id") if isinstance(entry, dict) else None for entry in value]
    return all(isinstance(name, str) for name in ids) and len(set(ids)) == len(ids)
