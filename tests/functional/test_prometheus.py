"""A real Prometheus scrapes a served Valdrix while it is asked, and the dashboard has its figures."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path

from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.programs import require_program
from tests.prometheus import Prometheus, read_panels, running_prometheus
from tests.serving import serve_application
from valdrix.schedule import JOBS

SEEN_WITHIN_SECONDS = 30.0


def ask(address: str, world: World, amount: str) -> str:
    body = {
        "project_id": "shop",
        "environment": "dev",
        "resource_reference": "module.web",
        "estimated_monthly_delta_usd": amount,
    }
    request = urllib.request.Request(
        f"{address}/api/v1/enforcement/gate/terraform",
        data=json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {world.member.key}",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["decision"])


def ask_until(server: Prometheus, expression: str, *, address: str, world: World) -> set[str]:
    """Ask the gate again and again until Prometheus has seen it; return what was decided."""
    decisions = set()
    deadline = time.monotonic() + SEEN_WITHIN_SECONDS
    while not server.query(expression):
        assert time.monotonic() < deadline, f"Prometheus never saw {expression}"
        decisions |= {ask(address, world, amount) for amount in ("5.00", "900.00")}
        time.sleep(0.2)
    return decisions


def test_prometheus_scrapes_under_load_and_the_dashboard_shows_it(
    tenant: World, tmp_path: Path
) -> None:
    program = require_program("prometheus")
    Shop(tenant).budget("100.00")
    with (
        serve_application() as address,
        running_prometheus(
            program, target=address.removeprefix("http://"), directory=tmp_path
        ) as server,
    ):
        seen = (
            "valdrix:enforcement_gate_error_ratio_5m == 0 and"
            " sum(rate(valdrix_ops_enforcement_entitlement_denials_total[5m])) > 0"
        )
        assert ask_until(server, seen, address=address, world=tenant) == {"ALLOW", "DENY"}

        assert server.query('up{job="valdrix"}')[0]["value"][1] == "1"
        for panel in read_panels():
            for target in panel["targets"]:
                assert server.query(target["expr"]), (panel["title"], target["expr"])
        ages = server.query("max by (job_name) (valdrix_ops_job_age_seconds)")
        assert {age["metric"]["job_name"] for age in ages} == {job.name for job in JOBS}
        rules = [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
        assert {rule["health"] for rule in rules} == {"ok"}, [r.get("lastError") for r in rules]
        own = {rule["name"] for rule in rules if rule.get("state") == "firing"}
        assert not own & {"ServiceNotStarting", "MigrationMismatch", "DatabaseConnectionDown"}
