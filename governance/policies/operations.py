"""Writes of policies: a version published, a lower mode forced."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from governance.policies.comparison import raised_modes
from governance.policies.document import CanonicalPolicy, canonical_policy, parse_policy
from governance.policies.domain import SCHEMA_VERSION, Mode, Policy
from governance.policies.governing import GoverningPolicy, is_lower
from governance.policies.models import ForcedMode, PolicyVersion
from governance.policies.queries import (
    is_promotion_required,
    read_governing_policy,
    read_live_policy,
)
from valdrix.kernel.locks import LockClass, lock_keys
from valdrix.kernel.problems import FieldError, InvalidRequest, Refused

FORCED_MODE_LIMIT: Final = timedelta(hours=24)
"""For how long an owner may force a lower mode (SPEC 4)."""


class PolicyVersionConflict(Refused):
    """Another version was published since the one that the draft was made from (409)."""

    code = "policy_version_conflict"


class ModePromotionRequired(Refused):
    """The draft raises a mode, and the tenant lets modes rise by promotion only (409)."""

    code = "mode_promotion_required"


class ModeNotLower(Refused):
    """The mode to be forced is not lower than the one in force (409)."""

    code = "mode_not_lower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A faultless document that is to be published.

    :ivar base_version: the live version that it was made from; 0 where nothing was published.
    """

    version_id: uuid.UUID
    policy: Policy
    canonical: CanonicalPolicy
    comment: str
    base_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeOrder:
    """A lower mode that is to be put in force at once."""

    order_id: uuid.UUID
    source: str
    environment: str
    mode: Mode
    reason: str
    until_at: datetime


def build_draft(
    *, version_id: uuid.UUID, document: object, comment: str, base_version: int
) -> Draft:
    """Return a document as a draft that can be published.

    :raises InvalidPolicy: with everything that is wrong with the document.
    """
    return Draft(
        version_id=version_id,
        policy=parse_policy(document),
        canonical=canonical_policy(document),
        comment=comment,
        base_version=base_version,
    )


def lock_publication(tenant_id: uuid.UUID) -> None:
    """Wait until nobody else publishes a policy or forces a mode in this tenant.

    :raises NotInTransaction: outside a transaction.
    """
    lock_keys(LockClass.POLICY_PUBLICATION, tenant_id, ["policy"])


def publish_version(
    *,
    tenant_id: uuid.UUID,
    draft: Draft,
    author: str,
    published_at: datetime,
    promoted: Collection[str] = (),
) -> PolicyVersion:
    """Insert a draft as the tenant's newest version, alone in doing so until the commit.

    The document of the live version may be published again: who did it and why is then on
    record once more.

    :param promoted: each ``source.environment`` whose mode may rise, by a recorded promotion.
    :raises PolicyVersionConflict: when ``base_version`` is not the live version.
    :raises ModePromotionRequired: when a mode rises that may rise by promotion only.
    :raises NotInTransaction: outside a transaction.
    """
    lock_publication(tenant_id)
    live = read_live_policy(tenant_id)
    if draft.base_version != live.version:
        raise PolicyVersionConflict(
            f"The live version is {live.version}; the draft was made from {draft.base_version}."
        )
    raised = [name for name in raised_modes(live.policy, draft.policy) if name not in promoted]
    if raised and is_promotion_required(tenant_id):
        raise ModePromotionRequired(
            "These modes may rise by a recorded promotion only: " + ", ".join(raised) + "."
        )
    return PolicyVersion.objects.create(
        id=draft.version_id,
        tenant_id=tenant_id,
        number=live.version + 1,
        schema_version=SCHEMA_VERSION,
        canonical_json=draft.canonical.canonical_json,
        sha256=draft.canonical.sha256,
        author=author,
        comment=draft.comment,
        published_at=published_at,
    )


def force_mode(
    *, tenant_id: uuid.UUID, order: ModeOrder, forced_by: str, forced_at: datetime
) -> tuple[ForcedMode, GoverningPolicy]:
    """Put a lower mode in force and return it with what governed until then.

    :raises InvalidRequest: when it ends before it begins, or lasts longer than 24 hours.
    :raises ModeNotLower: when the mode in force is as low already.
    :raises NotInTransaction: outside a transaction.
    """
    if not forced_at < order.until_at <= forced_at + FORCED_MODE_LIMIT:
        detail = "must be later than now, and at most 24 hours from now"
        raise InvalidRequest(
            "The request has invalid fields.",
            errors=(FieldError("/until", "out_of_range", detail),),
        )
    lock_publication(tenant_id)
    governing = read_governing_policy(tenant_id, forced_at)
    in_force = governing.mode(order.source, order.environment).mode
    if not is_lower(order.mode, than=in_force):
        raise ModeNotLower(f"The mode in force is {in_force}; {order.mode} is not lower.")
    forced = ForcedMode.objects.create(
        id=order.order_id,
        tenant_id=tenant_id,
        source=order.source,
        environment=order.environment,
        mode=order.mode,
        reason=order.reason,
        forced_by=forced_by,
        forced_at=forced_at,
        until_at=order.until_at,
    )
    return forced, governing
