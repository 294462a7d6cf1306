"""Evidence of any profile in a signed statement: opened by a pinned key, and of one commit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from governance.evidence.registry import PROFILES, default_terms, verify_evidence
from governance.evidence.signed import SOURCE, predicate_type, sign_evidence
from governance.evidence.statements import STATEMENT_TYPE, sign_statement
from tests.unit.governance.evidence import documents
from tests.unit.governance.evidence.documents import COMMIT, build_world, captured_at, edited
from tests.unit.governance.evidence.test_statements import KEY, SIGNERS, STRANGER
from tests.unit.governance.evidence.test_verify_command import run as verify
from tests.unit.governance.evidence.test_verify_command import write
from valdrix.certification.commit import read_commit

NAMES = sorted(set(PROFILES) - {"attestation"})
SUBJECT = [{"name": SOURCE, "digest": {"gitCommit": COMMIT}}]


def sign(name: str, document: Any = None, *, key: Any = KEY) -> dict[str, Any]:
    evidence = getattr(documents, name)() if document is None else document
    return sign_evidence(evidence, profile=name, commit=COMMIT, key=key)


def state(**changed: Any) -> dict[str, Any]:
    """Return a signed statement of stress evidence with some of its members changed."""
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": SUBJECT,
        "predicateType": predicate_type("stress"),
        "predicate": documents.stress(),
    }
    changed_too = {
        name: value for name, value in {**statement, **changed}.items() if value is not ...
    }
    return sign_statement(changed_too, KEY)


def judge(name: str, envelope: Any, **world: Any) -> list[tuple[str, str]]:
    made = replace(build_world(signers=world.pop("signers", SIGNERS)), **world)
    problems = verify_evidence(PROFILES[name], envelope, default_terms(PROFILES[name]), made)
    return [(problem.pointer, problem.code) for problem in problems]


@pytest.mark.parametrize("name", NAMES)
def test_signed_evidence_verifies_as_it_does_without(name: str) -> None:
    assert judge(name, sign(name), commit=COMMIT, wants_signatures=True) == []


REFUSED: dict[str, tuple[Callable[[], Any], tuple[str, str]]] = {
    "a stranger's": (lambda: sign("stress", key=STRANGER), ("", "statement_refused")),
    "of another profile": (lambda: sign("ci_green"), ("/predicateType", "mismatch")),
    "of another type": (lambda: state(predicateType="x"), ("/predicateType", "mismatch")),
    "of nothing": (lambda: state(subject=[]), ("/subject", "subject_missing")),
    "of two commits": (lambda: state(subject=SUBJECT * 2), ("/subject", "subject_missing")),
    "of another thing": (
        lambda: state(subject=[{"name": "image", "digest": {"gitCommit": COMMIT}}]),
        ("/subject", "subject_missing"),
    ),
    "of another commit": (
        lambda: state(subject=[{"name": SOURCE, "digest": {"gitCommit": "c" * 40}}]),
        ("/subject", "mismatch"),
    ),
    "with nothing in it": (lambda: state(predicate=...), ("/predicate", "missing")),
    "with a list in it": (lambda: state(predicate=[]), ("/predicate", "not_object")),
    "in an envelope in an envelope": (
        lambda: state(predicate=sign("stress")),
        ("/predicate/profile", "missing"),
    ),
    "not good": (
        lambda: state(predicate=edited(documents.stress(), "/meets_targets", False)),
        ("/predicate/meets_targets", "mismatch"),
    ),
    "altered": (lambda: {**sign("stress"), "payload": "e30="}, ("", "statement_refused")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_statement_is_refused(name: str) -> None:
    build, problem = REFUSED[name]
    assert problem in judge("stress", build(), commit=COMMIT)


def test_nobody_s_signature_is_no_signature() -> None:
    assert judge("stress", sign("stress"), signers={}) == [("", "signer_not_pinned")]
    assert judge("stress", documents.stress(), wants_signatures=True) == [("", "not_signed")]
    for name in ("jwt_bcp", "ssdf_traceability", "post_closure_sanity"):
        assert judge(name, getattr(documents, name)(), wants_signatures=True) == []


def commit_something(root: Path) -> Path:
    """Return a new clone with one commit."""
    identity = ("-c", "user.name=ann", "-c", "user.email=ann@localhost")
    root.mkdir()
    for arguments in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "one")):
        subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True)
    return root


def run(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("sign_evidence", *arguments, stdout=out, stderr=out)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    return 0, out.getvalue()


def test_what_verifies_is_signed_as_of_the_commit_that_is_here(
    tmp_path: Path, settings: Any
) -> None:
    settings.EXPORT_SIGNING_KEY = KEY
    settings.BASE_DIR = commit_something(tmp_path / "clone")
    sound = captured_at(documents.failure_injection(), datetime.now(UTC))
    path, signed = write(tmp_path / "fi.json", sound), tmp_path / "fi.signed.json"
    arguments = ("failure_injection", "--evidence-path", path, "--output", str(signed))
    code, said = run(*arguments)
    assert (code, f"{KEY.key_id}={KEY.public_text}" in said) == (0, True), said
    assert verify("failure_injection", "--evidence-path", str(signed))[0] == 0
    here = read_commit(settings.BASE_DIR).id
    envelope = json.loads(signed.read_text())
    now = datetime.now(UTC)
    assert judge("failure_injection", envelope, commit=here, now=now) == []
    assert judge("failure_injection", envelope, commit=COMMIT, now=now) == [
        ("/subject", "mismatch")
    ]

    again = ("failure_injection", "--evidence-path", str(signed), "--output", str(signed))
    assert run(*again) == (2, f"{signed} is signed already")
    write(tmp_path / "fi.json", edited(sound, "/approved_by", "sre.executor"))
    before = signed.read_text()
    code, said = run(*arguments)
    assert (code, "nothing was signed" in said, signed.read_text()) == (1, True, before)
    (tmp_path / "fi.json").write_text("{")
    assert run(*arguments)[0] == 1
    assert run(*arguments[:-1], str(tmp_path))[0] == 2
    settings.EXPORT_SIGNING_KEY = None
    assert run(*arguments)[0] == 2
