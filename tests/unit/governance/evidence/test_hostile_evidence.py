"""Evidence by who wants to break the verifier: any document is judged, and only files are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from governance.evidence.domain import MOST_PROBLEMS
from governance.evidence.junit import JunitError, count_cases
from governance.evidence.registry import PROFILES, default_terms, verify_evidence
from tests.unit.governance.evidence import documents
from tests.unit.governance.evidence.documents import build_world, edited
from tests.unit.governance.evidence.test_statements import KEY, SIGNERS, envelope
from tests.unit.governance.evidence.test_verify_command import run
from valdrix.certification.files import Unreadable, find_in, read_beside, read_bounded, read_text_in

NASTY: tuple[Any, ...] = (
    None, [], {}, [[]], [None], [7], {"x": 1}, "", -1, 10**399, True,
    Decimal("1e999999"), Decimal("1e-999999"), Decimal("-0.0"), [[1, 2]],
    "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+14:00", "9999-12-31",
    "tests/" + "a" * 5000 + ".py::test_x", "../" * 50 + "etc/passwd", "\u202e",
)  # fmt: skip


def find_kinds(value: Any, pointer: str = "") -> Iterator[str]:
    """Yield a pointer for each kind of member: the first of a list stands for the others."""
    children = value.items() if isinstance(value, dict) else enumerate(value[:1])
    for name, child in children:
        yield f"{pointer}/{name}"
        if isinstance(child, dict | list):
            yield from find_kinds(child, f"{pointer}/{name}")


@pytest.mark.parametrize("name", PROFILES)
def test_whatever_stands_anywhere_is_judged_and_breaks_nothing(name: str) -> None:
    document = envelope() if name == "attestation" else getattr(documents, name)()
    profile, world = PROFILES[name], build_world(signers=SIGNERS)
    refused = 0
    for pointer in find_kinds(document):
        for value in NASTY:
            changed = edited(document, pointer, value)
            refused += bool(verify_evidence(profile, changed, default_terms(profile), world))
    assert refused > 20


@pytest.mark.parametrize("name", sorted(set(PROFILES) - {"attestation"}))
def test_what_is_wrong_a_thousandfold_is_not_said_more_often(name: str) -> None:
    sound = getattr(documents, name)()
    wrong = {**sound, **{f"n{index}": "TBD" for index in range(5000)}}
    problems = verify_evidence(PROFILES[name], wrong, default_terms(PROFILES[name]), build_world())
    assert len(problems) <= 2 * MOST_PROBLEMS + 1
    assert {"unknown_member", "too_many", "placeholder"} & {one.code for one in problems}


def test_a_document_of_a_million_values_is_not_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    for text in ("[" + "{}," * 400_000 + "{}]", "[" + "0," * 1_000_000 + "0]"):
        path.write_text(text)
        code, said = run("stress", "--evidence-path", str(path))
        assert (code, "malformed_json" in said, len(said) < 1000) == (1, True, True), said
    path.write_text('{"runs": [' + "{}," * 3_000 + "{}]}")
    code, said = run("stress", "--evidence-path", str(path))
    assert (code, "too_many" in said) == (1, True), said


@pytest.mark.parametrize(
    ("name", "is_there"),
    [
        ("docs/architecture.md", True),
        ("enforcement/integrity", True),
        (".ci/run", True),
        ("docs/../docs/architecture.md", False),
        ("./docs/architecture.md", False),
        ("docs//architecture.md", False),
        ("docs/architecture.md/", False),
        (".", False),
        ("..", False),
        ("", False),
        ("../../etc/passwd", False),
        ("/etc/passwd", False),
        (".git/HEAD", False),
        (".venv/bin/python", False),
        ("docs/" + "a" * 5000, False),
        ("docs/a\0b", False),
    ],
)
def test_a_path_is_a_plain_name_of_what_the_project_has(name: str, is_there: bool) -> None:
    assert (find_in(Path(__file__).parents[4], name) is not None) == is_there


def test_links_lead_nowhere_but_within(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret.txt"
    root.mkdir()
    secret.write_text("secret")
    (root / "real").write_text("text")
    (root / "inside").symlink_to("real")
    (root / "outside").symlink_to(secret)
    (root / "circle").symlink_to("circle")
    (root / "nothing").symlink_to("gone")
    assert read_text_in(root, "inside") == "text"
    for name in ("outside", "circle", "nothing"):
        assert find_in(root, name) is None
        assert read_text_in(root, name) is None
    (root / "latin").write_bytes(b"caf\xe9")
    assert read_text_in(root, "latin") is None, "what is no text has no tests in it"
    assert read_text_in(root, ".") is None


def test_only_a_file_is_read_and_not_without_end(tmp_path: Path) -> None:
    pipe, huge = tmp_path / "pipe", tmp_path / "huge"
    os.mkfifo(pipe)
    with huge.open("wb") as file:
        file.truncate(10**12)
    for path in (
        pipe,
        tmp_path,
        huge,
        Path("/dev/zero"),
        tmp_path / "gone",
        tmp_path / ("a" * 5000),
    ):
        with pytest.raises(Unreadable):
            read_bounded(path, 1000)
        code, said = run("stress", "--evidence-path", str(path))
        assert (code, str(path) in said) == (2, True)
    for name in ("pipe", "gone", "..", ".", "", "sub/pipe", "a" * 5000):
        assert read_beside(tmp_path, name) is None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_no_encoding_hides_a_document_type(encoding: str) -> None:
    report = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "x">]><testcase/>'
    with pytest.raises(JunitError, match="document type"):
        count_cases(report.encode(encoding))


@pytest.mark.parametrize(
    "signers",
    [
        ["release-1=AAAA"],
        [f"={KEY.public_text}"],
        ["release-1"],
        [f"release 1={KEY.public_text}"],
        [f"release-1={KEY.public_text}", "release-1=" + "A" * 43],
    ],
)
def test_a_signer_that_is_none_is_wrong_use(signers: list[str]) -> None:
    options = [part for one in signers for part in ("--signer", one)]
    assert run("attestation", "--evidence-path", "pyproject.toml", *options)[0] == 2


def test_a_bound_that_no_clock_has_is_wrong_use() -> None:
    for text in ("1e30", "9" * 400):
        code, said = run("stress", "--evidence-path", "x", "--max-artifact-age-hours", text)
        assert code != 0
        assert "max-artifact-age" in said
