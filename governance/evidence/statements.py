"""Signed statements: in-toto v1 in a DSSE envelope, verified before a byte of it is parsed.

Sources: in-toto attestation specification v1 (Statement), DSSE v1 (pre-authentication encoding).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from valdrix.kernel.canonical import canonical_bytes
from valdrix.kernel.signing import SigningKey, SigningKeyError, decode, encode, is_signed
from valdrix.kernel.strict_json import StrictJsonError, loads

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"


class StatementError(ValueError):
    """An envelope is not one, or is not signed by anybody who is trusted."""

    code = "statement_refused"


def build_statement(
    *, subjects: Mapping[str, str], predicate_type: str, predicate: Any
) -> dict[str, Any]:
    """Return a statement about artifacts.

    :param subjects: SHA-256 in hexadecimal digits, by the artifact's name.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": digest}}
            for name, digest in sorted(subjects.items())
        ],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def sign_statement(statement: dict[str, Any], key: SigningKey) -> dict[str, Any]:
    """Return the envelope of a statement, signed over its canonical bytes."""
    payload = canonical_bytes(statement)
    signature = decode(key.sign(_pre_authentication(payload)))
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key.key_id, "sig": base64.b64encode(signature).decode()}],
    }


def open_envelope(envelope: Any, *, signers: Mapping[str, str]) -> dict[str, Any]:
    """Return the statement of an envelope that a trusted signer signed.

    :param signers: public keys in base64url, by their key ids; nobody else is trusted.
    :raises StatementError: in every other case; the payload was not parsed then.
    """
    payload, signatures = _read_envelope(envelope)
    message = _pre_authentication(payload)
    if not any(_is_trusted(one, message, signers) for one in signatures):
        raise StatementError("no signature of a trusted signer is on it")
    try:
        statement = loads(payload)
    except StrictJsonError as error:
        raise StatementError(f"the payload is {error}") from None
    if not isinstance(statement, dict) or statement.get("_type") != STATEMENT_TYPE:
        raise StatementError("the payload is no in-toto statement")
    return statement


def find_subject(statement: dict[str, Any], name: str) -> str | None:
    """Return the SHA-256 that a statement binds a name to, or None.

    :raises StatementError: when it names the artifact twice or without a digest.
    """
    subjects = statement.get("subject")
    rows = [
        row
        for row in (subjects if isinstance(subjects, list) else [])
        if isinstance(row, dict) and row.get("name") == name
    ]
    if not rows:
        return None
    digest = rows[0].get("digest")
    found = digest.get("sha256") if isinstance(digest, dict) else None
    if len(rows) > 1 or not isinstance(found, str):
        raise StatementError(f"the statement does not bind {name} to one SHA-256")
    return found


def _read_envelope(envelope: Any) -> tuple[bytes, list[Any]]:
    if not isinstance(envelope, dict) or envelope.get("payloadType") != PAYLOAD_TYPE:
        raise StatementError(f"it is no envelope of {PAYLOAD_TYPE}")
    signatures = envelope.get("signatures")
    payload = _from_base64(envelope.get("payload"))
    if payload is None or not isinstance(signatures, list) or not signatures:
        raise StatementError("the envelope lacks its payload or its signatures")
    return payload, signatures


def _is_trusted(signature: Any, message: bytes, signers: Mapping[str, str]) -> bool:
    if not isinstance(signature, dict):
        return False
    key_id, raw = signature.get("keyid"), _from_base64(signature.get("sig"))
    public = signers.get(key_id) if isinstance(key_id, str) else None
    if public is None or raw is None:
        return False
    try:
        return is_signed(message, signature=encode(raw), public_text=public)
    except SigningKeyError:
        return False


def _from_base64(text: Any) -> bytes | None:
    """Return what a text stands for, in either alphabet (DSSE v1); None for another spelling of it."""
    if not isinstance(text, str):
        return None
    standard = text.replace("-", "+").replace("_", "/")
    if standard != text and ("+" in text or "/" in text):
        return None
    try:
        raw = base64.b64decode(standard.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        return None
    return raw if base64.b64encode(raw).decode() == standard else None


def _pre_authentication(payload: bytes) -> bytes:
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
