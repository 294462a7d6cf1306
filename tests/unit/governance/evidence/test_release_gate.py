"""``manage.py release_gate``: what it refuses before anything runs, verifies, and holds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest
from django.core.management import CommandError, call_command

from governance.evidence.signed import sign_evidence
from tests.unit.governance.evidence import documents
from tests.unit.governance.evidence.documents import build_world, captured_at, edited
from tests.unit.governance.evidence.test_statements import KEY, SIGNERS, envelope
from tests.unit.governance.evidence.test_verify_command import write
from valdrix.certification import release_gate
from valdrix.certification.release_gate import (
    FLOORS,
    SLOTS,
    Floor,
    GateRefused,
    Result,
    ask_alerts,
    hold_floor,
    plan_gate,
    read_coverage,
    run_suite,
    verify_step,
)
from valdrix.certification.suite import Finished, build_test_environment
from valdrix.management.commands import release_gate as command


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """Give flags that name sound evidence of the two profiles that are always required."""
    now = datetime.now(UTC)
    stress, failure = (
        captured_at(one(), now) for one in (documents.stress, documents.failure_injection)
    )
    return {
        "stress-evidence-path": write(tmp_path / "stress.json", stress),
        "failure-evidence-path": write(tmp_path / "failure.json", failure),
    }


def test_flags_set_paths_and_bounds(files: dict[str, Any]) -> None:
    given = {**files, "stress-max-age-hours": "24", "stress-min-concurrent-users": "20"}
    stress, failure = plan_gate(given, {})
    assert (stress.profile.name, failure.profile.name) == ("stress", "failure_injection")
    assert stress.terms["max_artifact_age_hours"] == Decimal(24)
    assert stress.terms["min_concurrent_users"] == 20
    assert failure.terms["max_artifact_age_hours"] == Decimal(48), "what nobody said is strict"


def test_the_environment_says_what_flags_do_not(files: dict[str, Any]) -> None:
    environment = {
        "ENFORCEMENT_STRESS_EVIDENCE_PATH": files["stress-evidence-path"],
        "ENFORCEMENT_STRESS_EVIDENCE_REQUIRED_DATABASE_ENGINE": "postgresql",
        "ENFORCEMENT_FAILURE_INJECTION_EVIDENCE_PATH": files["failure-evidence-path"],
        "ENFORCEMENT_FAILURE_INJECTION_EVIDENCE_MAX_AGE_HOURS": "48",
    }
    _, failure = plan_gate({}, environment)
    assert failure.terms["max_artifact_age_hours"] == Decimal(48)
    _, stricter = plan_gate({"failure-max-age-hours": "1"}, environment)
    assert stricter.terms["max_artifact_age_hours"] == Decimal(1)


@pytest.mark.parametrize(
    ("given", "environment", "named"),
    [
        ({"stress-evidence-path": None}, {}, "ENFORCEMENT_STRESS_EVIDENCE_PATH"),
        ({"failure-evidence-path": "no/such.json"}, {}, "no/such.json"),
        ({"stress-max-age-hours": "0"}, {}, "--stress-max-age-hours"),
        ({"stress-max-age-hours": "-5"}, {}, "--stress-max-age-hours"),
        ({"stress-min-duration-seconds": "1.5"}, {}, "--stress-min-duration-seconds"),
        ({"stress-min-concurrent-users": "many"}, {}, "--stress-min-concurrent-users"),
        ({}, {"ENFORCEMENT_KEY_ROTATION_DRILL_MAX_AGE_DAYS": "NaN"}, "DRILL_MAX_AGE_DAYS"),
        ({"ci-green-required": True}, {}, "--ci-green-path"),
        ({}, {"ENFORCEMENT_TELEMETRY_C1_REQUIRED": "true"}, "--telemetry-c1-path"),
        ({}, {"ENFORCEMENT_TELEMETRY_C1_REQUIRED": "on"}, "--telemetry-c1-path"),
        ({}, {"ENFORCEMENT_TELEMETRY_C1_REQUIRED": "ja"}, "says neither yes nor no"),
        ({"stress-max-age-hours": ""}, {}, "--stress-max-age-hours"),
        ({"stress-max-age-hours": "1e30"}, {}, "--stress-max-age-hours"),
        ({}, {"ENFORCEMENT_STRESS_EVIDENCE_MAX_AGE_HOURS": ""}, "--stress-max-age-hours"),
        ({"stress-evidence-path": "x" * 5000}, {}, "there is no file"),
        ({"stress-evidence-path": "."}, {}, "there is no file"),
        ({"stress-evidence-path": "/dev/zero"}, {}, "there is no file"),
    ],
)
def test_what_is_missing_or_no_bound_is_refused_first(
    files: dict[str, Any], given: dict[str, Any], environment: dict[str, str], named: str
) -> None:
    with pytest.raises(GateRefused, match=named):
        plan_gate({**files, **given}, environment)


def test_everything_that_is_missing_is_named_at_once() -> None:
    given = {slot.required_flag: True for slot in SLOTS}
    with pytest.raises(GateRefused) as refused:
        plan_gate(given, {})
    for slot in SLOTS:
        assert f"--{slot.path_flag}" in str(refused.value)


def test_evidence_is_verified_with_the_gate_s_bounds(files: dict[str, Any], tmp_path: Path) -> None:
    world = replace(build_world(), now=datetime.now(UTC))
    stress, _ = plan_gate(files, {})
    assert verify_step(stress, world).passed
    strict, _ = plan_gate({**files, "stress-min-concurrent-users": "50"}, {})
    (fault,) = verify_step(strict, world).faults
    assert "/concurrent_users" in fault
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    step, _ = plan_gate({**files, "stress-evidence-path": str(broken)}, {})
    assert "malformed_json" in verify_step(step, world).faults[0]
    broken.unlink()
    assert "unreadable" in verify_step(step, world).faults[0]


def test_evidence_of_a_day_that_is_over_does_not_pass_a_gate_that_nobody_gave_a_bound(
    files: dict[str, Any],
) -> None:
    later = replace(build_world(), now=datetime.now(UTC) + timedelta(hours=49))
    for step in plan_gate(files, {}):
        assert any("stale" in fault for fault in verify_step(step, later).faults)


SPOILT = {
    "stress": "/meets_targets",
    "failure_injection": "/summary/overall_passed",
    "key_rotation_drill": "/post_drill_status",
    "jwt_bcp": "/controls/0/status",
    "ssdf_traceability": "/practices/0/status",
    "post_closure_sanity": "/dimensions/0/tests/0",
    "ci_green": "/exit_code",
    "attestation": "/signatures/0/sig",
    "telemetry_c1": "/all_invariants_held",
}


@pytest.fixture
def all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give a flag for every profile's file, sound evidence all of it, of the commit that is here."""
    monkeypatch.setattr(command, "build_world", lambda *_: build_world(signers=SIGNERS))
    monkeypatch.setattr(command, "find_commit_here", lambda: documents.COMMIT)
    monkeypatch.setattr(command, "run_suite", lambda **_: [Result("tests", "7 passed")])
    return {
        slot.path_flag: write(tmp_path / f"{slot.profile}.json", sound(slot.profile))
        for slot in SLOTS
    }


def sound(profile: str) -> dict[str, Any]:
    return envelope() if profile == "attestation" else dict(getattr(documents, profile)())


def gate(files: dict[str, Any], *more: str) -> tuple[int, str]:
    return run(*(f"--{flag}={path}" for flag, path in files.items()), *more)


@pytest.mark.parametrize("spoilt", [*([one] for one in SPOILT), ["ci_green", "stress"], [*SPOILT]])
def test_whatever_is_wrong_is_named_and_the_gate_stays_shut(
    all_files: dict[str, Any], spoilt: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gate(all_files)[0] == 0
    monkeypatch.setattr(command, "run_suite", lambda **_: pytest.fail("the tests ran"))
    for name in spoilt:
        path = Path(next(one for one in all_files.values() if Path(one).stem == name))
        write(path, edited(sound(name), SPOILT[name], "no"))
    code, said = gate(all_files)
    assert code == 1
    failed = said.rsplit("not to be promoted: ", 1)[1].split(", ")
    assert failed == [slot.profile for slot in SLOTS if slot.profile in spoilt]
    assert said.count("FAIL  ") == len(spoilt)


def test_every_set_of_missing_files_is_refused_with_exactly_their_names(
    all_files: dict[str, Any],
) -> None:
    for number in range(1, 1 << len(SLOTS)):
        missing = {slot.path_flag for place, slot in enumerate(SLOTS) if number >> place & 1}
        given: dict[str, Any] = {slot.required_flag: True for slot in SLOTS}
        given |= {flag: path for flag, path in all_files.items() if flag not in missing}
        with pytest.raises(GateRefused) as refused:
            plan_gate(given, {})
        named = {line.split(" ")[0].removeprefix("--") for line in str(refused.value).split("\n")}
        assert named == missing


def test_evidence_is_of_the_commit_that_is_promoted(
    all_files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_commit_here", lambda: "c" * 40)
    code, said = gate(all_files)
    assert (code, said.rsplit(": ", 1)[1]) == (1, "ci_green, attestation")
    assert said.count(f"what is promoted is {'c' * 40}") == 2
    assert gate(all_files, f"--commit={documents.COMMIT}")[0] == 2
    monkeypatch.setattr(command, "find_commit_here", lambda: None)
    code, said = gate(all_files)
    assert code == 2
    assert "--commit: ci_green, attestation is of a commit" in said
    assert gate(all_files, "--commit=main")[0] == 2
    assert gate(all_files, f"--commit={documents.COMMIT}")[0] == 0


def test_signatures_can_be_demanded_of_what_was_captured(
    all_files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = gate(all_files, "--signatures-required")
    assert code == 1
    captured = "stress, failure_injection, key_rotation_drill, ci_green, telemetry_c1"
    assert said.rsplit("not to be promoted: ", 1)[1] == captured
    for name in captured.split(", "):
        path = Path(next(one for one in all_files.values() if Path(one).stem == name))
        signed = sign_evidence(sound(name), profile=name, commit=documents.COMMIT, key=KEY)
        write(path, signed)
    monkeypatch.setenv("ENFORCEMENT_SIGNATURES_REQUIRED", "yes")
    assert gate(all_files)[0] == 0
    monkeypatch.setenv("ENFORCEMENT_SIGNATURES_REQUIRED", "perhaps")
    assert gate(all_files)[0] == 2


def test_tests_that_end_without_a_word_did_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = Finished(exit_code=-9, tail=())
    monkeypatch.setattr(release_gate, "run_pytest", lambda *_, **__: killed)
    tests, *floors = run_suite()
    assert tests.faults == ("the tests ended with -9",)
    assert not any(floor.passed for floor in floors)


def covered(folder: str, statements: int, lines: int) -> dict[str, Any]:
    summary = {"covered_lines": lines, "num_statements": statements}
    return {f"{folder}part.py": {"summary": summary}}


def test_a_floor_is_held_against_all_of_its_folder() -> None:
    floor = Floor("enforcement", "enforcement/", Decimal(95))
    assert hold_floor(floor, covered("enforcement/gate/", 100, 95)).passed
    assert not hold_floor(floor, covered("enforcement/gate/", 1000, 949)).passed
    mixed = covered("enforcement/gate/", 100, 100) | covered("enforcement/api/", 100, 80)
    assert not hold_floor(floor, mixed).passed


def test_a_part_that_is_empty_fails_its_floor(tmp_path: Path) -> None:
    for floor in FLOORS:
        assert not hold_floor(floor, covered("elsewhere/", 10, 10)).passed
    assert read_coverage(tmp_path / "none.json") == {}
    for half in ("", '{"files": {"enf', "[]", '{"files": 7}'):
        (tmp_path / "half.json").write_text(half)
        assert read_coverage(tmp_path / "half.json") == {}


def run(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("release_gate", *arguments, stdout=out, stderr=out)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    return 0, out.getvalue()


def test_a_dry_run_says_what_it_would_do(files: dict[str, Any]) -> None:
    arguments = [f"--{flag}={path}" for flag, path in files.items()]
    code, said = run(*arguments, "--dry-run")
    assert code == 0
    assert "would verify stress" in said
    assert "would run the tests" in said


def test_missing_evidence_runs_nothing(files: dict[str, Any]) -> None:
    code, said = run(f"--stress-evidence-path={files['stress-evidence-path']}")
    assert code == 2
    assert "nothing was run" in said
    assert "--failure-evidence-path" in said


def test_spoiled_evidence_has_its_place_in_the_summary(
    files: dict[str, Any], tmp_path: Path
) -> None:
    spoiled = edited(documents.failure_injection(), "/approved_by", "sre.executor")
    path = write(tmp_path / "spoiled.json", spoiled)
    _, failure = plan_gate({**files, "failure-evidence-path": path}, {})
    assert any("/approved_by" in fault for fault in verify_step(failure, build_world()).faults)


RULES = {
    "groups": [
        {
            "rules": [
                {"name": "BurnFast", "state": "inactive", "labels": {"holds_release": "true"}},
                {"name": "BurnSlow", "state": "pending", "labels": {"holds_release": "true"}},
                {"name": "Busy", "state": "firing", "labels": {"severity": "low"}},
            ]
        }
    ]
}


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[str]:
    """Serve one answer to everything, as Prometheus would; give the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def rules(*states: str) -> bytes:
    document = copy.deepcopy(RULES)
    for rule, state in zip(document["groups"][0]["rules"], states, strict=False):
        rule["state"] = state
    return orjson.dumps({"status": "success", "data": document})


def test_an_alert_that_holds_the_release_holds_it() -> None:
    with answering(rules("inactive", "pending")) as url:
        result = ask_alerts(url)
    assert result.passed
    assert result.says == "watched: BurnFast, BurnSlow"
    with answering(rules("firing", "pending")) as url:
        assert ask_alerts(url).faults == ("BurnFast is firing",)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 200, "not JSON"),
        (b"[]", 200, "no data"),
        (b'{"status": "error"}', 503, "503"),
        (b'{"data": {"groups": []}}', 200, "holds_release"),
        (b'{"data": {"groups": 7}}', 200, "holds_release"),
        (b'{"data": {"groups": [7, {"rules": [7, {"labels": 7}]}]}}', 200, "holds_release"),
        (rules("resting", "pending"), 200, "cannot tell whether BurnFast fires"),
        (
            rules("inactive", "pending").replace(b'"BurnSlow"', b'"Slow","health":"err"'),
            200,
            "Slow",
        ),
    ],
)
def test_a_prometheus_that_cannot_say_no_is_no_yes(body: bytes, status: int, said: str) -> None:
    with answering(body, status) as url:
        (fault,) = ask_alerts(url).faults
    assert said in fault
    (fault,) = ask_alerts(url).faults
    assert "does not answer" in fault


@pytest.mark.parametrize("url", ["prometheus:9090", "ftp://prometheus", "http://", "http://a:b"])
def test_a_prometheus_that_is_no_address_is_refused_first(files: dict[str, Any], url: str) -> None:
    arguments = [f"--{flag}={path}" for flag, path in files.items()]
    code, said = run(*arguments, f"--prometheus-url={url}")
    assert code == 2
    assert "--prometheus-url" in said


def test_what_evidence_or_alerts_refuse_is_refused_before_the_tests(
    files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "run_suite", lambda **_: pytest.fail("the tests ran"))
    arguments = [f"--{flag}={path}" for flag, path in files.items()]
    with answering(rules("firing")) as url:
        code, said = run(*arguments, f"--prometheus-url={url}")
    assert code == 1
    assert "not to be promoted: alerts" in said
    code, said = run(*arguments, "--stress-min-concurrent-users=50")
    assert code == 1
    assert "not to be promoted: stress" in said


def test_a_release_is_promoted_when_all_of_it_holds(
    files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "run_suite", lambda **_: [Result("tests", "7 passed")])
    arguments = [f"--{flag}={path}" for flag, path in files.items()]
    code, said = run(*arguments)
    assert (code, said.splitlines()[-1]) == (0, "to be promoted")
    monkeypatch.setattr(command, "run_suite", lambda **_: [Result("tests", "1 failed", ("x",))])
    assert run(*arguments)[0] == 1


def test_tests_choose_for_themselves() -> None:
    environment = {
        "PATH": "/bin",
        "DATABASE_URL": "postgresql://production",
        "ENFORCEMENT_EXPORT_SIGNING_KEY": "secret",
        "VALDRIX_EMBEDDED": "1",
        "VALDRIX_REQUIRE_SYSTEM_PROGRAMS": "1",
        "DEBUG": "true",
    }
    assert build_test_environment(environment) == {
        "PATH": "/bin",
        "VALDRIX_REQUIRE_SYSTEM_PROGRAMS": "1",
        "DEBUG": "false",
    }
