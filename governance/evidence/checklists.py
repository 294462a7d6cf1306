"""Profiles ``jwt_bcp``, ``ssdf_traceability`` and ``post_closure_sanity``: claims with their proof.

A claim names files or tests of this repository; the verifier looks that they exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from governance.evidence.domain import Examination

JWT_BCP: Final = "jwt_bcp"
JWT_CONTROLS: Final = (
    "algorithm_allow_list",
    "issuer_audience_binding",
    "explicit_token_typing",
    "temporal_claims",
    "binding_claims",
    "replay_safety",
    "rotation_compatible_verification",
)
"""What RFC 8725 asks of the approval token (BSAFE-013)."""
JWT_SOURCE: Final = "https://www.rfc-editor.org/rfc/rfc8725"
JWT_SECTIONS: Final = tuple(f"3.{number}" for number in range(1, 13))
"""Its best practices, by the sections that ask for them."""

SSDF: Final = "ssdf_traceability"
SSDF_PRACTICES: Final = (
    "PO.1", "PO.2", "PO.3", "PO.4", "PO.5", "PS.1", "PS.2", "PS.3", "PW.1", "PW.2", "PW.4", "PW.5",
    "PW.6", "PW.7", "PW.8", "PW.9", "RV.1", "RV.2", "RV.3",
)  # fmt: skip
"""The practices of NIST SP 800-218; it has no PW.3 (BSAFE-015)."""
SSDF_SOURCE: Final = "https://csrc.nist.gov/pubs/sp/800/218/final"
SSDF_STATUSES: Final = ("implemented_baseline", "partial", "planned")

SANITY: Final = "post_closure_sanity"
SANITY_DIMENSIONS: Final = (
    "concurrency",
    "observability",
    "deterministic_replay",
    "snapshot_stability",
    "export_integrity",
    "failure_modes",
    "operational_misconfiguration",
)
"""What is looked at again after a control is called done."""

_TEST_ID: Final = re.compile(r"(tests/[\w/.-]+\.py)::(test_\w+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Repository:
    """What a verifier may ask of the files that evidence names.

    :ivar read: returns the text of a file, by its path from the top; None for none.
    """

    has: Callable[[str], bool]
    read: Callable[[str], str | None]

    def has_test(self, test_id: str) -> bool:
        """Tell whether a test of this id is written down."""
        match = _TEST_ID.fullmatch(test_id)
        if match is None:
            return False
        text = self.read(match[1])
        return (
            text is not None and re.search(rf"^\s*def {match[2]}\(", text, re.MULTILINE) is not None
        )


def verify_jwt_bcp(examination: Examination, repository: Repository) -> None:
    """Note everything that is wrong with the checklist of the token's practices."""
    examination.unknown_members("", {"profile", "source", "controls"})
    _verify_head(examination, JWT_BCP, JWT_SOURCE)
    # Every control of the token is in place, or the release waits.
    _verify_claims(examination, _JWT, repository)
    _verify_sections(examination)


def verify_ssdf(examination: Examination, repository: Repository) -> None:
    """Note everything that is wrong with the map from practices to their proof."""
    examination.unknown_members("", {"profile", "source", "practices"})
    _verify_head(examination, SSDF, SSDF_SOURCE)
    _verify_claims(examination, _SSDF, repository)


def verify_sanity(examination: Examination, repository: Repository) -> None:
    """Note everything that is wrong with the second look at what was called done."""
    examination.unknown_members("", {"profile", "dimensions"})
    examination.same(
        "/profile", examination.text("/profile"), SANITY, because="this profile's name is"
    )
    rows = examination.items("/dimensions")
    _verify_ids(examination, "/dimensions", len(rows), SANITY_DIMENSIONS)
    for index in range(len(rows)):
        pointer = f"/dimensions/{index}"
        examination.unknown_members(pointer, {"id", "question", "tests"})
        examination.text(f"{pointer}/question")
        tests = examination.texts(f"{pointer}/tests")
        examination.once(f"{pointer}/tests", tests)
        for number, test in enumerate(tests):
            if not repository.has_test(test):
                examination.refuse(
                    f"{pointer}/tests/{number}", "test_missing", f"there is no test {test}"
                )


def _verify_head(examination: Examination, profile: str, source: str) -> None:
    examination.same(
        "/profile", examination.text("/profile"), profile, because="this profile's name is"
    )
    examination.same("/source", examination.text("/source"), source, because="its source is")


@dataclass(frozen=True, slots=True)
class _Claims:
    pointer: str
    required: tuple[str, ...]
    statuses: tuple[str, ...]
    members: frozenset[str]


_MEMBERS: Final = frozenset({"id", "status", "how", "evidence"})
_JWT: Final = _Claims("/controls", JWT_CONTROLS, ("implemented",), _MEMBERS | {"sections"})
_SSDF: Final = _Claims("/practices", SSDF_PRACTICES, SSDF_STATUSES, _MEMBERS)


def _verify_claims(examination: Examination, claims: _Claims, repository: Repository) -> None:
    pointer = claims.pointer
    rows = examination.items(pointer)
    _verify_ids(examination, pointer, len(rows), claims.required)
    for index in range(len(rows)):
        row = f"{pointer}/{index}"
        examination.unknown_members(row, claims.members)
        status = examination.text(f"{row}/status")
        if status is not None and status not in claims.statuses:
            allowed = ", ".join(claims.statuses)
            examination.refuse(f"{row}/status", "unknown_status", f"{status} is none of {allowed}")
        examination.text(f"{row}/how")
        may_be_empty = status == "planned"
        paths = examination.items(f"{row}/evidence", may_be_empty=may_be_empty)
        named = [examination.text(f"{row}/evidence/{number}") for number in range(len(paths))]
        examination.once(f"{row}/evidence", named)
        for number, path in enumerate(named):
            if path is not None and not _is_there(path, repository):
                examination.refuse(
                    f"{row}/evidence/{number}", "path_missing", f"there is no {path}"
                )


def _verify_sections(examination: Examination) -> None:
    """Check that the controls together keep every practice, and that each is shown by a test."""
    kept: set[str] = set()
    controls = examination.document.get("controls")
    for index in range(len(controls) if isinstance(controls, list) else 0):
        row = f"/controls/{index}"
        sections = examination.texts(f"{row}/sections")
        examination.once(f"{row}/sections", sections)
        for number, section in enumerate(sections):
            if section not in JWT_SECTIONS:
                examination.refuse(
                    f"{row}/sections/{number}", "unknown_id", f"{section} is no practice"
                )
            kept.add(section)
        shown = examination.texts(f"{row}/evidence") if examination.has(f"{row}/evidence") else []
        if shown and not any("::" in one for one in shown):
            examination.refuse(f"{row}/evidence", "test_missing", "no test shows it")
    for section in JWT_SECTIONS:
        if section not in kept:
            examination.refuse("/controls", "id_missing", f"no control keeps section {section}")


def _is_there(path: str, repository: Repository) -> bool:
    return repository.has_test(path) if "::" in path else repository.has(path)


def _verify_ids(
    examination: Examination, pointer: str, rows: int, required: Collection[str]
) -> None:
    """Check that each required id is there, once, and no other."""
    found = [examination.text(f"{pointer}/{index}/id") for index in range(rows)]
    for index, name in enumerate(found):
        if name is not None and name not in required:
            examination.refuse(f"{pointer}/{index}/id", "unknown_id", f"{name} is not one")
    examination.once(pointer, found)
    for name in required:
        if name not in found:
            examination.refuse(pointer, "id_missing", f"{name} is missing")
