"""Who acts in the console, and the names of people and credentials."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from django.http import HttpRequest

from governance.admin.signing_in import has_second_factor
from governance.identity.domain import Principal
from governance.identity.models import ApiKey, Membership
from valdrix.kernel.admin import seat_of


def principal_of(request: HttpRequest) -> Principal:
    """Return whom a request of the console is made by: a person, in their role in the tenant."""
    tenancy = seat_of(request)
    person_id = int(request.user.pk or 0)
    return Principal(
        tenant_id=tenancy.tenant_id,
        principal_id=f"user:{person_id}",
        person_id=person_id,
        role=tenancy.role,
        has_second_factor=has_second_factor(request),
    )


@dataclass(frozen=True, slots=True)
class Names:
    """Names of a tenant's people, and of the keys that asked for something."""

    people: dict[int, str]
    keys: dict[uuid.UUID, str]

    def person(self, person_id: int) -> str:
        """Return a person's user name; who left the tenant is told apart."""
        return self.people.get(person_id, f"person {person_id}, no longer a member")

    def principal(self, principal_id: str, person_id: int) -> str:
        """Return who asked, and by which key."""
        name = self.person(person_id)
        kind, _, key = principal_id.partition(":")
        if kind != "key":
            return name if kind == "user" else f"{name}, by {principal_id}"
        label = self.keys.get(uuid.UUID(key), "a key that is gone")
        return f"{name}, by the key “{label}”"


def find_names(
    tenant_id: uuid.UUID, person_ids: Iterable[int], principal_ids: Iterable[str] = ()
) -> Names:
    """Return the names of some people and credentials, in two statements."""
    members = Membership.objects.filter(tenant_id=tenant_id, user_id__in=set(person_ids))
    keys = {uuid.UUID(one.removeprefix("key:")) for one in principal_ids if one.startswith("key:")}
    rows = ApiKey.objects.filter(tenant_id=tenant_id, pk__in=keys)
    return Names(
        people=dict(members.values_list("user_id", "user__username")),
        keys=dict(rows.values_list("pk", "name")) if keys else {},
    )
