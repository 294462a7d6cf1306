"""Authority: who may judge an approval, and when enough people have (SPEC 6). Pure.

A reviewer needs a role that the rule allows, the permission of the environment, and, where the
rule demands people of several groups, one of those groups. Persons are compared, never
credentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from governance.identity.domain import APPROVE_NONPROD, APPROVE_PROD, MEMBER
from governance.policies.environments import NONPROD

ROLE_MISSING: Final = "reviewer_role_missing"
PERMISSION_MISSING: Final = "approval_permission_missing"
GROUP_MISSING: Final = "reviewer_group_missing"
IS_REQUESTER: Final = "requester_cannot_review"
HELD_CREDENTIAL: Final = "credential_holder_cannot_review"


class Reviewer(msgspec.Struct, frozen=True):
    """A person as a reviewer: the role they act in, what they may approve, and their groups."""

    person_id: int
    role: str
    permissions: frozenset[str]
    groups: frozenset[str]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Whom one approval demands.

    :ivar has_rule: a routing rule matched; members review by an explicit rule only.
    :ivar requesters: everybody who asked for the change, also by joining.
    :ivar holders: who was shown the secret of a credential that asked, and could have asked by it.
    """

    environment: str
    has_rule: bool
    required: int
    roles: tuple[str, ...]
    groups: tuple[str, ...]
    separate_requester: bool
    requesters: frozenset[int]
    holders: frozenset[int] = frozenset()

    @property
    def needed(self) -> int:
        """Return how many different people must agree: one of each group at least."""
        return max(self.required, len(self.groups))

    @property
    def permission(self) -> str:
        """Return the permission that its environment asks for; what is not nonprod is prod."""
        return APPROVE_NONPROD if self.environment == NONPROD else APPROVE_PROD

    @property
    def is_separate(self) -> bool:
        """Tell whether requesters are no reviewers: always where several people must agree."""
        return self.separate_requester or self.needed > 1


def find_refusal(terms: Terms, reviewer: Reviewer) -> str | None:
    """Return the code of the first thing that keeps a person from judging, or None."""
    if reviewer.role not in terms.roles or (reviewer.role == MEMBER and not terms.has_rule):
        return ROLE_MISSING
    if terms.permission not in reviewer.permissions:
        return PERMISSION_MISSING
    all_places_are_groups = terms.groups and terms.needed == len(terms.groups)
    if all_places_are_groups and not reviewer.groups.intersection(terms.groups):
        return GROUP_MISSING
    if terms.is_separate and reviewer.person_id in terms.requesters:
        return IS_REQUESTER
    if terms.is_separate and reviewer.person_id in terms.holders:
        return HELD_CREDENTIAL
    return None


def is_enough(terms: Terms, given: Sequence[Reviewer]) -> bool:
    """Tell whether these different people together are all that an approval demands."""
    return len(given) >= terms.needed and count_groups(terms, given) == len(terms.groups)


def is_needed(terms: Terms, given: Sequence[Reviewer], reviewer: Reviewer) -> bool:
    """Tell whether a further person's approval brings it nearer to being given."""
    filled = count_groups(terms, given)
    if count_groups(terms, [*given, reviewer]) > filled:
        return True
    free_places = terms.needed - len(terms.groups)
    return len(given) - filled < free_places


def count_groups(terms: Terms, given: Sequence[Reviewer]) -> int:
    """Return how many of the demanded groups have somebody, each person standing for one only."""
    if not terms.groups:
        return 0
    stands_for: dict[int, str] = {}
    return sum(_find_place(group, given, stands_for, set()) for group in terms.groups)


def _find_place(
    group: str, given: Sequence[Reviewer], stands_for: dict[int, str], seen: set[int]
) -> bool:
    """Let somebody stand for a group, moving others to another group of theirs where needed."""
    for reviewer in given:
        if group not in reviewer.groups or reviewer.person_id in seen:
            continue
        seen.add(reviewer.person_id)
        other = stands_for.get(reviewer.person_id)
        if other is None or _find_place(other, given, stands_for, seen):
            stands_for[reviewer.person_id] = group
            return True
    return False
