"""Profile ``attestation``: what is deployed is what was built, signed by a pinned signer (BSAFE-014).

The evidence is a DSSE envelope around a SLSA provenance statement; ``make sbom`` writes it and the
bills of material it binds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from governance.evidence.domain import Examination
from governance.evidence.statements import StatementError, find_subject, open_envelope

PROFILE: Final = "attestation"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:valdrix:build:make-sbom:v1"
ARTIFACTS: Final = ("sbom.runtime.cdx.json", "sbom.development.cdx.json", "source.tar.sha256")
"""What a provenance manifest binds, by name, beside it in its folder."""


@dataclass(frozen=True, slots=True)
class AttestationTerms:
    """Who is trusted, and where the artifacts' digests are found.

    :ivar signers: pinned public keys in base64url, by key id.
    :ivar digest: returns the SHA-256 of an artifact by its name, None when it is not there.
    :ivar commit: the commit that is promoted; None takes any.
    """

    signers: Mapping[str, str]
    digest: Callable[[str], str | None]
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
    for name in ARTIFACTS:
        _verify_artifact(inner, statement, name, terms)
    examination.problems.extend(inner.problems)


def _verify_artifact(
    inner: Examination, statement: dict[str, object], name: str, terms: AttestationTerms
) -> None:
    try:
        stated = find_subject(statement, name)
    except StatementError as error:
        inner.refuse("/subject", "subject_ambiguous", str(error))
        return
    if stated is None:
        inner.refuse("/subject", "subject_missing", f"{name} is not among the subjects")
        return
    found = terms.digest(name)
    if found is None:
        inner.refuse("/subject", "artifact_missing", f"{name} is not beside the manifest")
    else:
        inner.same("/subject", found, stated, because=f"{name} was attested as")
