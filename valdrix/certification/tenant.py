"""A tenant of its own for what a capture asks: founded, governed, and furnished over HTTP."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from governance.audit.operations import Actor
from governance.identity.domain import OWNER, RANDOM_BYTES, SCOPES
from governance.identity.operations import found_tenant, issue_api_key
from valdrix.certification.telemetry.calling import Place, call
from valdrix.kernel.ids import new_id

BASE: Final = "/api/v1/enforcement/"
_AMPLE_USD: Final = "100000.00"
_PAGE_POLICY: Final = {
    "schema_version": "valdrix.enforcement.policy.v1",
    "modes": {"terraform": {"default": "hard", "prod": "soft"}},
    "limits": {"plan_monthly_ceiling_usd": "10000000.00"},
    "thresholds": {
        "prod": {"require_approval_from_usd": "0.01"},
        "nonprod": {"require_approval_from_usd": "1000000.00"},
    },
    # Whoever asks here also sees the queue of what waits.
    "approvals": {"prod": {"required": 1, "separate_requester": False, "ttl_seconds": 86400}},
}


class CallRefused(Exception):
    """The server refused what it should take from everybody; the message says what."""


def open_tenant(place: Place, name: str, policy: Mapping[str, Any], *, at: datetime) -> Place:
    """Found a tenant on the configured database, with a policy; return the place with its key.

    :param place: a running server on that database.
    :raises CallRefused: when the server does not take the policy.
    """
    tenant_id = new_id()
    slug = f"{name}-{tenant_id.hex[-12:]}"
    actor = Actor(tenant_id=tenant_id, principal_id="system:certification", address=None, at=at)
    membership = found_tenant(actor=actor, slug=slug, name=slug, owner=f"owner@{slug}")
    _, key = issue_api_key(
        actor=actor,
        key_id=new_id(),
        random_bytes=os.urandom(RANDOM_BYTES),
        name=name,
        role=OWNER,
        person_id=membership.user_id,
        scopes=SCOPES,
    )
    own = Place(place.host, place.port, key=key)
    body = {"policy_document": dict(policy), "comment": name, "base_version": 0}
    ask(own, "policies", body, method="PUT")
    return own


def open_furnished_tenant(place: Place, name: str, *, rows: int, at: datetime) -> Place:
    """Found a tenant whose lists have at least so many rows each; return the place with its key.

    :raises CallRefused: when the server does not take what fills them.
    """
    own = open_tenant(place, name, _PAGE_POLICY, at=at)
    ask(own, "budgets", {"project_id": "shop", "monthly_limit_usd": _AMPLE_USD})
    for number in range(rows):
        ask(own, "budgets", {"project_id": f"shop-{number}", "monthly_limit_usd": "10.00"})
        grant = {"pool": "reserved", "total_amount_usd": "10.00", "reason": "fills a page"}
        ask(own, "credits", {**grant, "project_id": f"shop-{number}"})
        change = {
            "project_id": "shop",
            "environment": "prod",
            "resource_reference": f"module.waits-{number}",
            "estimated_monthly_delta_usd": "1.00",
        }
        answer = ask(own, "gate/terraform", change)
        if answer["decision"] != "REQUIRE_APPROVAL":
            raise CallRefused(f"a change that has to wait was {answer['decision']}")
    return own


def ask(
    place: Place, path: str, body: Mapping[str, Any], *, method: str = "POST"
) -> dict[str, Any]:
    """Send one call and return what it gives.

    :raises CallRefused: for any other answer than one of success.
    """
    answer = call(place, method, BASE + path, dict(body))
    if answer.status not in {200, 201}:
        raise CallRefused(f"{method} {path}: {answer.status} {answer.body}")
    content: dict[str, Any] = answer.body
    return content
