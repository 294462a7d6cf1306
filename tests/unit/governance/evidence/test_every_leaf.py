"""The documents of the repository, each of their leaves spoilt by itself: none may pass unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from governance.evidence.registry import PROFILES, default_terms, verify_evidence
from tests.unit.governance.evidence.documents import edited
from valdrix.kernel.strict_json import loads
from valdrix.management.commands.verify_evidence import build_world

DOCS = Path(__file__).parents[4] / "docs"
DOCUMENTS = {
    "jwt_bcp": DOCS / "security" / "jwt_bcp_checklist.json",
    "post_closure_sanity": DOCS / "security" / "post_closure_sanity.json",
    "ssdf_traceability": DOCS / "security" / "ssdf_traceability_matrix.json",
    "failure_injection": DOCS / "ops" / "evidence" / "enforcement_failure_injection.json",
    "key_rotation_drill": DOCS / "ops" / "evidence" / "key_rotation_drill.json",
    "stress": DOCS / "ops" / "evidence" / "enforcement_stress_artifact.json",
}
FREE = {
    # What anything may be written in, as long as something is.
    "jwt_bcp": ("how",),
    "post_closure_sanity": ("question",),
    "ssdf_traceability": ("how",),
    "failure_injection": ("executed_by", "approved_by", "duration_seconds", "captured_at"),
    "key_rotation_drill": ("owner", "approver", "at", "executed_at", "next_drill_due_on"),
    "stress": ("database_version", "python", "django"),
}
ALIKE = ("/runs/1/", "/floor/results/")
"""Judged by the same lines as the stress artifact's first and last run, and its reads."""
_ENOUGH = 100
"""Of more alike elements than these the first, one in the middle, and the last are spoilt."""


def find_leaves(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    children = list(value.items() if isinstance(value, dict) else enumerate(value))
    if isinstance(value, list) and len(value) > _ENOUGH and isinstance(value[0], list):
        children = [children[0], children[len(children) // 2], children[-1]]
    for name, child in children:
        if isinstance(child, dict | list):
            yield from find_leaves(child, f"{pointer}/{name}")
        else:
            yield f"{pointer}/{name}", child


def find_insertions(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each object with a member more, and each list with its first element once more."""
    if isinstance(value, dict):
        yield pointer, {**value, "note": "quick"}
    elif value:
        yield pointer, [*value, value[0]]
    children = list(value.items() if isinstance(value, dict) else enumerate(value))
    for name, child in children if len(children) <= _ENOUGH else children[-1:]:
        if isinstance(child, dict | list):
            yield from find_insertions(child, f"{pointer}/{name}")


def put(document: Any, pointer: str, value: Any) -> Any:
    return edited(document, pointer, value) if pointer else value


def other(value: Any) -> Any:
    """Return a value of the same kind that is another one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, Decimal):
        return value + Decimal("0.0001")
    return value + 1 if isinstance(value, int) else f"{value}x"


def verify(profile: str, document: Any) -> list[Any]:
    known = PROFILES[profile]
    moment = document.get("captured_at") or document.get("executed_at")
    world = build_world(DOCUMENTS[profile], [])
    with suppress(TypeError, ValueError):  # The spoilt leaf may be the moment itself.
        world = replace(world, now=datetime.fromisoformat(moment))
    return verify_evidence(known, document, default_terms(known), world)


@pytest.mark.parametrize("profile", DOCUMENTS)
def test_no_leaf_can_be_spoilt_unnoticed(profile: str) -> None:
    document = loads(DOCUMENTS[profile].read_bytes())
    assert verify(profile, document) == []
    said: set[tuple[str, str]] = set()
    edits = 0
    for pointer, value in find_leaves(document):
        if profile == "stress" and pointer.startswith(ALIKE):
            continue
        wrong = [None, "TBD" if isinstance(value, str) else ["x"]]
        name = pointer.rsplit("/", 1)[-1]
        if not name.isdigit():  # One proof less of several claims less, and is no lie.
            wrong.append(...)
        if name not in FREE[profile]:
            wrong.append(other(value))
        for change in wrong:
            problems = verify(profile, edited(document, pointer, change))
            assert problems, f"{pointer} := {change!r} passed"
            said |= {(one.pointer, one.code) for one in problems}
            edits += 1
    for pointer, change in find_insertions(document):
        if profile == "stress" and pointer.startswith(ALIKE):
            continue
        assert verify(profile, put(document, pointer, change)), f"{pointer} took {change!r}"
        edits += 1
    assert edits >= 40
    assert len(said) >= 40, "and each is told apart"
