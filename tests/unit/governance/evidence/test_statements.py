"""Signed statements and attestations: nobody's word but a pinned signer's, and only as signed."""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from governance.evidence.attestation import ARTIFACTS, BUILD_TYPE, PREDICATE_TYPE
from governance.evidence.registry import PROFILES, verify_evidence
from governance.evidence.statements import (
    StatementError,
    build_statement,
    find_subject,
    open_envelope,
    sign_statement,
)
from tests.unit.governance.evidence.documents import build_world, edited
from valdrix.kernel.canonical import canonical_bytes
from valdrix.kernel.signing import SigningKey, encode, read_signing_key

KEY = read_signing_key(key_id="release-1", seed=encode(bytes(range(32))))
STRANGER = read_signing_key(key_id="release-1", seed=encode(bytes(range(1, 33))))
SIGNERS = {KEY.key_id: KEY.public_text}
COMMIT = "a" * 40
DIGESTS = {name: hashlib.sha256(name.encode()).hexdigest() for name in ARTIFACTS}


def statement(digests: dict[str, str] | None = None) -> dict[str, Any]:
    return build_statement(
        subjects=DIGESTS if digests is None else digests,
        predicate_type=PREDICATE_TYPE,
        predicate={
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"commit": COMMIT},
            },
            "runDetails": {"builder": {"id": "release"}},
        },
    )


def envelope(signed: dict[str, Any] | None = None, key: SigningKey = KEY) -> dict[str, Any]:
    return sign_statement(statement() if signed is None else signed, key)


def with_payload(document: dict[str, Any]) -> dict[str, Any]:
    payload = base64.b64encode(canonical_bytes(document)).decode()
    return {**envelope(), "payload": payload}


REFUSED: dict[str, Callable[[], Any]] = {
    "another key under the same id": lambda: envelope(key=STRANGER),
    "another key id": lambda: edited(envelope(), "/signatures/0/keyid", "release-2"),
    "another payload": lambda: with_payload(statement({"other": "0" * 64})),
    "another payload type": lambda: {**envelope(), "payloadType": "application/json"},
    "no signature": lambda: {**envelope(), "signatures": []},
    "a signature that is none": lambda: edited(envelope(), "/signatures/0/sig", "AAAA"),
    "a signature that is no text": lambda: edited(envelope(), "/signatures/0/sig", 7),
    "a payload that is no base64": lambda: {**envelope(), "payload": "%%%"},
    "no envelope": list,
    "no statement": lambda: sign_statement({"_type": "other"}, KEY),
}


def test_what_a_trusted_signer_signed_is_read() -> None:
    assert open_envelope(envelope(), signers=SIGNERS) == statement()


def test_one_trusted_signature_among_others_is_enough() -> None:
    both = envelope(key=STRANGER)
    both["signatures"] += envelope()["signatures"]
    assert open_envelope(both, signers=SIGNERS) == statement()


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(StatementError):
        open_envelope(REFUSED[name](), signers=SIGNERS)


def test_a_payload_is_not_parsed_before_it_is_verified() -> None:
    broken = {**envelope(), "payload": base64.b64encode(b"{not json").decode()}
    with pytest.raises(StatementError, match="trusted signer"):
        open_envelope(broken, signers=SIGNERS)


def test_a_subject_that_is_named_twice_is_ambiguous() -> None:
    twice = statement()
    twice["subject"].append(copy.deepcopy(twice["subject"][0]))
    with pytest.raises(StatementError, match="one SHA-256"):
        find_subject(twice, twice["subject"][0]["name"])
    assert find_subject(twice, "another") is None


def attest(document: Any, **world: Any) -> list[tuple[str, str]]:
    problems = verify_evidence(
        PROFILES["attestation"],
        document,
        {"commit": world.pop("commit", COMMIT)},
        build_world(**{"signers": SIGNERS, "digests": DIGESTS, **world}),
    )
    return [(problem.pointer, problem.code) for problem in problems]


def test_an_attestation_of_what_is_there_verifies() -> None:
    assert attest(envelope()) == []


def test_an_attestation_is_refused() -> None:
    assert attest(envelope(), signers={}) == [("", "signer_not_pinned")]
    assert attest(envelope(key=STRANGER)) == [("", "statement_refused")]
    commit = "/predicate/buildDefinition/externalParameters/commit"
    assert attest(envelope(), commit="c" * 40) == [(commit, "mismatch")]
    changed = {**DIGESTS, ARTIFACTS[0]: "0" * 64}
    assert attest(envelope(), digests=changed) == [("/subject", "mismatch")]
    fewer = {name: digest for name, digest in DIGESTS.items() if name != ARTIFACTS[0]}
    assert attest(envelope(), digests=fewer) == [("/subject", "artifact_missing")]
    assert attest(envelope(statement(fewer))) == [("/subject", "subject_missing")]
    other = statement() | {"predicateType": "https://slsa.dev/verification_summary/v1"}
    assert attest(envelope(other)) == [("/predicateType", "mismatch")]
