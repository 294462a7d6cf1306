"""Fixtures of the browser: the application on a port, and headless Chromium."""

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

from tests.browsing import WIDTHS
from tests.programs import require_program

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
    settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME = "test_session", "test_csrf"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
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

    While it runs, nothing may be refused (but what ``refused`` lists), alerted, thrown, blocked by
    the content security policy, or fetched from elsewhere.
    """

    def browse_one(
        scenario: Callable[[Any], None],
        width: str,
        *,
        refused: tuple[int, ...] = (),
        **options: Any,
    ) -> None:
        wide, high = WIDTHS[width]
        faults: list[str] = []

        def watch(response: Any) -> None:
            is_fault = response.status >= 400 and response.status not in refused
            if is_fault or not response.url.startswith((address, "data:")):
                faults.append(f"{response.status} {response.url}")

        def listen(message: Any) -> None:
            if message.type == "error" and "Content Security Policy" in message.text:
                faults.append(message.text)

        def run(browser: Any) -> None:
            context = browser.new_context(viewport={"width": wide, "height": high}, **options)
            page = context.new_page()
            page.on("response", watch)
            page.on("console", listen)
            page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
            page.on("pageerror", lambda error: faults.append(str(error)))
            try:
                scenario(page)
            finally:
                context.close()

        in_browser(run)
        assert not faults

    return browse_one
