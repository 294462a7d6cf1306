"""Profile ``ci_green``: the whole check ran on this commit, and nothing failed or was skipped."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from governance.evidence.domain import Examination

PROFILE: Final = "ci_green"
COMMAND: Final = ".ci/run"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MEMBERS: Final = frozenset(
    {
        "profile", "command", "commit", "is_clean", "captured_at", "duration_seconds", "exit_code",
        "tests", "log_sha256",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CiTerms:
    """What a release asks of it.

    :ivar commit: the commit that is promoted; None takes any.
    """

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
    log = examination.text("/log_sha256")
    if log is not None and not _SHA256.fullmatch(log):
        examination.refuse("/log_sha256", "not_digest", "must be 64 hexadecimal digits")
    if examination.count("/tests/passed") == 0:
        examination.refuse("/tests/passed", "empty", "no test ran")
    for name in ("failed", "skipped"):
        pointer = f"/tests/{name}"
        examination.same(pointer, examination.count(pointer), 0, because="a green run has")
