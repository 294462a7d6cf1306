"""Templates show a profile's shape and never verify."""

from __future__ import annotations

from pathlib import Path

import pytest

from governance.evidence.registry import PROFILES, default_terms, verify_evidence
from tests.unit.governance.evidence import documents
from tests.unit.governance.evidence.documents import build_world
from valdrix.kernel.strict_json import loads

TEMPLATES = Path(__file__).parents[4] / "docs" / "ops" / "evidence"


@pytest.mark.parametrize("name", PROFILES)
def test_a_template_never_verifies_and_says_where_it_is_one(name: str) -> None:
    profile = PROFILES[name]
    template = loads((TEMPLATES / profile.template).read_bytes())
    problems = verify_evidence(profile, template, default_terms(profile), build_world())
    assert "placeholder" in {problem.code for problem in problems}


@pytest.mark.parametrize("name", sorted(set(PROFILES) - {"attestation"}))
def test_a_template_has_the_members_of_sound_evidence(name: str) -> None:
    template = loads((TEMPLATES / PROFILES[name].template).read_bytes())
    assert template.keys() == getattr(documents, name)().keys()
