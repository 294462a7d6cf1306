"""Profile ``key_rotation_drill``: a rotation that was really done, and rolled back (BSAFE-011).

A drill keeps every step it did with the answer it got. The verifier walks through them with the
rules that keys and tokens have: each answer has to be the one that the rules give, and each outcome
has to follow from the steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

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
        "post_drill_status", "next_drill_due_on", "steps",
    }
)  # fmt: skip
_STEP_MEMBERS: Final = frozenset({"did", "kid", "at", "token", "status", "code"})

ROTATED: Final = "rotated"
RETIRED: Final = "retired"
ISSUED: Final = "issued"
PRESENTED: Final = "presented"
DEEDS: Final = (ROTATED, RETIRED, ISSUED, PRESENTED)
"""What a step does: to a key, or with a token."""
_LONGEST_DRILL: Final = timedelta(days=1)
_ACCEPTED: Final = (200, None)
_NO_TOKEN: Final = (401, "approval_token_invalid")
_REPLAYED: Final = (409, "approval_token_replayed")


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
    examination.unknown_members("/keys", {"before", "after"})
    before, after = examination.text("/keys/before"), examination.text("/keys/after")
    if before is not None and before == after:
        examination.refuse("/keys/after", "same_key", "is the key from before the rotation")
    _verify_outcomes(examination, _walk(examination))
    examination.same(
        "/post_drill_status", examination.text("/post_drill_status"), PASSED,
        because="a drill that counts ends as",
    )  # fmt: skip
    _verify_next(examination, executed, terms, now=now)
    _verify_moments(examination, executed)


def find_shown(steps: list[dict[str, Any]]) -> frozenset[str]:
    """Return the outcomes that steps show, as far as each got the answer that the rules give."""
    return frozenset(_walk(Examination({"steps": steps})).shown)


@dataclass(slots=True)
class _Walk:
    """What is so after the steps up to here.

    :ivar keys: ids of keys that are not retired, the one that signs last.
    :ivar tokens: the key id of each token, by its name.
    :ivar spent: names of tokens that were accepted, each with the rotations that were before.
    """

    keys: list[str] = field(default_factory=list)
    retired: set[str] = field(default_factory=set)
    tokens: dict[str, str] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    rotations: int = 0
    rolled_back_to: set[str] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)
    last_at: datetime | None = None


def _walk(examination: Examination) -> _Walk:
    """Go through the steps, note each that the rules do not give, and return what they showed."""
    walk = _Walk()
    for index in range(len(examination.items("/steps"))):
        pointer = f"/steps/{index}"
        examination.unknown_members(pointer, _STEP_MEMBERS)
        did, kid = examination.text(f"{pointer}/did"), examination.text(f"{pointer}/kid")
        at = examination.moment(f"{pointer}/at")
        if at is not None and walk.last_at is not None and at < walk.last_at:
            examination.refuse(f"{pointer}/at", "out_of_order", "is before the step before it")
        walk.last_at = at or walk.last_at
        if did is None or kid is None:
            continue
        if did in {ROTATED, RETIRED}:
            _walk_key(examination, pointer, walk, (did, kid))
        elif did in {ISSUED, PRESENTED}:
            _walk_token(examination, pointer, walk, (did, kid))
        else:
            examination.refuse(f"{pointer}/did", "unknown_step", f"{did} is no step of a drill")
    return walk


def _walk_key(examination: Examination, pointer: str, walk: _Walk, step: tuple[str, str]) -> None:
    did, kid = step
    if did == ROTATED:
        if kid in walk.keys or kid in walk.retired:
            examination.refuse(f"{pointer}/kid", "same_key", f"{kid} is no new key")
        walk.keys.append(kid)
        walk.rotations += 1
        return
    if kid not in walk.keys:
        examination.refuse(f"{pointer}/kid", "unknown_key", f"{kid} was not in use")
        return
    if kid == walk.keys[-1] and len(walk.keys) > 1:
        walk.rolled_back_to.add(walk.keys[-2])
    walk.keys.remove(kid)
    walk.retired.add(kid)


def _walk_token(examination: Examination, pointer: str, walk: _Walk, step: tuple[str, str]) -> None:
    did, kid = step
    token = examination.text(f"{pointer}/token")
    if token is None:
        return
    if did == ISSUED:
        if not walk.keys:
            # The first token is made with the key that was there before the drill.
            walk.keys.append(kid)
        examination.same(
            f"{pointer}/kid", kid, walk.keys[-1], because="the key that signed at that time was"
        )
        if token in walk.tokens:
            examination.refuse(f"{pointer}/token", "duplicate", f"{token} was issued before")
        walk.tokens[token] = kid
        if walk.rotations:
            walk.shown.add("new_key_signs")
        return
    if token not in walk.tokens:
        examination.refuse(f"{pointer}/token", "unknown_token", f"{token} was never issued")
        return
    examination.same(f"{pointer}/kid", kid, walk.tokens[token], because="the token was issued with")
    expected = _expect(walk, token)
    status = examination.count(f"{pointer}/status")
    code = examination.text(f"{pointer}/code") if examination.has(f"{pointer}/code") else None
    examination.same(f"{pointer}/status", status, expected[0], because="the rules give")
    if code != expected[1]:
        examination.refuse(
            f"{pointer}/code", "mismatch", f"is {code}, and the rules give {expected[1]}"
        )
    if (status, code) == expected:
        _conclude(walk, token, expected)


def _expect(walk: _Walk, token: str) -> tuple[int, str | None]:
    if walk.tokens[token] in walk.retired:
        return _NO_TOKEN
    return _REPLAYED if token in walk.spent else _ACCEPTED


def _conclude(walk: _Walk, token: str, answer: tuple[int, str | None]) -> None:
    """Note what an answer showed."""
    kid = walk.tokens[token]
    if answer == _NO_TOKEN:
        walk.shown.add("retired_key_refused")
    elif answer == _REPLAYED:
        if walk.spent[token] < walk.rotations:
            walk.shown.add("replay_refused")
    else:
        walk.spent[token] = walk.rotations
        if walk.keys and kid != walk.keys[-1]:
            walk.shown.add("fallback_verified")
        elif kid in walk.rolled_back_to:
            walk.shown.add("rollback_verified")


def _verify_outcomes(examination: Examination, walk: _Walk) -> None:
    for name, meaning in OUTCOMES.items():
        examination.is_true(f"/outcomes/{name}", because=f"a drill shows that {meaning}")
        if name not in walk.shown:
            examination.refuse(f"/outcomes/{name}", "not_shown", f"no step shows that {meaning}")
    examination.unknown_members("/outcomes", frozenset(OUTCOMES))
    first, last = next(iter(walk.tokens.values()), None), walk.keys[-1] if walk.keys else None
    for name, kid in (("before", first), ("after", last)):
        stated = examination.text(f"/keys/{name}") if examination.has(f"/keys/{name}") else None
        examination.same(f"/keys/{name}", stated, kid or "none", because="the steps say")


def _verify_moments(examination: Examination, executed: datetime | None) -> None:
    """Check that the steps were done just before the drill was written down."""
    silent = Examination(examination.document)
    for index in range(len(silent.items("/steps"))):
        pointer = f"/steps/{index}/at"
        at = silent.moment(pointer)
        if at is None or executed is None:
            continue
        if not timedelta() <= executed - at <= _LONGEST_DRILL:
            examination.refuse(pointer, "out_of_range", "is not of the drill that ended then")


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
