"""``capture_evidence key_rotation_drill``: what it records happened, and its verifier takes it."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from governance.evidence.registry import PROFILES, default_terms
from governance.models import TokenKey
from tests.serving import serve_application
from valdrix.kernel.strict_json import loads
from valdrix.management.commands.verify_evidence import build_world, verify_file


def run(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("capture_evidence", "key_rotation_drill", *arguments, stdout=out, stderr=out)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    return 0, out.getvalue()


def test_keys_are_really_rotated_and_the_evidence_verifies(database: None, tmp_path: Path) -> None:
    path = tmp_path / "drill.json"
    with serve_application() as address:
        code, said = run(
            "--output", str(path), "--owner", "ann", "--approver", "ben", "--base-url", address
        )  # fmt: skip
    assert code == 0, said
    profile = PROFILES["key_rotation_drill"]
    world = build_world(path, [])
    assert verify_file(profile, path.read_bytes(), default_terms(profile), world) == []

    document = loads(path.read_bytes())
    keys = {key.kid: key for key in TokenKey.objects.all()}
    assert keys[document["keys"]["before"]].retired_at is not None, "it was retired in truth"
    assert keys[document["keys"]["after"]].retired_at is None
    rotated = [step["kid"] for step in document["steps"] if step["did"] == "rotated"]
    assert len(rotated) == 2
    assert set(rotated) <= set(keys)
    answers = [(one["status"], one.get("code")) for one in document["steps"] if "status" in one]
    assert set(answers) == {
        (200, None), (401, "approval_token_invalid"), (409, "approval_token_replayed"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--owner", "ann", "--approver", "Ann "), 2, "two people"),
        (("--owner", "ann", "--approver", "ben", "--next-in-days", "121"), 2, "1 to 120"),
        (("--owner", "ann", "--approver", "ben", "--base-url", "ftp://a"), 2, "no http"),
        (("--owner", "a", "--approver", "b", "--base-url", "http://127.0.0.1:1"), 1, "stopped"),
    ],
)
def test_wrong_use_captures_nothing(
    database: None, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    path = tmp_path / "drill.json"
    found, text = run("--output", str(path), *arguments)
    assert (found, said in text) == (code, True), text
    assert not path.exists()
