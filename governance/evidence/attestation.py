"""Profile ``attestation``: what is deployed is what was built, signed by a pinned signer (BSAFE-014).

The evidence is a DSSE envelope around a SLSA provenance statement; ``make sbom`` writes it and the
bills of material it binds. Signed or not, a bill has to list what the requirements pin, and the source's
digest has to be that of the commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from governance.evidence.domain import Examination
from governance.evidence.materials import (
    BILLS,
    SOURCE,
    MaterialsError,
    compare,
    read_bill,
    read_pins,
    state_source,
)
from governance.evidence.statements import StatementError, find_subject, open_envelope

PROFILE: Final = "attestation"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:valdrix:build:make-sbom:v1"
ARTIFACTS: Final = (*BILLS, SOURCE)
"""What a provenance manifest binds, by name, beside it in its folder."""


@dataclass(frozen=True, slots=True)
class AttestationTerms:
    """Who is trusted, and where the artifacts and what they are made of are found.

    :ivar signers: pinned public keys in base64url, by key id.
    :ivar beside: returns an artifact by its name, None when it is not there.
    :ivar read: returns a file of the repository, None when it is not there.
    :ivar source: returns the SHA-256 of a commit's source, None when the commit is not here.
    :ivar commit: the commit that is promoted; None takes any.
    """

    signers: Mapping[str, str]
    beside: Callable[[str], bytes | None]
    read: Callable[[str], str | None]
    source: Callable[[str], str | None]
    commit: str | None = None


def verify_attestation(examination: Examination, terms: AttestationTerms) -> None:
    """Note everything that is wrong with an attestation: its signature first of all."""
    if not terms.signers:
        examination.refuse("", "signer_not_pinned", "no signer is pinned")
        return
    try:
        statement = open_envelope(examination.document, signers=terms.signers)
    except StatementError as error:
        examination.refuse("", "statement_refused", str(error))
        return
    inner = Examination(statement)
    inner.same(
        "/predicateType", inner.text("/predicateType"), PREDICATE_TYPE, because="provenance is"
    )
    definition = "/predicate/buildDefinition"
    inner.same(
        f"{definition}/buildType", inner.text(f"{definition}/buildType"), BUILD_TYPE,
        because="this project is built as",
    )  # fmt: skip
    commit = inner.text(f"{definition}/externalParameters/commit")
    inner.same(
        f"{definition}/externalParameters/commit", commit, terms.commit,
        because="what is promoted is",
    )  # fmt: skip
    inner.text("/predicate/runDetails/builder/id")
    artifacts = {name: _read_artifact(inner, statement, name, terms) for name in ARTIFACTS}
    for name, requirements in BILLS.items():
        _verify_bill(inner, (name, artifacts[name]), requirements, terms)
    source = None if commit is None else terms.source(commit)
    if source is not None and artifacts[SOURCE] not in {None, state_source(source)}:
        inner.refuse("/subject", "source_mismatch", f"the source of {commit} has another digest")
    examination.problems.extend(inner.problems)


def _read_artifact(
    inner: Examination, statement: dict[str, object], name: str, terms: AttestationTerms
) -> bytes | None:
    """Return an artifact when it is there and is the one that was attested."""
    try:
        stated = find_subject(statement, name)
    except StatementError as error:
        inner.refuse("/subject", "subject_ambiguous", str(error))
        return None
    if stated is None:
        inner.refuse("/subject", "subject_missing", f"{name} is not among the subjects")
        return None
    body = terms.beside(name)
    if body is None:
        inner.refuse("/subject", "artifact_missing", f"{name} is not beside the manifest")
        return None
    found = hashlib.sha256(body).hexdigest()
    inner.same("/subject", found, stated, because=f"{name} was attested as")
    return body if found == stated else None


def _verify_bill(
    inner: Examination,
    bill: tuple[str, bytes | None],
    requirements: str,
    terms: AttestationTerms,
) -> None:
    """Check that an attested bill lists what this repository's requirements pin, and no more."""
    name, body = bill
    if body is None:
        return
    try:
        differences = compare(read_bill(body), read_pins(requirements, terms.read))
    except MaterialsError as error:
        inner.refuse("/subject", "bill_refused", f"{name}: {error}")
        return
    for difference in differences:
        inner.refuse("/subject", "bill_mismatch", f"{name}: {difference}")
