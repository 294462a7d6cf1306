"""Profile ``key_rotation_drill``: a rotation that was really done, and rolled back (BSAFE-011)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from governance.evidence.domain import Examination
from governance.evidence.failure_injection import verify_two_people

PROFILE: Final = "key_rotation_drill"
RUNNER: Final = "manage.py capture_evidence key_rotation_drill"
PASSED: Final = "PASS"
OUTCOMES: Final = {
    "new_key_signs": "what is issued after the rotation names the new key",
    "fallback_verified": "a token of the former key verifies while it is kept",
    "retired_key_refused": "a token of a retired key is refused",
    "rollback_verified": "after the rollback the former key signs and verifies again",
    "replay_refused": "a token that was consumed before the rotation is refused after it",
}
"""What a drill shows, each true."""

_MEMBERS: Final = frozenset(
    {
        "profile", "runner", "executed_at", "owner", "approver", "keys", "outcomes",
        "post_drill_status", "next_drill_due_on",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeyRotationTerms:
    """What a release asks of a drill: how old it may be (seed: 120 days)."""

    max_age: timedelta = timedelta(days=120)


def verify_key_rotation(
    examination: Examination, terms: KeyRotationTerms, *, now: datetime
) -> None:
    """Note everything that is wrong with a key-rotation drill."""
    examination.unknown_members("", _MEMBERS)
    for name, expected in (("profile", PROFILE), ("runner", RUNNER)):
        examination.same(
            f"/{name}", examination.text(f"/{name}"), expected, because="this evidence has"
        )
    executed = examination.fresh("/executed_at", now=now, at_most=terms.max_age)
    verify_two_people(examination, "/owner", "/approver")
    before, after = examination.text("/keys/before"), examination.text("/keys/after")
    if before is not None and before == after:
        examination.refuse("/keys/after", "same_key", "is the key from before the rotation")
    for name, meaning in OUTCOMES.items():
        examination.is_true(f"/outcomes/{name}", because=f"a drill shows that {meaning}")
    examination.unknown_members("/outcomes", frozenset(OUTCOMES))
    examination.same(
        "/post_drill_status", examination.text("/post_drill_status"), PASSED,
        because="a drill that counts ends as",
    )  # fmt: skip
    _verify_next(examination, executed, terms, now=now)


def _verify_next(
    examination: Examination, executed: datetime | None, terms: KeyRotationTerms, *, now: datetime
) -> None:
    text = examination.text("/next_drill_due_on")
    if text is None:
        return
    try:
        due = date.fromisoformat(text)
    except ValueError:
        examination.refuse("/next_drill_due_on", "not_date", "must be a date, YYYY-MM-DD")
        return
    if executed is not None and not executed.date() < due <= (executed + terms.max_age).date():
        examination.refuse(
            "/next_drill_due_on", "out_of_range",
            f"must lie after the drill and within {terms.max_age.days} days of it",
        )  # fmt: skip
    elif due < now.date():
        examination.refuse("/next_drill_due_on", "overdue", "the next drill is overdue")
