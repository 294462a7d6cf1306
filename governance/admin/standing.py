"""What people may review, by the policy in force: rule for rule, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from governance.approvals import authority
from governance.approvals.authority import Reviewer, Terms
from governance.policies.domain import DEFAULT_REVIEWER_ROLES, Policy
from governance.policies.environments import ENVIRONMENTS

_WHY_NOT: Final = {
    authority.ROLE_MISSING: "no: it asks for another role",
    authority.PERMISSION_MISSING: "no: the permission is missing",
    authority.GROUP_MISSING: "no: it asks for people of other groups",
}


@dataclass(frozen=True, slots=True)
class Ruling:
    """One way in which a change of an environment is routed, and whom it demands.

    :ivar rule_id: None for what no rule matches.
    """

    rule_id: str | None
    terms: Terms

    @property
    def name(self) -> str:
        """Return what it is called on a page."""
        return f"{self.terms.environment}: {self.rule_id or 'no rule matches'}"

    @property
    def demand(self) -> str:
        """Return whom it demands, in words."""
        terms = self.terms
        text = f"{terms.needed} of {', '.join(terms.roles)}"
        return f"{text}; one of each of {', '.join(terms.groups)}" if terms.groups else text


def find_rulings(policy: Policy) -> Iterator[Ruling]:
    """Return every way in which a policy routes, environment by environment, in document order."""
    for environment in ENVIRONMENTS:
        own = policy.approval_terms(environment)
        rules = [one for one in policy.routing_rules if one.environment in (None, environment)]
        for rule in (*rules, None):
            yield Ruling(
                None if rule is None else rule.id,
                Terms(
                    environment=environment,
                    has_rule=rule is not None,
                    required=(rule and rule.required) or own.required,
                    roles=rule.reviewer_roles if rule else DEFAULT_REVIEWER_ROLES,
                    groups=rule.reviewer_groups_all if rule else (),
                    separate_requester=own.separate_requester,
                    requesters=frozenset(),
                ),
            )


def say(ruling: Ruling, reviewer: Reviewer) -> str:
    """Return whether a person may review what is routed so, unless they asked for it themselves."""
    refusal = authority.find_refusal(ruling.terms, reviewer)
    return f"yes, as {ruling.demand}" if refusal is None else _WHY_NOT[refusal]
