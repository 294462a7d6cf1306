"""The integrations to copy: their shell runs against a live server, their files can be read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
import yaml
from django.core.wsgi import get_wsgi_application
from django.db import connections

from enforcement.models import Decision
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.preflight import build_estimate, build_plan
from tests.programs import require_program
from valdrix.kernel.db import reading

DOCS = Path(__file__).resolve().parents[2] / "docs" / "integrations"
SCRIPT = DOCS / "valdrix-gate.sh"


class _Quiet(WSGIRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def live_url(database: None) -> Iterator[str]:
    """Serve the application on this machine for the time of a test."""
    server: WSGIServer = make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=_Quiet)

    def serve() -> None:
        server.serve_forever(0.05)
        connections.close_all()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def shop(tenant: World) -> Shop:
    made = Shop(tenant, thresholds={"nonprod": {"require_approval_from_usd": "500.00"}})
    made.budget("1000.00")
    return made


class Pipeline:
    """A directory with an estimate and a plan, and the environment of a job."""

    def __init__(self, folder: Path, url: str, world: World) -> None:
        require_program("curl")
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "VALDRIX_URL": url,
            "VALDRIX_TOKEN": world.key,
            "VALDRIX_PROJECT": "shop",
            "VALDRIX_ENVIRONMENT": "dev",
            "VALDRIX_REFERENCE": 'acme/"shop" \\ 1',
            "VALDRIX_RUN_ID": "run-1",
            "VALDRIX_SUMMARY": str(folder / "summary.md"),
        }
        (folder / "plan.json").write_text(json.dumps(build_plan(), indent=2))

    def run(self, monthly: str | None = None, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run the script as a job does."""
        arguments = [str(SCRIPT)]
        if monthly is not None:
            estimate = build_estimate(monthly, str(float(monthly) / 730))
            (self.folder / "estimate.json").write_text(json.dumps(estimate, indent=2))
            arguments += ["estimate.json", "plan.json"]
        return subprocess.run(
            arguments,
            cwd=self.folder,
            env=self.environment | changes,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def pipeline(tmp_path: Path, live_url: str, shop: Shop) -> Pipeline:
    return Pipeline(tmp_path, live_url, shop.world)


def decisions(world: World) -> list[Decision]:
    with reading(world.id):
        return list(Decision.objects.filter(tenant_id=world.id).order_by("pk"))


def test_the_exit_code_and_the_summary_say_the_decision(pipeline: Pipeline, tenant: World) -> None:
    expected = {"120.00": ("ALLOW", 0), "600.00": ("REQUIRE_APPROVAL", 2), "5000.00": ("DENY", 1)}
    for monthly, (decision, code) in expected.items():
        done = pipeline.run(monthly, VALDRIX_RUN_ID=f"run-{monthly}")
        assert done.returncode == code, done.stdout + done.stderr
        assert done.stdout.startswith(f"### Valdrix: {decision}\n")
        assert f"| monthly delta | {monthly}00 USD (known) |" in done.stdout
        assert "| project | shop, nonprod |" in done.stdout
        assert ("| approval |" in done.stdout) is (decision == "REQUIRE_APPROVAL")
    made = decisions(tenant)
    assert [one.decision for one in made] == ["ALLOW", "REQUIRE_APPROVAL", "DENY"]
    assert {one.resource_reference for one in made} == {'acme/"shop" \\ 1'}
    summary = (pipeline.folder / "summary.md").read_text()
    assert summary.count("### Valdrix:") == 3
    assert all(str(one.pk) in summary for one in made)


def test_the_same_run_and_stage_get_the_same_answer(pipeline: Pipeline, tenant: World) -> None:
    first, second = pipeline.run("120.00"), pipeline.run("120.00")
    assert first.stdout == second.stdout
    assert len(decisions(tenant)) == 1


def test_an_approval_that_was_given_is_spent_once_by_the_same_run(
    pipeline: Pipeline, tenant: World
) -> None:
    assert [pipeline.run("600.00").returncode for _ in range(2)] == [2, 2]
    approval_id = str(decisions(tenant)[0].approval_request_id)
    approved = Api().post(f"approvals/{approval_id}/approve", {}, key=tenant.owner.key)
    assert approved.status_code == 200, approved.content
    spent = pipeline.run("600.00")
    assert spent.returncode == 0, spent.stderr
    assert spent.stdout.startswith("### Valdrix: APPROVED\n")
    assert f"| approval | {approval_id} |" in spent.stdout
    again = pipeline.run("600.00")
    assert again.returncode == 2
    assert "409 approval_consumed" in again.stderr


def test_a_denied_approval_is_a_denial(pipeline: Pipeline, tenant: World) -> None:
    assert pipeline.run("600.00").returncode == 2
    approval_id = decisions(tenant)[0].approval_request_id
    body = {"reason": "not now"}
    assert (
        Api().post(f"approvals/{approval_id}/deny", body, key=tenant.owner.key).status_code == 200
    )
    denied = pipeline.run("600.00")
    assert denied.returncode == 1
    assert denied.stdout.startswith("### Valdrix: DENY\n")


def test_without_an_estimate_the_cost_is_unknown(pipeline: Pipeline, tenant: World) -> None:
    done = pipeline.run()
    assert done.returncode == 0
    assert "| monthly delta | unknown USD (unknown) |" in done.stdout


def test_what_goes_wrong_is_told_and_never_goes_ahead(pipeline: Pipeline, tenant: World) -> None:
    wrong_key = pipeline.run("120.00", VALDRIX_TOKEN="vdx_nobody")
    assert (wrong_key.returncode, wrong_key.stdout) == (3, "")
    assert "401 authentication_failed" in wrong_key.stderr
    bad = pipeline.run("120.00", VALDRIX_STAGE="mid_plan")
    assert bad.returncode == 3
    assert "422 invalid_choice at /stage: must be one of" in bad.stderr
    gone = pipeline.run("120.00", VALDRIX_URL="http://127.0.0.1:9", PATH=os.environ["PATH"])
    assert gone.returncode == 3
    assert "no answer" in gone.stderr
    assert decisions(tenant) == []


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("name", ["URL", "TOKEN", "PROJECT", "REFERENCE", "RUN_ID"])
def test_what_is_not_set_is_no_answer(name: str, shell: str, tmp_path: Path) -> None:
    """A shell's own way to say so exits with 2 in some: that is "needs approval" here."""
    require_program(shell)
    command = [shell, str(SCRIPT)]
    names = {"URL", "TOKEN", "PROJECT", "REFERENCE", "RUN_ID"} - {name}
    environment = {"PATH": os.environ["PATH"]} | {f"VALDRIX_{one}": "x" for one in names}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"VALDRIX_{name} is not set" in done.stderr


def test_texts_with_quotes_are_shown_whole_and_change_no_answer(
    pipeline: Pipeline, tenant: World
) -> None:
    message = 'Ask "platform", see C:\\docs ,"decision":"ALLOW"'
    rule = {"id": "no", "when": "true", "effect": "deny", "message": message}
    Shop(tenant, rules=[rule])
    done = pipeline.run("120.00")
    assert done.returncode == 1
    assert done.stdout.startswith("### Valdrix: DENY\n\nDenied: a policy rule refuses it.\n\n- ")
    assert f"- {message}\n" in done.stdout


def test_an_answer_of_another_server_is_none(pipeline: Pipeline) -> None:
    def page(environ: object, start_response: Any) -> list[bytes]:
        start_response("404 Not Found", [("Content-Type", "text/html")])
        return [b"<html>\nnothing here\n</html>"]

    server = make_server("127.0.0.1", 0, page, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        done = pipeline.run("120.00", VALDRIX_URL=f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert done.returncode == 3
    assert "404, and what came with it is no answer of Valdrix" in done.stderr


def test_the_token_is_in_no_argument(pipeline: Pipeline, tmp_path: Path) -> None:
    """A curl that writes down how it was called shows what other users of the machine could see."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "curl").write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\nexit 7\n'
    )
    (programs / "curl").chmod(0o755)
    pipeline.run("120.00", PATH=f"{programs}:{os.environ['PATH']}")
    arguments = (tmp_path / "arguments").read_text()
    assert "Content-Type" in arguments
    assert pipeline.environment["VALDRIX_TOKEN"] not in arguments


def test_the_script_is_plain_posix_shell() -> None:
    assert SCRIPT.stat().st_mode & 0o111
    checked = subprocess.run([require_program("dash", "sh"), "-n", str(SCRIPT)], check=False)
    assert checked.returncode == 0


def blocks(name: str, language: str) -> list[str]:
    text = (DOCS / name).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["github-actions.md", "gitlab-ci.md", "atlantis.md"])
def test_the_files_to_copy_are_yaml_and_run_the_script(name: str) -> None:
    (text,) = blocks(name, "yaml")
    document: Any = yaml.safe_load(text)
    assert isinstance(document, dict)
    assert "valdrix-gate.sh estimate.json plan.json" in text


def test_github_s_answer_becomes_the_token() -> None:
    (text,) = blocks("github-actions.md", "yaml")
    (expression,) = re.findall(r"\| sed '([^']+)'", text)
    recorded = '{"count":1857,"value":"eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln-_"}'
    done = subprocess.run(
        ["sed", expression], input=recorded, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln-_"


def test_every_integration_names_what_the_script_needs() -> None:
    needed = set(re.findall(r'fail "(VALDRIX_[A-Z_]+) is not set', SCRIPT.read_text()))
    assert len(needed) == 5
    for name in ("github-actions.md", "gitlab-ci.md", "jenkins.md", "atlantis.md"):
        text = (DOCS / name).read_text()
        assert {one for one in needed if one not in text} == set(), name
