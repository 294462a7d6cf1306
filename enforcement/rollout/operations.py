"""The use cases of rollout: look, propose, sign off and publish, withdraw."""

from __future__ import annotations

import copy
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import orjson

from enforcement.controls.policies import document_of, publish_in_transaction
from enforcement.rollout.domain import (
    PROPOSAL_DAYS,
    STEPS,
    Figures,
    find_missing,
)
from enforcement.rollout.models import PROPOSED, SIGNED, WITHDRAWN, Promotion
from enforcement.rollout.queries import find_proposed, lock_proposed, measure
from governance.audit.operations import Actor, record_change
from governance.policies.domain import SOURCES
from governance.policies.environments import ENVIRONMENTS
from governance.policies.models import PolicyVersion
from governance.policies.operations import build_draft, lock_publication
from governance.policies.queries import find_live_version, is_promotion_required, read_live_policy
from valdrix.kernel.db import LONG_READ, reading, transaction
from valdrix.kernel.problems import Refused

Scope = tuple[str, str]
_SUBJECT: Final = "promotion"


class PromotionNotReady(Refused):
    """A figure that the step needs is missing; the detail names each (409)."""

    code = "promotion_not_ready"


class PromotionNotApplicable(Refused):
    """There is no higher mode, no proposal, or one already (409)."""

    code = "promotion_not_applicable"


class PromotionNeedsAnother(Refused):
    """The person who proposed a promotion may not sign it (409)."""

    code = "promotion_needs_another_person"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoter:
    """Who promotes: the actor, and the person behind it."""

    actor: Actor
    person_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far one source and environment has come.

    :ivar next_mode: None at the top.
    :ivar missing: what the next step lacks.
    """

    source: str
    environment: str
    mode: str
    next_mode: str | None
    figures: Figures
    missing: tuple[str, ...]
    proposal: Promotion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """All sources and environments of a tenant, and whether modes may rise by promotion only."""

    is_required: bool
    standings: tuple[Standing, ...]


def read_rollout(actor: Actor) -> Rollout:
    """Return how far each source and environment has come."""
    with reading(actor.tenant_id, limits=LONG_READ):
        proposals = find_proposed(actor.tenant_id, actor.at)
        scopes = [(source, environment) for source in SOURCES for environment in ENVIRONMENTS]
        return Rollout(
            is_required=is_promotion_required(actor.tenant_id),
            standings=tuple(_stand(actor, scope, proposals.get(scope)) for scope in scopes),
        )


def propose(*, promoter: Promoter, promotion_id: uuid.UUID, scope: Scope) -> Promotion:
    """Propose the next step, on figures that are measured now.

    :raises PromotionNotApplicable: at the highest mode, or when it is proposed already.
    :raises PromotionNotReady: naming every figure that is missing.
    """
    actor = promoter.actor
    with transaction(actor.tenant_id, limits=LONG_READ):
        lock_publication(actor.tenant_id)
        open_one = lock_proposed(actor.tenant_id, scope)
        if open_one is not None and open_one.expires_at > actor.at:
            raise PromotionNotApplicable("This step is proposed already; another person signs it.")
        if open_one is not None:
            Promotion.objects.filter(pk=open_one.pk, state=PROPOSED).update(state=WITHDRAWN)
        standing = _ready(actor, scope)
        assert standing.next_mode is not None
        promotion = Promotion.objects.create(
            id=promotion_id,
            tenant_id=actor.tenant_id,
            source=scope[0],
            environment=scope[1],
            from_mode=standing.mode,
            to_mode=standing.next_mode,
            figures_json=_figures_json(proposed=standing.figures),
            proposed_by=actor.principal_id,
            proposer_person_id=promoter.person_id,
            proposed_at=actor.at,
            expires_at=actor.at + timedelta(days=PROPOSAL_DAYS),
        )
        _record(actor, promotion, "promotion.propose")
        return promotion


def sign(*, promoter: Promoter, version_id: uuid.UUID, scope: Scope) -> PolicyVersion:
    """Sign another person's proposal, and publish the policy with the mode raised.

    :raises PromotionNotApplicable: without a proposal, or when the mode has moved since.
    :raises PromotionNeedsAnother: for the person who proposed it.
    :raises PromotionNotReady: when a figure went missing since.
    """
    actor = promoter.actor
    with transaction(actor.tenant_id, limits=LONG_READ):
        lock_publication(actor.tenant_id)
        promotion = lock_proposed(actor.tenant_id, scope)
        if promotion is None or promotion.expires_at <= actor.at:
            raise PromotionNotApplicable("There is no proposal of this step that still stands.")
        if promotion.proposer_person_id == promoter.person_id:
            raise PromotionNeedsAnother("Another person than the proposer signs a promotion.")
        standing = _ready(actor, scope)
        if (standing.mode, standing.next_mode) != (promotion.from_mode, promotion.to_mode):
            raise PromotionNotApplicable(f"The mode is {standing.mode} by now; propose anew.")
        name = f"{scope[0]}.{scope[1]}"
        live = find_live_version(actor.tenant_id)
        document = _raise_mode({} if live is None else document_of(live), scope, promotion.to_mode)
        draft = build_draft(
            version_id=version_id,
            document=document,
            comment=f"Promotion {promotion.pk}: {name} from {standing.mode} to {promotion.to_mode}",
            base_version=0 if live is None else live.number,
        )
        version = publish_in_transaction(actor, draft, promoted={name})
        Promotion.objects.filter(pk=promotion.pk, state=PROPOSED).update(
            state=SIGNED,
            signed_by=actor.principal_id,
            signer_person_id=promoter.person_id,
            signed_at=actor.at,
            policy_version=version.number,
            figures_json=_figures_json(
                **orjson.loads(promotion.figures_json), signed=standing.figures
            ),
        )
        return version


def withdraw(*, promoter: Promoter, scope: Scope) -> None:
    """Withdraw a proposal, whoever made it.

    :raises PromotionNotApplicable: when there is none.
    """
    actor = promoter.actor
    with transaction(actor.tenant_id):
        promotion = lock_proposed(actor.tenant_id, scope)
        if promotion is None:
            raise PromotionNotApplicable("There is no proposal of this step.")
        Promotion.objects.filter(pk=promotion.pk, state=PROPOSED).update(state=WITHDRAWN)
        _record(actor, promotion, "promotion.withdraw")


def _ready(actor: Actor, scope: Scope) -> Standing:
    standing = _stand(actor, scope, None)
    if standing.next_mode is None:
        raise PromotionNotApplicable(f"The mode is {standing.mode}: there is no higher one.")
    if standing.missing:
        raise PromotionNotReady("; ".join(standing.missing) + ".")
    return standing


def _stand(actor: Actor, scope: Scope, proposal: Promotion | None) -> Standing:
    mode = read_live_policy(actor.tenant_id).policy.mode(*scope).mode
    figures = measure(actor.tenant_id, scope, mode=mode, now=actor.at)
    next_mode = STEPS.get(mode)
    return Standing(
        source=scope[0],
        environment=scope[1],
        mode=mode,
        next_mode=next_mode,
        figures=figures,
        missing=find_missing(figures, next_mode) if next_mode else (),
        proposal=proposal,
    )


def _raise_mode(document: Any, scope: Scope, mode: str) -> Any:
    raised = copy.deepcopy(document)
    raised.setdefault("modes", {}).setdefault(scope[0], {})[scope[1]] = mode
    return raised


def _figures_json(**measured: Any) -> str:
    shown = {
        when: found
        if isinstance(found, dict)
        else {
            "decisions": found.decisions,
            "refusals": found.refusals,
            "false_positives": found.false_positives,
            "false_positive_rate": str(found.false_positive_rate),
            "errors": found.errors,
            "error_rate": str(found.error_rate),
            "p95_ms": found.p95_ms,
        }
        for when, found in measured.items()
    }
    return orjson.dumps(shown).decode()


def _record(actor: Actor, promotion: Promotion, action: str) -> None:
    record_change(
        actor=actor,
        action=action,
        subject=(_SUBJECT, str(promotion.pk)),
        before=None,
        after={
            "source": promotion.source,
            "environment": promotion.environment,
            "from_mode": promotion.from_mode,
            "to_mode": promotion.to_mode,
            "figures": orjson.loads(promotion.figures_json),
        },
    )
