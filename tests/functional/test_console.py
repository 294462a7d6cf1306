"""The console in a real browser: a person signs in, reads a decision, and changes the tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse

from governance.identity.domain import MEMBER
from governance.identity.operations import admit_member
from tests.browsing import WIDTHS, find_unlabelled, give_password, is_too_wide, sign_in
from tests.client import Api
from tests.factories.tenants import World, system_actor


def prepare(world: World) -> dict[str, Any]:
    give_password(world.owner)
    body = {
        "project_id": "<script>alert(1)</script>",
        "environment": "dev",
        "resource_reference": "module.web.aws_instance.with_a_long_name_that_does_not_break[0]",
        "estimated_monthly_delta_usd": "1234.50",
        "metadata": {"note": "<img src=x onerror=alert(2)>"},
    }
    response = Api().post("gate/terraform", body, key=world.key)
    assert response.status_code == 200, response.content
    return response.json()


@pytest.mark.parametrize("width", list(WIDTHS))
def test_a_person_reads_a_decision(
    tenant: World, address: str, browse: Callable[..., None], width: str
) -> None:
    answer = prepare(tenant)

    def scenario(page: Any) -> None:
        sign_in(page, address, tenant.owner.username)
        assert not is_too_wide(page)
        page.goto(address + reverse("admin:enforcement_decision_changelist"))
        assert not is_too_wide(page)
        page.locator("#result_list tbody a").first.click()
        page.get_by_role("heading", name=answer["explanation"]["summary"]).wait_for()
        assert not is_too_wide(page)
        for heading in ("Why", "Entitlement waterfall", "What was asked", "Ledger", "Lineage"):
            assert page.get_by_role("heading", name=heading, exact=True).is_visible()
        assert page.locator("table.vx-fall tbody tr").count() == 5
        assert page.get_by_role("img", name="Plan ceiling: used").is_visible()
        page.get_by_text("The stored response").focus()
        page.keyboard.press("Enter")
        stored = page.get_by_label("Stored response")
        assert stored.is_visible()
        assert answer["request_fingerprint"] in stored.inner_text()

    browse(scenario, width)


def test_pages_read_without_scripts(
    tenant: World, address: str, browse: Callable[..., None]
) -> None:
    answer = prepare(tenant)

    def scenario(page: Any) -> None:
        sign_in(page, address, tenant.owner.username)
        page.goto(
            address + reverse("admin:enforcement_decision_change", args=[answer["decision_id"]])
        )
        assert page.get_by_role("heading", name="Entitlement waterfall").is_visible()
        assert page.locator("table.vx-fall svg").first.bounding_box()["width"] > 80
        page.goto(address + reverse("admin:enforcement_decision_changelist"))
        page.get_by_label("Decision", exact=True).select_option(answer["decision"])
        page.get_by_role("button", name="Show").click()
        assert f"decision={answer['decision']}" in page.url
        assert page.locator("#result_list tbody tr").count() == 1

    browse(scenario, "desktop", java_script_enabled=False)


def test_the_tenant_is_changed_by_keyboard(
    tenant: World, other_tenant: World, address: str, browse: Callable[..., None]
) -> None:
    prepare(tenant)
    founder = system_actor(other_tenant.id)
    admit_member(actor=founder, username=tenant.owner.username, role=MEMBER)

    def scenario(page: Any) -> None:
        sign_in(page, address, tenant.owner.username)
        for world, role in ((other_tenant, "member"), (tenant, "owner")):
            page.locator(".vx-account summary").focus()
            page.keyboard.press("Enter")
            button = page.get_by_role("button", name=f"Tenant {world.slug} {role}")
            button.focus()
            assert button.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
            with page.expect_navigation():
                page.keyboard.press("Enter")
            assert page.locator(".vx-account__tenant").inner_text() == f"Tenant {world.slug}"

    browse(scenario, "desktop")


def test_the_skip_link_leads_to_the_content(
    tenant: World, address: str, browse: Callable[..., None]
) -> None:
    prepare(tenant)

    def scenario(page: Any) -> None:
        sign_in(page, address, tenant.owner.username)
        page.locator(".vx-skip").focus()
        assert page.locator(".vx-skip").bounding_box()["x"] >= 0
        page.keyboard.press("Enter")
        assert page.url.endswith("#content")

    browse(scenario, "desktop")


def test_an_owner_registers_an_issuer_and_a_run_task_on_a_phone(
    tenant: World, address: str, browse: Callable[..., None]
) -> None:
    give_password(tenant.owner)

    def scenario(page: Any) -> None:
        sign_in(page, address, tenant.owner.username)
        page.goto(address + reverse("admin:governance_workloadissuer_changelist"))
        page.get_by_role("link", name="New registration").click()
        assert not is_too_wide(page)
        assert find_unlabelled(page) == []
        page.get_by_label("Name", exact=True).fill("pipeline")
        page.get_by_label("Issuer").fill("https://gitlab.com")
        page.get_by_label("Project").fill("shop")
        page.get_by_label("Claims that a token must have").fill("project_id = 7\nref = main")
        page.get_by_role("button", name="New registration").click()
        page.get_by_role("heading", name="Workload issuer pipeline").wait_for()
        assert not is_too_wide(page)
        page.goto(address + reverse("admin:governance_integration_register"))
        page.get_by_label("Name", exact=True).fill("hcp")
        page.get_by_role("button", name="New run task").click()
        assert page.get_by_label("Secret", exact=True).input_value().startswith("vds_")
        assert not is_too_wide(page)
        page.get_by_role("link", name="I have kept it").click()
        assert page.get_by_text("gate/terraform/run-task/").is_visible()
        assert not is_too_wide(page)
        page.goto(address + reverse("admin:enforcement_runtask_changelist"))
        assert not is_too_wide(page)

    browse(scenario, "phone")
