"""What the ledger says of a review: ids, digests, codes and amounts; words by their digest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from enforcement.ledger.domain import EntryFacts
from enforcement.review.domain import Words
from governance.approvals.models import Approval
from governance.identity.domain import Principal
from governance.policies.governing import LivePolicy
from valdrix.kernel.canonical import sha256_hex
from valdrix.kernel.money import to_text


@dataclass(frozen=True, slots=True)
class Act:
    """One person's act on one locked approval, at one moment."""

    principal: Principal
    approval: Approval
    words: Words
    at: datetime

    def facts(self, event: str, status: str, **values: Any) -> EntryFacts:
        """Return the entry of this act.

        :param status: the one that the approval is in afterwards.
        """
        return build_facts(
            self.approval,
            event=event,
            at=self.at,
            approval_status=status,
            principal=self.principal.principal_id,
            details_sha256=digest_of(self.principal, self.words),
            **values,
        )


def build_facts(approval: Approval, *, event: str, at: datetime, **values: Any) -> EntryFacts:
    """Return the entry of one transition of an approval; ``values`` win over what it says itself."""
    facts: dict[str, Any] = {
        "source": approval.source,
        "project_id": approval.project_id,
        "environment": approval.environment,
        "decision_id": approval.decision_id,
        "approval_request_id": approval.pk,
        "monthly_delta_usd": approval.monthly_delta_usd,
        "hourly_delta_usd": approval.hourly_delta_usd,
    }
    return EntryFacts(event=event, at=at, **facts | values)


def lineage_of(live: LivePolicy) -> dict[str, Any]:
    """Return the members that say under which policy something was decided."""
    return {
        "policy_version": live.version,
        "policy_document_schema_version": live.schema_version,
        "policy_document_sha256": live.sha256,
    }


def digest_of(principal: Principal, words: Words) -> str:
    """Return the digest that binds what a reviewer said to the ledger."""
    named = words.max_monthly_delta_usd
    return sha256_hex(
        {
            "person_id": principal.person_id,
            "reason": words.reason,
            "max_monthly_delta_usd": None if named is None else to_text(named),
        }
    )
