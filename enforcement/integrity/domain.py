"""What an invariant is, and what checking a tenant's invariants found. Pure."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Invariant:
    """Something that holds of a tenant's rows at every commit.

    :ivar name: stable: incidents and dashboards go by it.
    :ivar sentence: what holds, for a person.
    :ivar sql: gives one row for each row inspected: ``id``, ``expected`` and ``found``; where the
        last two differ, the invariant is violated. Its only parameter is ``tenant``.
    """

    name: str
    sentence: str
    sql: str


@dataclass(frozen=True, slots=True)
class Violation:
    """One row of which an invariant does not hold; None stands for a row or value not there."""

    id: str
    expected: str | None
    found: str | None

    def to_document(self) -> dict[str, Any]:
        """Return the violation as JSON carries it."""
        return {"id": self.id, "expected": self.expected, "found": self.found}


@dataclass(frozen=True, slots=True)
class Finding:
    """What checking one invariant found.

    :ivar inspected: how many rows were looked at.
    :ivar violations: how many of them violate it.
    :ivar examples: the first of those, by id.
    """

    invariant: Invariant
    inspected: int
    violations: int
    examples: tuple[Violation, ...]

    def to_document(self) -> dict[str, Any]:
        """Return the finding as JSON carries it."""
        return {
            "invariant": self.invariant.name,
            "holds": self.violations == 0,
            "inspected": self.inspected,
            "violations": self.violations,
            "examples": [example.to_document() for example in self.examples],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What checking all invariants of one tenant found, at one moment."""

    tenant_id: uuid.UUID
    findings: tuple[Finding, ...]

    @property
    def inspected(self) -> int:
        """Return how many rows were looked at, a row once for each invariant about it."""
        return sum(finding.inspected for finding in self.findings)

    @property
    def violated(self) -> tuple[Finding, ...]:
        """Return the findings of those invariants that do not hold."""
        return tuple(finding for finding in self.findings if finding.violations)

    @property
    def status(self) -> str:
        """Return ``violated``, ``empty`` (nothing to look at) or ``sound``."""
        if self.violated:
            return "violated"
        return "sound" if self.inspected else "empty"
