"""``manage.py verify_evidence``: exit codes, messages and what it prints for programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.core.management import CommandError, call_command

from tests.unit.governance.evidence import documents
from tests.unit.governance.evidence.documents import captured_at, edited
from tests.unit.governance.evidence.test_statements import DIGESTS, KEY, envelope


def write(path: Path, document: Any) -> str:
    path.write_bytes(orjson.dumps(document, default=float))
    return str(path)


def run(*arguments: str) -> tuple[int, str]:
    """Return the exit code and what was printed."""
    out = StringIO()
    try:
        call_command("verify_evidence", *arguments, stdout=out, stderr=out)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    return 0, out.getvalue()


def test_sound_evidence_verifies(tmp_path: Path) -> None:
    now = datetime.now(UTC).isoformat()
    path = write(tmp_path / "fi.json", edited(documents.failure_injection(), "/captured_at", now))
    code, said = run("failure_injection", "--evidence-path", path, "--max-artifact-age-hours", "48")
    assert (code, "verified" in said) == (0, True), said


def test_every_problem_is_said_with_its_pointer(tmp_path: Path) -> None:
    spoiled = edited(documents.failure_injection(), "/scenarios/1/status", "failed")
    spoiled = edited(spoiled, "/summary/overall_passed", False)
    path = write(tmp_path / "fi.json", spoiled)
    code, said = run("failure_injection", "--evidence-path", path)
    assert code == 1
    assert "/scenarios/1/status: is failed, not passed [not_passed]" in said
    assert "/summary/overall_passed" in said
    code, said = run("failure_injection", "--evidence-path", path, "--json")
    document = json.loads(said[: said.rindex("}") + 1])
    assert document["verified"] is False
    assert {"pointer", "code", "message"} == set(document["problems"][0])


def test_figures_are_compared_exactly_as_they_are_written(tmp_path: Path) -> None:
    path = write(tmp_path / "stress.json", captured_at(documents.stress(), datetime.now(UTC)))
    assert run("stress", "--evidence-path", path)[0] == 0
    code, said = run("stress", "--evidence-path", path, "--max-p95-seconds", "1.5")
    assert code == 1
    assert "/thresholds/max_p95_seconds" in said


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"\xff", b"[]"])
def test_what_is_no_document_is_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "evidence.json"
    path.write_bytes(body)
    assert run("stress", "--evidence-path", str(path))[0] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("stress", "--evidence-path", "no/such/file.json"),
        ("attestation", "--evidence-path", "pyproject.toml", "--signer", "kid=%%"),
    ],
)
def test_wrong_use_is_told_from_bad_evidence(arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("stress",), "evidence-path"),
        (("no_such_profile", "--evidence-path", "x"), "no_such_profile"),
        (("stress", "--evidence-path", "x", "--min-duration-seconds", "0"), "min-duration"),
        (("stress", "--evidence-path", "x", "--max-p95-seconds", "NaN"), "max-p95"),
        (("stress", "--evidence-path", "x", "--max-artifact-age-hours", "-1"), "max-artifact-age"),
    ],
)
def test_a_wrong_argument_is_named(arguments: tuple[str, ...], named: str) -> None:
    code, said = run(*arguments)
    assert code != 0
    assert named in said


def test_an_attestation_is_checked_against_the_files_beside_it(tmp_path: Path) -> None:
    for name in DIGESTS:
        (tmp_path / name).write_bytes(documents.BESIDE[name])
    path = write(tmp_path / "attestation.json", envelope())
    signer = f"{KEY.key_id}={KEY.public_text}"
    code, said = run("attestation", "--evidence-path", path, "--signer", signer)
    # The bills are of another project: this one's requirements pin more than they list.
    assert code == 1
    assert {line.split("[")[-1] for line in said.splitlines()[:-1]} == {"bill_mismatch]"}
    (tmp_path / next(iter(DIGESTS))).write_text("another")
    code, said = run("attestation", "--evidence-path", path, "--signer", signer)
    assert code == 1
    assert "was attested as" in said


def test_the_seed_s_spellings_of_the_path_are_taken(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    drill = captured_at(documents.key_rotation_drill(), now)
    due = now.date().replace(year=now.year + 1)
    path = write(tmp_path / "drill.json", edited(drill, "/next_drill_due_on", due.isoformat()))
    arguments = ("key_rotation_drill", "--drill-path", path, "--max-drill-age-days", "400")
    assert run(*arguments)[0] == 0, run(*arguments)[1]
