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
    ("failure_injection", "/approved_by", "sre.\u200bexecutor", "/approved_by", "same_person"),
    ("failure_injection", "/approved_by", "\uff33RE. executor", "/approved_by", "same_person"),
    ("failure_injection", "/approved_by", "\u200b", "/approved_by", "not_text"),
    ("failure_injection", "/approved_by", ..., "/approved_by", "missing"),
    ("failure_injection", "/scenarios/4", ..., "/scenarios", "scenario_missing"),
    ("failure_injection", "/scenarios/4", FI[0], "/scenarios", "duplicate"),
    ("failure_injection", "/scenarios/0/checks", FI[0]["checks"] * 2, "/scenarios/0/checks", "duplicate"),
    ("failure_injection", "/scenarios/0/skipped", True, "/scenarios/0/skipped", "unknown_member"),
    ("failure_injection", "/scenarios/0/checks/0/note", "x", "/scenarios/0/checks/0/note", "unknown_member"),
    ("failure_injection", "/summary/skipped_scenarios", 2, "/summary/skipped_scenarios", "unknown_member"),
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
    ("key_rotation_drill", "/keys/after", "approval-2", "/keys/after", "mismatch"),
    ("key_rotation_drill", "/keys/before", "approval-9", "/keys/before", "mismatch"),
    ("key_rotation_drill", "/executed_at", "2026-11-26", "/executed_at", "not_moment"),
    ("key_rotation_drill", "/owner", " ", "/owner", "not_text"),
    ("key_rotation_drill", "/owner", ..., "/owner", "missing"),
    ("key_rotation_drill", "/profile", "drill", "/profile", "mismatch"),
    ("key_rotation_drill", "/runner", "by hand", "/runner", "mismatch"),
    ("key_rotation_drill", "/comment", "went well", "/comment", "unknown_member"),
    ("key_rotation_drill", "/outcomes/more", True, "/outcomes/more", "unknown_member"),
    ("key_rotation_drill", "/steps", [], "/steps", "empty"),
    ("key_rotation_drill", "/steps", ..., "/steps", "missing"),
    ("key_rotation_drill", "/steps/0", ..., "/steps/2/token", "unknown_token"),
    ("key_rotation_drill", "/steps/0/did", "guessed", "/steps/0/did", "unknown_step"),
    ("key_rotation_drill", "/steps/0/kid", ..., "/steps/0/kid", "missing"),
    ("key_rotation_drill", "/steps/0/note", "x", "/steps/0/note", "unknown_member"),
    ("key_rotation_drill", "/steps/0/token", ..., "/steps/0/token", "missing"),
    ("key_rotation_drill", "/steps/1/token", "spent", "/steps/1/token", "duplicate"),
    ("key_rotation_drill", "/steps/1/at", OLD, "/steps/1/at", "out_of_order"),
    ("key_rotation_drill", "/steps/1/at", "noon", "/steps/1/at", "not_moment"),
    ("key_rotation_drill", "/steps/0/at", "2026-11-24T10:00:00+00:00", "/steps/0/at", "out_of_range"),
    ("key_rotation_drill", "/steps/14/at", "2026-11-26T11:00:01+00:00", "/steps/14/at", "out_of_range"),
    ("key_rotation_drill", "/executed_at", "9999-12-31T23:00:00+00:00", "/executed_at", "from_the_future"),
    ("key_rotation_drill", "/steps/3/status", 401, "/steps/3/status", "mismatch"),
    ("key_rotation_drill", "/steps/3/status", ..., "/steps/3/status", "missing"),
    ("key_rotation_drill", "/steps/3/code", "token_expired", "/steps/3/code", "mismatch"),
    ("key_rotation_drill", "/steps/3/kid", "approval-2", "/steps/3/kid", "mismatch"),
    ("key_rotation_drill", "/steps/4/kid", "approval-1", "/steps/4/kid", "same_key"),
    ("key_rotation_drill", "/steps/4", ..., "/steps/4/kid", "mismatch"),
    ("key_rotation_drill", "/steps/5/kid", "approval-1", "/steps/5/kid", "mismatch"),
    ("key_rotation_drill", "/steps/6", ..., "/outcomes/fallback_verified", "not_shown"),
    ("key_rotation_drill", "/steps/6/status", 401, "/steps/6/status", "mismatch"),
    ("key_rotation_drill", "/steps/6/status", 409, "/outcomes/fallback_verified", "not_shown"),
    ("key_rotation_drill", "/steps/7", ..., "/outcomes/replay_refused", "not_shown"),
    ("key_rotation_drill", "/steps/7/status", 200, "/steps/7/status", "mismatch"),
    ("key_rotation_drill", "/steps/7/status", 200, "/outcomes/replay_refused", "not_shown"),
    ("key_rotation_drill", "/steps/8", ..., "/steps/8/status", "mismatch"),
    ("key_rotation_drill", "/steps/8/kid", "approval-7", "/steps/8/kid", "unknown_key"),
    ("key_rotation_drill", "/steps/9/status", 200, "/steps/9/status", "mismatch"),
    ("key_rotation_drill", "/steps/11", ..., "/outcomes/rollback_verified", "not_shown"),
    ("key_rotation_drill", "/steps/12", ..., "/keys/after", "mismatch"),
    ("key_rotation_drill", "/steps/14/status", 200, "/steps/14/status", "mismatch"),
    ("key_rotation_drill", "/steps/14/code", ..., "/steps/14/code", "mismatch"),
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
    ("jwt_bcp", "/controls/0/evidence", [TEST] * 2, "/controls/0/evidence", "duplicate"),
    ("jwt_bcp", "/controls/0/sections", ["3.1"] * 2, "/controls/0/sections", "duplicate"),
    ("jwt_bcp", "/controls/0/note", "x", "/controls/0/note", "unknown_member"),
    ("key_rotation_drill", "/keys/spare", "x", "/keys/spare", "unknown_member"),
    ("ci_green", "/tests/expected_failures", 3, "/tests/expected_failures", "unknown_member"),
    ("ci_green", "/junit/note", "x", "/junit/note", "unknown_member"),
    ("ssdf_traceability", "/practices/0/note", "x", "/practices/0/note", "unknown_member"),
    ("post_closure_sanity", "/dimensions/0/note", "x", "/dimensions/0/note", "unknown_member"),
    ("post_closure_sanity", "/dimensions/0/tests", [TEST] * 2, "/dimensions/0/tests", "duplicate"),
    ("jwt_bcp", "/controls/0/id", "magic", "/controls/0/id", "unknown_id"),
    ("jwt_bcp", "/controls/0/status", "planned", "/controls/0/status", "unknown_status"),
    ("jwt_bcp", "/controls/0/evidence", [], "/controls/0/evidence", "empty"),
    ("jwt_bcp", "/controls/0/evidence/0", "no/such.py", "/controls/0/evidence/0", "path_missing"),
    (
        "jwt_bcp", "/controls/0/evidence/0", f"{TEST}_not",
        "/controls/0/evidence/0", "path_missing",
    ),
    ("jwt_bcp", "/controls/0/evidence", ["docs/architecture.md"], "/controls/0/evidence", "test_missing"),
    ("jwt_bcp", "/controls", 7, "/controls", "not_list"),
    ("jwt_bcp", "/controls/0/sections", ["3.13"], "/controls/0/sections/0", "unknown_id"),
    ("jwt_bcp", "/controls/0/sections", ["3.2"], "/controls", "id_missing"),
    ("jwt_bcp", "/controls/0/sections", ..., "/controls/0/sections", "missing"),
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
    ("ci_green", "/profile", "green", "/profile", "mismatch"),
    ("ci_green", "/command", "make test", "/command", "mismatch"),
    ("ci_green", "/command", ..., "/command", "missing"),
    ("ci_green", "/commit", ..., "/commit", "missing"),
    ("ci_green", "/commit", "A" * 40, "/commit", "not_commit"),
    ("ci_green", "/is_clean", "yes", "/is_clean", "not_boolean"),
    ("ci_green", "/is_clean", ..., "/is_clean", "missing"),
    ("ci_green", "/captured_at", OLD, "/captured_at", "stale"),
    ("ci_green", "/captured_at", "2027-01-01T00:00:00+00:00", "/captured_at", "from_the_future"),
    ("ci_green", "/captured_at", "2026-11-26T11:00:00", "/captured_at", "not_moment"),
    ("ci_green", "/duration_seconds", 0, "/duration_seconds", "not_positive"),
    ("ci_green", "/duration_seconds", "200", "/duration_seconds", "not_number"),
    ("ci_green", "/duration_seconds", ..., "/duration_seconds", "missing"),
    ("ci_green", "/exit_code", ..., "/exit_code", "missing"),
    ("ci_green", "/exit_code", -1, "/exit_code", "not_count"),
    ("ci_green", "/exit_code", "0", "/exit_code", "not_count"),
    ("ci_green", "/tests", ..., "/tests/passed", "missing"),
    ("ci_green", "/tests/passed", 4, "/tests/passed", "mismatch"),
    ("ci_green", "/tests/passed", 3.0, "/tests/passed", "not_count"),
    ("ci_green", "/tests/failed", ..., "/tests/failed", "missing"),
    ("ci_green", "/tests/skipped", ..., "/tests/skipped", "missing"),
    ("ci_green", "/tests/skipped", True, "/tests/skipped", "not_count"),
    ("ci_green", "/junit", ..., "/junit/name", "missing"),
    ("ci_green", "/junit/name", "other.xml", "/junit/name", "file_missing"),
    ("ci_green", "/junit/name", "ci_green.log", "/junit/sha256", "mismatch"),
    ("ci_green", "/junit/name", 7, "/junit/name", "not_text"),
    ("ci_green", "/junit/sha256", "0" * 64, "/junit/sha256", "mismatch"),
    ("ci_green", "/junit/sha256", "none", "/junit/sha256", "not_digest"),
    ("ci_green", "/junit/sha256", ..., "/junit/sha256", "missing"),
    ("ci_green", "/log", ..., "/log/sha256", "missing"),
    ("ci_green", "/log/name", "../ci_green.log", "/log/name", "file_missing"),
    ("ci_green", "/log/name", ..., "/log/name", "missing"),
    ("ci_green", "/log/sha256", "0" * 64, "/log/sha256", "mismatch"),
    ("ci_green", "/log/sha256", "none", "/log/sha256", "not_digest"),
    ("ci_green", "/log/sha256", ..., "/log/sha256", "missing"),
    ("ci_green", "/comment", "fine", "/comment", "unknown_member"),
    ("ci_green", "/log/name", "TODO", "/log/name", "placeholder"),
    ("ci_green", "/duration_seconds", Decimal("1e999999"), "/duration_seconds", "out_of_range"),
    ("ci_green", "/tests/passed", 10**15, "/tests/passed", "out_of_range"),
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
