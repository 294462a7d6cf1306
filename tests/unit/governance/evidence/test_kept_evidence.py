"""The evidence that is kept in the repository verifies as it stands."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

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
