"""``manage.py capture_evidence``: what it captures really ran, and the verifier takes it."""

from __future__ import annotations

from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from governance.evidence.registry import PROFILES, default_terms
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.serving import serve_application
from valdrix.certification.scenarios import NothingRan, run_tests, to_json
from valdrix.kernel.signing import encode, read_signing_key
from valdrix.kernel.strict_json import loads
from valdrix.management.commands.verify_evidence import build_world, verify_file

MONEY = "tests/unit/kernel/test_money.py"
KEY = read_signing_key(key_id="export-1", seed=encode(bytes(range(32))))


@pytest.fixture(autouse=True)
def _signing_key(settings: Any) -> None:
    settings.EXPORT_SIGNING_KEY = KEY


def run(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("capture_evidence", *arguments, stdout=out, stderr=out)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    return 0, out.getvalue()


def verify(path: Path, **terms: Any) -> list[str]:
    profile = PROFILES["stress"]
    wanted = {**default_terms(profile), **terms}
    return [
        str(one) for one in verify_file(profile, path.read_bytes(), wanted, build_world(path, []))
    ]


def test_stress_is_real_load_and_its_evidence_verifies(tenant: World, tmp_path: Path) -> None:
    Shop(tenant).budget("1000000.00")
    path = tmp_path / "stress.json"
    with serve_application() as address:
        code, said = run(
            "stress", "--output", str(path), "--base-url", address,
            "--api-key", tenant.admin.key, "--rounds", "2", "--duration-seconds", "1",
            "--concurrent-users", "2",
        )  # fmt: skip
    document = loads(path.read_bytes())
    assert document["preflight"] == {"enabled": True, "passed": True, "failures": []}, said
    assert code == 0, said
    assert document["runtime"]["database_engine"] == "postgresql"
    assert document["floor"]["reads_share_of_floor"] > 0
    assert all(row["requests"] > 0 for row in document["runs"][0]["results"]["by_endpoint"])
    small = {"min_duration_seconds": 1, "min_concurrent_users": 2}
    assert verify(path, **small) == []
    assert any("/concurrent_users" in problem for problem in verify(path, min_duration_seconds=1))


def test_a_server_that_refuses_fails_the_preflight(tenant: World, tmp_path: Path) -> None:
    path = tmp_path / "stress.json"
    with serve_application() as address:
        code, said = run(
            "stress", "--output", str(path), "--base-url", address,
            "--api-key", "vdx_nonsense", "--rounds", "1", "--duration-seconds", "1",
            "--concurrent-users", "1",
        )  # fmt: skip
    assert code == 1
    assert "no release evidence" in said
    assert any("401" in one for one in loads(path.read_bytes())["preflight"]["failures"])
    assert any("/preflight/passed" in problem for problem in verify(path))


def test_a_server_whose_limits_answer_was_not_measured(
    tenant: World, tmp_path: Path, settings: Any
) -> None:
    settings.TENANT_API_PER_MINUTE = 60
    path = tmp_path / "stress.json"
    with serve_application() as address:
        code, said = run(
            "stress", "--output", str(path), "--base-url", address,
            "--api-key", tenant.admin.key, "--rounds", "1", "--duration-seconds", "1",
            "--concurrent-users", "2", "--max-error-rate-percent", "100",
        )  # fmt: skip
    assert code == 1, said
    assert "answers were 429: the server's limits were measured" in said
    assert "requests of the reads that it is compared with failed" in said
    document = loads(path.read_bytes())
    assert document["meets_targets"] is True, "by its thresholds alone it would pass"
    terms = {"min_duration_seconds": 1, "min_concurrent_users": 2}
    problems = verify(path, **terms, max_error_rate_percent=Decimal(100))
    assert any("failures_by_status" in one and "429" in one for one in problems), problems


@pytest.mark.parametrize(
    "arguments",
    [
        ("stress", "--output", "x", "--base-url", "ftp://a", "--api-key", "k"),
        ("stress", "--output", "x", "--base-url", "http://a", "--api-key", "k", "--rounds", "0"),
        ("failure_injection", "--output", "x", "--executed-by", "Ann", "--approved-by", " ann"),
        (
            "failure_injection",
            "--output",
            "x",
            "--executed-by",
            "ann",
            "--approved-by",
            "an\u200bn",
        ),
        ("failure_injection", "--output", "x", "--executed-by", " ", "--approved-by", "ann"),
    ],
)
def test_wrong_use_captures_nothing(arguments: tuple[str, ...], tmp_path: Path) -> None:
    output = tmp_path / "evidence.json"
    changed = tuple(str(output) if one == "x" else one for one in arguments)
    assert run(*changed)[0] == 2
    assert not output.exists()


@pytest.mark.parametrize("bound", ["fast", "NaN", "0", "-1", "1e30"])
def test_a_threshold_that_is_none_is_refused_before_any_load(bound: str, tmp_path: Path) -> None:
    output = tmp_path / "stress.json"
    code, said = run(
        "stress", "--output", str(output), "--base-url", "http://127.0.0.1:1", "--api-key", "k",
        f"--max-p95-seconds={bound}",
    )  # fmt: skip
    assert code != 0
    assert "--max-p95-seconds: invalid" in said
    assert not output.exists()


def test_tests_are_really_run_and_their_outcomes_kept(tmp_path: Path) -> None:
    failing = tmp_path / "test_planted.py"
    failing.write_text("def test_planted():\n    assert 1 == 2\n")
    checks = run_tests([MONEY, str(failing)])
    by_outcome = {check.outcome for check in checks if check.test.startswith(MONEY)}
    assert by_outcome == {"passed"}
    (planted,) = [check for check in checks if "test_planted" in check.test]
    assert planted.outcome == "failed"
    assert planted.seconds > 0


def test_a_test_that_is_not_there_is_no_evidence() -> None:
    with pytest.raises(NothingRan, match="not_there"):
        run_tests([f"{MONEY}::test_not_there"])


def test_figures_that_json_would_change_are_not_written() -> None:
    assert loads(to_json({"a": Decimal("0.1")}).encode()) == {"a": Decimal("0.1")}
    with pytest.raises(TypeError):
        to_json({"a": Decimal("0.1000000000000000055511151231257827")})
