"""What a gate is asked: the one form that every surface's payload becomes (SPEC 3.1).

An adapter yields a :class:`GateRequest`; :func:`normalise` adds what depends on the tenant's
policy, the environment's class, and gives a :class:`GateInput` with its two fingerprints.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any, Final

import msgspec

from valdrix.kernel.canonical import canonical_bytes, without_decimals
from valdrix.kernel.money import (
    ZERO,
    deltas_agree,
    hourly_from_monthly,
    monthly_from_hourly,
    to_text,
)
from valdrix.kernel.problems import FieldError, InvalidRequest

TERRAFORM: Final = "terraform"
K8S_ADMISSION: Final = "k8s_admission"
CLOUD_EVENT: Final = "cloud_event"
SOURCES: Final = (TERRAFORM, K8S_ADMISSION, CLOUD_EVENT)

KNOWN: Final = "known"
PARTIAL: Final = "partial"
UNKNOWN: Final = "unknown"

COST_STATE_REASONS: Final = (
    "estimate_error",
    "estimator_quota_exceeded",
    "price_not_found",
    "unsupported_resources",
    "diff_unavailable",
    "targeted_plan",
    "currency_mismatch",
    "no_estimate",
)


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a change costs as far as its source says: deltas in US dollars, and how sure they are.

    :ivar monthly_delta_usd: 4 decimals, negative for a saving; None when the state is unknown.
    :ivar hourly_delta_usd: 6 decimals, likewise.
    :ivar state: ``known``, ``partial`` or ``unknown``: unknown is never zero.
    :ivar reasons: members of ``COST_STATE_REASONS``, in that order, without repeats.
    """

    monthly_delta_usd: Decimal | None
    hourly_delta_usd: Decimal | None
    state: str
    reasons: tuple[str, ...] = ()


UNESTIMATED: Final = Cost(
    monthly_delta_usd=None, hourly_delta_usd=None, state=UNKNOWN, reasons=("no_estimate",)
)


class DeltaMismatch(InvalidRequest):
    """Two statements of the same cost do not agree within rounding (SPEC 3.1)."""

    code = "delta_mismatch"


def build_cost(*, monthly: Decimal | None, hourly: Decimal | None) -> Cost:
    """Return the cost that a caller's two deltas name, the missing one derived at 730 hours.

    :raises DeltaMismatch: when both are given and do not agree within rounding.
    :raises AmountError: when the monthly amount of an hourly one is above 1e12 in magnitude.
    """
    if monthly is None and hourly is None:
        return UNESTIMATED
    if monthly is None:
        assert hourly is not None
        monthly = monthly_from_hourly(hourly)
    elif hourly is None:
        hourly = hourly_from_monthly(monthly)
    elif not deltas_agree(monthly=monthly, hourly=hourly):
        detail = "does not equal 730 times the hourly delta"
        raise DeltaMismatch(
            "The monthly and the hourly delta name different costs.",
            errors=(FieldError("/estimated_monthly_delta_usd", "delta_mismatch", detail),),
        )
    return Cost(monthly_delta_usd=monthly, hourly_delta_usd=hourly, state=KNOWN)


class GateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One question to the gate as its surface put it, before policy classifies the environment.

    :ivar environment: the caller's own text, kept as it came.
    :ivar change_digest: SHA-256 hex or another opaque digest of what is being changed.
    :ivar change_digest_is_computed: True when Valdrix took the digest from a plan or object; a
        declared one is a claim and never worth money or an approval across runs (SPEC 2).
    :ivar idempotency_key: the name for this attempt, as shown to people.
    :ivar idempotency_namespace: ``caller`` for keys that callers chose, else the surface's own
        namespace that callers cannot write.
    :ivar retry_seconds: None for a key that names its attempt for ever; else the key is one for
        retries, good for so long after a decision that let the change through, and while that
        decision's reservation is active (SPEC 8).
    :ivar actor: principal id of whoever asks, such as ``key:…``; never a name or an e-mail.
    """

    source: str
    project_id: str
    environment: str
    action: str
    resource_reference: str
    cost: Cost
    actor: str
    team: str | None = None
    metadata: dict[str, Any] = {}
    change_digest: str | None = None
    change_digest_is_computed: bool = False
    parent_decision_id: str | None = None
    run_id: str | None = None
    stage: str | None = None
    idempotency_key: str | None = None
    idempotency_namespace: str = "caller"
    retry_seconds: int | None = None
    expected_request_fingerprint: str | None = None
    dry_run: bool = False


class GateInput(msgspec.Struct, frozen=True, kw_only=True):
    """One normalised question: what ``decide`` sees and what replay sees again.

    :ivar environment: ``prod`` or ``nonprod``.
    :ivar environment_original: the caller's text.
    """

    source: str
    project_id: str
    environment: str
    environment_original: str
    action: str
    resource_reference: str
    cost: Cost
    actor: str
    team: str | None
    metadata: dict[str, Any]
    change_digest: str | None
    change_digest_is_computed: bool
    parent_decision_id: str | None
    run_id: str | None
    stage: str | None
    dry_run: bool
    request_fingerprint: str
    change_fingerprint: str

    @property
    def computed_digest(self) -> str | None:
        """Return the change digest where Valdrix computed it: a declared one is a claim."""
        return self.change_digest if self.change_digest_is_computed else None

    @property
    def amount_usd(self) -> Decimal:
        """Return what this change would add to the month, in US dollars: never below zero.

        A saving adds nothing and frees nothing until reconciliation; an unknown cost adds
        nothing that could be reserved, and policy says what unknown means.
        """
        delta = self.cost.monthly_delta_usd
        return delta if delta is not None and delta > 0 else ZERO


def normalise(request: GateRequest, *, environment: str) -> GateInput:
    """Return the input that a request becomes once policy has classified its environment.

    :param environment: ``prod`` or ``nonprod``, from the policy's own rule (SPEC 2).
    """
    return GateInput(
        source=request.source,
        project_id=request.project_id,
        environment=environment,
        environment_original=request.environment,
        action=request.action,
        resource_reference=request.resource_reference,
        cost=request.cost,
        actor=request.actor,
        team=request.team,
        # Stored contexts must decode to the very values that rules saw; metadata is not money.
        metadata=without_decimals(request.metadata),
        change_digest=request.change_digest,
        change_digest_is_computed=request.change_digest_is_computed,
        parent_decision_id=request.parent_decision_id,
        run_id=request.run_id,
        stage=request.stage,
        dry_run=request.dry_run,
        request_fingerprint=_request_fingerprint(request, environment),
        change_fingerprint=_change_fingerprint(request, environment),
    )


def sent_sha256(request: GateRequest) -> str:
    """Return the digest of a question as it was sent, whatever policy makes of its environment."""
    return _request_fingerprint(request, f"as sent: {request.environment}")


def _request_fingerprint(request: GateRequest, environment: str) -> str:
    """Hash the question less what names the attempt: key, dry run, actor, run and stage."""
    cost = request.cost
    return _sha256(
        {
            "source": request.source,
            "project_id": request.project_id,
            "environment": environment,
            "action": request.action,
            "resource_reference": request.resource_reference,
            "estimated_monthly_delta_usd": _amount_text(cost.monthly_delta_usd),
            "estimated_hourly_delta_usd": _amount_text(cost.hourly_delta_usd),
            "cost_state": cost.state,
            "cost_state_reasons": list(cost.reasons),
            "team": request.team,
            "metadata": request.metadata,
            "change_digest": request.change_digest,
            "parent_decision_id": request.parent_decision_id,
        }
    )


def _change_fingerprint(request: GateRequest, environment: str) -> str:
    return fingerprint_of_change(
        project_id=request.project_id,
        environment=environment,
        action=request.action,
        resource_reference=request.resource_reference,
        change_digest=request.change_digest,
    )


def fingerprint_of_change(
    *,
    project_id: str,
    environment: str,
    action: str,
    resource_reference: str,
    change_digest: str | None,
) -> str:
    """Hash what is being changed only, whatever its estimate (SPEC 2)."""
    return _sha256(
        {
            "project_id": project_id,
            "environment": environment,
            "action": action,
            "resource_reference": resource_reference,
            "change_digest": change_digest,
        }
    )


def _amount_text(value: Decimal | None) -> str | None:
    return None if value is None else to_text(value)


def _sha256(document: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_bytes(document)).hexdigest()
