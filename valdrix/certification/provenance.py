"""Capturing ``attestation`` evidence: bills of materials, the source's digest, and a signed statement."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from governance.evidence.attestation import ARTIFACTS, BUILD_TYPE, PREDICATE_TYPE
from governance.evidence.materials import BILLS, SOURCE, MaterialsError, read_pins, state_source
from governance.evidence.statements import build_statement, sign_statement
from valdrix.certification.commit import Commit, find_source_digest, is_clean, read_commit
from valdrix.certification.output import claim_output
from valdrix.certification.sbom import build_bill
from valdrix.kernel.signing import SigningKey

BUILDER: Final = "urn:valdrix:builder:make-sbom"


@dataclass(frozen=True, slots=True)
class AttestationOrder:
    """What is attested, and who signs.

    :ivar folder: where the artifacts are written; the evidence belongs beside them.
    :ivar builder: who built, as the statement names it.
    """

    folder: Path
    key: SigningKey
    builder: str = BUILDER


def capture_attestation(
    order: AttestationOrder, *, clock: Callable[[], datetime], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Write the artifacts of the commit that is checked out, and return the signed statement.

    :param tell: called with a line of progress.
    :raises NoCommit: when this is no clone.
    :raises MaterialsError: when files differ from the commit, or the environment from the pins.
    :raises OutputRefused: when an artifact cannot be written, or somebody else writes it.
    :raises OutputFailed: when the disk does not take it.
    """
    root: Path = settings.BASE_DIR
    commit, started_at = read_commit(root), clock()
    if not is_clean(root):
        raise MaterialsError("files differ from the commit: commit them, or put them back")
    artifacts = _build_artifacts(root, commit)
    for name, body in artifacts.items():
        with claim_output(order.folder / name) as place:
            place.write(body)
        tell(f"{order.folder / name}: {len(body)} bytes")
    statement = build_statement(
        subjects={name: hashlib.sha256(artifacts[name]).hexdigest() for name in ARTIFACTS},
        predicate_type=PREDICATE_TYPE,
        predicate={
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"commit": commit.id},
                "resolvedDependencies": [
                    {
                        "name": "source",
                        "digest": {"gitCommit": commit.id, "gitTree": commit.tree},
                    }
                ],
            },
            "runDetails": {
                "builder": {"id": order.builder},
                "metadata": {
                    "startedOn": started_at.isoformat(),
                    "finishedOn": clock().isoformat(),
                },
            },
        },
    )
    return sign_statement(statement, order.key)


def _build_artifacts(root: Path, commit: Commit) -> dict[str, bytes]:
    digest = find_source_digest(root, commit.id)
    assert digest is not None, "it was read just now"
    artifacts = {SOURCE: state_source(digest)}
    for name, requirements in BILLS.items():
        bill = build_bill(
            name,
            read_pins(requirements, lambda file: (root / file).read_text()),
            version=str(settings.SPECTACULAR_SETTINGS["VERSION"]),
            commit=commit.id,
            at=commit.committed_at,
        )
        artifacts[name] = (json.dumps(bill, indent=1) + "\n").encode()
    return artifacts
