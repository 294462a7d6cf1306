"""Profile ``ci_green``: the whole check ran on this commit, and nothing failed or was skipped.

The run's JUnit report and its log lie beside the evidence, bound by their digests; the tests are
counted again from the report.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from governance.evidence.domain import Examination
from governance.evidence.junit import JunitError, count_cases

PROFILE: Final = "ci_green"
COMMAND: Final = ".ci/run"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MEMBERS: Final = frozenset(
    {
        "profile", "command", "commit", "is_clean", "captured_at", "duration_seconds", "exit_code",
        "tests", "junit", "log",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CiTerms:
    """What a release asks of it.

    :ivar beside: returns a file that lies beside the evidence, None when it is not there.
    :ivar commit: the commit that is promoted; None takes any.
    """

    beside: Callable[[str], bytes | None]
    commit: str | None = None
    max_age: timedelta | None = None


def verify_ci_green(examination: Examination, terms: CiTerms, *, now: datetime) -> None:
    """Note everything that is wrong with the record of a green run."""
    examination.unknown_members("", _MEMBERS)
    for name, expected in (("profile", PROFILE), ("command", COMMAND)):
        examination.same(
            f"/{name}", examination.text(f"/{name}"), expected, because="this evidence has"
        )
    commit = examination.text("/commit")
    if commit is not None and not _COMMIT.fullmatch(commit):
        examination.refuse("/commit", "not_commit", "must be 40 hexadecimal digits")
    elif terms.commit is not None:
        examination.same("/commit", commit, terms.commit, because="what is promoted is")
    examination.is_true("/is_clean", because="the tree had changes that no commit has")
    examination.fresh("/captured_at", now=now, at_most=terms.max_age)
    duration = examination.number("/duration_seconds")
    if duration is not None and duration <= 0:
        examination.refuse("/duration_seconds", "not_positive", "must be above 0")
    examination.same(
        "/exit_code", examination.count("/exit_code"), 0, because="a green run ends with"
    )
    _read_bound(examination, "/log", terms)
    _verify_counts(examination, _read_bound(examination, "/junit", terms))


def _read_bound(examination: Examination, pointer: str, terms: CiTerms) -> bytes | None:
    """Return a file beside the evidence when it is there and is the one that was bound."""
    examination.unknown_members(pointer, {"name", "sha256"})
    name, digest = examination.text(f"{pointer}/name"), examination.text(f"{pointer}/sha256")
    if digest is not None and not _SHA256.fullmatch(digest):
        examination.refuse(f"{pointer}/sha256", "not_digest", "must be 64 hexadecimal digits")
        return None
    if name is None or digest is None:
        return None
    body = terms.beside(name)
    if body is None:
        examination.refuse(f"{pointer}/name", "file_missing", f"{name} is not beside the evidence")
        return None
    found = hashlib.sha256(body).hexdigest()
    examination.same(f"{pointer}/sha256", digest, found, because=f"the digest of {name} is")
    return body if found == digest else None


def _verify_counts(examination: Examination, report: bytes | None) -> None:
    stated = {name: examination.count(f"/tests/{name}") for name in ("passed", "failed", "skipped")}
    examination.unknown_members("/tests", stated)
    if stated["passed"] == 0:
        examination.refuse("/tests/passed", "empty", "no test ran")
    for name in ("failed", "skipped"):
        examination.same(f"/tests/{name}", stated[name], 0, because="a green run has")
    if report is None:
        return
    try:
        counts = count_cases(report)
    except JunitError as error:
        examination.refuse("/junit", "junit_refused", str(error))
        return
    for name, value in stated.items():
        examination.same(f"/tests/{name}", value, getattr(counts, name), because="the report has")
