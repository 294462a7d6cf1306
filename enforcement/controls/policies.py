"""Use cases of policies and modes: published, rolled back, compared, forced by people."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from enforcement.ledger import operations as ledger
from enforcement.ledger.domain import MODE_FORCED, POLICY_PUBLISHED, EntryFacts
from governance.audit.operations import Actor, record_change
from governance.policies import operations, queries
from governance.policies.comparison import Change, diff, raised_modes
from governance.policies.document import canonical_policy, parse_policy
from governance.policies.domain import SCHEMA_VERSION
from governance.policies.governing import NO_VERSION, GoverningPolicy
from governance.policies.models import ForcedMode, PolicyVersion
from governance.policies.operations import Draft, ModeOrder, build_draft
from valdrix.kernel import strict_json
from valdrix.kernel.canonical import sha256_hex
from valdrix.kernel.db import reading, transaction


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a draft differs from the live policy."""

    live_version: int
    changes: tuple[Change, ...]
    raised_modes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModeForced:
    """A mode that was put in force, and the one that it replaced."""

    forced: ForcedMode
    mode_before: str


def publish_policy(*, actor: Actor, draft: Draft) -> PolicyVersion:
    """Publish a draft as the tenant's newest, immutable version.

    :raises PolicyVersionConflict: when another version was published meanwhile.
    :raises ModePromotionRequired: when a mode rises that may rise by promotion only.
    """
    with transaction(actor.tenant_id):
        return _publish(actor, draft, action="policy.publish")


def roll_back_policy(
    *, actor: Actor, version_id: uuid.UUID, number: int, comment: str, base_version: int
) -> PolicyVersion:
    """Publish the document of an older version as the newest version.

    :raises NotFound: when there is no version of this number.
    :raises InvalidPolicy: when its document no longer passes lint.
    :raises PolicyVersionConflict: when another version was published meanwhile.
    :raises ModePromotionRequired: when a mode rises that may rise by promotion only.
    """
    with transaction(actor.tenant_id):
        old = queries.get_version(actor.tenant_id, number)
        draft = build_draft(
            version_id=version_id,
            document=document_of(old),
            comment=comment,
            base_version=base_version,
        )
        return _publish(actor, draft, action="policy.roll-back", rolled_back_to=number)


def publish_in_transaction(
    actor: Actor, draft: Draft, *, promoted: Collection[str]
) -> PolicyVersion:
    """Publish a draft in the transaction of a promotion, which raises the modes that it names.

    :raises PolicyVersionConflict: when another version was published meanwhile.
    :raises ModePromotionRequired: when another mode rises too.
    """
    return _publish(actor, draft, action="policy.promote", promoted=promoted)


def find_live_version(tenant_id: uuid.UUID) -> PolicyVersion | None:
    """Return the live version with its document, or None when nothing was published."""
    return queries.read_live_version(tenant_id)


def get_version(tenant_id: uuid.UUID, number: int) -> PolicyVersion:
    """Return one published version with its document.

    :raises NotFound: when there is no version of this number.
    """
    with reading(tenant_id):
        return queries.get_version(tenant_id, number)


def find_versions(
    tenant_id: uuid.UUID, *, below_number: int | None, limit: int
) -> list[PolicyVersion]:
    """Return up to ``limit`` published versions without their documents, newest first."""
    with reading(tenant_id):
        return queries.find_versions(tenant_id, below_number=below_number, limit=limit)


def compare_with_live(tenant_id: uuid.UUID, document: object) -> Comparison:
    """Return how a document differs from the live one, the empty one where nothing is live.

    :raises InvalidPolicy: when the document has errors.
    """
    policy = parse_policy(document)
    live = find_live_version(tenant_id)
    live_document: Any = {} if live is None else document_of(live)
    return Comparison(
        live_version=NO_VERSION if live is None else live.number,
        changes=diff(live_document, document),
        raised_modes=raised_modes(parse_policy(live_document), policy),
    )


def force_mode(*, actor: Actor, order: ModeOrder) -> ModeForced:
    """Put a lower mode in force at once, for at most 24 hours.

    :raises InvalidRequest: when it ends before it begins, or lasts longer than 24 hours.
    :raises ModeNotLower: when the mode in force is as low already.
    """
    with transaction(actor.tenant_id):
        forced, governing = operations.force_mode(
            tenant_id=actor.tenant_id,
            order=order,
            forced_by=actor.principal_id,
            forced_at=actor.at,
        )
        before = governing.mode(order.source, order.environment).mode
        _record_forced_mode(actor, forced, before, governing)
    return ModeForced(forced=forced, mode_before=before)


def document_of(version: PolicyVersion) -> Any:
    """Return a version's document, numbers exactly as they were published."""
    return strict_json.loads(version.canonical_json.encode())


def _publish(
    actor: Actor,
    draft: Draft,
    *,
    action: str,
    rolled_back_to: int | None = None,
    promoted: Collection[str] = (),
) -> PolicyVersion:
    operations.lock_publication(actor.tenant_id)
    live = queries.find_live_version(actor.tenant_id)
    version = operations.publish_version(
        tenant_id=actor.tenant_id,
        draft=draft,
        author=actor.principal_id,
        published_at=actor.at,
        promoted=promoted,
    )
    after = show_lineage(version) | {"comment": version.comment}
    if rolled_back_to is not None:
        after["rolled_back_to"] = rolled_back_to
    record_change(
        actor=actor,
        action=action,
        subject=("policy_version", str(version.id)),
        before=show_lineage(live),
        after=after,
    )
    facts = EntryFacts(
        event=POLICY_PUBLISHED,
        at=actor.at,
        principal=actor.principal_id,
        subject_type="policy_version",
        subject_id=str(version.id),
        policy_version=version.number,
        policy_document_schema_version=version.schema_version,
        policy_document_sha256=version.sha256,
        details_sha256=sha256_hex(after),
    )
    ledger.append(tenant_id=actor.tenant_id, facts=[facts])
    return version


def show_lineage(version: PolicyVersion | None) -> dict[str, Any]:
    """Return which version is live and the digest of its document; None is the empty policy."""
    if version is None:
        return {
            "policy_version": NO_VERSION,
            "policy_document_sha256": canonical_policy({}).sha256,
            "policy_document_schema_version": SCHEMA_VERSION,
        }
    return {
        "policy_version": version.number,
        "policy_document_sha256": version.sha256,
        "policy_document_schema_version": version.schema_version,
    }


def _record_forced_mode(
    actor: Actor, forced: ForcedMode, before: str, governing: GoverningPolicy
) -> None:
    scope = {"source": forced.source, "environment": forced.environment}
    after = {
        **scope,
        "mode": forced.mode,
        "reason": forced.reason,
        "until": forced.until_at.isoformat(),
    }
    record_change(
        actor=actor,
        action="mode.force",
        subject=("forced_mode", str(forced.id)),
        before={**scope, "mode": before},
        after=after,
    )
    facts = EntryFacts(
        event=MODE_FORCED,
        at=actor.at,
        principal=actor.principal_id,
        source=forced.source,
        environment=forced.environment,
        mode=forced.mode,
        subject_type="forced_mode",
        subject_id=str(forced.id),
        policy_version=governing.version,
        policy_document_schema_version=governing.schema_version,
        policy_document_sha256=governing.sha256,
        details_sha256=sha256_hex(after),
    )
    ledger.append(tenant_id=actor.tenant_id, facts=[facts])
