"""What a tenant may spend, set up through the API as its admin would."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.http import HttpResponse

from tests.client import Api
from tests.factories.tenants import World

PROJECT = "shop"


def build_policy(**members: Any) -> dict[str, Any]:
    """Return a policy that is hard everywhere and asks nobody below a million; one member changed.

    What it leaves open is what the tests open: budgets, credits and ceilings.
    """
    wide = {"require_approval_from_usd": "1000000.00"}
    return {
        "schema_version": "valdrix.enforcement.policy.v1",
        "modes": {
            "terraform": {"default": "hard"},
            "k8s_admission": {"default": "hard"},
            "cloud_event": {"default": "hard"},
        },
        "thresholds": {"prod": dict(wide), "nonprod": dict(wide)},
        "limits": {"plan_monthly_ceiling_usd": "10000000.00"},
        **members,
    }


class Shop:
    """One tenant with a policy and a project, and shorthands to spend and to look."""

    def __init__(self, world: World, **policy: Any) -> None:
        self.world = world
        self.api = Api()
        self.publish(**policy)

    def publish(self, **policy: Any) -> int:
        """Publish a policy with members changed; return its version."""
        live = self._ok(self.api.get("policies", key=self.world.admin.key))
        body = {
            "policy_document": build_policy(**policy),
            "comment": "test",
            "base_version": live["policy_version"],
        }
        published = self._ok(self.api.put("policies", body, key=self.world.admin.key))
        return int(published["policy_version"])

    def budget(self, limit_usd: str, **scope: Any) -> str:
        """Create a budget; return its id."""
        body = {"project_id": PROJECT, "monthly_limit_usd": limit_usd, **scope}
        return str(self._ok(self.api.post("budgets", body, key=self.world.admin.key))["id"])

    def grant(self, pool: str, total_usd: str, **terms: Any) -> str:
        """Grant a credit; return its id."""
        body = {"pool": pool, "total_amount_usd": total_usd, "reason": "test", **terms}
        return str(self._ok(self.api.post("credits", body, key=self.world.admin.key))["id"])

    def ask(
        self,
        amount_usd: str | None = "100.00",
        *,
        key: str | None = None,
        path: str = "gate/terraform",
        **members: Any,
    ) -> dict[str, Any]:
        """Ask the gate as the member would; the answer must be a decision."""
        return self._ok(self.send(amount_usd, key=key, path=path, **members))

    def send(
        self,
        amount_usd: str | None = "100.00",
        *,
        key: str | None = None,
        path: str = "gate/terraform",
        **members: Any,
    ) -> HttpResponse:
        """Ask the gate as the member would, whatever comes back."""
        body: dict[str, Any] = {
            "project_id": PROJECT,
            "environment": "dev",
            "resource_reference": "module.web",
            **members,
        }
        if amount_usd is not None:
            body["estimated_monthly_delta_usd"] = amount_usd
        headers = {"Idempotency-Key": key} if key is not None else {}
        return Api().send("POST", path, body, key=self.world.member.key, headers=headers)

    def budget_state(self, budget_id: str) -> dict[str, Decimal]:
        """Return a budget's kept totals."""
        document = self._ok(self.api.get(f"budgets/{budget_id}", key=self.world.admin.key))
        return {name: Decimal(text) for name, text in document.items() if name.endswith("_usd")}

    def grant_state(self, grant_id: str) -> dict[str, Decimal]:
        """Return a grant's amounts."""
        document = self._ok(self.api.get(f"credits/{grant_id}", key=self.world.admin.key))
        return {name: Decimal(text) for name, text in document.items() if name.endswith("_usd")}

    def _ok(self, response: HttpResponse) -> dict[str, Any]:
        assert response.status_code in {200, 201}, response.content
        document: dict[str, Any] = response.json()
        return document
