"""Hands: who was shown the secret of a credential, and could have asked in its person's name.

Whoever issues or rotates a key, or connects an integration, is shown its text; whoever uploads a
workload issuer's keys may hold their private halves. The audit log says who did, and it is
append-only and written in the transaction of the act: what it does not say did not happen.
A command at the machine counts for nobody, as everywhere.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Final

from governance.audit.models import AuditEntry
from governance.identity.models import ApiKey

_SKEW: Final = timedelta(minutes=1)
"""Clocks of two servers may differ by less."""
ACTIONS_BY_KIND: Final = {
    "key": ("api-key.issue", "api-key.rotate"),
    "integration": ("integration.create", "integration.rotate"),
    "workload": ("workload-issuer.register", "workload-issuer.replace-keys"),
}
OBJECT_TYPES: Final = ("api-key", "integration", "workload-issuer")


@dataclass(frozen=True, slots=True)
class Use:
    """When a credential was used to ask: from its first question to its last."""

    principal_id: str
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class _Showing:
    """One moment from which a credential had the secret that somebody was shown.

    :ivar actor: who was; None where a secret was made that nobody was shown.
    """

    at: datetime
    actor: str | None


def find_hands(tenant_id: uuid.UUID, uses: Collection[Use]) -> dict[Use, frozenset[int]]:
    """Return for each use who was shown the secret that was in force then.

    A key that was issued by means of another key is in the hands of whoever holds that one, too.
    """
    holders: dict[Use, set[Use]] = {}
    wanted = set(uses)
    while wanted:
        showings = _find_showings(tenant_id, {use.principal_id for use in wanted})
        for use in wanted:
            in_force = _in_force(showings[use.principal_id], use)
            holders[use] = {Use(one.actor, one.at, one.at) for one in in_force if one.actor}
        wanted = {holder for use in wanted for holder in holders[use]} - holders.keys()
    people = _find_people(tenant_id, {use.principal_id for use in holders})
    return {use: _people_behind(use, holders, people) for use in uses}


def _find_showings(
    tenant_id: uuid.UUID, principal_ids: Collection[str]
) -> defaultdict[str, list[_Showing]]:
    found: defaultdict[str, list[_Showing]] = defaultdict(list)
    kinds = {
        name: kind
        for kind, _, name in (one.partition(":") for one in principal_ids)
        if kind in ACTIONS_BY_KIND
    }
    if not kinds:
        return found
    rows = AuditEntry.objects.filter(
        tenant_id=tenant_id, object_type__in=OBJECT_TYPES, object_id__in=list(kinds)
    )
    for entry in rows.order_by("at", "pk"):
        kind = kinds[entry.object_id]
        if entry.action in ACTIONS_BY_KIND[kind]:
            is_shown = kind != "workload" or bool((entry.after or {}).get("key_ids"))
            showing = _Showing(entry.at, entry.actor if is_shown else None)
            found[f"{kind}:{entry.object_id}"].append(showing)
    return found


def _in_force(showings: Sequence[_Showing], use: Use) -> list[_Showing]:
    """Return the showings whose secret was, or by another clock may have been, the one used."""
    return [
        showing
        for showing, end in zip_longest(showings, [one.at for one in showings[1:]])
        if showing.at <= use.last_at + _SKEW and (end is None or end > use.first_at - _SKEW)
    ]


def _find_people(tenant_id: uuid.UUID, principal_ids: Collection[str]) -> dict[str, int]:
    """Return the person that each principal is or speaks for."""
    parted = [(one, *one.partition(":")[::2]) for one in principal_ids]
    people = {one: int(name) for one, kind, name in parted if kind == "user"}
    keys = [uuid.UUID(name) for _, kind, name in parted if kind == "key"]
    if keys:
        rows = ApiKey.objects.filter(tenant_id=tenant_id, pk__in=keys)
        people |= {f"key:{pk}": person_id for pk, person_id in rows.values_list("pk", "person_id")}
    return people


def _people_behind(
    use: Use, holders: dict[Use, set[Use]], people: dict[str, int]
) -> frozenset[int]:
    found, seen, waiting = set(), {use}, [use]
    while waiting:
        for holder in holders[waiting.pop()] - seen:
            seen.add(holder)
            waiting.append(holder)
            if holder.principal_id in people:
                found.add(people[holder.principal_id])
    return frozenset(found)
