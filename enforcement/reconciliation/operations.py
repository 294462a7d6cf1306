"""The use cases of reconciliation: confirm, reconcile by hand, settle what is overdue."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import orjson
from django.db import IntegrityError, OperationalError

from billing.alerts.operations import raise_budget_alerts_now
from billing.reservations import families
from billing.reservations.families import Family
from billing.reservations.models import (
    AUTO,
    AUTO_RELEASE,
    MANUAL,
    RELEASED,
    SETTLED,
    Reservation,
    SettlementRecord,
)
from billing.reservations.settlement import Settlement, SettlementInconsistent, settle
from enforcement.decisions.models import Decision
from enforcement.ledger import domain as ledger
from enforcement.ledger.domain import EntryFacts
from enforcement.ledger.operations import append
from enforcement.reconciliation.admission import release_lapsed_admissions
from enforcement.reconciliation.approval import (
    Applied,
    ApprovalPending,
    ReservationNotActive,
    find_applied,
    find_unapproved,
    lock_asked,
    spend_applied,
)
from enforcement.reconciliation.domain import (
    OVERDUE_POSTED,
    build_result,
    find_exception_reason,
)
from enforcement.reconciliation.telling import build_entries
from governance.audit.operations import Actor
from governance.incidents.operations import Sighting, open_incident
from governance.policies.queries import read_live_policy
from valdrix.kernel.canonical import sha256_hex
from valdrix.kernel.db import ORDINARY, TimeLimits, reading, sqlstate_of, transaction
from valdrix.kernel.ids import new_id
from valdrix.kernel.metrics import RECONCILIATIONS
from valdrix.kernel.money import ZERO, to_text
from valdrix.kernel.problems import NotFound, Refused

log = logging.getLogger("valdrix.reconciliation")

_KEY_CONSTRAINT: Final = "billing_settlement_key_once"
INCONSISTENT: Final = "settlement_inconsistent"
_CLAIM_BATCH: Final = 100
_NOT_HAD: Final = frozenset({"55P03", "40P01"})
"""A lock that was not had in time, and a deadlock that was broken."""


class IdempotencyKeyReused(Refused):
    """The key names another settlement or another payload (409)."""

    code = "idempotency_key_reused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actuals:
    """What a person says was really spent; US dollars a month, negative for a saving.

    :ivar settlement_id: the settlement's own id, made by the door.
    """

    settlement_id: uuid.UUID
    decision_id: uuid.UUID
    actual_monthly_delta_usd: Decimal
    notes: str
    idempotency_key: str | None

    def payload_sha256(self) -> str:
        """Return the digest that tells a repeated call from another one with the same key."""
        return sha256_hex(
            {
                "decision_id": str(self.decision_id),
                "actual_monthly_delta_usd": to_text(self.actual_monthly_delta_usd),
                "notes": self.notes,
            }
        )


def confirm(
    *,
    actor: Actor,
    decision_id: uuid.UUID,
    may_use: Callable[[str], None],
    limits: TimeLimits = ORDINARY,
) -> dict[str, Any]:
    """Record that a decision's change was applied; its whole family counts as confirmed.

    :param may_use: refuses a project that the caller may not use.
    :param limits: for callers who cannot wait as long as others.
    :raises NotFound: no such decision.
    :raises ReservationNotActive: it holds nothing, or less than was approved, or was settled or
        released before.
    :raises ApprovalPending: nobody has approved it yet, or it leans on what waits.
    """
    with transaction(actor.tenant_id, limits=limits):
        project_id = _project_of(actor.tenant_id, decision_id)
        may_use(project_id)
        family = _lock_active(actor.tenant_id, decision_id)
        asked = lock_asked(actor.tenant_id, family.decision_ids)
        applied = find_applied(actor.tenant_id, family, decision_id, asked)
        facts = apply_family(actor=actor, family=family, applied=applied, named=decision_id)
        if facts:
            append(tenant_id=actor.tenant_id, facts=facts)
        return {
            "status": "confirmed",
            "decision_ids": [
                str(member) for member in family.decision_ids if member not in applied.waiting
            ],
        }


def apply_family(
    *, actor: Actor, family: Family, applied: Applied, named: uuid.UUID, by_token: bool = False
) -> list[EntryFacts]:
    """Let a locked family count as applied, once, and spend the approvals that it was given.

    :param applied: what of it counts as applied.
    :param named: the decision that is named as the one that was applied.
    :param by_token: a token says so, not the decision itself.
    :return: the entries that say so; none when nothing is new.
    """
    facts = spend_applied(actor, applied.spent, by=None if by_token else named)
    if families.confirm_family(
        tenant_id=actor.tenant_id,
        family_id=family.family_id,
        waiting=applied.waiting,
        at=actor.at,
    ):
        # What was let through for minutes only is now held as long as everything else.
        terms = read_live_policy(actor.tenant_id).policy.reservations
        families.prolong_family(
            tenant_id=actor.tenant_id, family_id=family.family_id, hours=terms.sla_hours
        )
        facts.extend(build_entries(actor, ledger.CONFIRMED, [named]))
    return facts


def reconcile(*, actor: Actor, actuals: Actuals) -> tuple[dict[str, Any], bool]:
    """Settle a decision's family against what was really spent.

    :return: the answer, and whether it is the first answer repeated.
    :raises NotFound: no such decision.
    :raises IdempotencyKeyReused: the key was used with another payload.
    :raises ReservationNotActive: settled or released before.
    :raises ApprovalPending: nobody has approved it yet.
    :raises SettlementInconsistent: its lines do not add up; nothing changed, an incident is open.
    """
    try:
        with transaction(actor.tenant_id):
            project_id = _project_of(actor.tenant_id, actuals.decision_id)
            family_id = families.find_family_id(actor.tenant_id, actuals.decision_id)
            family = (
                families.lock_family(actor.tenant_id, family_id) if family_id is not None else None
            )
            earlier = _find_earlier(actor.tenant_id, actuals)
            if earlier is not None:
                return earlier, True
            _check_active(family, actuals.decision_id)
            assert family is not None
            family, waiting = _set_waiting_aside(actor, family)
            if actuals.decision_id in waiting:
                raise ApprovalPending("The decision waits for its approval.")
            order = _Order(
                settlement_id=actuals.settlement_id,
                decision_id=actuals.decision_id,
                trigger=MANUAL,
                notes=actuals.notes,
                idempotency_key=actuals.idempotency_key,
                payload_sha256=actuals.payload_sha256(),
            )
            result = _settle(
                actor, family, order, actuals.actual_monthly_delta_usd, set_aside=waiting
            )
    except SettlementInconsistent as error:
        _report(actor, actuals.decision_id, error)
        raise
    except IntegrityError as error:
        if _KEY_CONSTRAINT not in str(error):
            raise
        raise IdempotencyKeyReused(
            "The idempotency key is being used for another settlement; use a new key."
        ) from error
    raise_budget_alerts_now(actor.tenant_id, at=actor.at, projects=[project_id])
    return result, False


def reconcile_overdue(
    *,
    actor: Actor,
    limit: int | None = None,
    progress: Callable[[dict[str, int]], None] | None = None,
) -> dict[str, int]:
    """Settle every family of one tenant whose reservations are all past their time.

    Unconfirmed ones are released, confirmed ones posted at what was reserved and listed as
    exceptions. Any number of workers may do this at once: each family has one winner.

    :param limit: how many families may be settled or found inconsistent; None means all.
    :param progress: told the counts so far after each family.
    :return: how many were ``posted``, ``released``, and ``inconsistent`` and left alone.
    """
    counts = {"posted": 0, "released": 0, "inconsistent": 0}
    skipped: set[uuid.UUID] = set()
    while found := _find_overdue(actor, skipped):
        for family_id in found:
            if limit is not None and sum(counts.values()) >= limit:
                return counts
            outcome = _settle_overdue(actor, family_id)
            skipped.add(family_id)
            if outcome is not None:
                counts[outcome] += 1
                if progress is not None:
                    progress(counts)
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """The names and words of one settlement."""

    settlement_id: uuid.UUID
    decision_id: uuid.UUID
    trigger: str
    notes: str = ""
    idempotency_key: str | None = None
    payload_sha256: str | None = None


def _set_waiting_aside(actor: Actor, family: Family) -> tuple[Family, list[uuid.UUID]]:
    """Release what members hold that wait for an approval, where the change was applied already.

    What is asked about a change after it was applied must not keep it from being settled: anybody
    who may ask could do that for ever. Their approvals stay open, and find nothing held.

    :return: the family without them, and them.
    :raises ApprovalPending: when it is not known to be applied, or others lean on what waits.
    """
    waiting = find_unapproved(actor.tenant_id, family.decision_ids)
    if not waiting:
        return family, waiting
    left = tuple(one for one in family.decision_ids if one not in waiting)
    if (
        family.confirmed_at is None
        or not left
        or not families.release_members(
            tenant_id=actor.tenant_id, family=family, decision_ids=waiting
        )
    ):
        raise ApprovalPending("The change waits for its approval; nothing can be settled.")
    return replace(family, decision_ids=left), waiting


def _settle(
    actor: Actor,
    family: Family,
    order: _Order,
    actual: Decimal,
    *,
    set_aside: Sequence[uuid.UUID] = (),
) -> dict[str, Any]:
    """Settle a locked family: lines, months, accounts, record, and the ledger last.

    :param set_aside: former members that were released before this, to be told to the ledger.
    """
    lines = families.lock_open_lines(actor.tenant_id, family.family_id)
    settlement = settle(lines, actual_usd=actual)
    terms = read_live_policy(actor.tenant_id).policy.reservations
    reason = None
    if order.trigger == MANUAL:
        reason = find_exception_reason(settlement, terms)
    elif order.trigger == AUTO:
        reason = OVERDUE_POSTED
    result = build_result(
        settlement,
        decision_ids=family.decision_ids,
        trigger=order.trigger,
        exception_reason=reason,
    )
    try:
        families.write_settlement(
            tenant_id=actor.tenant_id,
            family=family,
            settlement=settlement,
            state=RELEASED if order.trigger == AUTO_RELEASE else SETTLED,
        )
    except (IntegrityError, families.LinesMoved) as error:
        raise SettlementInconsistent(
            "The kept totals do not hold what the reservation's lines say; nothing was changed."
        ) from error
    _record(actor, family, order, (settlement, result))
    event = ledger.RELEASED if order.trigger == AUTO_RELEASE else ledger.RECONCILED
    RECONCILIATIONS.labels(order.trigger, result["status"]).inc()
    details = hashlib.sha256(orjson.dumps(result)).hexdigest()
    facts = build_entries(
        actor,
        event,
        family.decision_ids,
        values={
            member: {
                "amount_usd": settlement.posted_usd if member == order.decision_id else ZERO,
                "details_sha256": details,
            }
            for member in family.decision_ids
        },
    )
    released = build_entries(actor, ledger.RELEASED, set_aside)
    append(tenant_id=actor.tenant_id, facts=released + facts)
    return result


def _record(
    actor: Actor, family: Family, order: _Order, outcome: tuple[Settlement, dict[str, Any]]
) -> None:
    settlement, result = outcome
    SettlementRecord.objects.create(
        id=order.settlement_id,
        tenant_id=actor.tenant_id,
        family_id=family.family_id,
        decision_id=order.decision_id,
        project_id=family.project_id,
        environment=family.environment,
        trigger=order.trigger,
        reserved_usd=settlement.reserved_usd,
        actual_usd=settlement.actual_usd,
        posted_usd=settlement.posted_usd,
        overrun_usd=settlement.overrun_usd,
        drift_usd=settlement.drift_usd,
        exception_reason=result["exception_reason"],
        idempotency_key=order.idempotency_key,
        payload_sha256=order.payload_sha256,
        notes=order.notes,
        settled_by=actor.principal_id,
        settled_at=actor.at,
        result_json=orjson.dumps(result).decode(),
    )


def _find_earlier(tenant_id: uuid.UUID, actuals: Actuals) -> dict[str, Any] | None:
    """Return the first answer of a key that was used before with the same payload."""
    if actuals.idempotency_key is None:
        return None
    earlier = SettlementRecord.objects.filter(
        tenant_id=tenant_id, idempotency_key=actuals.idempotency_key
    ).first()
    if earlier is None:
        return None
    if earlier.payload_sha256 != actuals.payload_sha256():
        raise IdempotencyKeyReused(
            "The idempotency key was used before with another payload; use a new key."
        )
    result: dict[str, Any] = orjson.loads(earlier.result_json)
    return result


def _project_of(tenant_id: uuid.UUID, decision_id: uuid.UUID) -> str:
    project_id = (
        Decision.objects.filter(tenant_id=tenant_id, id=decision_id)
        .values_list("project_id", flat=True)
        .first()
    )
    if project_id is None:
        raise NotFound("No such decision.")
    return project_id


def _lock_active(tenant_id: uuid.UUID, decision_id: uuid.UUID) -> Family:
    family_id = families.find_family_id(tenant_id, decision_id)
    family = families.lock_family(tenant_id, family_id) if family_id is not None else None
    _check_active(family, decision_id)
    assert family is not None
    return family


def _check_active(family: Family | None, decision_id: uuid.UUID) -> None:
    if family is None or decision_id not in family.decision_ids:
        raise ReservationNotActive("The decision holds no active reservation.")


def _find_overdue(actor: Actor, skipped: set[uuid.UUID]) -> list[uuid.UUID]:
    """Return families of which every active reservation is due, a bounded number at a time."""
    with reading(actor.tenant_id):
        due = (
            Reservation.objects.filter(
                tenant_id=actor.tenant_id, state="active", due_at__lte=actor.at
            )
            .exclude(charge__family_id__in=skipped)
            .order_by("due_at")
            .values_list("charge__family_id", flat=True)[:_CLAIM_BATCH]
        )
        return list(dict.fromkeys(due))


def _settle_overdue(actor: Actor, family_id: uuid.UUID) -> str | None:
    """Settle one overdue family; None when another worker has it or it is not due any more."""
    try:
        with transaction(actor.tenant_id):
            family = families.lock_family(actor.tenant_id, family_id, skip_locked=True)
            if family is None:
                return None
            if not _is_due(actor, family):
                return release_lapsed_admissions(actor, family)
            family, waiting = _set_waiting_aside(actor, family)
            is_confirmed = family.confirmed_at is not None
            lines = families.lock_open_lines(actor.tenant_id, family_id)
            reserved = sum((own for own in _own_parts(lines).values()), ZERO)
            order = _Order(
                settlement_id=new_id(),
                decision_id=family.decision_ids[0],
                trigger=AUTO if is_confirmed else AUTO_RELEASE,
            )
            actual = reserved if is_confirmed else ZERO
            _settle(actor, family, order, actual, set_aside=waiting)
            return "posted" if is_confirmed else "released"
    except ApprovalPending:
        return None  # Expiry releases what nobody approved; then the rest is settled.
    except SettlementInconsistent as error:
        _report(actor, family_id, error)
        return "inconsistent"
    except OperationalError as error:
        if sqlstate_of(error) not in _NOT_HAD:
            raise
        return None  # Another worker holds what this family needs; the next run finds it again.


def _own_parts(lines: list[Any]) -> dict[uuid.UUID, Decimal]:
    return {line.decision_id: line.own_usd for line in lines}


def _is_due(actor: Actor, family: Family) -> bool:
    if not family.decision_ids:
        return False
    return not Reservation.objects.filter(
        tenant_id=actor.tenant_id,
        decision_id__in=family.decision_ids,
        state="active",
        due_at__gt=actor.at,
    ).exists()


def _report(actor: Actor, subject: uuid.UUID, error: SettlementInconsistent) -> None:
    """Open an incident for what could not be settled, in a transaction of its own."""
    log.error("settlement of %s is inconsistent", subject)
    with transaction(actor.tenant_id):
        open_incident(
            sighting=Sighting(
                incident_id=new_id(),
                tenant_id=actor.tenant_id,
                kind=INCONSISTENT,
                subject=str(subject),
                detail=error.detail,
                at=actor.at,
            )
        )
