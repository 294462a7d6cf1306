"""Making the demo: two tenants, each step a use case that does nothing where its work is done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from billing.accounts.models import Account
from billing.accounts.operations import BudgetExists
from billing.costs.operations import record_daily_costs
from billing.costs.queries import find_latest_cost_date
from billing.plans.domain import ENTERPRISE
from billing.plans.models import Subscription
from enforcement.controls.budgets import create_budget
from enforcement.controls.credits import find_credits, grant_credit
from enforcement.controls.policies import find_live_version, publish_policy
from governance.audit.operations import Actor, record_change
from governance.identity.domain import ROLES
from governance.policies.operations import PolicyVersionConflict, build_draft
from valdrix.demo.content import (
    DEMO,
    MONTH_DAYS,
    OTHER,
    POLICY_COMMENT,
    TenantContent,
    daily_costs,
)
from valdrix.demo.people import found, give_keys, put_in_groups, username_of
from valdrix.demo.secrets import DemoSecrets, load_demo_secrets, to_text
from valdrix.embedded.record import write_private_file
from valdrix.kernel.db import transaction
from valdrix.kernel.ids import new_id

BY: Final = "system:seed-demo"
_GRANTS_LOOKED_AT: Final = 200


@dataclass(frozen=True, slots=True)
class Place:
    """Where the demo is made.

    :ivar directory: of the file that keeps the demo's secrets.
    """

    slug: str
    other_slug: str
    directory: Path
    base_url: str


def seed(*, place: Place, now: datetime) -> dict[str, Any]:
    """Make the demo, or what is missing of it, and return the document that scripts read.

    :raises NotOurs: when a user name is taken by somebody else.
    :raises Refused: when a step is refused, such as a policy that is no longer valid.
    """
    kept = load_demo_secrets(place.directory)
    _make_tenant(place.slug, DEMO, kept, now=now)
    _make_tenant(place.other_slug, OTHER, kept, now=now)
    return {
        "base_url": place.base_url,
        "tenant": place.slug,
        "projects": list(DEMO.projects),
        "api_keys": {role: kept.api_keys[place.slug][role] for role in ROLES},
        "console": {
            "url": f"{place.base_url}/admin/",
            "users": [_sign_in(place.slug, role, kept) for role in reversed(ROLES)],
        },
        "other_tenant": {
            "tenant": place.other_slug,
            "api_keys": {role: kept.api_keys[place.other_slug][role] for role in ROLES},
        },
    }


def write_demo_file(document: dict[str, Any], path: Path) -> None:
    """Write what `seed` returned to a file that its owner alone can read."""
    write_private_file(path, to_text(document))


def _sign_in(slug: str, role: str, kept: DemoSecrets) -> dict[str, str]:
    username = username_of(role, slug)
    return {"username": username, "password": kept.passwords[username], "role": role}


def _make_tenant(slug: str, content: TenantContent, kept: DemoSecrets, *, now: datetime) -> None:
    newcomer = Actor(tenant_id=new_id(), principal_id=BY, address=None, at=now)
    actor = found(
        newcomer, slug=slug, name=content.name, has_console=content.has_console, kept=kept
    )
    give_keys(actor, slug=slug, kept=kept)
    if content.has_console:
        put_in_groups(actor, slug=slug)
    _subscribe(actor)
    _publish(actor, content)
    for terms in content.budgets:
        try:
            create_budget(actor=actor, budget_id=new_id(), terms=terms)
        except BudgetExists:
            continue
    _grant(actor, content)
    for project_id in content.projects:
        _spend(actor, project_id, content)


def _subscribe(actor: Actor) -> None:
    """Put the tenant on the Enterprise tier unless it has a subscription."""
    with transaction(actor.tenant_id):
        subscription, is_new = Subscription.objects.get_or_create(
            tenant_id=actor.tenant_id, defaults={"tier": ENTERPRISE, "since_at": actor.at}
        )
        if is_new:
            record_change(
                actor=actor,
                action="subscription.start",
                subject=("subscription", str(actor.tenant_id)),
                before=None,
                after={"tier": subscription.tier},
            )


def _publish(actor: Actor, content: TenantContent) -> None:
    """Publish the demo's policy where no policy has been published."""
    if find_live_version(actor.tenant_id) is not None:
        return
    draft = build_draft(
        version_id=new_id(), document=content.policy, comment=POLICY_COMMENT, base_version=0
    )
    try:
        publish_policy(actor=actor, draft=draft)
    except PolicyVersionConflict:  # Somebody published since we looked.
        return


def _grant(actor: Actor, content: TenantContent) -> None:
    """Give each grant of the demo once, whatever became of it."""
    known = {(grant.pool, grant.reason) for grant in _grants_given(actor)}
    for terms in content.grants:
        if (terms.pool, terms.reason) not in known:
            grant_credit(actor=actor, grant_id=new_id(), terms=terms)


def _grants_given(actor: Actor) -> list[Account]:
    # The demo's own are among the oldest.
    grants = find_credits(
        actor.tenant_id, projects=None, after_id=None, limit=_GRANTS_LOOKED_AT, now=actor.at
    )
    return [grant.account for grant in grants if grant.account.created_by == BY]


def _spend(actor: Actor, project_id: str, content: TenantContent) -> None:
    """Record the project's costs of the days up to yesterday that are not known yet."""
    today = actor.at.astimezone(UTC).date()
    with transaction(actor.tenant_id):
        latest = find_latest_cost_date(actor.tenant_id, project_id)
        since = today - timedelta(days=MONTH_DAYS)
        if latest is not None:
            since = latest + timedelta(days=1)
        days = daily_costs(
            project_id,
            working_day_usd=content.projects[project_id],
            since=since,
            until=max(since, today),
        )
        record_daily_costs(tenant_id=actor.tenant_id, days=days, ingested_at=actor.at)
