"""One stored decision decided again: under its own policy, or under another one. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from enforcement.gate.context import rescore
from enforcement.gate.decision import (
    ENGINE_VERSION,
    GateContext,
    Outcome,
    decide,
    decode_context,
    encode,
    outcome_sha256,
)
from governance.policies.comparison import Change, diff
from governance.policies.domain import Policy

SAME: Final = "same"
DIFFERENT: Final = "different"
ENGINE_CHANGED: Final = "engine_changed"
FAIL_SAFE: Final = "fail_safe"
DAMAGED: Final = "damaged"


class StoredDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision's row holds that replay needs.

    :ivar sequence: the decision's place in the ledger.
    :ivar is_approved: whether people approved it then.
    """

    sequence: int
    decision_id: uuid.UUID
    created_at: datetime
    decision: str
    is_fail_safe: bool
    policy_version: int
    engine_version: str
    context_json: str
    outcome_json: str
    outcome_sha256: str
    reason_codes: list[str]
    is_approved: bool


@dataclass(frozen=True, slots=True)
class KnownPolicy:
    """A policy version that decisions were made under."""

    sha256: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one decision that was decided again.

    :ivar changes: what differs between the stored outcome and the new one.
    """

    stored: StoredDecision
    result: str
    reason: str = ""
    changes: tuple[Change, ...] = ()


def replay_decision(stored: StoredDecision, policies: Mapping[int, KnownPolicy]) -> Replayed:
    """Decide a stored context again and compare the outcome's hash with the stored one.

    A fail-safe outcome was not decided: only its own hash is checked.
    """
    if outcome_sha256(stored.outcome_json) != stored.outcome_sha256:
        return Replayed(stored, DAMAGED, "the stored outcome is not what its hash says")
    if stored.is_fail_safe:
        return Replayed(stored, FAIL_SAFE)
    try:
        context = decode_context(stored.context_json)
    except msgspec.MsgspecError as error:
        return Replayed(stored, DAMAGED, f"the stored context cannot be read: {error}")
    known = policies.get(stored.policy_version)
    if known is None or known.sha256 != context.policy_sha256:
        return Replayed(stored, DAMAGED, f"policy version {stored.policy_version} is another one")
    again = encode(decide(context, known.policy))
    if outcome_sha256(again) == stored.outcome_sha256:
        return Replayed(stored, SAME)
    changes = diff(msgspec.json.decode(stored.outcome_json), msgspec.json.decode(again))
    if stored.engine_version != ENGINE_VERSION:
        return Replayed(stored, ENGINE_CHANGED, f"decided by {stored.engine_version}", changes)
    return Replayed(stored, DIFFERENT, "decide gives another outcome", changes)


def simulate_decision(
    context: GateContext, policy: Policy, *, old: Policy, plan_ceilings: tuple[Any, Any]
) -> Outcome:
    """Decide a stored context under another policy, against the headroom stored with it.

    What the policy itself says of the question is said anew: the environment's class, the
    ceilings, and which age makes costs stale. Balances, sharing and forced modes stay as stored.

    :param plan_ceilings: plan and enterprise ceiling of the tier, for what the policy leaves out.
    """
    environment = policy.classify_environment(context.gate_input.environment_original)
    gate_input = replace(context.gate_input, environment=environment)
    plan, enterprise = _ceilings(context, policy, old, plan_ceilings)
    return decide(
        replace(
            context,
            gate_input=gate_input,
            accounts=replace(
                context.accounts, plan_ceiling_usd=plan, enterprise_ceiling_usd=enterprise
            ),
            computed=rescore(
                context.computed, gate_input, stale_after_days=policy.context.stale_cost_days
            ),
        ),
        policy,
    )


def _ceilings(
    context: GateContext, policy: Policy, old: Policy, of_tier: tuple[Any, Any]
) -> tuple[Any, Any]:
    """Return the ceilings as the gate would take them: the policy's, else the tier's."""
    limits, accounts = policy.limits, context.accounts
    plan = limits.plan_monthly_ceiling_usd
    if plan is None:
        # What the old policy left out was the tier's, as it was then.
        is_tiers = old.limits.plan_monthly_ceiling_usd is None
        plan = accounts.plan_ceiling_usd if is_tiers else of_tier[0]
    enterprise = limits.enterprise_monthly_ceiling_usd
    if enterprise is None:
        enterprise = max(plan, of_tier[1])
    return plan, enterprise
