"""Every other profile: what verifies, and which edit does not, by its pointer and code."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from governance.evidence.registry import PROFILES, default_terms, verify_evidence
from tests.unit.governance.evidence import documents
from tests.unit.governance.evidence.documents import TEST, build_world, edited

AGE = {"max_artifact_age_hours": Decimal(24)}
COMMIT = {"commit": "a" * 40}
SOUND = {
    "failure_injection": (documents.failure_injection, AGE),
    "key_rotation_drill": (documents.key_rotation_drill, {}),
    "jwt_bcp": (documents.jwt_bcp, {}),
    "ssdf_traceability": (documents.ssdf_traceability, {}),
    "post_closure_sanity": (documents.post_closure_sanity, {}),
    "ci_green": (documents.ci_green, {**AGE, **COMMIT}),
    "telemetry_c1": (documents.telemetry_c1, AGE),
}
OLD = "2026-05-01T00:00:00+00:00"
FI = documents.failure_injection()["scenarios"]

EDITS: tuple[tuple[str, str, Any, str, str], ...] = (
    ("failure_injection", "/profile", "enforcement", "/profile", "mismatch"),
    ("failure_injection", "/runner", "manual", "/runner", "mismatch"),
    ("failure_injection", "/execution_class", "local", "/execution_class", "mismatch"),
    ("failure_injection", "/captured_at", OLD, "/captured_at", "stale"),
    ("failure_injection", "/captured_at", "2026-11-26", "/captured_at", "not_moment"),
    ("failure_injection", "/approved_by", "SRE.Executor ", "/approved_by", "same_person"),
    ("failure_injection", "/approved_by", ..., "/approved_by", "missing"),
    ("failure_injection", "/scenarios/4", ..., "/scenarios", "scenario_missing"),
    ("failure_injection", "/scenarios/4", FI[0], "/scenarios", "duplicate"),
    ("failure_injection", "/scenarios/4/id", "FI-006", "/scenarios/4/id", "unknown_scenario"),
    ("failure_injection", "/scenarios/0/status", "failed", "/scenarios/0/status", "not_passed"),
    (
        "failure_injection", "/scenarios/0/duration_seconds", 0,
        "/scenarios/0/duration_seconds", "not_positive",
    ),
    ("failure_injection", "/scenarios/0/checks", [], "/scenarios/0/checks", "empty"),
    ("failure_injection", "/scenarios/0/checks/0", ..., "/scenarios/0/checks", "check_missing"),
    (
        "failure_injection", "/scenarios/0/checks/0/outcome", "skipped",
        "/scenarios/0/checks/0/outcome", "not_passed",
    ),
    ("failure_injection", "/scenarios/0/evidence_refs", [], "/scenarios/0/evidence_refs", "empty"),
    (
        "failure_injection", "/scenarios/0/evidence_refs/0", "tests/other.py::test",
        "/scenarios/0/evidence_refs", "reference_missing",
    ),
    ("failure_injection", "/summary/total_scenarios", 6, "/summary/total_scenarios", "mismatch"),
    ("failure_injection", "/summary/passed_scenarios", 4, "/summary/passed_scenarios", "mismatch"),
    ("failure_injection", "/summary/failed_scenarios", 1, "/summary/failed_scenarios", "mismatch"),
    ("failure_injection", "/summary/overall_passed", False, "/summary/overall_passed", "not_true"),
    ("failure_injection", "/comment", "fine", "/comment", "unknown_member"),
    ("key_rotation_drill", "/executed_at", OLD, "/executed_at", "stale"),
    ("key_rotation_drill", "/approver", "Platform.Owner", "/approver", "same_person"),
    ("key_rotation_drill", "/keys/after", "approval-1", "/keys/after", "same_key"),
    (
        "key_rotation_drill", "/outcomes/fallback_verified", False,
        "/outcomes/fallback_verified", "not_true",
    ),
    (
        "key_rotation_drill", "/outcomes/rollback_verified", ...,
        "/outcomes/rollback_verified", "missing",
    ),
    ("key_rotation_drill", "/outcomes/replay_refused", "true", "/outcomes/replay_refused", "not_boolean"),
    ("key_rotation_drill", "/post_drill_status", "FAIL", "/post_drill_status", "mismatch"),
    ("key_rotation_drill", "/next_drill_due_on", "2026-11-01", "/next_drill_due_on", "out_of_range"),
    ("key_rotation_drill", "/next_drill_due_on", "2028-01-01", "/next_drill_due_on", "out_of_range"),
    ("key_rotation_drill", "/next_drill_due_on", "soon", "/next_drill_due_on", "not_date"),
    ("jwt_bcp", "/source", "https://jwt.io", "/source", "mismatch"),
    ("jwt_bcp", "/controls/0", ..., "/controls", "id_missing"),
    ("jwt_bcp", "/controls/0/id", "issuer_audience_binding", "/controls", "duplicate"),
    ("jwt_bcp", "/controls/0/id", "magic", "/controls/0/id", "unknown_id"),
    ("jwt_bcp", "/controls/0/status", "planned", "/controls/0/status", "unknown_status"),
    ("jwt_bcp", "/controls/0/evidence", [], "/controls/0/evidence", "empty"),
    ("jwt_bcp", "/controls/0/evidence/0", "no/such.py", "/controls/0/evidence/0", "path_missing"),
    (
        "jwt_bcp", "/controls/0/evidence/0", f"{TEST}_not",
        "/controls/0/evidence/0", "path_missing",
    ),
    ("ssdf_traceability", "/practices/7", ..., "/practices", "id_missing"),
    ("ssdf_traceability", "/practices/7/id", "PW.3", "/practices/7/id", "unknown_id"),
    ("ssdf_traceability", "/practices/7/status", "done", "/practices/7/status", "unknown_status"),
    (
        "ssdf_traceability", "/practices/7/evidence/0", "../secret",
        "/practices/7/evidence/0", "path_missing",
    ),
    ("post_closure_sanity", "/dimensions/0", ..., "/dimensions", "id_missing"),
    ("post_closure_sanity", "/dimensions/0/tests", [], "/dimensions/0/tests", "empty"),
    (
        "post_closure_sanity", "/dimensions/0/tests/0", "docs/architecture.md",
        "/dimensions/0/tests/0", "test_missing",
    ),
    ("post_closure_sanity", "/dimensions/0/question", "TBD", "/dimensions/0/question", "placeholder"),
    ("ci_green", "/commit", "abc", "/commit", "not_commit"),
    ("ci_green", "/commit", "c" * 40, "/commit", "mismatch"),
    ("ci_green", "/is_clean", False, "/is_clean", "not_true"),
    ("ci_green", "/exit_code", 1, "/exit_code", "mismatch"),
    ("ci_green", "/tests/passed", 0, "/tests/passed", "empty"),
    ("ci_green", "/tests/failed", 1, "/tests/failed", "mismatch"),
    ("ci_green", "/tests/skipped", 3, "/tests/skipped", "mismatch"),
    ("ci_green", "/log_sha256", "none", "/log_sha256", "not_digest"),
    ("telemetry_c1", "/executed_injections", ["W1"], "/executed_injections", "mismatch"),
    ("telemetry_c1", "/executed_injections/3", "W5", "/injections", "mismatch"),
    ("telemetry_c1", "/total_injections", 21, "/total_injections", "mismatch"),
    ("telemetry_c1", "/failure_matrix", "HALF", "/failure_matrix", "unknown"),
    ("telemetry_c1", "/phase", "C2", "/phase", "mismatch"),
    ("telemetry_c1", "/injections", [], "/injections", "empty"),
    ("telemetry_c1", "/injections/4/o1_available", False, "/injections/4/o1_available", "not_true"),
    ("telemetry_c1", "/injections/4/probes_passed", 1, "/injections/4/probes_passed", "mismatch"),
    ("telemetry_c1", "/injections/4/probes_failed", 1, "/injections/4/probes_failed", "mismatch"),
    (
        "telemetry_c1", "/injections/4/incidents_changed", True,
        "/injections/4/incidents_changed", "not_false",
    ),
    ("telemetry_c1", "/failure_matrix", "MINIMAL", "/failure_matrix", "not_full"),
    ("telemetry_c1", "/violations", [{"invariant": "I1"}], "/violations", "not_empty"),
    ("telemetry_c1", "/all_invariants_held", False, "/all_invariants_held", "not_true"),
    ("telemetry_c1", "/phase", "C2", "/evidence_hash", "mismatch"),
    ("telemetry_c1", "/timestamp_utc", OLD, "/timestamp_utc", "stale"),
)  # fmt: skip


def verify(name: str, document: Any) -> list[Any]:
    profile = PROFILES[name]
    terms = {**default_terms(profile), **SOUND[name][1]}
    return verify_evidence(profile, document, terms, build_world())


@pytest.mark.parametrize("name", SOUND)
def test_sound_evidence_verifies(name: str) -> None:
    assert verify(name, SOUND[name][0]()) == []


@pytest.mark.parametrize(
    ("name", "pointer", "value", "where", "code"),
    EDITS,
    ids=[f"{one[0]}{one[1]}:{one[4]}" for one in EDITS],
)
def test_an_edit_is_refused(name: str, pointer: str, value: Any, where: str, code: str) -> None:
    problems = verify(name, edited(SOUND[name][0](), pointer, value))
    assert (where, code) in {(problem.pointer, problem.code) for problem in problems}, problems


def test_a_planned_practice_needs_no_proof_yet() -> None:
    document = edited(documents.ssdf_traceability(), "/practices/0/evidence", [])
    assert [problem.code for problem in verify("ssdf_traceability", document)] == ["empty"]
    planned = edited(document, "/practices/0/status", "planned")
    assert verify("ssdf_traceability", planned) == []
