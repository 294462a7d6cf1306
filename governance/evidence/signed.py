"""Evidence of any profile in a signed statement: who vouches for it, and of which commit it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from governance.evidence.domain import Problem
from governance.evidence.statements import (
    STATEMENT_TYPE,
    StatementError,
    open_envelope,
    sign_statement,
)
from valdrix.kernel.signing import SigningKey

SOURCE: Final = "source"
_ENVELOPE: Final = frozenset({"payloadType", "payload", "signatures"})


def predicate_type(profile: str) -> str:
    """Return the name of a profile's evidence as a statement's predicate."""
    return f"urn:valdrix:evidence:{profile}:v1"


def sign_evidence(document: Any, *, profile: str, commit: str, key: SigningKey) -> dict[str, Any]:
    """Return evidence in an envelope, signed as being of a commit.

    :raises NotCanonicalError: when it holds what has no canonical form.
    """
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": SOURCE, "digest": {"gitCommit": commit}}],
        "predicateType": predicate_type(profile),
        "predicate": document,
    }
    return sign_statement(statement, key)


def is_envelope(document: Any) -> bool:
    """Tell whether a document is meant as an envelope."""
    return isinstance(document, dict) and document.keys() >= _ENVELOPE


def open_evidence(
    envelope: Any, *, profile: str, commit: str | None, signers: Mapping[str, str]
) -> tuple[Any, list[Problem]]:
    """Return the evidence in an envelope and what is wrong with the statement around it.

    None for the evidence when nobody who is trusted signed it: then it was not even parsed.

    :param commit: the commit that is promoted; None takes any.
    """
    if not signers:
        return None, [Problem("", "signer_not_pinned", "no signer is pinned")]
    try:
        statement = open_envelope(envelope, signers=signers)
    except StatementError as error:
        return None, [Problem("", "statement_refused", str(error))]
    problems = []
    if statement.get("predicateType") != predicate_type(profile):
        told = f"is not {predicate_type(profile)}"
        problems.append(Problem("/predicateType", "mismatch", told))
    found = _find_commit(statement.get("subject"))
    if found is None:
        problems.append(Problem("/subject", "subject_missing", "is not the source of one commit"))
    elif commit is not None and found != commit:
        told = f"is the source of {found}, and what is promoted is {commit}"
        problems.append(Problem("/subject", "mismatch", told))
    return statement.get("predicate"), problems


def _find_commit(subjects: Any) -> str | None:
    """Return the commit that a statement is about, None unless it is about exactly one."""
    if not isinstance(subjects, list) or len(subjects) != 1 or not isinstance(subjects[0], dict):
        return None
    digest = subjects[0].get("digest")
    commit = digest.get("gitCommit") if isinstance(digest, dict) else None
    return commit if isinstance(commit, str) and subjects[0].get("name") == SOURCE else None
