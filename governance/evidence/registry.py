"""The registry: every profile of evidence, what it asks on the command line, and its verifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, Final

from governance.evidence.attestation import PROFILE as ATTESTATION
from governance.evidence.attestation import AttestationTerms, verify_attestation
from governance.evidence.checklists import (
    Repository,
    verify_jwt_bcp,
    verify_sanity,
    verify_ssdf,
)
from governance.evidence.ci_green import CiTerms, verify_ci_green
from governance.evidence.domain import (
    MOST_PROBLEMS,
    Examination,
    Problem,
    find_placeholders,
)
from governance.evidence.failure_injection import FailureInjectionTerms, verify_failure_injection
from governance.evidence.key_rotation import KeyRotationTerms, verify_key_rotation
from governance.evidence.signed import is_envelope, open_evidence
from governance.evidence.stress import StressTerms, verify_stress
from governance.evidence.telemetry import FULL, MINIMAL, TelemetryTerms, verify_telemetry


@dataclass(frozen=True, slots=True)
class World:
    """What a verifier may know beside the evidence.

    :ivar signers: pinned public keys in base64url, by key id.
    :ivar beside: returns a file that lies beside the evidence, None when it is not there.
    :ivar source: returns the SHA-256 of the source of a commit, None when the commit is not here.
    :ivar commit: the commit that is promoted, which signed evidence has to be of; None takes any.
    :ivar wants_signatures: whether what was captured has to be signed.
    """

    now: datetime
    repository: Repository
    signers: Mapping[str, str]
    beside: Callable[[str], bytes | None]
    source: Callable[[str], str | None]
    commit: str | None = None
    wants_signatures: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """One term that may be set on the command line.

    :ivar name: as the terms and, with dashes, the command line spell it.
    :ivar default: also says the type; None for a term that has none.
    """

    name: str
    help: str
    default: int | Decimal | str | None = None
    choices: tuple[str, ...] | None = None

    @property
    def option(self) -> str:
        """Return the flag's spelling on the command line."""
        return "--" + self.name.replace("_", "-")


Terms = Mapping[str, Any]
Verify = Callable[[Examination, Terms, World], None]


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of evidence.

    :ivar template: a document of its shape that never verifies, below docs/ops/evidence/.
    :ivar path_aliases: other spellings of ``--evidence-path``.
    :ivar is_kept: whether it lies in the repository, and so is as trustworthy as the commit.
    """

    name: str
    says: str
    verify: Verify
    template: str
    flags: tuple[Flag, ...] = ()
    path_aliases: tuple[str, ...] = ()
    is_kept: bool = False


MOST: Final = 10**6
"""The highest bound that a term takes: hours, days, seconds, users or requests a second."""
_STRESS: Final = StressTerms()
_MAX_AGE: Final = Flag("max_artifact_age_hours", "how old the evidence may be; any age without it")
_COMMIT: Final = Flag("commit", "the commit that is promoted; any without it", "")

PROFILES: Final = {
    profile.name: profile
    for profile in (
        Profile(
            "stress",
            "real load over HTTP was answered within the thresholds",
            lambda examination, terms, world: verify_stress(
                examination, _stress_terms(terms), now=world.now
            ),
            "enforcement_stress_artifact_TEMPLATE.json",
            (
                Flag("min_duration_seconds", "floor of a round", _STRESS.min_duration_seconds),
                Flag("min_concurrent_users", "floor of users", _STRESS.min_concurrent_users),
                Flag(
                    "required_database_engine",
                    "what /health must have said",
                    _STRESS.required_database_engine,
                ),
                Flag("max_p95_seconds", "threshold", _STRESS.max_p95_seconds),
                Flag("max_error_rate_percent", "threshold", _STRESS.max_error_rate_percent),
                Flag("min_throughput_rps", "threshold", _STRESS.min_throughput_rps),
                _MAX_AGE,
            ),
        ),
        Profile(
            "failure_injection",
            "the five failure scenarios were really run, by two people",
            lambda examination, terms, world: verify_failure_injection(
                examination, FailureInjectionTerms(_age(terms)), now=world.now
            ),
            "enforcement_failure_injection_TEMPLATE.json",
            (_MAX_AGE,),
        ),
        Profile(
            "key_rotation_drill",
            "the token's keys were really rotated, and rolled back",
            lambda examination, terms, world: verify_key_rotation(
                examination,
                KeyRotationTerms(timedelta(days=terms["max_drill_age_days"])),
                now=world.now,
            ),
            "key_rotation_drill_TEMPLATE.json",
            (Flag("max_drill_age_days", "how old a drill may be", 120),),
            ("--drill-path",),
        ),
        Profile(
            "jwt_bcp",
            "the approval token keeps RFC 8725",
            lambda examination, terms, world: verify_jwt_bcp(examination, world.repository),
            "jwt_bcp_checklist_TEMPLATE.json",
            path_aliases=("--checklist-path",),
            is_kept=True,
        ),
        Profile(
            "ssdf_traceability",
            "each practice of NIST SP 800-218 has its proof, or says that it has none",
            lambda examination, terms, world: verify_ssdf(examination, world.repository),
            "ssdf_traceability_matrix_TEMPLATE.json",
            path_aliases=("--matrix-path",),
            is_kept=True,
        ),
        Profile(
            "ci_green",
            "the whole check ran on the commit; nothing failed or was skipped",
            lambda examination, terms, world: verify_ci_green(
                examination,
                CiTerms(world.beside, terms["commit"] or None, _age(terms)),
                now=world.now,
            ),
            "ci_green_TEMPLATE.json",
            (_COMMIT, _MAX_AGE),
        ),
        Profile(
            "attestation",
            "what is deployed is what a pinned signer built",
            lambda examination, terms, world: verify_attestation(
                examination,
                AttestationTerms(
                    world.signers,
                    world.beside,
                    world.repository.read,
                    world.source,
                    terms["commit"] or None,
                ),
            ),
            "attestation_TEMPLATE.json",
            (_COMMIT,),
        ),
        Profile(
            "post_closure_sanity",
            "what was called done was looked at again, by tests that exist",
            lambda examination, terms, world: verify_sanity(examination, world.repository),
            "post_closure_sanity_TEMPLATE.json",
            path_aliases=("--doc-path",),
            is_kept=True,
        ),
        Profile(
            "telemetry_c1",
            "the telemetry plane was broken in every way, and truth held",
            lambda examination, terms, world: verify_telemetry(
                examination, TelemetryTerms(terms["failure_matrix"], _age(terms)), now=world.now
            ),
            "telemetry_c1_TEMPLATE.json",
            (Flag("failure_matrix", "which matrix is enough", FULL, (FULL, MINIMAL)), _MAX_AGE),
        ),
    )
}
"""Every profile, by its name."""


def verify_evidence(profile: Profile, document: Any, terms: Terms, world: World) -> list[Problem]:
    """Return everything that is wrong with a document as evidence of a profile.

    Evidence in an envelope is opened first; then pointers are the statement's.

    :param terms: a value for each of the profile's flags, by its name.
    """
    if profile.name == ATTESTATION:
        return _verify(profile, document, terms, world)
    if not is_envelope(document):
        problems = _verify(profile, document, terms, world)
        if world.wants_signatures and not profile.is_kept:
            problems.append(Problem("", "not_signed", "is in no signed statement"))
        return problems
    evidence, problems = open_evidence(
        document, profile=profile.name, commit=world.commit, signers=world.signers
    )
    if evidence is None:
        return problems or [Problem("/predicate", "missing", "is missing")]
    found = _verify(profile, evidence, terms, world)
    return problems + [replace(one, pointer=f"/predicate{one.pointer}") for one in found]


def _verify(profile: Profile, document: Any, terms: Terms, world: World) -> list[Problem]:
    if not isinstance(document, dict):
        return [Problem("", "not_object", "must be a JSON object")]
    examination = Examination(document)
    profile.verify(examination, terms, world)
    # A figure that several others are compared with is read several times.
    placeholders = islice(find_placeholders(document), MOST_PROBLEMS)
    return list(dict.fromkeys([*examination.problems, *placeholders]))


def default_terms(profile: Profile) -> dict[str, Any]:
    """Return the terms of a profile when nothing is set on the command line."""
    return {flag.name: flag.default for flag in profile.flags}


def _age(terms: Terms) -> timedelta | None:
    hours = terms["max_artifact_age_hours"]
    return None if hours is None else timedelta(hours=float(hours))


def _stress_terms(terms: Terms) -> StressTerms:
    values = {name: value for name, value in terms.items() if name != "max_artifact_age_hours"}
    return StressTerms(**values, max_age=_age(terms))
