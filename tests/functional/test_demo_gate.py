"""What `make run` prints: decisions on a real estimate, and a curl that works as printed."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connections
from django.utils import timezone

from enforcement.adapters.infracost import read_cost
from enforcement.adapters.terraform_plan import read_plan
from enforcement.controls.budgets import find_budgets
from enforcement.decisions.models import Decision
from governance.approvals.models import Approval
from governance.tenants.queries import find_tenant_id
from tests.client import Api
from tests.programs import require_program
from valdrix.demo import asking, rendering
from valdrix.demo.rendering import WIDTH, bar, render_decision
from valdrix.embedded.postmaster import HOST
from valdrix.kernel import strict_json
from valdrix.kernel.db import reading
from valdrix.kernel.ids import new_id

DEMO_FOLDER = Path(asking.__file__).parent


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server_url(django_db_setup: None) -> Iterator[str]:
    """Give the address of a real HTTP server over the whole application."""
    server = make_server(HOST, 0, WSGIHandler(), handler_class=Quiet)

    def serve() -> None:
        server.serve_forever(poll_interval=0.05)
        connections.close_all()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://{HOST}:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def demo_file(server_url: str, tmp_path: Path, settings: Any) -> Path:
    """Give the file of a demo under names of its own."""
    # None of these tests is about how well passwords are hashed.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    path = tmp_path / "demo.pending.json"
    name = new_id().hex[-20:]
    call_command(
        "seed_demo",
        "--base-url", server_url,
        "--pending-file", str(path),
        "--tenant", f"demo-{name}",
        "--other-tenant", f"other-{name}",
        stdout=io.StringIO(),
    )  # fmt: skip
    return path


def run(demo_file: Path, *options: str) -> str:
    output = io.StringIO()
    call_command("demo_gate", "--demo-file", str(demo_file), *options, stdout=output)
    return output.getvalue()


def tables_of(output: str) -> list[str]:
    """Return the printed tables, each without its frame and its layout's spaces."""
    tables = output.split("┌")[1:]
    return [" ".join(table.partition("└")[0].replace("│", " ").split()) for table in tables]


def pending_of(tenant_id: Any) -> dict[str | None, Decimal]:
    budgets = find_budgets(
        tenant_id, projects=["shop"], after_id=None, limit=10, now=timezone.now()
    )
    return {b.account.environment: b.state.pending_usd for b in budgets}


# --- the documents ------------------------------------------------------------------------------


def test_the_estimate_is_whole_and_its_price_known() -> None:
    document = strict_json.loads((DEMO_FOLDER / "estimate.json").read_bytes())
    cost = read_cost(document, pointer="")
    assert (cost.state, cost.reasons) == ("known", ())
    assert cost.monthly_delta_usd == Decimal("640.1850")
    (project,) = document["projects"]
    for breakdown in ("pastBreakdown", "breakdown", "diff"):
        for unit in ("Monthly", "Hourly"):
            resources = [
                Decimal(resource[f"{unit.lower()}Cost"])
                for resource in project[breakdown]["resources"]
            ]
            assert sum(resources) == Decimal(project[breakdown][f"total{unit}Cost"])
    assert Decimal(document["totalMonthlyCost"]) - Decimal(
        document["pastTotalMonthlyCost"]
    ) == Decimal(document["diffTotalMonthlyCost"])


def test_the_plan_makes_what_the_estimate_prices() -> None:
    plan = strict_json.loads((DEMO_FOLDER / "plan.json").read_bytes())
    estimate = strict_json.loads((DEMO_FOLDER / "estimate.json").read_bytes())
    read = read_plan(plan, pointer="")
    assert read.is_complete
    assert not read.is_errored
    made = {
        change["address"]
        for change in plan["resource_changes"]
        if change["change"]["actions"] == ["create"]
    }
    diff = estimate["projects"][0]["diff"]
    assert {resource["name"] for resource in diff["resources"]} == made
    assert len(made) == read.resource_count


# --- the command --------------------------------------------------------------------------------


def test_prod_waits_for_an_owner_and_nonprod_goes_ahead(demo_file: Path) -> None:
    prod, nonprod = tables_of(run(demo_file))
    assert "REQUIRE APPROVAL shop · prod · terraform.apply" in prod
    assert "Needs approval: the change is large enough to need approval." in prod
    assert "640.19 USD a month more (0.8770 an hour), known" in prod
    assert "approval_threshold_reached:" in prod
    assert "→ Wait for a reviewer, or make the change smaller." in prod
    assert "mode soft by terraform.prod" in prod
    assert "project allocation ▒▒▒············· 3,000.00 0.00 640.19 pass" in prod
    assert "ALLOW shop · nonprod · terraform.apply" in nonprod
    assert "Reserved 640.19 USD of the budget" in nonprod
    assert "Policy version 1, sha256 " in nonprod
    for stage in ("plan limit", "reserved credits", "emergency credits", "enterprise ceiling"):
        assert stage in nonprod


def test_every_line_of_a_table_is_as_wide_as_its_frame(demo_file: Path) -> None:
    lines = [line for line in run(demo_file).splitlines() if line[:1] in "┌├│└" and line]
    assert len(lines) > 40
    assert {len(line) for line in lines} == {WIDTH}


def test_it_tells_how_to_go_on(demo_file: Path, server_url: str) -> None:
    demo = json.loads(demo_file.read_text())
    output = run(demo_file)
    assert f"{server_url}/admin/" in output
    for user in demo["console"]["users"]:
        assert user["username"] in output
        assert user["password"] in output
    for key in demo["api_keys"].values():
        assert key in output


def test_running_it_again_and_again_charges_the_change_once(demo_file: Path) -> None:
    tenant_id = find_tenant_id(json.loads(demo_file.read_text())["tenant"])
    outputs = [run(demo_file) for _ in range(4)]
    # Beside the estimate, the changes that are left for a person to judge: asked once a day.
    prod = Decimal("640.1850") + Decimal("640.00") + Decimal("1180.00")
    assert pending_of(tenant_id) == {"prod": prod, "nonprod": Decimal("640.1850")}
    for output in outputs[1:]:
        first, second = tables_of(output)
        assert "REQUIRE APPROVAL" in first
        assert "ALLOW" in second
        assert "shares the 640.19 USD that an earlier decision on this change holds" in first
        assert "3 changes in prod wait for an owner in the console." in output
    with reading(tenant_id):
        decisions = Decision.objects.filter(tenant_id=tenant_id)
        assert decisions.count() == 8 + 3
        assert Approval.objects.filter(tenant_id=tenant_id).count() == 1 + 3


def test_the_printed_curl_can_be_pasted(demo_file: Path) -> None:
    curl = require_program("curl")
    output = run(demo_file)
    command = output[output.index("curl -sS") :]
    assert shlex.split(command)[0] == "curl"
    answers = [
        subprocess.run(
            ["bash", "-c", command.replace("curl", curl, 1)],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert all(answer.endswith("}\n") for answer in answers)
    first, second = (json.loads(answer) for answer in answers)
    assert first["decision"] == second["decision"] == "ALLOW"
    assert first["reserved_allocation_usd"] == "42.5000"
    assert (second["reservation_shared"], second["reserved_allocation_usd"]) == (True, "0.0000")


def test_the_hint_beside_the_curl_is_true(demo_file: Path, api: Api) -> None:
    output = run(demo_file)
    words = shlex.split(output[output.index("curl -sS") :])
    body = json.loads(words[words.index("-d") + 1])
    body |= {"environment": "prod", "estimated_monthly_delta_usd": "640.00"}
    key = json.loads(demo_file.read_text())["api_keys"]["member"]
    answer = api.post("gate/terraform", body, key=key).json()
    assert answer["decision"] == "REQUIRE_APPROVAL"


def test_without_a_server_it_fails_and_says_so(
    demo_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run(demo_file, "--base-url", f"http://{HOST}:9")
    assert end.value.code == 1
    assert f"http://{HOST}:9/api/v1/enforcement/gate/terraform" in capsys.readouterr().err


def test_a_refusal_is_told_with_its_code_and_without_the_key(
    demo_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = json.loads(demo_file.read_text())
    key = demo["api_keys"]["member"] = "vdx_nobody"
    demo_file.write_text(json.dumps(demo))
    with pytest.raises(SystemExit) as end:
        run(demo_file)
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert " answers 401: " in told
    assert key not in told


def test_only_web_addresses_are_asked(demo_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(demo_file, "--base-url", "file:///etc")
    assert "is no address of a web server" in capsys.readouterr().err


def test_without_a_demo_it_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(tmp_path / "none.json")
    assert end.value.code == 1
    assert "seed_demo" in capsys.readouterr().err


def test_a_terminal_that_cannot_draw_gets_question_marks(demo_file: Path) -> None:
    raw = io.BytesIO()
    output = io.TextIOWrapper(raw, encoding="ascii")
    call_command("demo_gate", "--demo-file", str(demo_file), stdout=output)
    output.flush()
    assert b"REQUIRE APPROVAL" in raw.getvalue()


def test_an_answer_that_is_only_fail_safe_is_asked_for_again(
    demo_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = asking._post
    asked: list[dict[str, Any]] = []

    def post(url: str, api_key: str, body: dict[str, Any]) -> dict[str, Any]:
        asked.append(body)
        answer = ask(url, api_key, body)
        return {**answer, "computed_context": None} if len(asked) < 3 else answer

    monkeypatch.setattr(asking, "_post", post)
    monkeypatch.setattr(asking, "_PAUSE_SECONDS", 0)
    demo = json.loads(demo_file.read_text())
    answer = asking.ask_about_estimate(
        base_url=demo["base_url"],
        api_key=demo["api_keys"]["member"],
        environment="prod",
        run_id="one",
    )
    assert answer["computed_context"] is not None
    assert answer["replayed"]
    assert asked == [asked[0]] * 3


# --- the table ----------------------------------------------------------------------------------

BARS = [
    ("100", "0", "0", "··········"),
    ("100", "50", "0", "█████·····"),
    ("100", "50", "25", "█████▒▒···"),
    ("100", "0.01", "0.01", "█▒········"),
    ("100", "100", "0", "██████████"),
    ("100", "100", "1", "█████████▒"),
    ("100", "400", "1", "█████████▒"),
    ("100", "0", "500", "▒▒▒▒▒▒▒▒▒▒"),
    ("0", "0", "5", "▒▒▒▒▒▒▒▒▒▒"),
    ("0", "0", "0", "··········"),
]


@pytest.mark.parametrize(("limit", "used", "asked", "expected"), BARS)
def test_bars(limit: str, used: str, asked: str, expected: str) -> None:
    shown = bar(limit=Decimal(limit), used=Decimal(used), asked=Decimal(asked), width=10)
    assert shown == expected


def test_no_limit_has_no_bar() -> None:
    assert bar(limit=None, used=Decimal(1), asked=Decimal(1)) == ""


@pytest.fixture
def answer(demo_file: Path) -> Callable[..., dict[str, Any]]:
    demo = json.loads(demo_file.read_text())
    base = asking.ask_about_estimate(
        base_url=demo["base_url"],
        api_key=demo["api_keys"]["member"],
        environment="prod",
        run_id="base",
    )
    return lambda **facts: {**base, **facts}


def test_other_decisions_can_be_shown_too(answer: Callable[..., dict[str, Any]]) -> None:
    unknown = render_decision(
        answer(
            decision="DENY",
            cost_state="unknown",
            cost_state_reasons=["no_estimate"],
            estimated_monthly_delta_usd=None,
            estimated_hourly_delta_usd=None,
            resource_reference="module." + "very_long." * 20,
        )
    )
    assert "Cost      unknown (no_estimate)" in unknown
    assert {len(line) for line in unknown.splitlines()} == {WIDTH}
    safe = render_decision(
        answer(
            computed_context=None,
            entitlement_waterfall=[],
            decision_id=None,
            approval_request_id=None,
            reserved_allocation_usd="0.0000",
            policy_document_sha256="",
        )
    )
    assert "Not evaluated." in safe
    assert "Decision  not recorded" in safe
    assert "Reserved  nothing" in safe
    credits_used = render_decision(
        answer(
            decision="ALLOW_WITH_CREDITS",
            reserved_reserved_credit_usd="12.3450",
            reserved_emergency_credit_usd="1.0000",
        )
    )
    assert "ALLOW WITH CREDITS" in credits_used
    assert "12.35 USD of reserved credits" in credits_used


def test_a_decision_that_is_not_known_is_shown_by_its_name(
    answer: Callable[..., dict[str, Any]],
) -> None:
    assert "SOMETHING_NEW" in render_decision(answer(decision="SOMETHING_NEW"))
    assert "SOMETHING_NEW" not in rendering._HEADINGS
