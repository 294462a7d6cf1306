"""``make dashboard``: serve Valdrix, scrape it under load, and draw the shipped dashboard.

Prometheus and Chromium have to be installed; nothing but loopback is asked.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.benchmarks.stack import running_stack
from tests.dashboard.drawing import draw_page
from tests.prometheus import DASHBOARD, Prometheus, read_panels, running_prometheus

PROJECT = Path(__file__).parents[2]
STEP_SECONDS = 2.0
CALLERS = 3
WIDE, HIGH = 1480, 1100


def main() -> int:
    """Draw the page and its picture; 1 when a panel has no data, or a program is missing."""
    parser = argparse.ArgumentParser(prog="make dashboard")
    parser.add_argument("--seconds", type=int, default=150, help="how long load runs")
    parser.add_argument("--out", type=Path, default=PROJECT / "docs" / "images")
    options = parser.parse_args()
    programs = [shutil.which(name) for name in ("prometheus", "chromium")]
    if None in programs:
        sys.stderr.write("prometheus and chromium have to be installed\n")
        return 1
    # Exports are signed; this key signs nothing else.
    os.environ["ENFORCEMENT_EXPORT_SIGNING_KEY"] = secrets.token_urlsafe(32)
    os.environ["ENFORCEMENT_EXPORT_SIGNING_KID"] = "dashboard"
    with tempfile.TemporaryDirectory() as directory, running_stack() as stack:
        target = stack.base_url.removeprefix("http://")
        with running_prometheus(
            str(programs[0]), target=target, directory=Path(directory), interval="2s"
        ) as server:
            began = time.time()
            make_load(stack.base_url, options.seconds)
            answers = ask(server, began, time.time())
    dashboard = json.loads(DASHBOARD.read_text())
    says = (
        f"{options.seconds} s of load on one machine: gates, reads, settlements, and callers without"
        " a key. Drawn from the answers of a Prometheus that scraped it every two seconds."
    )
    page = draw_page(dashboard, answers, says=says)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "dashboard.html").write_text(page)
    take_picture(options.out / "dashboard.html", options.out / "dashboard.png", str(programs[1]))
    empty = [
        panel["title"]
        for panel in read_panels()
        if not any(answers[target["expr"]] for target in panel["targets"])
    ]
    sys.stdout.write(f"{options.out / 'dashboard.png'}; panels without data: {empty or 'none'}\n")
    return 1 if empty else 0


def make_load(address: str, seconds: int) -> None:
    """Let callers do for a while what pipelines, people and strangers do."""
    from tests.factories.headroom import Shop
    from tests.factories.tenants import create_world

    world = create_world()
    shop = Shop(
        world,
        thresholds={
            "prod": {"require_approval_from_usd": "50.00"},
            "nonprod": {"require_approval_from_usd": "1000000.00"},
        },
        modes={"terraform": {"default": "hard", "prod": "soft"}},
    )
    shop.budget("3000.00")
    until = time.monotonic() + seconds
    callers = [
        threading.Thread(target=call_on, args=(address, world, number, until))
        for number in range(CALLERS)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()


def call_on(address: str, world: Any, number: int, until: float) -> None:
    """Ask one thing after another until it is time, as one caller."""
    from valdrix.certification.telemetry.calling import Place, call

    host, port = address.removeprefix("http://").split(":")
    member, admin = (Place(host, int(port), key=one.key) for one in (world.member, world.admin))
    stranger = Place(host, int(port), key="vdx_nobody")
    base, turn = "/api/v1/enforcement/", number
    while time.monotonic() < until:
        turn += 1
        change = {
            "project_id": "shop",
            "environment": "prod" if turn % 9 == 0 else "dev",
            "resource_reference": f"module.m{number}-{turn}",
            "estimated_monthly_delta_usd": "60.00" if turn % 9 == 0 else "5.00",
        }
        with suppress(OSError):
            answer = call(member, "POST", f"{base}gate/terraform", change)
            if turn % 6 == 0 and answer.body.get("decision") == "ALLOW":
                path = f"{base}reservations/{answer.body['decision_id']}/reconcile"
                body = {"actual_monthly_delta_usd": "1.00", "idempotency_key": f"r{number}-{turn}"}
                call(admin, "POST", path, body)
            if turn % 2 == 0:
                path = ("ledger?limit=50", "budgets", "exports/parity", "policies")[turn // 2 % 4]
                call(admin, "GET", base + path)
            if turn % 5 == 0:
                call(stranger, "GET", f"{base}budgets")
        time.sleep(0.05)


def ask(server: Prometheus, start: float, end: float) -> dict[str, Any]:
    """Return what every panel's questions gave over the time of the load."""
    expressions = {target["expr"] for panel in read_panels() for target in panel["targets"]}
    return {
        one: server.query_range(one, start=start, end=end, step=STEP_SECONDS) for one in expressions
    }


def take_picture(page: Path, picture: Path, chromium: str) -> None:
    """Let a browser without a window take a picture of the whole page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDE, "height": HIGH})
        tab.goto(page.absolute().as_uri())
        tab.screenshot(path=picture, full_page=True)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
