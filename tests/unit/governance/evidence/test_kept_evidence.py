"""The evidence that is kept in the repository verifies as it stands."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from governance.evidence.registry import PROFILES, default_terms, verify_evidence
from valdrix.kernel.strict_json import loads
from valdrix.management.commands.verify_evidence import build_world

SECURITY = Path(__file__).parents[4] / "docs" / "security"
KEPT = {
    "ssdf_traceability": "ssdf_traceability_matrix.json",
    "jwt_bcp": "jwt_bcp_checklist.json",
    "post_closure_sanity": "post_closure_sanity.json",
}


@pytest.mark.parametrize("profile", KEPT)
def test_kept_evidence_verifies(profile: str) -> None:
    out = StringIO()
    call_command(
        "verify_evidence", profile, f"--evidence-path={SECURITY / KEPT[profile]}", stdout=out
    )
    assert "verified" in out.getvalue()


def test_the_matrix_for_people_has_the_same_practices() -> None:
    text = (SECURITY / "ssdf.md").read_text()
    matrix = (SECURITY / KEPT["ssdf_traceability"]).read_text()
    for line in text.splitlines():
        if line.startswith(("| P", "| R")):
            practice, _, how = (part.strip() for part in line.split("|")[1:4])
            if practice != "practice":
                assert f'"id": "{practice}"' in matrix
                assert how in matrix


CAPTURED = {
    "failure_injection": ("enforcement_failure_injection.json", "captured_at"),
    "stress": ("enforcement_stress_artifact.json", "captured_at"),
    "key_rotation_drill": ("key_rotation_drill.json", "executed_at"),
}


@pytest.mark.parametrize("profile", CAPTURED)
def test_captured_evidence_was_good_when_it_was_captured(profile: str) -> None:
    name, moment = CAPTURED[profile]
    path = SECURITY.parent / "ops" / "evidence" / name
    document = loads(path.read_bytes())
    world = replace(build_world(path, []), now=datetime.fromisoformat(document[moment]))
    known = PROFILES[profile]
    assert verify_evidence(known, document, default_terms(known), world) == []


def test_the_table_for_people_has_the_artifact_s_figures() -> None:
    folder = SECURITY.parent / "ops"
    artifact = loads((folder / "evidence" / CAPTURED["stress"][0]).read_bytes())
    text = (folder / "stress.md").read_text()
    for results in (*(run["results"] for run in artifact["runs"]), artifact["results"]):
        p95, p99 = (results[f"p{one}_response_time"] * 1000 for one in (95, 99))
        assert (
            f"| {results['total_requests']} | {results['failed_requests']} |"
            f" {results['throughput_rps']:.1f}/s | {p95:.1f} ms | {p99:.1f} ms |"
        ) in text
    floor = artifact["floor"]
    assert f"{floor['results']['throughput_rps']:.1f}/s" in text
    assert f"{floor['reads_results']['throughput_rps']:.1f}/s" in text
    assert f"{floor['reads_share_of_floor']:.4f}" in text
