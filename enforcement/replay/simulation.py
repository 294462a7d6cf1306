"""A policy on history: what it would have said, counted decision by decision (SPEC 10).

Static: each decision is decided against the headroom that is stored with it. What an allowed
change would have used up, and a denied one left, is not carried on to the next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from enforcement.gate.decision import (
    ALLOW,
    ALLOW_WITH_CREDITS,
    DENY,
    REQUIRE_APPROVAL,
    Outcome,
    decode_context,
)
from enforcement.replay.domain import StoredDecision, simulate_decision
from enforcement.replay.queries import (
    PolicyShelf,
    Span,
    count_decisions,
    read_tier_ceilings,
    stream_decisions,
)
from governance.policies.domain import Policy
from valdrix.kernel.money import ZERO, to_text

SCHEMA: Final = "valdrix.enforcement.simulation.v1"
LISTED: Final = 500
"""How many changed decisions are listed; all are counted."""
_DECISIONS: Final = (ALLOW, ALLOW_WITH_CREDITS, REQUIRE_APPROVAL, DENY)
_STATIC: Final = (
    "Static: each decision was decided against the headroom stored with it; what this policy would"
    " have used up or left is not carried on to later decisions."
)


@dataclass(slots=True)
class _Flow:
    """Decisions that went from one outcome to another, and their monthly increase."""

    decisions: int = 0
    usd: Decimal = ZERO

    def add(self, usd: Decimal) -> None:
        self.decisions += 1
        self.usd += usd

    def document(self) -> dict[str, Any]:
        return {"decisions": self.decisions, "monthly_increase_usd": to_text(self.usd)}


@dataclass(slots=True)
class Tally:
    """What is counted while decisions pass; its size does not grow with them."""

    decisions: int = 0
    fail_safe: int = 0
    flows: defaultdict[tuple[str, str], _Flow] = field(default_factory=lambda: defaultdict(_Flow))
    shadow: defaultdict[str, _Flow] = field(default_factory=lambda: defaultdict(_Flow))
    denied: _Flow = field(default_factory=_Flow)
    denied_but_approved: _Flow = field(default_factory=_Flow)
    changed: list[dict[str, Any]] = field(default_factory=list)

    def count(self, stored: StoredDecision, before: dict[str, Any], outcome: Outcome) -> None:
        """Count one decision.

        :param before: what the list of changed decisions says of the question.
        """
        usd = before["increase"]
        self.decisions += 1
        self.flows[stored.decision, outcome.decision].add(usd)
        if outcome.would_have_been is not None:
            self.shadow[outcome.would_have_been].add(usd)
        if outcome.decision == DENY:
            self.denied.add(usd)
            if stored.is_approved:
                self.denied_but_approved.add(usd)
        if stored.decision != outcome.decision and len(self.changed) < LISTED:
            self.changed.append(
                {
                    "decision_id": str(stored.decision_id),
                    "ledger_sequence": stored.sequence,
                    **before["question"],
                    "from": stored.decision,
                    "to": outcome.decision,
                    "reason_codes_from": before["reason_codes"],
                    "reason_codes_to": list(outcome.reason_codes),
                    "approved_then": stored.is_approved,
                }
            )

    def document(self) -> dict[str, Any]:
        """Return the result, amounts as strings."""
        would, was = _totals(self.flows, 1), _totals(self.flows, 0)
        moved = [
            {"from": before, "to": after, **self.flows[before, after].document()}
            for before in _DECISIONS
            for after in _DECISIONS
            if before != after and (before, after) in self.flows
        ]
        denied = self.denied.decisions
        rate = Decimal(self.denied_but_approved.decisions) / denied if denied else None
        return {
            "schema_version": SCHEMA,
            "static": True,
            "note": _STATIC,
            "decisions": self.decisions,
            "fail_safe_left_out": self.fail_safe,
            "would_allow": would[ALLOW].decisions + would[ALLOW_WITH_CREDITS].decisions,
            "would_allow_with_credits": would[ALLOW_WITH_CREDITS].decisions,
            "would_require_approval": would[REQUIRE_APPROVAL].decisions,
            "would_deny": would[DENY].decisions,
            "was": {name: was[name].document() for name in _DECISIONS},
            "would_be": {name: would[name].document() for name in _DECISIONS},
            "in_shadow_would_have_been": {
                name: flow.document() for name, flow in sorted(self.shadow.items())
            },
            "moved": moved,
            "changed": sum(one["decisions"] for one in moved),
            "changed_decisions": self.changed,
            "false_positives": {
                "denied": self.denied.document(),
                "denied_but_approved_then": self.denied_but_approved.document(),
                "rate": None if rate is None else f"{rate:.4f}",
            },
        }


def simulate(
    span: Span, policy: Policy, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Return what a policy would have said of a span's decisions.

    :param progress: called after each batch with how many are done, and how many there are.
    """
    tally, policies = Tally(), PolicyShelf(span.tenant_id)
    total, ceilings = count_decisions(span), read_tier_ceilings(span.tenant_id)
    for batch in stream_decisions(span):
        policies.fetch({stored.policy_version for stored in batch})
        for stored in batch:
            if stored.is_fail_safe:
                tally.fail_safe += 1
                continue
            context = decode_context(stored.context_json)
            outcome = simulate_decision(
                context,
                policy,
                old=policies[stored.policy_version].policy,
                plan_ceilings=ceilings,
            )
            gate_input = context.gate_input
            delta = gate_input.cost.monthly_delta_usd
            before = {
                "increase": gate_input.amount_usd,
                "reason_codes": stored.reason_codes,
                "question": {
                    "source": gate_input.source,
                    "project_id": gate_input.project_id,
                    "environment": gate_input.environment,
                    "action": gate_input.action,
                    "resource_reference": gate_input.resource_reference,
                    "estimated_monthly_delta_usd": None if delta is None else to_text(delta),
                },
            }
            tally.count(stored, before, outcome)
        if progress is not None:
            progress(tally.decisions + tally.fail_safe, total)
    return tally.document()


def _totals(flows: dict[tuple[str, str], _Flow], side: int) -> dict[str, _Flow]:
    """Return decisions and increase of each outcome: as it was (0), or would be (1)."""
    found = {name: _Flow() for name in _DECISIONS}
    for ends, flow in flows.items():
        found[ends[side]].decisions += flow.decisions
        found[ends[side]].usd += flow.usd
    return found
