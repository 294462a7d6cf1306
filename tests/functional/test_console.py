"""The console in a real browser: a person signs in, reads a decision, and changes the tenant."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.urls import reverse

from governance.identity.domain import MEMBER
from governance.identity.operations import admit_member
from governance.models import User
from tests.client import Api
from tests.factories.tenants import World, system_actor
from tests.programs import require_program

PASSWORD = "correct-horse-battery"
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing: requests are no part of a test's report."""


@pytest.fixture
def address(database: None, settings: Any) -> Iterator[str]:
    """Serve the application on a port of its own and give its address."""
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    application = StaticFilesHandler(get_wsgi_application())
    server: WSGIServer = make_server("127.0.0.1", 0, application, handler_class=QuietHandler)

    def serve() -> None:
        server.serve_forever(poll_interval=0.05)
        connections.close_all()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(timeout=20)
    server.server_close()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def in_browser() -> Iterator[Callable[..., Any]]:
    """Start Chromium once, in a thread of its own, and give a function that runs another there.

    Playwright runs an event loop in its thread, where Django's connections must not be used.
    """
    path = require_program("chromium", "chromium-browser", "google-chrome")
    playwright = pytest.importorskip("playwright.sync_api")
    with ThreadPoolExecutor(max_workers=1) as thread:

        def run(function: Callable[..., Any], *arguments: Any) -> Any:
            return thread.submit(function, *arguments).result(timeout=120)

        running = run(lambda: playwright.sync_playwright().start())
        opened = run(lambda: running.chromium.launch(executable_path=path, args=ARGUMENTS))
        yield lambda scenario: run(scenario, opened)
        run(opened.close)
        run(running.stop)


@pytest.fixture
def browse(in_browser: Callable[..., Any], address: str) -> Callable[..., None]:
    """Give ``browse(scenario, width)``, which runs a scenario with a fresh page.

    While it runs, nothing may be refused, alerted, thrown or fetched from elsewhere.
    """

    def browse_one(scenario: Callable[[Any], None], width: str, **options: Any) -> None:
        wide, high = WIDTHS[width]
        faults: list[str] = []

        def watch(response: Any) -> None:
            if response.status >= 400 or not response.url.startswith((address, "data:")):
                faults.append(f"{response.status} {response.url}")

        def run(browser: Any) -> None:
            context = browser.new_context(viewport={"width": wide, "height": high}, **options)
            page = context.new_page()
            page.on("response", watch)
            page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
            page.on("pageerror", lambda error: faults.append(str(error)))
            try:
                scenario(page)
            finally:
                context.close()

        in_browser(run)
        assert not faults

    return browse_one


def sign_in(page: Any, address: str, username: str) -> None:
    page.goto(address + reverse("admin:index"))
    page.get_by_label("User name").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(address + reverse("admin:index"))


def prepare(world: World) -> dict[str, Any]:
    user = User.objects.get(pk=world.owner.user_id)
    user.set_password(PASSWORD)
    user.save(update_fields=["password"])
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


def is_too_wide(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


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
