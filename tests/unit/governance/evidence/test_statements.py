"""Signed statements and attestations: nobody's word but a pinned signer's, and only as signed."""

from __future__ import annotations

import base64
import copy
import json
import string
from collections.abc import Callable
from typing import Any

import pytest

from governance.evidence.attestation import ARTIFACTS, BUILD_TYPE, PREDICATE_TYPE
from governance.evidence.registry import PROFILES, verify_evidence
from governance.evidence.statements import (
    PAYLOAD_TYPE,
    StatementError,
    build_statement,
    find_subject,
    open_envelope,
    sign_statement,
)
from tests.unit.governance.evidence.documents import (
    BESIDE,
    COMMIT,
    build_bill,
    build_world,
    edited,
    sha256,
)
from valdrix.kernel.canonical import canonical_bytes
from valdrix.kernel.signing import SigningKey, decode, encode, read_signing_key

KEY = read_signing_key(key_id="release-1", seed=encode(bytes(range(32))))
STRANGER = read_signing_key(key_id="release-1", seed=encode(bytes(range(1, 33))))
SIGNERS = {KEY.key_id: KEY.public_text}
DIGESTS = {name: sha256(BESIDE[name]) for name in ARTIFACTS}


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


def signed_over(message: bytes) -> dict[str, Any]:
    """Return the usual envelope with a signature over some other message."""
    signature = base64.b64encode(decode(KEY.sign(message))).decode()
    return edited(envelope(), "/signatures/0/sig", signature)


def signed(payload: bytes) -> dict[str, Any]:
    """Return the envelope of any payload, rightly signed."""
    made = signed_over(encode_before(payload))
    return {**made, "payload": base64.b64encode(payload).decode()}


def encode_before(payload: bytes, kind: bytes = PAYLOAD_TYPE.encode(), more: int = 0) -> bytes:
    """Return what DSSE signs, of another type or with another length where a test wants that."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload) + more, payload)


def respelled(pointer: str, spell: Callable[[str], str]) -> dict[str, Any]:
    """Return an envelope whose base64 text at a pointer is spelled in another way."""
    document = envelope()
    text = document["payload"] if pointer == "/payload" else document["signatures"][0]["sig"]
    assert spell(text) != text
    return edited(document, pointer, spell(text))


def to_another_tail(text: str) -> str:
    """Return a text whose last digit has bits that stand for nothing."""
    digits = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    stem = text.rstrip("=")
    return stem[:-1] + digits[digits.index(stem[-1]) + 1] + text[len(stem) :]


PAYLOAD = canonical_bytes(statement())
SIG = "/signatures/0/sig"


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
    "a signature over the payload alone": lambda: signed_over(PAYLOAD),
    "a signature over the payload's text": lambda: signed_over(
        encode_before(base64.b64encode(PAYLOAD))
    ),
    "a signature of another payload type": lambda: signed_over(
        encode_before(PAYLOAD, b"application/json")
    ),
    "a signature of another length": lambda: signed_over(encode_before(PAYLOAD, more=1)),
    "a signature over nothing": lambda: signed_over(b""),
    "a key id that is no text": lambda: edited(envelope(), "/signatures/0/keyid", 7),
    "no key id": lambda: edited(envelope(), "/signatures/0/keyid", ...),
    "signatures that are no list": lambda: {
        **envelope(),
        "signatures": envelope()["signatures"][0],
    },
    "a payload with a line break": lambda: respelled(
        "/payload", lambda one: one[:8] + "\n" + one[8:]
    ),
    "a payload with more padding": lambda: respelled("/payload", lambda one: one + "="),
    "a payload with a blank": lambda: respelled("/payload", lambda one: one + " "),
    "a payload of both alphabets": lambda: {**envelope(), "payload": "+_+_"},
    "a signature without its padding": lambda: respelled(SIG, lambda one: one.rstrip("=")),
    "a signature with bits too many": lambda: respelled(SIG, to_another_tail),
    "signed, a key twice": lambda: signed(PAYLOAD[:-1] + b',"_type":"x"}'),
    "signed, NaN": lambda: signed(PAYLOAD[:-1] + b',"a":NaN}'),
    "signed, nested without end": lambda: signed(b"[" * 5000 + b"]" * 5000),
    "signed, no UTF-8": lambda: signed(b"\xff"),
    "signed, nothing": lambda: signed(b""),
    "signed, a list": lambda: signed(b"[]"),
    "no envelope": list,
    "no statement": lambda: sign_statement({"_type": "other"}, KEY),
}


def test_what_a_trusted_signer_signed_is_read() -> None:
    assert open_envelope(envelope(), signers=SIGNERS) == statement()


def test_one_trusted_signature_among_others_is_enough() -> None:
    both = envelope(key=STRANGER)
    both["signatures"] += envelope()["signatures"]
    assert open_envelope(both, signers=SIGNERS) == statement()


def test_a_statement_is_read_in_either_alphabet_of_base64() -> None:
    """DSSE allows both, and other tools write the other one."""
    noisy = {**statement(), "predicate": {"note": "\u00ff\u00bf" * 40}}
    usual = envelope(noisy)
    spelt = json.loads(json.dumps(usual).replace("+", "-"))
    spelt["payload"] = spelt["payload"].replace("/", "_")
    spelt["signatures"][0]["sig"] = spelt["signatures"][0]["sig"].replace("/", "_")
    spelt["payloadType"] = usual["payloadType"]
    assert (spelt["payload"], spelt["signatures"]) != (usual["payload"], usual["signatures"])
    assert open_envelope(spelt, signers=SIGNERS) == noisy


def test_many_signatures_of_strangers_hide_nothing() -> None:
    crowd = envelope()
    crowd["signatures"] = envelope(key=STRANGER)["signatures"] * 500
    with pytest.raises(StatementError):
        open_envelope(crowd, signers=SIGNERS)
    crowd["signatures"] += envelope()["signatures"]
    assert open_envelope(crowd, signers=SIGNERS) == statement()


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
        build_world(**{"signers": SIGNERS, **world}),
    )
    return [(problem.pointer, problem.code) for problem in problems]


def test_an_attestation_of_what_is_there_verifies() -> None:
    assert attest(envelope()) == []


def test_an_attestation_is_refused() -> None:
    assert attest(envelope(), signers={}) == [("", "signer_not_pinned")]
    assert attest(envelope(key=STRANGER)) == [("", "statement_refused")]
    commit = "/predicate/buildDefinition/externalParameters/commit"
    assert attest(envelope(), commit="c" * 40) == [(commit, "mismatch")]
    fewer = {name: digest for name, digest in DIGESTS.items() if name != ARTIFACTS[0]}
    assert attest(envelope(statement(fewer))) == [("/subject", "subject_missing")]
    other = statement() | {"predicateType": "https://slsa.dev/verification_summary/v1"}
    assert attest(envelope(other)) == [("/predicateType", "mismatch")]


def beside(**changed: Any) -> dict[str, bytes]:
    """Return the artifacts with some of them changed, by their position; None takes one away."""
    files = dict(BESIDE)
    for name, body in zip(
        ARTIFACTS, (changed.get(f"a{one}", ...) for one in range(3)), strict=True
    ):
        if body is None:
            del files[name]
        elif body is not ...:
            files[name] = body
    return files


def attest_resigned(files: dict[str, bytes]) -> list[tuple[str, str]]:
    """Sign whatever the files are: who holds the key can sign anything, and cannot make it true."""
    digests = {name: sha256(files[name]) for name in ARTIFACTS if name in files}
    return attest(envelope(statement(digests)), beside=files)


BILL: dict[str, Any] = json.loads(BESIDE[ARTIFACTS[0]])


def bill(pointer: str, value: Any) -> bytes:
    return json.dumps(edited(BILL, pointer, value)).encode()


UNTRUE: dict[str, tuple[dict[str, bytes], str]] = {
    "a component less": (beside(a0=bill("/components/0", ...)), "bill_mismatch"),
    "a component more": (
        beside(a0=build_bill({"Django": "5.2.19", "celery": "5.7.0", "evil": "1"})),
        "bill_mismatch",
    ),
    "another version": (
        beside(a0=build_bill({"Django": "5.2.18", "celery": "5.7.0"})),
        "bill_mismatch",
    ),
    "no component": (beside(a0=bill("/components", [])), "bill_mismatch"),
    "components that are none": (beside(a0=bill("/components", "many")), "bill_mismatch"),
    "a component twice": (
        beside(a0=bill("/components/1", BILL["components"][0])),
        "bill_refused",
    ),
    "a package URL of another version": (
        beside(a0=bill("/components/0/purl", "pkg:pypi/django@5.2.18")),
        "bill_refused",
    ),
    "a package URL of another registry": (
        beside(a0=bill("/components/0/purl", "pkg:npm/django@5.2.19")),
        "bill_refused",
    ),
    "no package URL": (beside(a0=bill("/components/0/purl", ...)), "bill_refused"),
    "another format": (beside(a0=bill("/bomFormat", "SPDX")), "bill_refused"),
    "another version of the format": (beside(a0=bill("/specVersion", "1.2")), "bill_refused"),
    "no JSON": (beside(a0=b"{"), "bill_refused"),
    "the development bill without what it runs on": (
        beside(a1=build_bill({"pytest": "9.2.0"})),
        "bill_mismatch",
    ),
    "the runtime bill as the development one": (
        beside(a1=BESIDE[ARTIFACTS[0]]),
        "bill_mismatch",
    ),
    "the source of another commit": (
        beside(a2=b"6" * 64 + b"  source.tar\n"),
        "source_mismatch",
    ),
    "no digest of a source": (beside(a2=b""), "source_mismatch"),
}


@pytest.mark.parametrize("name", UNTRUE)
def test_what_is_untrue_is_refused_though_the_pinned_signer_signed_it(name: str) -> None:
    files, code = UNTRUE[name]
    assert code in {one for _, one in attest_resigned(files)}


@pytest.mark.parametrize("number", range(3))
def test_an_artifact_is_the_one_that_was_attested_or_none(number: int) -> None:
    other, gone = beside(**{f"a{number}": b"{}"}), beside(**{f"a{number}": None})
    assert attest(envelope(), beside=other) == [("/subject", "mismatch")]
    assert attest(envelope(), beside=gone) == [("/subject", "artifact_missing")]


@pytest.mark.parametrize("position", range(0, 64, 4))
def test_a_signature_holds_for_its_every_byte(position: int) -> None:
    spoiled = envelope()
    raw = bytearray(base64.b64decode(spoiled["signatures"][0]["sig"]))
    raw[position] ^= 1
    spoiled["signatures"][0]["sig"] = base64.b64encode(raw).decode()
    assert attest(spoiled) == [("", "statement_refused")]


@pytest.mark.parametrize("part", range(16))
def test_a_payload_holds_for_its_every_byte(part: int) -> None:
    spoiled = envelope()
    raw = bytearray(base64.b64decode(spoiled["payload"]))
    raw[part * len(raw) // 16] ^= 1
    assert attest({**spoiled, "payload": base64.b64encode(raw).decode()}) == [
        ("", "statement_refused")
    ]


def test_a_commit_that_is_not_here_has_no_source_to_compare() -> None:
    elsewhere = statement()
    parameters = elsewhere["predicate"]["buildDefinition"]["externalParameters"]
    parameters["commit"] = "d" * 40
    assert attest(envelope(elsewhere), commit="") == []
